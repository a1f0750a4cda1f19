"""A store behind a circuit breaker, whose invalidations are never lost.

While the server is away calls fail at once instead of waiting. An invalidation that could not be delivered is kept and
delivered before anything else is asked of the server again, so that no caller of this process reads what it covers.
Must not know which store it guards.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from cachekit._io import IO
from cachekit.breaker import Breaker
from cachekit.clock import Clock
from cachekit.errors import StoreError, StoreUnavailable
from cachekit.events import Emit, Event, Kind
from cachekit.stores.base import AnyEntry, Change, Store, Ticket

R = TypeVar("R")

log = logging.getLogger("cachekit")

MAX_PENDING: Final = 10_000


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
        self.breaker = breaker
        self._clock = clock
        self._emit = emit
        self._lock = threading.Lock()
        self._pending_tags: dict[str, None] = {}
        self._pending_keys: dict[str, None] = {}
        self._clear_pending = False
        self._retrying = False

    @property
    def pending(self) -> int:
        """Return how many invalidations wait for the server to come back."""
        return len(self._pending_tags) + len(self._pending_keys) + self._clear_pending

    async def _run(self, io: IO, call: Callable[[], Coroutine[Any, Any, R]]) -> R:
        with self._lock:
            allowed = self.breaker.allow(self._clock())
        if not allowed:
            raise StoreUnavailable(
                "the store is away and its breaker is open", retry_after=self.breaker.retry_after(self._clock())
            )
        try:
            if self.pending:
                await self._deliver(io)
            result = await call()
        except StoreError as exc:
            self._record(False, exc)
            raise
        self._record(True, None)
        return result

    def _record(self, ok: bool, error: StoreError | None) -> None:
        with self._lock:
            changed = self.breaker.record(ok, self._clock())
        if error is not None:
            self._emit(Event(Kind.STORE_ERROR, detail=str(error), error=error))
        if changed and ok:
            log.warning("the store answers again")
            self._emit(Event(Kind.BREAKER_CLOSED))
        elif changed:
            log.warning("the store is away, going on without it: %s", error)
            self._emit(Event(Kind.BREAKER_OPENED, detail=str(error), error=error))

    async def _deliver(self, io: IO) -> None:
        with self._lock:
            tags, keys, clear = list(self._pending_tags), list(self._pending_keys), self._clear_pending
        if clear:
            await self.inner.clear(io)
        if tags:
            await self.inner.invalidate(io, tags)
        if keys:
            await self.inner.delete(io, keys)
        with self._lock:
            for tag in tags:
                self._pending_tags.pop(tag, None)
            for key in keys:
                self._pending_keys.pop(key, None)
            self._clear_pending = self._clear_pending and not clear

    def _keep_pending(self, io: IO, *, tags: Sequence[str] = (), keys: Sequence[str] = (), clear: bool = False) -> None:
        with self._lock:
            self._pending_tags.update(dict.fromkeys(tags))
            self._pending_keys.update(dict.fromkeys(keys))
            self._clear_pending |= clear
            if len(self._pending_tags) + len(self._pending_keys) > MAX_PENDING:
                self._pending_tags.clear()
                self._pending_keys.clear()
                self._clear_pending = True
            start, self._retrying = not self._retrying, True
        self._emit(Event(Kind.INVALIDATION_PENDING, detail=", ".join((*tags, *keys)) or "everything"))
        if start:
            io.spawn(self._retry(io))

    async def _retry(self, io: IO) -> None:
        """Try to deliver until it succeeds, however long the server is away."""
        try:
            while self.pending:
                await io.sleep(max(0.05, self.breaker.retry_after(self._clock())))
                try:
                    await self._run(io, self._nothing)
                except StoreError:
                    continue
        finally:
            with self._lock:
                self._retrying = False

    @staticmethod
    async def _nothing() -> None:
        return None

    # -- the Store port -------------------------------------------------------------------------------------------

    async def get(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:
        return await self._run(io, lambda: self.inner.get(io, key, tags))

    async def get_many(self, io: IO, keys: Sequence[str]) -> dict[str, AnyEntry]:
        return await self._run(io, lambda: self.inner.get_many(io, keys))

    async def set_many(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:
        try:
            await self._run(io, lambda: self.inner.set_many(io, entries))
        except StoreError:
            self._keep_pending(io, keys=list(entries))  # what they replace must not come back with the server
            raise

    async def update(self, io: IO, key: str, change: Change) -> AnyEntry | None:
        return await self._run(io, lambda: self.inner.update(io, key, change))

    async def begin(self, io: IO, key: str, tags: Sequence[str], lease: float, *, exclusive: bool = True) -> Ticket:
        return await self._run(io, lambda: self.inner.begin(io, key, tags, lease, exclusive=exclusive))

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> bool:
        return await self._run(io, lambda: self.inner.commit(io, ticket, entry))

    async def release(self, io: IO, ticket: Ticket) -> None:
        await self._run(io, lambda: self.inner.release(io, ticket))

    async def delete(self, io: IO, keys: Sequence[str]) -> int:
        try:
            return await self._run(io, lambda: self.inner.delete(io, keys))
        except StoreError:
            self._keep_pending(io, keys=keys)
            return 0

    async def invalidate(self, io: IO, tags: Sequence[str]) -> None:
        try:
            await self._run(io, lambda: self.inner.invalidate(io, tags))
        except StoreError:
            self._keep_pending(io, tags=tags)

    async def clear(self, io: IO) -> None:
        try:
            await self._run(io, lambda: self.inner.clear(io))
        except StoreError:
            self._keep_pending(io, clear=True)

    async def close(self, io: IO) -> None:
        await self.inner.close(io)
