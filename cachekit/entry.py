"""What is kept: a value with its times and tags, and the judgement whether it may be served.

Pure: no I/O, no clock, no locks. Times are seconds since the epoch.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from cachekit.policy import Policy

T = TypeVar("T")

Evidence: TypeAlias = "frozenset[str | tuple[str, bytes] | float] | tuple[float, ...]"
"""What is known of a value that somebody uses: tags, with their stamps, and until when it is fresh. Hashable."""


MAX_AHEAD: Final = 300.0
"""Seconds that the clocks of two machines may differ, or one may be set back, without entries being taken for old ones."""


class Verdict(Enum):
    """What may be done with an entry."""

    HIT = "hit"
    """Fresh: serve it."""
    STALE = "stale"
    """Serve it, and refresh it behind."""
    EXPIRED = "expired"
    """Load first; serve it only when the loader fails."""
    MISS = "miss"
    """There is nothing to serve."""


class Entry(NamedTuple, Generic[T]):
    """A value with its times and tags. A tuple, because one is made for each hit on a server.

    Attributes:
        value: the cached value; None is a value.
        created_at: when the value was made.
        fresh_until: the end of its freshness.
        swr_until: until when it may be served while a refresh runs; not before *fresh_until*.
        dead_at: when it must be gone, stale windows included; not before *swr_until*.
        tags: the tags that drop it.
        delta: seconds that its loader took, for probabilistic early refresh.
        stamps: what the store knew of some of the tags when the value was made or read; the store's own business.
        uses_until: when the first of the cached values that it was made of ceases to be fresh.
    """

    value: T
    created_at: float
    fresh_until: float
    swr_until: float
    dead_at: float
    tags: tuple[str, ...] = ()
    delta: float = 0.0
    stamps: tuple[tuple[str, bytes], ...] = ()
    uses_until: float = math.inf

    @property
    def until(self) -> float:
        """Return the end of its freshness, or of that of something it was made of, whichever comes first."""
        return min(self.fresh_until, self.uses_until)

    @property
    def evidence(self) -> Evidence:
        """Return the tags, each with its stamp where that is known, and ``until``: what a user of this value goes by."""
        until = self.until
        times = () if until == math.inf else (float(until),)
        if not self.tags:
            return times  # a set would be four times as large, for each entry there is
        stamped = dict(self.stamps)
        return frozenset([*((tag, stamped[tag]) if tag in stamped else tag for tag in self.tags), *times])


def is_alive(entry: Entry[object], now: float) -> bool:
    """Say whether *entry* is of use at *now*, stale windows included.

    One from the future is not: the clock was set back, and it would live for as long as the clock went back.
    """
    return entry.created_at - MAX_AHEAD <= now < entry.dead_at


def judge(entry: Entry[object] | None, now: float) -> Verdict:
    """Say what may be done with *entry* at *now*. As time passes the verdict only ever gets worse."""
    if entry is None or not is_alive(entry, now):
        return Verdict.MISS
    if now < entry.fresh_until:
        return Verdict.HIT
    return Verdict.STALE if now < entry.swr_until else Verdict.EXPIRED


def seal(
    value: T,
    policy: Policy,
    now: float,
    *,
    tags: tuple[str, ...] = (),
    delta: float = 0.0,
    chance: float = 0.0,
    stamps: tuple[tuple[str, bytes], ...] = (),
    uses_until: float = math.inf,
) -> Entry[T]:
    """Make the entry of *value* at *now*; *chance* in [0, 1) draws its jitter."""
    fresh_until = now + policy.ttl * (1.0 - policy.jitter * chance)
    swr_until = fresh_until + policy.stale_while_revalidate
    dead_at = max(swr_until, fresh_until + policy.stale_if_error)
    return Entry(value, now, fresh_until, swr_until, dead_at, tags, delta, stamps, uses_until)


def refresh_early(entry: Entry[object], now: float, beta: float, chance: float) -> bool:
    """Say whether a fresh *entry* should be refreshed already at *now*.

    XFetch: ``now - delta * beta * ln(chance) >= expiry`` (Vattani, Chierichetti, Lowenstein, PVLDB 8(8), 2015,
    doi 10.14778/2757807.2757813).
    """
    if beta == 0.0 or entry.delta == 0.0 or entry.fresh_until == math.inf:
        return False
    return now - entry.delta * beta * math.log(1.0 - chance) >= entry.fresh_until


def refresh_eagerly(entry: Entry[object], now: float, refresh_at: float) -> bool:
    """Say whether *entry* has lived through the part *refresh_at* of its lifetime."""
    return refresh_at > 0.0 and now >= _eager_from(entry, refresh_at)


def _eager_from(entry: Entry[object], refresh_at: float) -> float:
    return entry.created_at + (entry.fresh_until - entry.created_at) * refresh_at


def quiet_until(entry: Entry[object], beta: float, refresh_at: float = 0.0) -> float:
    """Return until when *entry* is served with no decision to take.

    Before that time the chance of an early refresh is below exp(-12), so a hit need not draw a number.
    """
    until = entry.fresh_until - 12.0 * entry.delta * beta if beta else entry.fresh_until
    return min(until, _eager_from(entry, refresh_at)) if refresh_at else until


def hits_quietly(entry: Entry[object], now: float, beta: float, refresh_at: float) -> bool:
    """Say whether ``judge`` finds a hit, and nothing is to be decided about an early refresh either."""
    until = quiet_until(entry, beta, refresh_at) if beta or refresh_at else entry.fresh_until
    return entry.created_at - MAX_AHEAD <= now < until
