"""How many may be busy at once on an event loop; whoever comes too late waits in line.

What ``asyncio.Semaphore`` does, without what that costs where there is a place, which is nearly always: nothing is awaited
then. Must not know what the places are for.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """A number of places. Each that was taken is to be given back.

    Args:
        most: how many there are.
    """

    __slots__ = ("_free", "_line")

    def __init__(self, most: int) -> None:
        self._free = most
        self._line: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a place if there is one, and nobody waits."""
        if self._free > 0:  # nobody waits while there is one
            self._free -= 1
            return True
        return False

    async def wait(self) -> None:
        """Take a place once there is one; who came first gets the first."""
        if self.take():
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it was this one's turn in the very moment when it gave up
                self.give_back()
            raise

    def give_back(self) -> None:
        """Give a place to who waits, or to whoever comes."""
        while self._line:
            if not (turn := self._line.popleft()).done():
                turn.set_result(None)
                return
        self._free += 1
