"""What a cache did so far, as one immutable snapshot. Must not know how it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cachekit.jobs import Counters
from cachekit.stores.memory import Memory, Tally


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of one function, of one TTL class, or of a whole cache.

    Attributes:
        hits: values served fresh.
        misses: values that were not there, or no longer fresh.
        stale: values served stale.
        loads: runs of a loader.
        load_errors: runs that raised.
        load_seconds: time spent in loaders.
    """

    hits: int = 0
    misses: int = 0
    stale: int = 0
    loads: int = 0
    load_errors: int = 0
    load_seconds: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Return the part of lookups that were served from the cache, stale ones included; 0.0 before the first."""
        served = self.hits + self.stale
        return served / (served + self.misses) if served + self.misses else 0.0

    @property
    def lookups(self) -> int:
        """Return how many lookups there were."""
        return self.hits + self.stale + self.misses

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.hits + other.hits,
            self.misses + other.misses,
            self.stale + other.stale,
            self.loads + other.loads,
            self.load_errors + other.load_errors,
            self.load_seconds + other.load_seconds,
        )

    def __sub__(self, other: Figures) -> Figures:
        return Figures(
            self.hits - other.hits,
            self.misses - other.misses,
            self.stale - other.stale,
            self.loads - other.loads,
            self.load_errors - other.load_errors,
            self.load_seconds - other.load_seconds,
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """Purges that a CDN has not confirmed, as of the last look into the outbox.

    Attributes:
        pending: how many.
        oldest_age: seconds for which the oldest of them waits; 0 when none does.
    """

    pending: int = 0
    oldest_age: float = 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot.

    Attributes:
        total: everything together.
        by_function: by the name of the cached function; direct calls such as ``get`` under ``""``.
        by_class: by TTL class; functions without one under ``""``.
        by_function_and_class: by both, for those who label one count with the two.
        events: how often each kind of event happened.
        entries: entries in this process.
        bytes: their estimated size.
        evictions: entries that left this process for lack of room.
        store: state of the store: ``"ok"`` or ``"away"``.
        channel: state of the invalidation channel: ``"live"``, ``"lost"``, or ``"none"`` where there is no need of one.
        channel_kind: how invalidations of other processes arrive: ``"tracking"``, ``"pubsub"``, or ``"none"`` while nobody
            listens.
        pending: invalidations that wait for the store to come back.
        purges: purges that wait, by CDN. An outbox on a server is shared: every process tells the same.
    """

    total: Figures
    by_function: Mapping[str, Figures] = field(default_factory=dict)
    by_class: Mapping[str, Figures] = field(default_factory=dict)
    by_function_and_class: Mapping[tuple[str, str], Figures] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    entries: int = 0
    bytes: int = 0
    evictions: int = 0
    store: str = "ok"
    channel: str = "none"
    channel_kind: str = "none"
    pending: int = 0
    purges: Mapping[str, Waiting] = field(default_factory=dict)


def figures(counters: Counters, hits: Mapping[Tally, int]) -> Figures:
    """Return the figures of *counters*; *hits* has those that living nodes still carry, or nothing where none does."""
    return Figures(
        hits.get(counters.tally, counters.tally.hits),
        counters.misses,
        counters.stale,
        counters.loads,
        counters.errors,
        counters.load_seconds,
    )


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Figures in total, by function, by TTL class, and by both."""

    total: Figures
    by_function: Mapping[str, Figures]
    by_class: Mapping[str, Figures]
    by_function_and_class: Mapping[tuple[str, str], Figures]


def snapshot(counted: Iterable[tuple[str, str, Counters]], l1: Memory | None) -> Breakdown:
    """Return the breakdown of *counted*: name, class and counters of each function."""
    hits = {} if l1 is None else l1.hits()
    by_both: dict[tuple[str, str], Figures] = {}
    by_function: dict[str, Figures] = {}
    by_class: dict[str, Figures] = {}
    total = Figures()
    for name, ttl_class, counters in counted:
        own = figures(counters, hits)
        total += own
        by_both[name, ttl_class] = by_both.get((name, ttl_class), Figures()) + own
        by_function[name] = by_function.get(name, Figures()) + own
        by_class[ttl_class] = by_class.get(ttl_class, Figures()) + own
    return Breakdown(total, by_function, by_class, by_both)
