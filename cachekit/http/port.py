"""The port that the HTTP cache needs: entries by key, and the right to store one taken before it is made.

``cachekit.Cache`` satisfies it. Must not know about HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from cachekit._io import IO
from cachekit.clock import Clock
from cachekit.entry import Entry
from cachekit.events import Events
from cachekit.stores.base import Ticket


class Tally(Protocol):
    """Counts hits."""

    hits: int


class Counters(Protocol):
    """What lookups are counted on."""

    misses: int
    stale: int

    @property
    def tally(self) -> Tally:
        """Return what those are counted on that were served fresh."""
        ...


class CachePort(Protocol):
    """Keeps entries. Nothing of it raises for a store that is away."""

    @property
    def clock(self) -> Clock:
        """Return the clock of the cache."""
        ...

    @property
    def events(self) -> Events:
        """Return where events go."""
        ...

    def counting(self, name: str) -> Counters:
        """Return what lookups are counted on from now on, under *name*."""
        ...

    def peek(self, key: str) -> Entry[Any] | None:
        """Return the valid entry of *key* that this process holds, at once, or None."""
        ...

    async def read(self, io: IO, key: str) -> Entry[Any] | None:
        """Return the valid entry of *key*, or None."""
        ...

    async def begin(self, io: IO, key: str, tags: Sequence[str] = (), *, lease: float = 30.0) -> Ticket | None:
        """Take the right to store *key*, before the response is made; None when the store is away."""
        ...

    async def commit(self, io: IO, ticket: Ticket, entry: Entry[Any]) -> bool:
        """Keep *entry*; False when one of its tags was invalidated meanwhile, or the store is away."""
        ...

    async def holds(
        self, io: IO, ticket: Ticket, tags: Sequence[str], stamps: Sequence[tuple[str, bytes]] = ()
    ) -> bool:
        """Say whether what is made with *ticket* and *tags* would still be kept; False when that cannot be said."""
        ...

    async def ended(self, io: IO, ticket: Ticket, poll: float) -> bool:
        """Wait until the lease that *ticket* did not get may have ended. Returns whether its value was kept.

        It waits no longer than about the ``retry_in`` of *ticket*, and for *poll* seconds where it cannot be told.
        """
        ...

    async def release(self, io: IO, ticket: Ticket) -> None:
        """Give the right back without storing."""
        ...

    def forget(self, keys: Sequence[str]) -> bool:
        """Drop *keys* at once, as ``drop`` does; False where that takes more than this process."""
        ...

    async def drop(self, io: IO, *keys: str) -> None:
        """Drop *keys*, and what is being made for them."""
        ...
