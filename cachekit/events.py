"""What happened, as values: one frozen ``Event`` in the words of RFC 9211, handed to observers.

Owns the vocabulary and the dispatch; must not know who counts, logs or exports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

log = logging.getLogger("cachekit")


class Kind(StrEnum):
    """The kinds of event. Hits are counted on the hit path itself and emit no event."""

    MISS = "miss"
    STALE = "stale"
    LOAD = "load"
    LOAD_FAILED = "load-failed"
    COLLAPSED = "collapsed"
    STORED = "stored"
    NOT_STORED = "not-stored"
    INVALIDATED = "invalidated"
    INVALIDATION_PENDING = "invalidation-pending"
    UNREADABLE = "unreadable"
    UNAUTHENTIC = "unauthentic"
    UNENCODABLE = "unencodable"
    STORE_ERROR = "store-error"
    BREAKER_OPENED = "breaker-opened"
    BREAKER_CLOSED = "breaker-closed"
    CHANNEL_LOST = "channel-lost"
    CHANNEL_LIVE = "channel-live"
    PURGED = "purged"
    PURGE_FAILED = "purge-failed"
    PURGE_DEAD = "purge-dead"
    DEGRADED = "degraded"
    REFUSED = "refused"
    TIMED_OUT = "timed-out"
    SESSION_DEGRADED = "session.degraded_mode"
    """A request goes on with a session of this process, because the store is away or refuses."""
    SESSION_CREATED = "session.created"
    SESSION_ENDED = "session.ended"
    SESSION_MERGED = "session.merged"
    """Two requests changed one session at once; both changes were kept."""
    SESSION_RETURNED = "session.returned"
    """What was changed while the store was away has reached it."""
    SESSION_DISCARDED = "session.discarded"
    """Changes were dropped, because their session had ended meanwhile."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: what happened.
        key: the cache key, or empty.
        name: the cached function, the TTL class or the component that it concerns, or empty.
        detail: words for a reader, such as the path of a value that cannot be encoded.
        seconds: how long it took, or 0.
        error: the exception behind it, or None.
    """

    kind: Kind
    key: str = ""
    name: str = ""
    detail: str = ""
    seconds: float = 0.0
    error: BaseException | None = None


Observer: TypeAlias = Callable[[Event], object]
"""Receives each event; must be quick. An exception that it raises is logged and goes no further."""

Emit: TypeAlias = Callable[[Event], None]


class Events:
    """Counts events by kind and passes them to the observers."""

    __slots__ = ("_observers", "counts")

    def __init__(self, observers: tuple[Observer, ...] = ()) -> None:
        self._observers = observers
        self.counts: dict[Kind, int] = dict.fromkeys(Kind, 0)

    def __call__(self, event: Event) -> None:
        self.counts[event.kind] += 1
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                log.exception("an observer of cachekit events failed")

    def subscribe(self, observer: Observer) -> None:
        """Add *observer*; it sees every event from now on."""
        self._observers = (*self._observers, observer)
