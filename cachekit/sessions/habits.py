"""Which paths look at their session: learned from what their requests do.

An asyncio application looks at its session without awaiting. Where that was not foreseen, the loop waits for the store;
a path whose latest requests all looked has its session read before the application is called. Pure.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_SURE: Final = 8
_MOST: Final = 2048
_NUMBERED: Final = re.compile(r"/[^/]*\d[^/]*")


class Habits:
    """Remembers, for each shape of a path, how many requests in a row have looked."""

    __slots__ = ("_looked",)

    def __init__(self) -> None:
        self._looked: dict[str, int] = {}

    @staticmethod
    @lru_cache(maxsize=_MOST)
    def shape(method: str, path: str) -> str:
        """Return what requests to one kind of page have in common: parts with digits in them count as one."""
        return method + _NUMBERED.sub("/*", path[:256])

    def expects(self, shape: str) -> bool:
        """Say whether a request of *shape* will look."""
        return self._looked.get(shape, 0) >= _SURE

    def learn(self, shape: str, looked: bool) -> None:
        """Take in what a request of *shape* did."""
        if not looked:
            self._looked.pop(shape, None)
            return
        seen = self._looked.get(shape, 0)
        if seen < _SURE:
            if len(self._looked) >= _MOST:
                self._looked.clear()
            self._looked[shape] = seen + 1
