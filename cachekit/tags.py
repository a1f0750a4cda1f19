"""One tag, every layer: the context in which the tags of what is used are collected.

Whoever produces something out of cached results (a cached function that calls another, an HTTP response) opens
``collecting()``; whatever is used inside adds its tags. Must not know about stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from cachekit.keys import check_tags

_collector: Final[ContextVar[set[str] | None]] = ContextVar("cachekit_tags", default=None)

current = _collector.get
"""Returns the set that collects tags here, or None."""


@contextmanager
def collecting() -> Iterator[set[str]]:
    """Collect the tags of everything that is used inside.

    Example:
        >>> with collecting() as tags:
        ...     tag("product:42")
        >>> tags
        {'product:42'}
    """
    tags: set[str] = set()
    token = _collector.set(tags)
    try:
        yield tags
    finally:
        _collector.reset(token)


def tag(*tags: str) -> None:
    """Tag whatever is being made here: the cached result that is loading, and the HTTP response that will use it.

    Outside of both it does nothing. Raises ``ConfigError`` for an invalid tag.
    """
    note(check_tags(tags))


def note(tags: Iterable[str]) -> None:
    """Add tags known to be valid to the collector, if there is one."""
    collector = _collector.get()
    if collector is not None:
        collector.update(tags)
