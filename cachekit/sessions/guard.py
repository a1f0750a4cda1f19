"""A session store behind a circuit breaker: while it is away, calls fail at once instead of waiting.

Shares the breaker of a cache on the same server, so that what one of them learned the other need not learn again. Must
not know what becomes of a request whose store is away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cachekit._fork import renew_in_child
from cachekit._io import IO
from cachekit.breaker import Breaker
from cachekit.clock import Clock
from cachekit.errors import StoreError, StoreTimeout, StoreUnavailable
from cachekit.events import Emit, Event, Kind
from cachekit.sessions.store import Found, FullStore, Key, Moved, Outcome, Record

R = TypeVar("R")

log = logging.getLogger("cachekit")


class GuardedSessions:
    """Passes calls on to *inner* while its breaker allows them.

    Args:
        inner: the store to protect.
        breaker: decides when calls are refused.
        clock: source of time.
        emit: receives events.
    """

    def __init__(self, inner: FullStore, breaker: Breaker, *, clock: Clock, emit: Emit) -> None:
        self.inner = inner
        self.breaker = breaker
        self._clock = clock
        self._emit = emit
        self._renew()
        renew_in_child(self, GuardedSessions._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def is_away(self) -> bool:
        """Say whether a call would be refused now. False as soon as one may be tried, so that somebody tries."""
        return self.breaker.is_open and self.breaker.retry_after(self._clock()) > 0

    async def _run(self, call: Callable[[], Coroutine[Any, Any, R]]) -> R:
        if self.breaker.is_quiet:
            try:
                return await call()
            except StoreError as exc:
                self._record(False, exc)
                raise
        with self._lock:
            allowed = self.breaker.allow(self._clock())
        if not allowed:
            raise StoreUnavailable(
                "the session store is away and its breaker is open", retry_after=self.breaker.retry_after(self._clock())
            )
        try:
            result = await call()
        except StoreError as exc:
            self._record(False, exc)
            raise
        self._record(True, None)
        return result

    def _record(self, ok: bool, error: StoreError | None) -> None:
        answered = ok or not isinstance(error, (StoreTimeout, StoreUnavailable))  # an error reply is an answer too
        with self._lock:
            changed = self.breaker.record(answered, self._clock(), slow=isinstance(error, StoreTimeout))
        if error is not None:
            self._emit(Event(Kind.STORE_ERROR, name="sessions", detail=str(error), error=error))
        if changed and answered:
            log.warning("the session store answers again")
            self._emit(Event(Kind.BREAKER_CLOSED, name="sessions"))
        elif changed:
            log.warning("the session store is away, going on without it: %s", error)
            self._emit(Event(Kind.BREAKER_OPENED, name="sessions", detail=str(error), error=error))

    # -- the port -------------------------------------------------------------------------------------------------

    async def read(self, io: IO, key: Key, ttl: float) -> Found:
        return await self._run(lambda: self.inner.read(io, key, ttl))

    async def write(self, io: IO, key: Key, record: Record, expected: str | None) -> Outcome:
        return await self._run(lambda: self.inner.write(io, key, record, expected))

    async def retire(self, io: IO, key: Key, record: Record, moved: Moved, grace: float) -> Outcome:
        return await self._run(lambda: self.inner.retire(io, key, record, moved, grace))

    async def destroy(self, io: IO, key: Key, owner: str) -> Outcome:
        return await self._run(lambda: self.inner.destroy(io, key, owner))

    async def touch(self, io: IO, key: Key, ttl: float) -> bool:
        return await self._run(lambda: self.inner.touch(io, key, ttl))

    async def close(self, io: IO) -> None:
        await self.inner.close(io)

    async def sessions(self, io: IO, owner: str) -> list[tuple[Key, Record]]:
        return await self._run(lambda: self.inner.sessions(io, owner))

    async def revoke(self, io: IO, owner: str, *, only: Key | None = None, keep: Key | None = None) -> int:
        return await self._run(lambda: self.inner.revoke(io, owner, only=only, keep=keep))

    async def count(self, io: IO) -> int:
        return await self._run(lambda: self.inner.count(io))

    async def clear(self, io: IO) -> int:
        return await self._run(lambda: self.inner.clear(io))
