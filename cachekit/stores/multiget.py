"""Reads of one event loop share round trips.

The client library lends a connection to each command, so that 64 tasks that read at once cost 64 commands, and the
connections, not the server, are the limit. Here a read that finds no other under way goes out at once; those that come
while it is under way wait, and go out together as one ``MGET`` when it is back. A lone caller therefore waits for nobody,
and the busier the loop, the larger the batches.

Each caller keeps its own time-out and may be cancelled alone; a key cannot fail its neighbours, because ``MGET`` has no
errors for single keys. Must not know what the values mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from cachekit._io import IO
from cachekit.errors import StoreError, StoreTimeout
from cachekit.stores.link import RedisLink

Name: TypeAlias = str | bytes

_MOST: Final = 1000


class _Lane:
    """The reads of one event loop."""

    __slots__ = ("busy", "task", "waiting")

    def __init__(self) -> None:
        self.busy = False
        self.waiting: list[tuple[Sequence[Name], asyncio.Future[list[Any]]]] = []
        self.task: asyncio.Task[None] | None = None


class MultiGet:
    """Reads keys from *link*."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane] = WeakKeyDictionary()

    async def read(self, io: IO, names: Sequence[Name]) -> list[bytes | None]:
        """Return the values of *names*, None for those that are absent. Raises ``StoreError``."""
        return await io.call(self._read, self._aread, names)

    def _read(self, names: Sequence[Name]) -> list[bytes | None]:
        found: list[bytes | None] = self._link.blocking_command(("MGET", *names))
        return found

    async def _aread(self, names: Sequence[Name]) -> list[bytes | None]:
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            lane = self._lanes[loop] = _Lane()
        if not lane.busy:
            lane.busy = True
            try:
                found: list[bytes | None] = await self._link.aio_command(("MGET", *names))
            finally:
                self._next(loop, lane)
            return found
        future: asyncio.Future[list[Any]] = loop.create_future()
        lane.waiting.append((names, future))
        try:
            async with asyncio.timeout(self._link.timeout):
                return await future
        except TimeoutError as exc:
            raise StoreTimeout(f"{self._link!r} did not answer in time") from exc

    def _next(self, loop: asyncio.AbstractEventLoop, lane: _Lane) -> None:
        lane.waiting = [(names, future) for names, future in lane.waiting if not future.done()]
        if not lane.waiting or loop.is_closed():
            lane.busy = False
            return
        lane.task = loop.create_task(self._send(loop, lane))

    async def _send(self, loop: asyncio.AbstractEventLoop, lane: _Lane) -> None:
        batch: list[tuple[Sequence[Name], asyncio.Future[list[Any]]]] = []
        places: dict[Name, int] = {}
        while lane.waiting and (not batch or len(places) + len(lane.waiting[0][0]) <= _MOST):
            names, future = lane.waiting.pop(0)
            batch.append((names, future))
            for name in names:
                places.setdefault(name, len(places))
        try:
            found = await self._link.aio_command(("MGET", *places))
        except StoreError as exc:
            for _, future in batch:
                if not future.done():
                    future.set_exception(exc)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        else:
            for names, future in batch:
                if not future.done():
                    future.set_result([found[places[name]] for name in names])
        finally:
            self._next(loop, lane)
