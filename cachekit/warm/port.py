"""What the edges need of whatever warms: whether it is ready, and how to run it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from cachekit.around import surrounded

R = TypeVar("R")


class Warming(Protocol):
    """Something that must have run before the application takes traffic."""

    @property
    def ready(self) -> bool:
        """Return whether the application may take traffic."""
        ...

    def run(self) -> object:
        """Warm, here. Never raises what a job raises."""
        ...

    async def arun(self) -> object:
        """Warm, on the running loop. Never raises what a job raises."""
        ...


def in_thread(call: Callable[[], R]) -> Future[R]:
    """Start *call* in a daemon thread: one that never ends holds up neither the deadline nor the end of the process."""
    future: Future[R] = Future()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = surrounded(call)
        except BaseException as exc:  # noqa: BLE001 - whoever waits for it gets it
            future.set_exception(exc)
        else:
            future.set_result(result)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="cachekit-warm", daemon=True).start()
    return future
