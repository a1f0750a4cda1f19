"""A session store behind a circuit breaker: while it is away, calls fail at once instead of waiting.

Shares the breaker of a cache on the same server, so that what one of them learned the other need not learn again. Must
not know what becomes of a request whose store is away.
"""

from __future__ import annotations

from typing import Any

from cachekit._io import IO
from cachekit.breaker import Breaker
from cachekit.clock import Clock
from cachekit.errors import StoreError
from cachekit.events import Emit
from cachekit.sessions.store import Appending, Asked, Foreseeing, Found, FullStore, Key, Moved, Outcome, Record
from cachekit.stores.breaking import Breaking


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
        self.appends = isinstance(inner, Appending)
        """Whether the store can add to a session."""
        self.takes_parcels = bool(getattr(inner, "takes_parcels", False))
        """Whether the store keeps a ``Parcel`` as it is."""
        self._foresees = isinstance(inner, Foreseeing)
        self.in_process = bool(getattr(inner, "in_process", False))
        """Whether nobody waits for the store."""
        self.breaker = breaker
        self._breaking = Breaking(breaker, clock=clock, emit=emit, what="the session store", name="sessions")
        self._run = self._breaking.run

    def is_away(self) -> bool:
        """Say whether a call would be refused now. False as soon as one may be tried, so that somebody tries."""
        return self._breaking.is_away

    # -- the port -------------------------------------------------------------------------------------------------

    async def read(self, io: IO, key: Key, ttl: float) -> Found:
        if self.breaker.is_quiet:  # the usual case of the most frequent calls, without detours
            try:
                return await self.inner.read(io, key, ttl)
            except StoreError as exc:
                self._breaking.failed(exc)
                raise
        return await self._run(lambda: self.inner.read(io, key, ttl))

    def ahead(self, key: Key, ttl: float) -> Asked | None:
        """Begin to read, where everything is well and the store can."""
        if not self._foresees or not self.breaker.is_quiet:
            return None
        inner: Any = self.inner
        asked: Asked | None = inner.ahead(key, ttl)
        return None if asked is None else _Guarded(asked, self._breaking)

    async def write(self, io: IO, key: Key, record: Record, expected: str | None) -> Outcome:
        if self.breaker.is_quiet:
            try:
                return await self.inner.write(io, key, record, expected)
            except StoreError as exc:
                self._breaking.failed(exc)
                raise
        return await self._run(lambda: self.inner.write(io, key, record, expected))

    async def append(self, io: IO, key: Key, addition: bytes, version: str, expected: str) -> Outcome:
        inner: Any = self.inner
        return await self._run(lambda: inner.append(io, key, addition, version, expected))

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


class _Guarded:
    """A read that is under way, whose failure is told like any other."""

    __slots__ = ("_asked", "_breaking", "drop")

    def __init__(self, asked: Asked, breaking: Breaking) -> None:
        self._asked = asked
        self._breaking = breaking
        self.drop = asked.drop

    def take(self) -> Found:
        try:
            return self._asked.take()
        except StoreError as exc:
            self._breaking.failed(exc)
            raise
