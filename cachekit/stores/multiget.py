"""Reads that run at the same time share round trips.

The client library lends a connection to each command, so that 64 tasks that read at once cost 64 commands, and the
connections, not the server, are the limit. Here a read that finds no other under way goes out at once; those that come
while it is under way wait, and go out together when it is back. A lone caller therefore waits for nobody, and the busier
the process, the larger the batches. On an event loop where the latest read had company, the first of the next waits for
those of the same step of the loop, which one answer woke; two batches may be under way there, so that the server looks for
one while the callers of the other are served. Each loop has a lane of its own, all threads have one.

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
_ENOUGH: Final = 32
"""As many reads go out at once: the server looks for them while the next ones come."""
_AT_ONCE: Final = 2


class _Lane:
    """The reads of one event loop."""

    __slots__ = ("deadlines", "flying", "latest", "loop", "soon", "tasks", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines) -> None:
        self.loop = loop
        self.flying = 0
        """How many batches are under way."""
        self.latest = 1
        """How many reads went out together last."""
        self.soon = False
        """Whether those who wait go out at the end of this step of the loop."""
        self.waiting: deque[_Read] = deque()
        self.deadlines = deadlines
        self.tasks: set[asyncio.Task[None]] = set()


class MultiGet:
    """Reads by *fetch* in threads and by *afetch* on event loops.

    Args:
        fetch: returns what lies under each of some names, or raises ``StoreError``.
        afetch: the same, awaitable.
        timeout: seconds that a read may take.
        name: whom to name in messages.
        ask_now: sends what *afetch* would, before it returns, where that can be done without waiting, and gives what it is
            handed the values, a ``StoreError``, or None for a connection that was lost. Returns whether it was sent.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[Name]], list[Any]],
        afetch: Callable[[Sequence[Name]], Awaitable[list[Any]]],
        *,
        timeout: float,
        name: str,
        ask_now: Callable[[Sequence[Name], Callable[[Any], object]], bool] | None = None,
    ) -> None:
        self._fetch = fetch
        self._afetch = afetch
        self._ask_now = ask_now
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
        if lane.latest == 1 and not lane.flying and not lane.soon:
            return self._alone(lane, names)
        future: asyncio.Future[list[Any]] = lane.loop.create_future()
        lane.waiting.append((names, future))
        lane.deadlines.watch(future)
        self._look(lane)
        return future

    def _look(self, lane: _Lane) -> None:
        """Send those who wait, at once or at the end of this step, unless it is better that they wait."""
        if len(lane.waiting) >= _ENOUGH:
            if lane.flying < _AT_ONCE:
                self._send(lane)
        elif lane.waiting and not lane.flying and not lane.soon:
            lane.soon = True
            lane.loop.call_soon(self._step_over, lane)

    async def _alone(self, lane: _Lane, names: Sequence[Name]) -> list[Any]:
        if lane.flying:  # somebody was quicker between the call and the await
            return await self.aread(names)
        lane.flying, lane.latest = 1, 1
        try:
            return await self._afetch(names)
        finally:
            self._back(lane)

    def _step_over(self, lane: _Lane) -> None:
        lane.soon = False
        if not lane.flying:
            self._send(lane)

    def _back(self, lane: _Lane) -> None:
        lane.flying -= 1
        if not lane.loop.is_closed():
            self._look(lane)

    def _send(self, lane: _Lane) -> None:
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
        if not batch:
            return
        lane.flying += 1
        lane.latest = len(batch)
        names = list(places)

        def arrived(outcome: Any) -> None:
            if outcome is None:
                self._spawn(lane, batch, names)
                return
            try:
                _give(batch, names, outcome)
            finally:
                self._back(lane)

        try:
            sent = self._ask_now is not None and self._ask_now(names, arrived)
        except Exception:  # noqa: BLE001 - what is wrong with them, the other way says
            sent = False
        if not sent:
            self._spawn(lane, batch, names)

    def _spawn(self, lane: _Lane, batch: list[_Read], names: list[Name]) -> None:
        task = lane.loop.create_task(self._ask(lane, batch, names))
        lane.tasks.add(task)
        task.add_done_callback(lane.tasks.discard)

    async def _ask(self, lane: _Lane, batch: list[_Read], names: list[Name]) -> None:
        try:
            try:
                outcome: Any = await self._afetch(names)
            except StoreError as exc:
                outcome = exc
            _give(batch, names, outcome)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        finally:
            self._back(lane)


def _give(batch: list[_Read], names: list[Name], outcome: Any) -> None:
    """Give those who wait what they wait for: their part of the values in *outcome*, or the error that it is."""
    if isinstance(outcome, StoreError):
        for _, future in batch:
            if not future.done():
                future.set_exception(outcome)
        return
    value_of = dict(zip(names, outcome, strict=True)).__getitem__
    for wanted, future in batch:
        if not future.done():
            future.set_result([*map(value_of, wanted)])
