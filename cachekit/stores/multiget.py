"""Reads that run at the same time share round trips.

The client library lends a connection to each command, so that 64 tasks that read at once cost 64 commands, and the
connections, not the server, are the limit. Here a read that finds no other under way goes out at once; those that come
while it is under way wait, and go out together when it is back. A lone caller therefore waits for nobody, and the busier
the process, the larger the batches. On an event loop where the latest read had company, the first of the next waits for
those of the same step of the loop, which one answer woke. Each loop has a lane of its own, all threads have one.

Each caller keeps its own time-out and may be cancelled alone. No read joins one that was sent before it came: it might
miss an invalidation that was complete by then. Must not know how a batch is fetched or what the values mean.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

from cachekit._fork import renew_in_child
from cachekit._io import ASYNCIO, IO
from cachekit._loops import PerLoop
from cachekit.errors import StoreError, StoreTimeout
from cachekit.stores.aiolane import Deadlines

Name: TypeAlias = str | bytes

_Read: TypeAlias = tuple[Sequence[Name], "asyncio.Future[list[Any]]"]
"""Names, and where what lies under them is wanted."""

_MOST: Final = 1000


class _Lane:
    """The reads of one event loop."""

    __slots__ = ("busy", "deadlines", "latest", "loop", "task", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines) -> None:
        self.loop = loop
        self.busy = False
        self.latest = 1
        """How many reads went out together last."""
        self.waiting: deque[_Read] = deque()
        self.deadlines = deadlines
        self.task: asyncio.Task[None] | None = None


class MultiGet:
    """Reads by *fetch* in threads and by *afetch* on event loops.

    Args:
        fetch: returns what lies under each of some names, or raises ``StoreError``.
        afetch: the same, awaitable.
        timeout: seconds that a read may take.
        name: whom to name in messages.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[Name]], list[Any]],
        afetch: Callable[[Sequence[Name]], Awaitable[list[Any]]],
        *,
        timeout: float,
        name: str,
    ) -> None:
        self._fetch = fetch
        self._afetch = afetch
        self._timeout = timeout
        self._name = name
        self._renew()
        renew_in_child(self, MultiGet._renew)

    def _renew(self) -> None:
        self._lanes = PerLoop(lambda loop: _Lane(loop, Deadlines(loop, self._timeout, self._late)))
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: list[tuple[Sequence[Name], Future[list[Any] | None]]] = []

    def _late(self) -> StoreTimeout:
        return StoreTimeout(f"{self._name} did not answer in time")

    def read(self, io: IO, names: Sequence[Name]) -> Awaitable[list[Any]]:
        """Return what lies under *names*. Raises ``StoreError``."""
        return self.aread(names) if io is ASYNCIO else io.call(self.here, self.aread, names)

    # -- threads ------------------------------------------------------------------------------------------------------

    def here(self, names: Sequence[Name]) -> list[Any]:
        """Return what lies under *names*, in this thread. Raises ``StoreError``."""
        with self._lock:
            if not self._busy:
                self._busy, own = True, None
            else:
                own = Future[list[Any] | None]()
                self._waiting.append((names, own))
        if own is None:
            try:
                return self._fetch(names)
            finally:
                self._hand_over()
        try:
            found = own.result(self._timeout)
        except TimeoutError as exc:
            if own.cancel():
                raise self._late() from exc
            found = own.result()  # it came in this moment
        return found if found is not None else self._for_all(names)

    def _hand_over(self) -> None:
        """Let one of those who wait fetch for all of them."""
        with self._lock:
            while self._waiting:
                _, future = self._waiting.pop(0)
                if future.set_running_or_notify_cancel():
                    break
            else:
                self._busy = False
                return
        future.set_result(None)

    def _for_all(self, names: Sequence[Name]) -> list[Any]:
        """Fetch *names*, and what those want who wait."""
        batch: list[tuple[Sequence[Name], Future[list[Any] | None]]] = []
        places: dict[Name, int] = {name: at for at, name in enumerate(dict.fromkeys(names))}
        try:
            with self._lock:
                while self._waiting and len(places) + len(self._waiting[0][0]) <= _MOST:
                    wanted, future = self._waiting.pop(0)
                    if future.set_running_or_notify_cancel():
                        batch.append((wanted, future))
                        for name in wanted:
                            places.setdefault(name, len(places))
            found = self._fetch(list(places))
        except BaseException as exc:
            error = exc if isinstance(exc, StoreError) else StoreTimeout(f"{self._name}: the read was given up")
            for _, future in batch:
                future.set_exception(error)
            raise
        finally:
            self._hand_over()
        for wanted, future in batch:
            future.set_result([found[places[name]] for name in wanted])
        return [found[places[name]] for name in names]

    # -- event loops --------------------------------------------------------------------------------------------------

    def aread(self, names: Sequence[Name]) -> Awaitable[list[Any]]:
        """Return what lies under *names*, on the running loop. Raises ``StoreError``."""
        lane = self._lanes.of(asyncio.get_running_loop())
        if not lane.busy:
            if lane.latest == 1:
                return self._alone(lane, names)
            lane.busy = True
            lane.loop.call_soon(self._next, lane)
        future: asyncio.Future[list[Any]] = lane.loop.create_future()
        lane.waiting.append((names, future))
        lane.deadlines.watch(future)
        return future

    async def _alone(self, lane: _Lane, names: Sequence[Name]) -> list[Any]:
        if lane.busy:  # somebody was quicker between the call and the await
            return await self.aread(names)
        lane.busy, lane.latest = True, 1
        try:
            return await self._afetch(names)
        finally:
            self._next(lane)

    def _next(self, lane: _Lane) -> None:
        while lane.waiting and lane.waiting[0][1].done():
            lane.waiting.popleft()
        if not lane.waiting or lane.loop.is_closed():
            lane.busy = False
            return
        lane.task = lane.loop.create_task(self._send(lane))

    async def _send(self, lane: _Lane) -> None:
        batch: list[_Read] = []
        waiting = lane.waiting
        places: dict[Name, None] = {}
        while waiting and (not batch or len(places) + len(waiting[0][0]) <= _MOST):
            read = waiting.popleft()
            if read[1].done():
                continue
            batch.append(read)
            for name in read[0]:
                places[name] = None
        lane.latest = len(batch)
        try:
            found = await self._afetch(list(places))
        except StoreError as exc:
            for _, future in batch:
                if not future.done():
                    future.set_exception(exc)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        else:
            value_of = dict(zip(places, found, strict=True)).__getitem__
            for names, future in batch:
                if not future.done():
                    future.set_result([*map(value_of, names)])
        finally:
            self._next(lane)
