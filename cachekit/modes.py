"""For a while, without the cache: ``with bypass():`` and ``with refresh():``.

A mode holds for everything that runs inside, in this task or thread. A hit looks at one context variable anyway, that of
the collected tags; a mode puts something there that refuses, so that modes cost the hit path nothing.
"""

from __future__ import annotations

from enum import Enum
from types import TracebackType

from cachekit.tags import Refusing, enter, leave


class Mode(Enum):
    """How cached functions behave here."""

    BYPASS = "bypass"
    REFRESH = "refresh"


class _Within:
    __slots__ = ("_mode", "_token")

    def __init__(self, mode: Mode) -> None:
        self._mode = mode

    def __enter__(self) -> None:
        self._token = enter(self._mode)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        leave(self._token)


def bypass() -> _Within:
    """Inside, cached functions and ``get_or_set`` call their loaders and neither read nor keep anything.

    Example:
        >>> from cachekit import Cache
        >>> cache = Cache()
        >>> with bypass():
        ...     cache.get_or_set("answer", lambda: 42)
        42
        >>> cache.get("answer") is None
        True
    """
    return _Within(Mode.BYPASS)


def refresh() -> _Within:
    """Inside, cached functions and ``get_or_set`` load anew, and keep what they loaded."""
    return _Within(Mode.REFRESH)


def mode_here() -> Mode | None:
    """Return the mode that is in force, or None."""
    mode = Refusing.mode_here()
    return mode if isinstance(mode, Mode) else None
