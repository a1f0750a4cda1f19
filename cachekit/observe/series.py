"""The one place that turns a snapshot of a cache into named series. The exporters only translate them.

Every series is a row of ``SERIES``: its name, what kind of number it is, its labels, and how it is read from ``Stats``.
Must not know who exports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, TypeAlias

from cachekit.errors import ConfigError
from cachekit.events import Kind
from cachekit.stats import Figures, Stats


class Counted(Protocol):
    """What can be observed: a ``Cache``, or anything else with its ``stats``."""

    def stats(self) -> Stats:
        """Return what it did so far."""
        ...


class Measure(Enum):
    """What kind of number a series is."""

    COUNTER = "counter"
    """Only grows."""
    LEVEL = "level"
    """An amount that goes up and down, and may be added up over processes."""
    STATE = "state"
    """What is so now, whose sum over processes means nothing."""


class Unit(Enum):
    """What a series is measured in."""

    NONE = ""
    SECONDS = "seconds"
    BYTES = "bytes"


Sample: TypeAlias = tuple[tuple[str, ...], float]
"""The values of the labels, and the number."""


@dataclass(frozen=True, slots=True)
class Series:
    """One named series.

    Attributes:
        name: words joined by underscores, without prefix or suffix.
        measure: what kind of number it is.
        help: one sentence for whoever reads a dashboard.
        labels: names of the labels that a sample has besides the name of the cache.
        read: returns the samples of a snapshot.
        unit: what it is measured in.
    """

    name: str
    measure: Measure
    help: str
    labels: tuple[str, ...]
    read: Callable[[Stats], Iterable[Sample]]
    unit: Unit = Unit.NONE


def _by_function(name: str, help: str, of: Callable[[Figures], float], unit: Unit = Unit.NONE) -> Series:  # noqa: A002 - the field's name
    def read(stats: Stats) -> Iterator[Sample]:
        for labels, figures in stats.by_function_and_class.items():
            yield labels, of(figures)

    return Series(name, Measure.COUNTER, help, ("function", "ttl_class"), read, unit)


def _single(
    name: str,
    measure: Measure,
    help: str,  # noqa: A002 - the field's name
    of: Callable[[Stats], float | None],
    unit: Unit = Unit.NONE,
) -> Series:
    """Return a series without labels; there is no sample while *of* returns None."""

    def read(stats: Stats) -> Iterator[Sample]:
        if (value := of(stats)) is not None:
            yield (), float(value)

    return Series(name, measure, help, (), read, unit)


SERIES: Final[tuple[Series, ...]] = (
    _by_function("hits", "Lookups that were served fresh.", lambda figures: figures.hits),
    _by_function("misses", "Lookups of what was not there, or no longer fresh.", lambda figures: figures.misses),
    _by_function("stale", "Lookups that were served stale.", lambda figures: figures.stale),
    _by_function("loads", "Runs of a loader.", lambda figures: figures.loads),
    _by_function("load_errors", "Runs of a loader that raised.", lambda figures: figures.load_errors),
    _by_function(
        "load_seconds", "Time spent in loaders that returned.", lambda figures: figures.load_seconds, Unit.SECONDS
    ),
    _single("entries", Measure.LEVEL, "Entries in this process.", lambda stats: stats.entries),
    _single(
        "bytes", Measure.LEVEL, "Estimated size of the entries in this process.", lambda stats: stats.bytes, Unit.BYTES
    ),
    _single(
        "evictions",
        Measure.COUNTER,
        "Entries that left this process for lack of room.",
        lambda stats: stats.evictions,
    ),
    _single(
        "invalidations",
        Measure.COUNTER,
        "Invalidations by tag that this process asked for.",
        lambda stats: stats.events.get(Kind.INVALIDATED, 0),
    ),
    _single(
        "pending_invalidations",
        Measure.LEVEL,
        "Invalidations that wait for the store to come back.",
        lambda stats: stats.pending,
    ),
    Series(
        "pending_purges",
        Measure.STATE,
        "Purges that a CDN has not confirmed; processes that share an outbox tell the same number.",
        ("purger",),
        lambda stats: [((name,), float(waiting.pending)) for name, waiting in stats.purges.items()],
    ),
    Series(
        "oldest_purge",
        Measure.STATE,
        "For how long the oldest purge waits that a CDN has not confirmed; 0 while none does.",
        ("purger",),
        lambda stats: [((name,), waiting.oldest_age) for name, waiting in stats.purges.items()],
        Unit.SECONDS,
    ),
    _single(
        "breaker_open",
        Measure.STATE,
        "1 while the store is away and calls to it are refused.",
        lambda stats: stats.store != "ok",
    ),
    _single(
        "channel_live",
        Measure.STATE,
        "1 while invalidations of other processes arrive, 0 while the channel is lost; absent where none is needed.",
        lambda stats: None if stats.channel == "none" else stats.channel == "live",
    ),
    Series(
        "events",
        Measure.COUNTER,
        "Events by kind.",
        ("kind",),
        lambda stats: [((kind,), float(stats.events.get(kind, 0))) for kind in Kind],
    ),
)
"""Every series that is exported. A counter has a sample from the start, so that its first increase is seen."""


class Caches:
    """The caches that one exporter shows, each under a name of its own.

    Args:
        caches: caches by name, or a single one, which is called *name*.
        name: see *caches*.

    Raises:
        ConfigError: a name is empty.
    """

    def __init__(self, caches: Counted | Mapping[str, Counted], *, name: str = "default") -> None:
        self._caches: dict[str, Counted] = {}
        self._lock = threading.Lock()
        for own, cache in (caches if isinstance(caches, Mapping) else {name: caches}).items():
            self.add(own, cache)

    def add(self, name: str, cache: Counted) -> None:
        """Show *cache* as *name* too. Raises ``ConfigError`` when *name* is empty or belongs to another cache."""
        if not name or not isinstance(name, str):
            raise ConfigError(f"name={name!r}: a cache is shown under a name, such as 'products'")
        with self._lock:
            if self._caches.get(name, cache) is not cache:
                raise ConfigError(f"name={name!r} belongs to another cache already: choose another name")
            self._caches = {**self._caches, name: cache}

    def remove(self, name: str) -> None:
        """Show the cache called *name* no longer; one that is unknown is passed over."""
        with self._lock:
            self._caches = {own: cache for own, cache in self._caches.items() if own != name}

    def snapshots(self) -> dict[str, Stats]:
        """Return a snapshot of each cache."""
        return {name: cache.stats() for name, cache in self._caches.items()}
