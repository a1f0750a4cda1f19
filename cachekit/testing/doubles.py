"""What stands in for the real thing in tests: time that stands still, a store that fails as told, either world."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from cachekit._io import ASYNCIO, BLOCKING, IO, drive
from cachekit.errors import StoreUnavailable
from cachekit.stores.base import AnyEntry, Change, Store, Ticket

R = TypeVar("R")

EPOCH: Final = 1_800_000_000.0


class ManualClock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: float = EPOCH) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.now += seconds


class FlakyStore:
    """A store in front of *inner* that fails while ``down`` is set, and counts the calls that reached it."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.down = False
        self.calls: list[str] = []

    def _check(self, name: str) -> None:
        self.calls.append(name)
        if self.down:
            raise StoreUnavailable("this store was told to fail")

    async def get(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:
        self._check("get")
        return await self.inner.get(io, key, tags)

    async def get_many(self, io: IO, keys: Sequence[str]) -> dict[str, AnyEntry]:
        self._check("get_many")
        return await self.inner.get_many(io, keys)

    async def set_many(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:
        self._check("set_many")
        await self.inner.set_many(io, entries)

    async def delete(self, io: IO, keys: Sequence[str]) -> int:
        self._check("delete")
        return await self.inner.delete(io, keys)

    async def update(self, io: IO, key: str, change: Change) -> AnyEntry | None:
        self._check("update")
        return await self.inner.update(io, key, change)

    async def begin(self, io: IO, key: str, tags: Sequence[str], lease: float, *, exclusive: bool = True) -> Ticket:
        self._check("begin")
        return await self.inner.begin(io, key, tags, lease, exclusive=exclusive)

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> AnyEntry | None:
        self._check("commit")
        return await self.inner.commit(io, ticket, entry)

    async def release(self, io: IO, ticket: Ticket) -> None:
        self._check("release")
        await self.inner.release(io, ticket)

    async def invalidate(self, io: IO, tags: Sequence[str]) -> None:
        self._check("invalidate")
        await self.inner.invalidate(io, tags)

    async def clear(self, io: IO) -> None:
        self._check("clear")
        await self.inner.clear(io)

    async def close(self, io: IO) -> None:
        await self.inner.close(io)


class World:
    """One of the two worlds that an operation can run in: ``run(lambda io: store.get(io, "k"))``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.io = BLOCKING if name == "blocking" else ASYNCIO
        self._runner = None if name == "blocking" else asyncio.Runner()

    def run(self, job: Callable[[IO], Coroutine[Any, Any, R]]) -> R:
        """Run *job* to its end."""
        if self._runner is None:
            return drive(job(BLOCKING))
        return self._runner.run(job(ASYNCIO))

    def close(self, store: Store | None = None) -> None:
        """Close *store* and the loop."""
        if store is not None:
            self.run(store.close)
        if self._runner is not None:
            self._runner.close()
