"""A store behind a circuit breaker, whose invalidations are never lost.

While the server is away calls fail at once instead of waiting. An invalidation that could not be delivered is kept and
delivered before anything else is asked of the server again, so that no caller of this process reads what it covers. The
end of a lease is told behind whatever is asked, late rather than never: other processes wait for it. Must not know which
store it guards.
"""

from __future__ import annotations

import math
import threading
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar
from weakref import ref

from cachekit._fork import renew_in_child
from cachekit._io import ASYNCIO, BLOCKING, IO
from cachekit.breaker import Breaker
from cachekit.clock import Clock
from cachekit.errors import ConfigError, StoreError
from cachekit.events import Emit, Event, Kind
from cachekit.stores.base import AnyEntry, Change, Lending, Scannable, SharedLeases, Store, Ticket, Vouching
from cachekit.stores.breaking import Breaking

R = TypeVar("R")

MAX_PENDING: Final = 10_000
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_PROBE: Final = "cachekit:probe"


class Guarded:
    """Passes calls on to *inner* while its breaker allows them.

    Args:
        inner: the store to protect.
        breaker: decides when calls are refused.
        clock: source of time.
        emit: receives events.
    """

    def __init__(self, inner: Store, breaker: Breaker, *, clock: Clock, emit: Emit) -> None:
        self.inner = inner
        self._leases = inner if isinstance(inner, SharedLeases) else None
        self._lending = inner if isinstance(inner, Lending) else None
        self.breaker = breaker
        self._breaking = Breaking(breaker, clock=clock, emit=emit)
        self._emit = emit
        self._clock = clock
        self._lock = threading.RLock()  # the collector may end a job, in whatever it interrupts
        renew_in_child(self, Guarded._renew)
        self._pending_tags: dict[str, object] = {}
        self._pending_keys: dict[str, object] = {}
        self._pending_clear: object = None
        self._retrying: tuple[object, ref[Coroutine[Any, Any, None]]] | None = None
        self._answered = -math.inf

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._retrying = None

    @property
    def pending(self) -> int:
        """Return how many invalidations wait for the server to come back."""
        return len(self._pending_tags) + len(self._pending_keys) + (self._pending_clear is not None)

    @property
    def _owes(self) -> bool:
        return bool(self.pending or (self._lending is not None and self._lending.owes))

    async def answers(self, io: IO, max_age: float) -> bool:
        """Say whether the store answers, by what it said at most *max_age* seconds ago; else it is asked."""
        now = self._clock()
        if self._breaking.is_away:
            return False
        if self.breaker.is_quiet and not self.pending and 0 <= now - self._answered < max_age:
            return True
        try:
            await self._run(io, lambda: self.inner.get(io, _PROBE))
        except StoreError:
            return False
        self._answered = now
        return True

    async def _run(self, io: IO, call: Callable[[], Awaitable[R]]) -> R:
        return await self._breaking.run(call, before=(lambda: self._deliver(io)) if self.pending else None)

    async def _deliver(self, io: IO) -> None:
        with self._lock:
            tags, keys, clear = dict(self._pending_tags), dict(self._pending_keys), self._pending_clear
        if clear is not None:
            await self.inner.clear(io)
        if tags:
            await self.inner.invalidate(io, list(tags))
        if keys:
            await self.inner.delete(io, list(keys))
        with self._lock:  # what failed once more meanwhile has to be delivered once more
            for pending, delivered in ((self._pending_tags, tags), (self._pending_keys, keys)):
                for name, mark in delivered.items():
                    if pending.get(name) is mark:
                        del pending[name]
            if self._pending_clear is clear:
                self._pending_clear = None

    def _keep_pending(self, io: IO, *, tags: Sequence[str] = (), keys: Sequence[str] = (), clear: bool = False) -> None:
        mark = object()
        with self._lock:
            self._pending_tags.update(dict.fromkeys(tags, mark))
            self._pending_keys.update(dict.fromkeys(keys, mark))
            if clear:
                self._pending_clear = mark
            if len(self._pending_tags) + len(self._pending_keys) > MAX_PENDING:
                self._pending_tags.clear()
                self._pending_keys.clear()
                self._pending_clear = mark
        self._emit(Event(Kind.INVALIDATION_PENDING, detail=", ".join((*tags, *keys)) or "everything"))
        self._retry_behind(io, _PAUSE)

    def _ended(self, io: IO, why: BaseException, ticket: Ticket | None = None) -> None:
        """Tell later that a lease ended: that of *ticket*, or one that was asked for in vain."""
        if self._lending is None:
            return
        if ticket is not None:
            self._lending.owe(ticket)
        if self._lending.owes:
            self._retry_behind(io, 0.0 if isinstance(why, CancelledError) else _PAUSE)

    def _retry_behind(self, io: IO, pause: float) -> None:
        if io is ASYNCIO:
            io = BLOCKING  # a task would end with its loop, and what waits would wait for the next who asks
        with self._lock:
            if self._retrying is not None and self._retrying[1]() is not None:  # with its loop one may end unbegun
                return
            mark = object()
            job = self._retry(io, mark, pause)
            self._retrying = mark, ref(job)
        io.spawn(job)

    async def _retry(self, io: IO, mark: object, pause: float) -> None:
        """Try to deliver until it succeeds, however long the server is away, or until the store is closed."""
        try:
            while self._retries(mark):
                await io.sleep(max(pause, self.breaker.retry_after(self._clock())))
                if self._owes:
                    with suppress(StoreError):
                        await self._run(io, lambda: self._give_back(io))
                pause = min(2 * max(pause, _PAUSE), _LONGEST_PAUSE)
                with self._lock:
                    if not self._owes and self._retries(mark):
                        self._retrying = None
        finally:
            with self._lock:
                if self._retries(mark):
                    self._retrying = None

    def _retries(self, mark: object) -> bool:
        return self._retrying is not None and self._retrying[0] is mark

    async def _give_back(self, io: IO) -> None:
        if self._lending is not None:
            await self._lending.give_back(io)

    # -- the Store port -------------------------------------------------------------------------------------------

    async def get(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:
        # The usual case of the most frequent call, without detours.
        if self.breaker.is_quiet and not (self._pending_tags or self._pending_keys or self._pending_clear):
            try:
                return await self.inner.get(io, key, tags)
            except StoreError as exc:
                self._breaking.failed(exc)
                raise
        return await self._run(io, lambda: self.inner.get(io, key, tags))

    async def get_many(self, io: IO, keys: Sequence[str]) -> dict[str, AnyEntry]:
        return await self._run(io, lambda: self.inner.get_many(io, keys))

    async def set_many(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:
        try:
            await self._run(io, lambda: self.inner.set_many(io, entries))
        except (StoreError, CancelledError):
            self._keep_pending(io, keys=list(entries))  # what they replace must not come back with the server
            raise

    async def update(self, io: IO, key: str, change: Change) -> AnyEntry | None:
        return await self._run(io, lambda: self.inner.update(io, key, change))

    async def begin(self, io: IO, key: str, tags: Sequence[str], lease: float, *, exclusive: bool = True) -> Ticket:
        if self._lending is not None and self._lending.owes:  # whoever was to give it back ended with its loop
            self._retry_behind(io, 0.0)
        try:
            return await self._run(io, lambda: self.inner.begin(io, key, tags, lease, exclusive=exclusive))
        except (StoreError, CancelledError) as exc:
            self._ended(io, exc)
            raise

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> AnyEntry | None:
        try:
            return await self._run(io, lambda: self.inner.commit(io, ticket, entry))
        except (StoreError, CancelledError) as exc:
            self._ended(io, exc, ticket)
            raise

    async def holds(
        self, io: IO, ticket: Ticket, tags: Sequence[str], stamps: Sequence[tuple[str, bytes]] = ()
    ) -> bool:
        ask: Vouching = self.inner  # type: ignore[assignment]
        if not hasattr(ask, "holds"):
            return False
        return await self._run(io, lambda: ask.holds(io, ticket, tags, stamps))

    async def release(self, io: IO, ticket: Ticket) -> None:
        try:
            await self._run(io, lambda: self.inner.release(io, ticket))
        except (StoreError, CancelledError) as exc:
            self._ended(io, exc, ticket)
            raise

    async def ended(self, io: IO, ticket: Ticket, poll: float) -> bool:
        """Wait until the lease that *ticket* did not get may have ended. Returns whether its value was kept."""
        if self._leases is None:
            await io.sleep(poll)
            return False
        return await self._leases.ended(io, ticket, poll)

    async def renew(self, io: IO, ticket: Ticket, lease: float) -> bool:
        """Hold the lease of *ticket* for *lease* seconds from now. Returns False when another has it, or nobody."""
        leases = self._leases
        return leases is not None and await self._run(io, lambda: leases.renew(io, ticket, lease))

    async def delete(self, io: IO, keys: Sequence[str]) -> int:
        try:
            return await self._run(io, lambda: self.inner.delete(io, keys))
        except CancelledError:
            self._keep_pending(io, keys=keys)
            raise
        except StoreError:
            self._keep_pending(io, keys=keys)
            return 0

    async def invalidate(self, io: IO, tags: Sequence[str]) -> None:
        try:
            await self._run(io, lambda: self.inner.invalidate(io, tags))
        except CancelledError:
            self._keep_pending(io, tags=tags)
            raise
        except StoreError:
            self._keep_pending(io, tags=tags)

    async def clear(self, io: IO) -> None:
        try:
            await self._run(io, lambda: self.inner.clear(io))
        except CancelledError:
            self._keep_pending(io, clear=True)
            raise
        except StoreError:
            self._keep_pending(io, clear=True)

    async def scan(self, io: IO, pattern: str, cursor: bytes | None) -> tuple[bytes | None, list[str]]:
        inner = self.inner
        if not isinstance(inner, Scannable):
            raise ConfigError(f"scan(): the store {type(inner).__name__} cannot list its keys")
        return await self._run(io, lambda: inner.scan(io, pattern, cursor))

    async def close(self, io: IO) -> None:
        self._retrying = None
        await self.inner.close(io)
