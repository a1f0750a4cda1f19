"""A gate in front of the routes of an application: how many at a time, how many may wait, and when none may pass.

Written once for both worlds. Must not know ASGI or WSGI, nor how long a call takes.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from cachekit._fork import renew_in_child
from cachekit._io import IO
from cachekit.breaker import Breaker
from cachekit.clock import Clock
from cachekit.degrade.paths import Paths
from cachekit.degrade.refusal import Refusal, Refused
from cachekit.errors import ConfigError
from cachekit.events import Emit, Event, Kind
from cachekit.policy import Duration, positive_seconds

log = logging.getLogger("cachekit")

THREADS: Final = 64


@dataclass(frozen=True, slots=True)
class Route:
    """What the application is granted on some paths.

    Attributes:
        path: the pattern of a header rule, such as ``/reports/**``; without wildcards it is for all below it too.
        timeout: seconds of silence after which a response is given up: before its head, or between two pieces of its
            body. Time that the client takes, to send its body or to read, does not count. None waits for ever.
        concurrency: requests that run at a time; None for any number (64 for a WSGI application with *timeout*, whose
            calls run in threads).
        queue: requests that may wait for a place.
        queue_timeout: seconds that they wait.
        failures: consecutive failures (time-outs, exceptions, status 500, 502, 503 and 504) that open the breaker; None
            for no breaker.
        pause: seconds until it lets one request through to try; doubles up to *longest_pause*.
        longest_pause: see *pause*.

    Raises:
        ConfigError: a value is out of range; the message names it.
    """

    path: str
    timeout: Duration | None = None
    concurrency: int | None = None
    queue: int = 0
    queue_timeout: Duration = 1.0
    failures: int | None = None
    pause: Duration = 1.0
    longest_pause: Duration = 30.0

    def __post_init__(self) -> None:
        Paths([self.path])
        try:
            for name in ("queue_timeout", "pause", "longest_pause"):
                object.__setattr__(self, name, positive_seconds(getattr(self, name), name))
            if self.timeout is not None:
                object.__setattr__(self, "timeout", positive_seconds(self.timeout, "timeout"))
            for name, least in (("concurrency", 1), ("queue", 0), ("failures", 1)):
                value = getattr(self, name)
                if not (value is None and name != "queue") and (type(value) is not int or value < least):
                    raise ConfigError(f"{name}={value!r} must be a whole number, {least} or more")
            if self.queue and self.concurrency is None:
                raise ConfigError("queue needs concurrency: without a bound nobody waits")
            if self.span("longest_pause") < self.span("pause"):
                raise ConfigError("longest_pause must not be shorter than pause")
        except ConfigError as exc:
            raise ConfigError(f"route {self.path!r}: {exc}") from exc

    def span(self, name: str) -> float:
        """Return the option *name* in seconds; infinite for None."""
        value: float | None = getattr(self, name)
        return math.inf if value is None else value


@dataclass(slots=True)
class Counts:
    """What happened on a route. Approximate under threads: no lock is taken to count.

    Attributes:
        passed: requests that reached the application.
        failed: those that failed.
        timed_out: those that were given up.
        shed: requests refused for lack of room.
        broken: requests refused by the breaker.
    """

    passed: int = 0
    failed: int = 0
    timed_out: int = 0
    shed: int = 0
    broken: int = 0


class Gate:
    """Lets the requests of one route through.

    Args:
        route: what is granted.
        clock: source of time, for the breaker.
        emit: receives events.
        limit: the bound where the route has none.
    """

    def __init__(self, route: Route, *, clock: Clock, emit: Emit, limit: int | None = None) -> None:
        self.route = route
        self.counts = Counts()
        self._clock = clock
        self._emit = emit
        self._limit = route.concurrency if route.concurrency is not None else limit
        self._renew()
        renew_in_child(self, Gate._renew)
        self._breaker: Breaker | None = None
        if route.failures is not None:
            pause, longest = route.span("pause"), route.span("longest_pause")
            self._breaker = Breaker(failures=route.failures, pause=pause, longest_pause=longest)

    def _renew(self) -> None:
        """Begin with nobody inside: in a forked child nobody is."""
        self._lock = threading.Lock()
        self._active = 0
        self._waiting: deque[Future[None]] = deque()

    @property
    def active(self) -> int:
        """Return how many requests are inside."""
        return self._active

    async def enter(self, io: IO) -> None:
        """Let a request in. Raises ``Refused`` when there is no room, or the breaker is open."""
        place = self._ask()
        if place is not None:
            try:
                await io.wait(place, self.route.span("queue_timeout"))
            except BaseException as exc:
                with self._lock:
                    granted = place not in self._waiting
                    if not granted:
                        self._waiting.remove(place)
                if granted:  # in the same moment
                    self.leave(None)
                if isinstance(exc, TimeoutError):
                    raise self._full() from None
                raise
        self.counts.passed += 1

    def _ask(self) -> Future[None] | None:
        """Take a place, or return what to wait for."""
        with self._lock:
            if self._limit is None or self._active < self._limit:
                self._check()
                self._active += 1
                return None
            if self._breaker is not None and self._breaker.is_open:
                self._check()
            if len(self._waiting) < self.route.queue:
                place: Future[None] = Future()
                self._waiting.append(place)
                return place
        raise self._full()

    def _check(self) -> None:
        now = self._clock()
        if self._breaker is not None and not self._breaker.allow(now):
            self.counts.broken += 1
            wait = max(1, math.ceil(self._breaker.retry_after(now)))
            self._emit(Event(Kind.REFUSED, name=self.route.path, detail="breaker"))
            raise Refused(Refusal(503, "this part of the application fails at the moment", wait))

    def _full(self) -> Refused:
        self.counts.shed += 1
        self._emit(Event(Kind.REFUSED, name=self.route.path, detail="full"))
        return Refused(Refusal(503, "too many requests are being worked on", 1))

    def leave(self, ok: bool | None) -> None:
        """Let a request out. *ok* says whether the application did well; None when that is not to be said of it."""
        with self._lock:
            while self._waiting:
                place = self._waiting.popleft()
                if place.set_running_or_notify_cancel():
                    place.set_result(None)
                    break
            else:
                self._active -= 1
        if ok is not None:
            self.record(ok)

    def record(self, ok: bool) -> None:
        """Take in how a request went."""
        if not ok:
            self.counts.failed += 1
        if self._breaker is None:
            return
        with self._lock:
            changed = self._breaker.record(ok, self._clock())
        if changed:
            kind = Kind.BREAKER_CLOSED if ok else Kind.BREAKER_OPENED
            self._emit(Event(kind, name=self.route.path, detail="route"))
            log.warning("route %s: its breaker %s", self.route.path, "closed" if ok else "opened")

    def timed_out(self) -> Refused:
        """Count a response that is given up, and return what to say instead."""
        self.counts.timed_out += 1
        self._emit(Event(Kind.TIMED_OUT, name=self.route.path))
        log.warning("route %s: no answer within %g s", self.route.path, self.route.span("timeout"))
        return Refused(Refusal(504, "the application did not answer in time", 1))


class Gates:
    """The gates of an application; the first route that is for a path holds."""

    def __init__(self, routes: Sequence[Route], *, clock: Clock, emit: Emit, threads: int | None = None) -> None:
        if not all(isinstance(route, Route) for route in routes):
            raise ConfigError("routes must be a list of Route(...)")
        self._paths = Paths([route.path for route in routes], "routes")
        self._gates = [
            Gate(route, clock=clock, emit=emit, limit=None if route.timeout is None else threads) for route in routes
        ]

    def find(self, path: str) -> Gate | None:
        """Return the gate for *path*, or None."""
        number = self._paths.match(path)
        return None if number is None else self._gates[number]

    @property
    def counts(self) -> dict[str, Counts]:
        """Return what happened, by the path of the route."""
        return {gate.route.path: gate.counts for gate in self._gates}


BAD: Final = frozenset({500, 502, 503, 504})
"""Status codes that count as failures; others of the 5xx (501, 505, ...) are not of a kind that goes away."""
