"""What was made of bytes not long ago: the requests of a visitor follow each other, and a page loads more than itself.

Bounded by bytes; what was not asked for longest goes first. Must not know what it holds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

from cachekit._fork import renew_in_child

_LARGEST: Final = 4
"""The part of the room that one thing may take."""


class Memo:
    """Keeps things in *limit* bytes; none of them takes more than a fourth of it.

    Args:
        limit: bytes; 0 keeps nothing.
    """

    __slots__ = ("__weakref__", "_kept", "_limit", "_lock", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._renew()
        renew_in_child(self, Memo._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self.size = sum(size for _, size in self._kept.values())
        """Bytes of what is kept."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Any:
        """Return what is kept under *key*, or None."""
        if (found := self._kept.get(key)) is None:
            return None
        try:
            self._kept.move_to_end(key)
        except KeyError:  # another thread needed its room
            pass
        return found[0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep *value*, which takes *size* bytes."""
        if size > self._limit // _LARGEST:
            return
        with self._lock:
            if (before := self._kept.pop(key, None)) is not None:
                self.size -= before[1]
            self._kept[key] = value, size
            self.size += size
            while self.size > self._limit:
                self.size -= self._kept.popitem(last=False)[1][1]
