"""Changes that a server can make to an entry where it lies, in one step: another lifetime, a larger number.

A store that cannot calls them as it does any other change. Must not know how entries lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from cachekit.entry import Entry
from cachekit.stores.base import AnyEntry, Change

EXACT: Final = 2**53
"""Whole numbers below this are exact as floating-point numbers too, which is how scripts on a server count."""


@dataclass(frozen=True, slots=True)
class Prolonged:
    """Gives a fresh entry the times of *times*, whose value is of no account.

    A store that changed the entry where it lies returns *times* from ``update``, because it has not seen the value.
    """

    times: AnyEntry

    def __call__(self, old: AnyEntry | None) -> AnyEntry | None:
        """Return *old* with the new times; as it is where it is not fresh."""
        new = self.times
        if old is None or new.created_at >= old.fresh_until:
            return old
        return old._replace(
            created_at=new.created_at, fresh_until=new.fresh_until, swr_until=new.swr_until, dead_at=new.dead_at
        )


@dataclass(frozen=True, slots=True)
class Added:
    """Adds *delta* to a fresh whole number.

    A store that changed the entry where it lies returns one with the sum from ``update``, whose times say nothing.

    Attributes:
        delta: what is added.
        now: the time, in seconds since the epoch.
        otherwise: does the same in general, and decides about what is absent or no whole number.
    """

    delta: int
    now: float
    otherwise: Change

    def __call__(self, old: AnyEntry | None) -> AnyEntry | None:
        """Return what *otherwise* makes of *old*."""
        return self.otherwise(old)

    def made(self, total: int) -> AnyEntry:
        """Return an entry with *total*."""
        return Entry(total, self.now, math.inf, math.inf, math.inf)


def adding(delta: Any, now: float, change: Change) -> Change:
    """Return *change*, which adds *delta* to a number, in a form that a server can do by itself where it is able to."""
    return Added(delta, now, change) if type(delta) is int else change
