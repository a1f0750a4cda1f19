"""What goes around each job that runs behind: in a thread of its own, or as a task of its own on an event loop.

A framework gives back what a request used (the connections to its database, what lies in Flask's ``g``) when the request
ends. Nothing ends behind a request, so that an adapter says here, once for the process, what is entered before such a job
and left after it. Never for what runs in its caller's own thread or task: that is the caller's to give back. Must not know
what jobs do, nor any framework.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any, Final, TypeAlias, TypeVar

R = TypeVar("R")

ThreadHook: TypeAlias = Callable[[], AbstractContextManager[Any]]
TaskHook: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]

log = logging.getLogger("cachekit")

_FAILED: Final = "what %s puts around a job behind a request failed"

_of_threads: Final[dict[str, ThreadHook]] = {}
_of_tasks: Final[dict[str, TaskHook]] = {}


def around_jobs(name: str, *, thread: ThreadHook, task: TaskHook) -> None:
    """Have every job run within what these return; who says it again under one *name* says it anew.

    What they return is entered and left where the job runs: in its thread, or in its task, within the context variables that
    it was given. One that fails is logged, and the job runs nevertheless.
    """
    _of_threads[name] = thread
    _of_tasks[name] = task


def surrounded(job: Callable[[], R]) -> R:
    """Call *job* in the thread that was started for it. Raises what it raises."""
    with ExitStack() as stack:
        for name, hook in list(_of_threads.items()):
            stack.enter_context(_InThread(name, hook))
        return job()


async def asurrounded(job: Awaitable[R]) -> R:
    """Await *job* in the task that was made for it. Raises what it raises."""
    if not _of_tasks:
        return await job
    async with AsyncExitStack() as stack:
        for name, hook in list(_of_tasks.items()):
            await stack.enter_async_context(_InTask(name, hook))
        return await job


class _InThread:
    """One hook, kept from changing the outcome of a job: whoever waits for it would wait for ever."""

    def __init__(self, name: str, hook: ThreadHook) -> None:
        self._name, self._hook = name, hook
        self._entered: AbstractContextManager[Any] | None = None

    def __enter__(self) -> None:
        try:
            manager = self._hook()
            manager.__enter__()
            self._entered = manager
        except BaseException:
            log.exception(_FAILED, self._name)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._entered is None:
            return
        try:
            self._entered.__exit__(kind, exc, tb)
        except BaseException as error:
            if error is not exc:
                log.exception(_FAILED, self._name)


class _InTask:
    """The same on a loop, where a cancellation is no failure of the hook."""

    def __init__(self, name: str, hook: TaskHook) -> None:
        self._name, self._hook = name, hook
        self._entered: AbstractAsyncContextManager[Any] | None = None

    async def __aenter__(self) -> None:
        try:
            manager = self._hook()
            await manager.__aenter__()
            self._entered = manager
        except Exception:
            log.exception(_FAILED, self._name)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._entered is None:
            return
        try:
            await self._entered.__aexit__(kind, exc, tb)
        except Exception as error:
            if error is not exc:
                log.exception(_FAILED, self._name)


__all__ = ["around_jobs", "asurrounded", "surrounded"]
