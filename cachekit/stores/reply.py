"""What a command will be answered with, for the task that waits for it.

``asyncio.Future`` has the loop go round once more before the task goes on, with a look at all sockets: a sixth of the time
that a round trip takes. Here the task goes on as soon as the answer is there, within the callback that brought it. Where
another task brings it, or cancels, that is in the middle of a step of its own, and the loop tells who waits, as ever. Must
not know what the answer means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, TypeAlias

Then: TypeAlias = "Callable[[Reply], object]"


class Reply:
    """A future of one loop, as far as tasks and callbacks of ours need one.

    Args:
        loop: where it belongs.
    """

    __slots__ = ("_asyncio_future_blocking", "_done", "_error", "_loop", "_then", "_value")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False  # by which tasks know what they may wait for
        self._then: list[tuple[Then, Context | None]] = []
        self._done = False
        self._error: BaseException | None = None
        self._value: Any = None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return where it belongs."""
        return self._loop

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._done:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    def done(self) -> bool:
        """Say whether there is an answer, or nobody waits any more."""
        return self._done

    def result(self) -> Any:
        """Return the answer, or raise what came in its place."""
        if self._error is not None:
            raise self._error
        if not self._done:
            raise asyncio.InvalidStateError("there is no answer yet")
        return self._value

    def exception(self) -> BaseException | None:
        """Return what came in place of an answer, or None."""
        return self._error

    def add_done_callback(self, then: Then, *, context: Context | None = None) -> None:
        """Have *then* called, in *context*, once it is done."""
        if self._done:
            self._loop.call_soon(then, self, context=context)
        else:
            self._then.append((then, context))

    def remove_done_callback(self, then: Then) -> int:
        """Have *then* not called. Returns how often it would have been."""
        kept = [one for one in self._then if one[0] != then]
        removed, self._then = len(self._then) - len(kept), kept
        return removed

    def set_result(self, value: Any) -> None:
        """Give the answer to who waits, who goes on before this returns, unless a task says it."""
        self._value, self._done = value, True
        self._go_on()

    def set_exception(self, error: BaseException) -> None:
        """Give them an error in its place."""
        self._error, self._done = error, True
        self._go_on()

    def _go_on(self) -> None:
        if asyncio.current_task(self._loop) is not None:
            self._tell()
            return
        waiting, self._then = self._then, []
        for then, context in waiting:
            try:
                if context is None:
                    then(self)
                else:
                    context.run(then, self)
            except Exception as exc:  # noqa: BLE001 - as the loop does: it is no fault of who brought the answer
                self._loop.call_exception_handler({"message": f"{then!r} failed", "exception": exc})

    def _tell(self) -> None:
        waiting, self._then = self._then, []
        for then, context in waiting:
            self._loop.call_soon(then, self, context=context)

    def cancel(self, msg: Any | None = None) -> bool:
        """Need no answer any more. Returns False where it is there already."""
        if self._done:
            return False
        self._error, self._done = asyncio.CancelledError(*(() if msg is None else (msg,))), True
        self._tell()
        return True
