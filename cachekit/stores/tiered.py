"""Two levels: live objects in this process in front of a server, kept honest by the bus.

The first level is trusted only while the bus is live: every invalidation, of this process or another, then reaches it.
When the bus breaks it is suspended; the server is asked instead, and when that does not answer either, what the first
level still holds is served for a bounded time. When the bus is live again the first level starts empty.

Must not know how the server stores things.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Final, Protocol, TypeAlias

from cachekit._fork import renew_in_child
from cachekit._io import IO
from cachekit.clock import Clock
from cachekit.errors import ConfigError, StoreError
from cachekit.events import Emit, Event, Kind
from cachekit.stores.base import AnyEntry, Change, Scannable, SharedLeases, Store, Ticket, Vouching
from cachekit.stores.bus import OnLive, OnLost, OnMessage
from cachekit.stores.memory import Memory
from cachekit.stores.names import Announcement

ISOLATED_TTL: Final = 30.0


class Hearing(Protocol):
    """The channel, as the first level sees it: ``first`` is done once the first attempt to listen is over."""

    first: Future[bool]

    def stop(self) -> None:
        """Hear nothing any more."""
        ...

    def close(self) -> None:
        """Stop listening altogether."""
        ...


OpenBus: TypeAlias = Callable[[OnMessage, OnLive, OnLost], Hearing]


class Tiered:
    """Keeps entries in *l1* and *l2*.

    Args:
        l1: the first level.
        l2: the server, behind its breaker.
        open_bus: starts to listen; receives ``on_message``, ``on_live`` and ``on_lost``.
        origin: returns how announcements of this process begin; they are passed over.
        clock: source of time.
        emit: receives events.
        timeout: seconds that the very first call may wait for the bus.
        isolated_ttl: seconds for which the first level serves when neither the bus nor the server answers; 0 never.

    Raises:
        ConfigError: *isolated_ttl* is no such number.
    """

    def __init__(
        self,
        l1: Memory,
        l2: Store,
        *,
        open_bus: OpenBus,
        origin: Callable[[], str],
        clock: Clock,
        emit: Emit,
        timeout: float = 0.25,
        isolated_ttl: float = ISOLATED_TTL,
    ) -> None:
        if type(isolated_ttl) not in (int, float) or not isolated_ttl >= 0:
            raise ConfigError(f"isolated_ttl={isolated_ttl!r} must be a number of seconds, 0 for never")
        self.l1 = l1
        self.l2 = l2
        self._leases = l2 if isinstance(l2, SharedLeases) else None
        self._open_bus = open_bus
        self._origin = origin
        self._clock = clock
        self._emit = emit
        self._timeout = timeout
        self._isolated_ttl = isolated_ttl
        self._lock = threading.Lock()
        self._bus: Hearing | None = None
        self._lost_at = clock()
        l1.suspend()
        renew_in_child(self, Tiered._renew)

    def _renew(self) -> None:
        """In a forked child nobody listens yet: what the parent holds must not be served there."""
        self._lock = threading.Lock()
        self._bus = None
        self._lost_at = self._clock()
        self.l1.suspend()

    @property
    def live(self) -> bool:
        """Return whether the first level is trusted now."""
        return not self.l1.suspended

    async def listen(self, io: IO) -> None:
        """Hear what other processes change from now on; wait for that at the first time, and for at most the time-out."""
        if self._bus is not None:
            return
        with self._lock:
            if self._bus is None:
                self._bus = _open(self, self._open_bus)
            first: Future[bool] = self._bus.first
        try:
            await io.wait(first, self._timeout)
        except TimeoutError:
            pass

    def _message(self, payload: bytes) -> None:
        told = Announcement.read(payload)
        if told is None or told.origin == self._origin():
            return
        if told.kind == "tags":
            self.l1.mark(told.names)
        elif told.kind == "keys":
            self.l1.forget(told.names)
        elif told.kind == "all":
            self.l1.flush()

    def _became_live(self) -> None:
        self.l1.resume()
        self._emit(Event(Kind.CHANNEL_LIVE))

    def _became_lost(self, error: Exception) -> None:
        self._lost_at = self._clock()
        self.l1.suspend()
        self._emit(Event(Kind.CHANNEL_LOST, detail=str(error), error=error))

    def _isolated(self, key: str) -> AnyEntry | None:
        """Return what the first level still holds while nothing else answers."""
        entry = self.l1.last_known(key)
        now = self._clock()
        if entry is None or now >= entry.dead_at or now >= max(self._lost_at, entry.created_at) + self._isolated_ttl:
            return None
        return entry

    def _keep_isolated(self, ticket_since: int, key: str, entry: AnyEntry) -> None:
        if self._isolated_ttl > 0:
            self.l1.fill(key, entry, ticket_since)

    # -- the Store port -------------------------------------------------------------------------------------------

    async def get(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:
        await self.listen(io)
        since = self.l1.sequence
        if (entry := await self.l1.get(io, key)) is not None:
            return entry
        try:
            entry = await self.l2.get(io, key, tags)
        except StoreError:
            if not self.live and (entry := self._isolated(key)) is not None:
                return entry
            raise
        if entry is not None and self.live:
            self.l1.fill(key, entry, since)
        return entry

    async def get_many(self, io: IO, keys: Sequence[str]) -> dict[str, AnyEntry]:
        await self.listen(io)
        since = self.l1.sequence
        found = await self.l1.get_many(io, keys)
        missing = [key for key in keys if key not in found]
        if missing:
            try:
                more = await self.l2.get_many(io, missing)
            except StoreError:
                if self.live:
                    raise
                more = {key: entry for key in missing if (entry := self._isolated(key)) is not None}
            else:
                if self.live:
                    for key, entry in more.items():
                        self.l1.fill(key, entry, since)
            found.update(more)
            found = {key: found[key] for key in keys if key in found}
        return found

    async def set_many(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:
        try:
            await self.l2.set_many(io, entries)
        finally:
            # What this process wrote is read back through the server, whose stamps decide; a write that could not
            # be delivered must at least not be hidden by an older value.
            self.l1.forget(list(entries))

    async def delete(self, io: IO, keys: Sequence[str]) -> int:
        try:
            return await self.l2.delete(io, keys)
        finally:
            self.l1.forget(keys)

    async def update(self, io: IO, key: str, change: Change) -> AnyEntry | None:
        try:
            return await self.l2.update(io, key, change)
        finally:
            self.l1.forget([key])

    async def begin(self, io: IO, key: str, tags: Sequence[str], lease: float, *, exclusive: bool = True) -> Ticket:
        await self.listen(io)
        since = self.l1.sequence
        try:
            ticket = await self.l2.begin(io, key, tags, lease, exclusive=exclusive)
        except StoreError:
            if self.live or self._isolated_ttl <= 0:
                raise
            return Ticket(key, leads=True, proof=(since, None))
        return replace(ticket, proof=(since, ticket))

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> AnyEntry | None:
        since, theirs = ticket.proof
        if theirs is None:
            return entry if not self.live and self.l1.fill(ticket.key, entry, since) is not None else None
        try:
            kept = await self.l2.commit(io, theirs, entry)
        except StoreError:
            if not self.live:
                self._keep_isolated(since, ticket.key, entry)
            raise
        if kept is not None and self.live:
            self.l1.fill(ticket.key, kept, since)
        return kept

    async def holds(
        self, io: IO, ticket: Ticket, tags: Sequence[str], stamps: Sequence[tuple[str, bytes]] = ()
    ) -> bool:
        since, theirs = ticket.proof
        if theirs is None or not await self.l1.holds(io, replace(ticket, proof=since), tags):
            return False
        ask: Vouching = self.l2  # type: ignore[assignment]
        return await ask.holds(io, theirs, tags, stamps)

    async def release(self, io: IO, ticket: Ticket) -> None:
        if ticket.proof[1] is not None:
            await self.l2.release(io, ticket.proof[1])

    async def ended(self, io: IO, ticket: Ticket, poll: float) -> bool:
        """Wait until the lease that *ticket* did not get may have ended. Returns whether its value was kept."""
        if self._leases is None or ticket.proof[1] is None:
            await io.sleep(poll)
            return False
        theirs: Ticket = ticket.proof[1]
        return await self._leases.ended(io, replace(theirs, retry_in=min(ticket.retry_in, theirs.retry_in)), poll)

    async def renew(self, io: IO, ticket: Ticket, lease: float) -> bool:
        """Hold the lease of *ticket* for *lease* seconds from now. Returns False when another has it, or nobody."""
        if self._leases is None or ticket.proof[1] is None:
            return False
        return await self._leases.renew(io, ticket.proof[1], lease)

    async def invalidate(self, io: IO, tags: Sequence[str]) -> None:
        try:
            await self.l2.invalidate(io, tags)
        finally:
            self.l1.mark(tags)

    async def clear(self, io: IO) -> None:
        try:
            await self.l2.clear(io)
        finally:
            self.l1.flush()

    async def scan(self, io: IO, pattern: str, cursor: bytes | None) -> tuple[bytes | None, list[str]]:
        if not isinstance(self.l2, Scannable):
            raise ConfigError(f"scan(): the store {type(self.l2).__name__} cannot list its keys")
        return await self.l2.scan(io, pattern, cursor)

    async def close(self, io: IO) -> None:
        with self._lock:
            bus, self._bus = self._bus, None
        self.l1.suspend()
        self.l1.flush()
        if bus is not None:
            await io.call(bus.close, None)
        await self.l2.close(io)


def _open(
    tiered: Tiered,
    open_bus: OpenBus,
) -> Hearing:
    """Start the bus so that it does not keep *tiered* alive."""
    box: list[Hearing] = []

    def gone(_: object) -> None:
        if box:
            box[0].stop()

    owner = weakref.ref(tiered, gone)

    def on_message(payload: bytes) -> None:
        if (target := owner()) is not None:
            target._message(payload)

    def on_live() -> None:
        if (target := owner()) is not None:
            target._became_live()

    def on_lost(error: Exception) -> None:
        if (target := owner()) is not None:
            target._became_lost(error)

    bus = open_bus(on_message, on_live, on_lost)
    box.append(bus)
    return bus
