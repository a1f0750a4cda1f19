"""Data that was changed here and is not committed: what is made of it is given to whoever asked, and not kept.

Owns where its tags are looked up. Whoever knows a database says so for the code that runs here, in this task or thread and
those it starts; nothing is noted while nothing is changed. Must not know databases, nor what is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from typing import Final, Protocol, TypeAlias


class Uncommitted(Protocol):
    """Changes that wait for their commit."""

    def tags(self) -> AbstractSet[str]:
        """Return the tags of what is not committed as of now: none after the commit, or the rollback."""
        ...


_noted: Final[ContextVar[tuple[Uncommitted, ...]]] = ContextVar("cachekit_uncommitted", default=())

Source: TypeAlias = Callable[[], Iterable[Uncommitted]]

_sources: Final[dict[str, Source]] = {}


def look_at(name: str, source: Source) -> None:
    """Ask *source*, too, what is not committed here: for changes that a context which has ended has noted.

    Whoever says it again under one *name* says it anew. It is asked at each load, not at hits.
    """
    _sources[name] = source


def note(changes: Uncommitted) -> None:
    """Look at *changes* before anything is kept that is loaded here from now on."""
    found = _noted.get()
    if changes not in found:
        _noted.set((*(one for one in found if one.tags()), changes))


def concerns(tags: Iterable[str]) -> bool:
    """Say whether what carries one of *tags* may be made of what is not committed here."""
    noted = _noted.get()
    if not noted and not _sources:
        return False
    names = frozenset(tags)
    found = [*noted, *(one for source in _sources.values() for one in source())]
    return any(not one.tags().isdisjoint(names) for one in found)
