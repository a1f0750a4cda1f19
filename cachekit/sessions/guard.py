"""A session store behind a circuit breaker: while it is away, calls fail at once instead of waiting.

Shares the breaker of a cache on the same server, so that what one of them learned the other need not learn again. Must
not know what becomes of a request whose store is away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeGuard

from cachekit._io import IO
from cachekit.breaker import Breaker
from cachekit.clock import Clock
from cachekit.errors import StoreError
from cachekit.events import Emit
from cachekit.sessions.store import (
    Appending,
    Asked,
    Foreseeing,
    Found,
    FullStore,
    Instant,
    Key,
    Moved,
    Outcome,
    Record,
    Swapping,
)
from cachekit.stores.breaking import Breaking

_INSTANT: Final = {"read_now": "read", "replace_now": "write"}
_APPENDING: Final = {"append": "write"}
_SWAPPING: Final = {"swap": "write"}


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
        self._breaking = Breaking(breaker, clock=clock, emit=emit, what="the session store", name="sessions")
        self._run = self._breaking.run

    @property
    def inner(self) -> FullStore:
        """The store that is protected. What it can do besides is looked at when it is set."""
        return self._inner

    @inner.setter
    def inner(self, inner: FullStore) -> None:
        self._inner = inner
        self.appends = isinstance(inner, Appending) and _in_step(inner, _APPENDING)
        """Whether the store can add to a session."""
        self.swaps = inner.swaps if isinstance(inner, Swapping) and _in_step(inner, _SWAPPING) else _never
        """Whether ``swap`` is worth a try in place of a session that was read."""
        self.takes_parcels = bool(getattr(inner, "takes_parcels", False))
        """Whether the store keeps a ``Parcel`` as it is."""
        self._foresees = isinstance(inner, Foreseeing)
        self.in_process = bool(getattr(inner, "in_process", False))
        """Whether nobody waits for the store."""
        self.instant: Instant | None = inner if self.in_process and _answers_at_once(inner) else None
        """The store again, where it can also be asked without anything to await."""

    def is_away(self) -> bool:
        """Say whether a call would be refused now. False as soon as one may be tried, so that somebody tries."""
        return self._breaking.is_away

    # -- the port -------------------------------------------------------------------------------------------------

    def read(self, io: IO, key: Key, ttl: float) -> Awaitable[Found]:
        return self._run(self._inner.read, io, key, ttl)

    def ahead(self, key: Key, ttl: float) -> Asked | None:
        """Begin to read, where everything is well and the store can."""
        if not self._foresees or not self.breaker.is_quiet:
            return None
        inner: Any = self._inner
        asked: Asked | None = inner.ahead(key, ttl)
        return None if asked is None else _Guarded(asked, self._breaking)

    def write(self, io: IO, key: Key, record: Record, expected: str | None) -> Awaitable[Outcome]:
        return self._run(self._inner.write, io, key, record, expected)

    def append(self, io: IO, key: Key, addition: bytes, version: str, expected: str) -> Awaitable[Outcome]:
        inner: Any = self._inner
        return self._run(inner.append, io, key, addition, version, expected)

    def swap(self, io: IO, key: Key, was: Record, body: bytes, version: str) -> Awaitable[bool]:
        inner: Any = self._inner
        return self._run(inner.swap, io, key, was, body, version)

    def retire(self, io: IO, key: Key, record: Record, moved: Moved, grace: float) -> Awaitable[Outcome]:
        return self._run(self._inner.retire, io, key, record, moved, grace)

    def destroy(self, io: IO, key: Key, owner: str) -> Awaitable[Outcome]:
        return self._run(self._inner.destroy, io, key, owner)

    def touch(self, io: IO, key: Key, ttl: float) -> Awaitable[bool]:
        return self._run(self._inner.touch, io, key, ttl)

    async def close(self, io: IO) -> None:
        await self._inner.close(io)

    def sessions(self, io: IO, owner: str) -> Awaitable[list[tuple[Key, Record]]]:
        return self._run(self._inner.sessions, io, owner)

    def revoke(self, io: IO, owner: str, *, only: Key | None = None, keep: Key | None = None) -> Awaitable[int]:
        return self._run(lambda: self._inner.revoke(io, owner, only=only, keep=keep))

    def count(self, io: IO) -> Awaitable[int]:
        return self._run(self._inner.count, io)

    def clear(self, io: IO) -> Awaitable[int]:
        return self._run(self._inner.clear, io)


def _never(was: Record) -> bool:  # noqa: ARG001 - of a store that cannot
    return False


def _answers_at_once(inner: FullStore) -> TypeGuard[Instant]:
    return isinstance(inner, Instant) and _in_step(inner, _INSTANT)


def _in_step(inner: FullStore, others: Mapping[str, str]) -> bool:
    """Say whether no class of *inner* does one of *others* in its own way, and leaves what stands for it to an ancestor."""
    line = type(inner).__mro__
    home = {name: next((cls for cls in line if name in vars(cls)), object) for pair in others.items() for name in pair}
    return all(issubclass(home[other], home[name]) for other, name in others.items())


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
