"""One thing for each event loop: found at once, and given up with its loop.

Connections, timers and futures belong to the loop that made them. What is kept here for a loop refers to it in turn, so
that nothing weak would ever let go of it: what belongs to loops that were closed is dropped when a further loop comes.
Must not know what is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Keeps what *make* returns for each running loop.

    Args:
        make: makes the thing for a loop.
        drop: told of the thing of a loop that was closed before it was taken back.
    """

    __slots__ = ("_drop", "_made", "_make")

    def __init__(
        self, make: Callable[[asyncio.AbstractEventLoop], T], drop: Callable[[T], object] = lambda _thing: None
    ) -> None:
        self._make = make
        self._drop = drop
        self._made: dict[int, tuple[asyncio.AbstractEventLoop, T]] = {}

    def of(self, loop: asyncio.AbstractEventLoop) -> T:
        """Return the thing of *loop*, the running one."""
        found = self._made.get(id(loop))
        if found is not None and found[0] is loop:
            return found[1]
        self._sweep()
        made = self._make(loop)
        self._made[id(loop)] = loop, made
        return made

    def _sweep(self) -> None:
        for number, (other, thing) in list(self._made.items()):
            if other.is_closed() and self._made.pop(number, None) is not None:
                self._drop(thing)

    def pop(self, loop: asyncio.AbstractEventLoop) -> T | None:
        """Return the thing of *loop*, and keep it no longer."""
        self._sweep()
        found = self._made.pop(id(loop), None)
        return None if found is None else found[1]
