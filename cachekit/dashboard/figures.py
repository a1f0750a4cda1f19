"""What the status page shows, as one immutable value: taken from a cache, its outbox, its hottest keys and sessions.

Asks nothing of the store but how the outbox stands, and that only while the store is there. Must not know how it is shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from cachekit._io import IO
from cachekit.cdn.options import PurgeStatus
from cachekit.clock import Clock
from cachekit.errors import StoreError
from cachekit.facade import Cache
from cachekit.observe.hotkeys import HotKey, HotKeys
from cachekit.stats import Stats

if TYPE_CHECKING:
    from cachekit.sessions.facade import SessionStats

HOTTEST: Final = 10
"""Keys that are shown of each function."""


class Subject(Protocol):
    """Whose figures are shown: a ``Cache``."""

    clock: Clock
    outbox: Any
    url: str

    def stats(self) -> Stats:
        """Return what it did so far."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown.

    Attributes:
        cache: the cache, without a password.
        process: the number of the process; figures are those of one process.
        since: seconds for which they have been followed here.
        stats: the figures.
        purges: how it stands with each CDN; None while the store, which keeps that, is away.
        hot_keys: the hottest keys by function; None where nobody follows them.
        sessions: figures of the sessions, if there are some.
    """

    cache: str
    process: int
    since: float
    stats: Stats
    purges: Mapping[str, PurgeStatus] | None = field(default_factory=dict)
    hot_keys: Mapping[str, Sequence[HotKey]] | None = None
    sessions: SessionStats | None = None


class Look:
    """Takes the figures of *cache*.

    Args:
        cache: the cache.
        hot_keys: see ``Dashboard``.
        sessions: a ``Sessions``, or None.
    """

    def __init__(self, cache: Subject, hot_keys: HotKeys | bool, sessions: Any) -> None:
        self._cache = cache
        self._sessions = sessions
        self._began = cache.clock()
        self._hot_keys = hot_keys if isinstance(hot_keys, HotKeys) else None
        # A cache tells its hits to one follower: whoever was there first keeps it.
        if hot_keys is True and isinstance(cache, Cache) and cache.engine.on_hit is None:
            self._hot_keys = HotKeys(cache)

    async def take(self, io: IO) -> Shown:
        """Return the figures as they are now."""
        cache = self._cache
        purges: Mapping[str, PurgeStatus] | None = {}
        stats = cache.stats()
        if cache.outbox is not None and stats.store != "ok":
            purges = None
        elif cache.outbox is not None:
            try:
                purges = await cache.outbox.status(io)
            except StoreError:
                purges = None
        hot: Mapping[str, Sequence[HotKey]] | None = None
        if self._hot_keys is not None:
            self._hot_keys.sample()
            hot = self._hot_keys.by_function(HOTTEST)
        return Shown(
            repr(cache).partition("(")[2].strip(")'\""),
            os.getpid(),
            max(0.0, cache.clock() - self._began),
            stats,
            purges,
            hot,
            None if self._sessions is None else self._sessions.stats(),
        )
