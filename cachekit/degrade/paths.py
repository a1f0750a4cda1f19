"""Which paths something is declared for. Pure.

A pattern is that of a header rule; one without wildcards is for everything below it too. A path that an application might
resolve to another one (dot segments, doubled slashes) is tried as both, so that it does not pass what it would reach.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Final

from cachekit.errors import ConfigError
from cachekit.http.rules import compile_path

_MAX: Final = 8192


class Paths:
    """Patterns of paths.

    Raises:
        ConfigError: a pattern cannot be used.

    Example:
        >>> paths = Paths(["/api/protected", "/orders/{id}/pay"])
        >>> paths.match("/api/protected/deeper"), paths.match("/api//protected"), paths.match("/api/protected-not")
        (0, 0, None)
    """

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Sequence[str], option: str = "paths") -> None:
        if isinstance(patterns, str) or not isinstance(patterns, Sequence):
            raise ConfigError(f'{option}={patterns!r} must be a list of paths such as ["/api/protected"]')
        self._patterns = tuple(_compiled(pattern) for pattern in patterns)

    def match(self, path: str) -> int | None:
        """Return the number of the first pattern that is for *path* (percent-decoded), or None."""
        if not self._patterns:
            return None
        tried = {path, _normal(path)} if len(path) <= _MAX else {path[:_MAX]}
        for number, pattern in enumerate(self._patterns):
            if any(pattern.fullmatch(each) for each in tried):
                return number
        return None


def _compiled(pattern: str) -> re.Pattern[str]:
    _, compiled = compile_path(pattern)
    if not any(char in pattern for char in "{*"):
        plain = pattern.rstrip("/")
        return re.compile(f"{re.escape(plain)}(?:/.*)?", re.DOTALL)
    return compiled


def _normal(path: str) -> str:
    made = posixpath.normpath("/" + path.replace("\\", "/").lstrip("/"))
    return made + "/" if path.endswith("/") and made != "/" else made
