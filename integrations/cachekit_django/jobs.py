"""What Django puts around a job that runs behind a request: connections to databases are the job's own, and closed after it.

They belong to threads, and ``request_finished`` closes those of the thread it is sent in. Whoever gives a connection back
to a pool does so by closing it. Must not know what a job does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Final

import asgiref
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext
from django.db import connections

from cachekit.around import around_jobs

_SETS_ITS_OWN: Final = tuple(map(int, asgiref.__version__.split(".")[:3])) >= (3, 9, 1)
"""Before, setting something that is local to a task changed it for the task that it was copied from."""


def register() -> None:
    """Put it around every job of this process."""
    around_jobs("cachekit_django", thread=_in_thread, task=_InTask)


@contextmanager
def _in_thread() -> Iterator[None]:
    try:
        yield
    finally:
        _close()


class _InTask:
    """A thread of its own for what a task has Django do in threads.

    The task has inherited that of the request, which ends with the request, or one in which somebody waits who will not wait
    for this task: what came after that failed, or opened a connection that nobody would close.
    """

    async def __aenter__(self) -> None:
        # As ThreadSensitiveContext does it where none is around it. Nobody resets this: the task is the job's own.
        self._own = ThreadSensitiveContext()
        SyncToAsync.thread_sensitive_context.set(self._own)
        waiting: Any = AsyncToSync.executors
        if _SETS_ITS_OWN and getattr(waiting, "current", None) is not None:
            waiting.current = None

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        executor: Any = SyncToAsync.context_to_thread_executor.pop(self._own, None)
        if executor is None:
            return  # it asked for none
        closed = executor.submit(_close)
        executor.shutdown(wait=False)
        # A loop that ends cancels its tasks, or closes them, and who runs it waits for them: not for a query that goes on.
        if kind is None or issubclass(kind, Exception):
            await asyncio.shield(asyncio.wrap_future(closed))


def _close() -> None:
    with ExitStack() as each:  # one that cannot be closed leaves the others to be
        for connection in connections.all(initialized_only=True):
            each.callback(connection.close)
