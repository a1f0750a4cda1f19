"""Single flight: concurrent callers of one key share one load.

A flight belongs to a scope (all threads, or one event loop), because a blocking caller that waited for a load on its
own loop would wait for ever. Whoever arrives first leads; the others follow. A flight that an invalidation voided takes
no more followers. Must not know about stores.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final

from cachekit._fork import renew_in_child


class Abandoned(Exception):
    """The leader was cancelled: a follower takes over."""


class Retry(Exception):
    """Nobody knows whether what the leader has was invalidated since some of the followers came: they look again.

    Attributes:
        value: what was loaded, for those who came before the flight began; ``NOTHING`` if it was found.
        own: what the leader has, for whoever had it led behind.
    """

    def __init__(self, value: object, own: object = None) -> None:
        super().__init__()
        self.value = value
        self.own = own


NOTHING: Final = object()


class Certainty(Enum):
    """What those who joined a flight may make of its result: it may have been invalidated before they came."""

    SURE = "sure"
    """It holds for all who joined."""
    LOADED = "loaded"
    """It was loaded: it holds for those who came before the flight began."""
    FOUND = "found"
    """It was there already, and held at that moment."""


class Flight:
    """One load in progress.

    Attributes:
        result: what followers wait for.
        tags: the tags known so far; grows while the loader runs.
        until: when what was used for it ceases to be fresh.
        void: whether something invalidated it while it ran.
        scope: what it belongs to; held, so that no other scope takes its identity while the flight is in the air.
        waits_for: the flights that its loader follows, directly or in loads of its own.
        number: in the order in which flights began.
        sealed: whether its result is on its way to the store: what is invalidated from then on, the store cannot say.
        cold: whether its leader found nothing: who comes meanwhile will find nothing either.
        doubtful: whether it failed, and something it was made from was invalidated, maybe before some who joined came.
    """

    __slots__ = (
        "cold",
        "doubtful",
        "followers",
        "key",
        "number",
        "result",
        "scope",
        "sealed",
        "tags",
        "until",
        "void",
        "waits_for",
    )

    def __init__(self, scope: object, key: str, tags: Iterable[str]) -> None:
        self.scope = scope
        self.key = key
        self.tags = set(tags)
        self.until = math.inf
        self.result: Future[Any] = Future()
        self.result.set_running_or_notify_cancel()  # so that a follower cannot cancel it
        self.void = False
        self.followers = 0
        self.cold = False
        self.doubtful = False
        self.sealed = False
        self.number = 0
        self.waits_for: list[Flight] = []


leading: Final[ContextVar[tuple[Flight, ...]]] = ContextVar("cachekit_leading", default=())
"""The flights whose loaders are running here, outermost first."""


class Flights:
    """The loads in progress of one cache."""

    def __init__(self) -> None:
        renew_in_child(self, Flights._renew)
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self.aloft: dict[tuple[int, str], Flight] = {}
        """The flights in the air, by scope and key; to be looked at."""
        self.begun = 0
        """How many flights have begun so far."""

    def join(self, scope: object, key: str, tags: Iterable[str]) -> tuple[Flight, bool] | None:
        """Return the flight of *key* and whether the caller leads it; None when waiting for it could never end.

        Waiting could never end when the caller's own loader is what that flight waits for, directly or through others.
        """
        own = leading.get()
        name = (id(scope), key)
        with self._lock:
            flight = self.aloft.get(name)
            if flight is None:
                flight = self.aloft[name] = Flight(scope, key, tags)
                self.begun += 1
                flight.number = self.begun
                return flight, True
            if own:
                steps = [flight]
                while steps:
                    step = steps.pop()
                    if step in own:
                        return None
                    steps.extend(step.waits_for)
                for outer in own:
                    outer.waits_for.append(flight)
            flight.followers += 1
            return flight, False

    def left(self, flight: Flight) -> None:
        """Note that the caller's own loaders no longer wait for *flight*."""
        with self._lock:
            for outer in leading.get():
                outer.waits_for.remove(flight)

    def running(self, scope: object, key: str) -> bool:
        """Say whether *key* is being loaded in *scope*."""
        return (id(scope), key) in self.aloft

    def cold(self, scope: object, key: str) -> bool:
        """Say whether *key* is being loaded in *scope* because it was not there."""
        flight = self.aloft.get((id(scope), key))
        return flight is not None and flight.cold

    def land(self, flight: Flight) -> None:
        """Take *flight* off, before its result is published."""
        with self._lock:
            name = (id(flight.scope), flight.key)
            if self.aloft.get(name) is flight:
                del self.aloft[name]

    def void(self, *, tags: Collection[str] = (), keys: Collection[str] = (), everything: bool = False) -> None:
        """Void the flights that load one of *keys* or carry one of *tags*: who comes now must not see their result."""
        with self._lock:
            for name, flight in list(self.aloft.items()):
                if everything or name[1] in keys or not flight.tags.isdisjoint(tags):
                    flight.void = True
                    del self.aloft[name]
