"""The one place that knows two worlds exist: blocking calls and asyncio.

Code that does I/O is written once as ``async def f(self, io: IO, ...)``. In a blocking world ``drive`` runs such a
coroutine to its end without an event loop, because every port call returns at once; in asyncio it is awaited as usual.
This module must not know what is being called.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import inspect
import itertools
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from cachekit._fork import renew_in_child
from cachekit.around import asurrounded, surrounded
from cachekit.clock import stopwatch

R = TypeVar("R")
S = TypeVar("S")
P = ParamSpec("P")

log = logging.getLogger("cachekit")


class IO(Protocol):
    """A world to do I/O in."""

    @property
    def scope(self) -> object:
        """What a flight belongs to: callers of different scopes never wait for each other."""
        ...

    def call(self, blocking: Callable[..., R], aio: Callable[..., Awaitable[R]] | None, *args: Any) -> Awaitable[R]:
        """Call *blocking* here, or await *aio*; where *aio* is None, asyncio runs *blocking* in a thread."""
        ...

    async def wait(self, future: Future[R], timeout: float | None = None) -> R:
        """Wait for *future* without being able to cancel it. Raises ``TimeoutError`` after *timeout* seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass."""
        ...

    def spawn(self, job: Coroutine[Any, Any, object]) -> None:
        """Run *job* in the background, within what ``around_jobs`` was told; a failure is logged, never raised."""
        ...

    def every(self, seconds: float, job: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], None]:
        """Spawn what *job* returns every *seconds*, until the returned function is called."""
        ...


def drive(job: Coroutine[Any, Any, R]) -> R:
    """Run *job* to its end without an event loop. Raises ``RuntimeError`` when it suspends."""
    try:
        job.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        job.close()
    raise RuntimeError(f"{job!r} suspended in blocking mode: it awaited something that did not go through io")


def _in_thread(job: Coroutine[Any, Any, object]) -> None:
    try:
        surrounded(functools.partial(drive, job))
    except Exception:
        log.exception("a background job of cachekit failed")


async def _in_task(job: Coroutine[Any, Any, object]) -> None:
    try:
        await asurrounded(job)
    except Exception:
        log.exception("a background job of cachekit failed")


class _Alarms:
    """Rings at times, for the blocking world: one daemon thread, started when first needed."""

    def __init__(self) -> None:
        self._renew()
        renew_in_child(self, _Alarms._renew)

    def _renew(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, float, Callable[[], None]]] = []
        self._off: set[int] = set()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def every(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        number = next(self._numbers)
        with self._changed:
            heapq.heappush(self._due, (stopwatch() + seconds, number, seconds, ring))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cachekit-alarms", daemon=True)
                self._thread.start()
            elif self._due[0][1] == number:
                self._changed.notify()

        def off() -> None:
            with self._changed:
                self._off.add(number)
                while self._due and self._due[0][1] in self._off:
                    self._off.discard(heapq.heappop(self._due)[1])

        return off

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._due:
                    self._changed.wait()
                    continue
                at, number, seconds, ring = self._due[0]
                if number in self._off:
                    heapq.heappop(self._due)
                    self._off.discard(number)
                    continue
                if (left := at - stopwatch()) > 0:
                    self._changed.wait(left)
                    continue
                heapq.heapreplace(self._due, (stopwatch() + seconds, number, seconds, ring))
            ring()


_alarms: Final = _Alarms()


class _Blocking:
    """Calls block the current thread; background jobs run in daemon threads of their own."""

    @property
    def scope(self) -> object:
        return self

    async def call(self, blocking: Callable[..., R], aio: Callable[..., Awaitable[R]] | None, *args: Any) -> R:  # noqa: ARG002 - the port's other world
        return blocking(*args)

    async def wait(self, future: Future[R], timeout: float | None = None) -> R:
        return future.result(timeout)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the blocking world

    def spawn(self, job: Coroutine[Any, Any, object]) -> None:
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(_in_thread, job), name="cachekit-background", daemon=True).start()

    def every(self, seconds: float, job: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], None]:
        return _alarms.every(seconds, lambda: self.spawn(job()))


class _Asyncio:
    """Calls are awaited on the running loop; background jobs are tasks that the loop keeps alive."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def scope(self) -> object:
        return asyncio.get_running_loop()

    def call(self, blocking: Callable[..., R], aio: Callable[..., Awaitable[R]] | None, *args: Any) -> Awaitable[R]:
        return asyncio.to_thread(blocking, *args) if aio is None else aio(*args)

    async def wait(self, future: Future[R], timeout: float | None = None) -> R:
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), timeout)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def spawn(self, job: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(_in_task(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def every(self, seconds: float, job: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()

        def ring() -> None:
            alarms[0] = loop.call_later(seconds, ring)
            self.spawn(job())

        alarms = [loop.call_later(seconds, ring)]

        def off() -> None:
            alarms[0].cancel()  # the one that is set now

        return off


BLOCKING: Final[IO] = _Blocking()
ASYNCIO: Final[IO] = _Asyncio()


def stopped_scope(io: IO) -> object | None:
    """Return the scope that makes no progress while a caller of *io* waits here: the loop under a blocking call."""
    if io is not BLOCKING:
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def both(
    fn: Callable[Concatenate[S, IO, P], Coroutine[Any, Any, R]],
) -> tuple[Callable[Concatenate[S, P], R], Callable[Concatenate[S, P], Coroutine[Any, Any, R]]]:
    """Make the pair of public methods out of one coroutine method: *get* and *aget* from *_get*."""

    def blocking(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return drive(fn(self, BLOCKING, *args, **kwargs))

    async def aio(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await fn(self, ASYNCIO, *args, **kwargs)

    name = fn.__name__.lstrip("_")
    module_name = fn.__qualname__.rpartition(".")[0]
    signature = inspect.signature(fn)
    shown = signature.replace(parameters=[p for p in signature.parameters.values() if p.name != "io"])
    for made, public in ((blocking, name), (aio, f"a{name}")):
        made.__name__ = public
        made.__qualname__ = f"{module_name}.{public}"
        made.__doc__ = fn.__doc__
        made.__module__ = fn.__module__
        made.__dict__["__signature__"] = shown
    return blocking, aio
