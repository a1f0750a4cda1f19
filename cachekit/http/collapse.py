"""Request collapsing: concurrent requests for one missing response wait for the first of them.

Owns who leads, who waits, and the short memory of what turned out uncacheable, for which nobody waits. Waiting itself
is the caller's. Must not know about responses.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import Future
from enum import Enum
from typing import Final, TypeAlias

from cachekit.clock import Clock
from cachekit.http.following import Stream

_REMEMBERED: Final = 4096

FlightKey: TypeAlias = tuple[Hashable, ...]


class Landing(Enum):
    """How a flight ended."""

    STORED = "stored"
    """The response is there: look again."""
    UNCACHEABLE = "uncacheable"
    """It is not for others, and the next one will not be either: everyone goes alone."""
    FAILED = "failed"
    """It failed, or could not be stored: everyone goes alone."""
    ABANDONED = "abandoned"
    """Whoever led it left: somebody else leads."""


class Flight:
    """One request on its way through the application, for others too."""

    __slots__ = ("followers", "key", "landed", "since", "started", "stream")

    def __init__(self, key: FlightKey, since: float) -> None:
        self.key = key
        self.since = since
        self.followers = 0  # who waits; only a hint, since somebody may come or leave at any moment
        self.stream: Stream | None = None  # what followers may take before it has landed
        self.started: Future[None] = Future()
        self.landed: Future[Landing] = Future()
        self.started.set_running_or_notify_cancel()
        self.landed.set_running_or_notify_cancel()


class Flights:
    """The flights of one cache."""

    def __init__(self, longest: float, clock: Clock) -> None:
        self._longest = longest
        self._clock = clock
        self._flights: dict[FlightKey, Flight] = {}
        self._uncacheable: dict[FlightKey, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, scope: object, key: FlightKey, now: float) -> tuple[Flight, bool]:
        """Return the flight of *key* in *scope*, and whether the caller leads it.

        One that has taken too long is replaced: whoever led it may never come back.
        """
        key = (scope, *key)
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None and now - flight.since < self._longest:
                return flight, False
            flight = self._flights[key] = Flight(key, now)
            return flight, True

    def announce(self, flight: Flight) -> None:
        """Say that the response of *flight* has begun, and is being stored."""
        if not flight.started.done():
            flight.started.set_result(None)

    def land(self, flight: Flight, landing: Landing) -> None:
        """End *flight*; whoever waits goes on."""
        with self._lock:
            if flight.landed.done():
                return
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            flight.landed.set_result(landing)
        self.announce(flight)

    def remember(self, key: FlightKey, until: float, *, bare: str = "") -> None:
        """Remember *key* as uncacheable; *bare* says why nothing older that is stored there will do either, if so.

        That is the word of the last look for ``fwd`` (RFC 9211 section 2.2): ``uri-miss``, ``vary-miss`` or ``bypass``.

        The memory is bounded: the oldest is forgotten first.
        """
        with self._lock:
            self._uncacheable.pop(key, None)
            self._uncacheable[key] = until, bare
            if len(self._uncacheable) > _REMEMBERED:
                del self._uncacheable[next(iter(self._uncacheable))]

    def forget(self, key: FlightKey) -> None:
        """Forget that *key* was uncacheable."""
        if key in self._uncacheable:
            with self._lock:
                self._uncacheable.pop(key, None)

    def bare(self, *key: Hashable) -> str:
        """Return why nothing that is stored at *key* will do, where it is remembered as uncacheable; else an empty text."""
        found = self._uncacheable.get(key)
        return found[1] if found is not None and self._clock() < found[0] else ""

    def is_uncacheable(self, key: FlightKey, now: float) -> bool:
        """Say whether *key* is remembered as uncacheable."""
        found = self._uncacheable.get(key)
        return found is not None and now < found[0]
