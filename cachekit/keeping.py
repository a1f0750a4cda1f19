"""Keeping and dropping entries over a store: for the engine, and for whoever makes entries itself.

A store that fails is as good as an empty one, and an invalidation never fails. Loads that are running are told before and
after, so that none keeps what it began before. Must not know what loads do, nor how keys are made.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import TypeAlias

from cachekit._io import IO
from cachekit.errors import CodecError, ConfigError, StoreError
from cachekit.events import Event, Events, Kind
from cachekit.flight import Flights
from cachekit.keys import MAX_TAGS
from cachekit.stores.base import AnyEntry, Store, Ticket, Vouching
from cachekit.tags import is_implicit

log = logging.getLogger("cachekit")

Beyond: TypeAlias = Callable[[IO, Sequence[str]], Awaitable[bool]]
"""Tells caches further out which tags were invalidated. Returns False when that would be lost with this process."""


class Kept(Enum):
    """What became of an entry that was to be kept."""

    KEPT = "kept"
    REFUSED = "refused"
    """Something it was made from was invalidated, or another process took over."""
    AWAY = "away"
    """The store does not answer, or cannot hold this value: nobody knows."""


class Keeping:
    """Keeps and drops entries in a store.

    Args:
        store: where entries are kept.
        events: receives what happened.
    """

    def __init__(self, store: Store, events: Events) -> None:
        self.store = store
        self.events = events
        self.flights = Flights()
        self.beyond: Beyond | None = None
        self._vouching: Vouching | None = store if hasattr(store, "holds") else None  # type: ignore[assignment]

    # -- entries, for whoever makes them itself --------------------------------------------------------------------

    async def read(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:
        """Return the entry of *key*, or None; a store that fails has none."""
        try:
            return await self.store.get(io, key, tags)
        except StoreError:
            return None

    async def begin(
        self, io: IO, key: str, tags: Sequence[str] = (), *, lease: float = 30.0, exclusive: bool = True
    ) -> Ticket | None:
        """Take the right to keep what is made from now on; None when the store is away."""
        try:
            return await self.store.begin(io, key, tags, lease, exclusive=exclusive)
        except StoreError:
            return None

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> bool:
        """Keep *entry*. Returns False when something it was made from was invalidated, or the store is away."""
        return await self.keep(io, ticket, entry) is Kept.KEPT

    async def keep(self, io: IO, ticket: Ticket, entry: AnyEntry) -> Kept:
        """Keep *entry*, and say what became of it."""
        if len(entry.tags) > MAX_TAGS:  # to leave some out would be to miss invalidations
            detail = f"{len(entry.tags):,} tags, over the bound of {MAX_TAGS:,}: tag with what they have in common"
            log.warning("%s is not cached: it has %s", ticket.key, detail)
            self.events(Event(Kind.NOT_STORED, ticket.key, detail=detail))
            await self.release(io, ticket)
            return Kept.AWAY
        try:
            kept = await self.store.commit(io, ticket, entry)
        except StoreError:
            return Kept.AWAY
        except CodecError as exc:
            detail = f"{exc.type_name or 'value'} at {exc.path or 'the value itself'}: {exc}"
            log.warning("%s is not cached: %s", ticket.key, detail)
            self.events(Event(Kind.UNENCODABLE, ticket.key, detail=detail, error=exc))
            await self.release(io, ticket)
            return Kept.AWAY
        self.events(Event(Kind.NOT_STORED if kept is None else Kind.STORED, ticket.key))
        return Kept.REFUSED if kept is None else Kept.KEPT

    async def drop(self, io: IO, *keys: str) -> None:
        """Drop *keys*."""
        await self.delete(io, keys)

    async def holds(
        self, io: IO, ticket: Ticket, tags: Sequence[str], stamps: Sequence[tuple[str, bytes]] = ()
    ) -> bool:
        """Say whether what is made with *ticket* would still be kept; False when the store cannot say."""
        if self._vouching is None:
            return False
        try:
            return await self._vouching.holds(io, ticket, tags, stamps)
        except StoreError:
            return False

    async def release(self, io: IO, ticket: Ticket) -> None:
        """Give a ticket back unused."""
        try:
            await self.store.release(io, ticket)
        except StoreError:
            pass

    # -- invalidation ----------------------------------------------------------------------------------------------

    async def invalidate(self, io: IO, tags: Sequence[str], *, name: str = "") -> bool:
        """Drop every entry that carries one of *tags*. Never fails: what cannot be delivered now is delivered later.

        *name* is the function whose results they all are, for the event. Returns False where ``beyond`` could not take
        them in for good.
        """
        if not tags:
            raise ConfigError("invalidate() needs at least one tag")
        self.flights.void(tags=tags)
        try:
            await self.store.invalidate(io, tags)
        finally:
            self.flights.void(tags=tags)
        told = [tag for tag in tags if not is_implicit(tag)]
        self.events(Event(Kind.INVALIDATED, name=name, detail=", ".join(told)))
        # Afterwards: a cache further out that is told first fetches what is still here.
        return self.beyond is None or not told or await self.beyond(io, told)

    async def delete(self, io: IO, keys: Sequence[str]) -> int:
        """Drop *keys* and void their running loads. Returns how many were there."""
        self.flights.void(keys=keys)
        try:
            return await self.store.delete(io, keys)
        finally:
            self.flights.void(keys=keys)

    async def write(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:
        """Keep *entries* whatever is loading their keys. Raises ``CodecError``; a store that is away keeps nothing."""
        self.flights.void(keys=entries.keys())
        try:
            await self.store.set_many(io, entries)
        except StoreError:
            pass  # counted and reported by the guard; what would be replaced does not come back with the server

    async def clear(self, io: IO) -> None:
        """Drop everything."""
        self.flights.void(everything=True)
        try:
            await self.store.clear(io)
        finally:
            self.flights.void(everything=True)
