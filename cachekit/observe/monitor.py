"""Watches hit rates: says so when one falls below a threshold, and when it has recovered.

``HitRateWindow`` is pure: it takes successive snapshots with ``now`` and returns what crossed the threshold.
``HitRateMonitor`` feeds it from a thread or an asyncio task, logs, and calls back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, Protocol, Self

from cachekit._fork import renew_in_child
from cachekit.around import surrounded
from cachekit.clock import Clock
from cachekit.errors import ConfigError
from cachekit.policy import Duration, positive_seconds
from cachekit.stats import Figures, Stats

log = logging.getLogger("cachekit")


class Scope(StrEnum):
    """What a hit rate is about."""

    TOTAL = "total"
    FUNCTION = "function"
    TTL_CLASS = "ttl_class"


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that has a hit rate.

    Attributes:
        scope: what kind of thing it is.
        name: the function or TTL class; empty for the total, and for direct calls such as ``get``.
    """

    scope: Scope
    name: str = ""

    def __str__(self) -> str:
        if self.scope is Scope.TOTAL:
            return "the cache"
        if self.scope is Scope.TTL_CLASS:
            return f"TTL class {self.name!r}"
        return self.name or "direct calls"


@dataclass(frozen=True, slots=True)
class Crossing:
    """A hit rate that fell below the threshold, or recovered.

    Attributes:
        subject: whose hit rate.
        low: True when it fell, False when it recovered.
        hit_rate: of the window.
        lookups: in the window.
        threshold: that it is held against.
    """

    subject: Subject
    low: bool
    hit_rate: float
    lookups: int
    threshold: float


ALL_SCOPES: Final = frozenset(Scope)
_NOTHING: Final = Figures()


class HitRateWindow:
    """Hit rates over the last *window* seconds, and which of them are too low.

    Args:
        threshold: hit rate below which something is low.
        window: seconds to look back.
        minimum: lookups in the window below which nothing is said: neither that it fell nor that it recovered.
        margin: how far above the threshold it must rise to have recovered, so that noise raises no second alarm.
        scopes: what is watched.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.85,
        window: Duration = "5m",
        minimum: int = 100,
        margin: float = 0.02,
        scopes: Iterable[Scope] = ALL_SCOPES,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(f"threshold={threshold!r} must be a hit rate above 0 and up to 1, such as 0.85")
        if minimum < 1:
            raise ConfigError(f"minimum={minimum!r} must be at least one lookup")
        if not 0 <= margin < 1:
            raise ConfigError(f"margin={margin!r} must be at least 0 and below 1")
        self.threshold = threshold
        self._enough = min(threshold + margin, (threshold + 1) / 2)  # a threshold near 1 can be reached again
        self._window = positive_seconds(window, "window")
        self._minimum = minimum
        self._scopes = frozenset(scopes)
        self._taken: deque[tuple[float, dict[Subject, Figures]]] = deque()
        self._low: set[Subject] = set()

    @property
    def low(self) -> frozenset[Subject]:
        """Return what is too low at present."""
        return frozenset(self._low)

    def take(self, stats: Stats, now: float) -> list[Crossing]:
        """Take in a snapshot of *now*. Returns what crossed the threshold; the first snapshot is where counting begins."""
        current = dict(self._subjects(stats))
        if self._taken and now < self._taken[-1][0]:
            self._taken.clear()  # the clock was set back: the times of before mean nothing
        self._taken.append((now, current))
        while len(self._taken) > 2 and self._taken[1][0] <= now - self._window:
            self._taken.popleft()
        return [crossing for subject in current if (crossing := self._judge(subject)) is not None]

    def rates(self) -> dict[Subject, Figures]:
        """Return what each subject did within the window; its ``hit_rate`` is the windowed one."""
        return {subject: self._within(subject) for subject in self._taken[-1][1]} if self._taken else {}

    def _subjects(self, stats: Stats) -> Iterator[tuple[Subject, Figures]]:
        if Scope.TOTAL in self._scopes:
            yield Subject(Scope.TOTAL), stats.total
        if Scope.FUNCTION in self._scopes:
            for name, figures in stats.by_function.items():
                yield Subject(Scope.FUNCTION, name), figures
        if Scope.TTL_CLASS in self._scopes:
            for name, figures in stats.by_class.items():
                if name:  # what has no class is no class
                    yield Subject(Scope.TTL_CLASS, name), figures

    def _within(self, subject: Subject) -> Figures:
        # A function that was decorated after the first snapshot began at nothing.
        return self._taken[-1][1][subject] - self._taken[0][1].get(subject, _NOTHING)

    def _judge(self, subject: Subject) -> Crossing | None:
        figures = self._within(subject)
        if figures.lookups < self._minimum:
            return None
        rate = figures.hit_rate
        if subject not in self._low and rate < self.threshold:
            self._low.add(subject)
            return Crossing(subject, True, rate, figures.lookups, self.threshold)
        if subject in self._low and rate >= self._enough:
            self._low.remove(subject)
            return Crossing(subject, False, rate, figures.lookups, self.threshold)
        return None


class Watched(Protocol):
    """What a monitor watches: a ``Cache``."""

    clock: Clock

    def stats(self) -> Stats:
        """Return what it did so far."""
        ...


class HitRateMonitor:
    """Watches the hit rates of *cache*, from a thread (``start``, or ``with``) or a task (``arun``, or ``async with``).

    Falling below the threshold is logged as a warning, recovery at level info.

    Args:
        cache: the cache.
        interval: seconds between snapshots; a window has ``window / interval`` of them.
        on_low: receives a ``Crossing`` when a hit rate fell. Must be quick; what it raises is logged.
        on_recovered: receives a ``Crossing`` when it recovered.
        threshold: see ``HitRateWindow``, as for those that follow.
        window: seconds to look back.
        minimum: lookups below which nothing is said.
        margin: how far above the threshold it must rise to have recovered.
        scopes: what is watched.

    Example:
        >>> from cachekit import Cache
        >>> with HitRateMonitor(Cache(), threshold=0.9, on_low=print) as monitor:
        ...     monitor.check()
        []
    """

    def __init__(
        self,
        cache: Watched,
        *,
        interval: Duration = "10s",
        on_low: Callable[[Crossing], object] | None = None,
        on_recovered: Callable[[Crossing], object] | None = None,
        threshold: float = 0.85,
        window: Duration = "5m",
        minimum: int = 100,
        margin: float = 0.02,
        scopes: Iterable[Scope] = ALL_SCOPES,
    ) -> None:
        self._cache = cache
        self._interval = positive_seconds(interval, "interval")
        self._on_low = on_low
        self._on_recovered = on_recovered
        self._window = HitRateWindow(threshold=threshold, window=window, minimum=minimum, margin=margin, scopes=scopes)
        renew_in_child(self, HitRateMonitor._renew)
        self._renew()
        self._task: asyncio.Task[None] | None = None
        self.check()  # what happened before is none of its business

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def check(self) -> list[Crossing]:
        """Take a snapshot now, log and call back. Returns what crossed the threshold."""
        with self._lock:
            crossings = self._window.take(self._cache.stats(), self._cache.clock())
        for crossing in crossings:
            self._tell(crossing)
        return crossings

    def rates(self) -> Mapping[Subject, Figures]:
        """Return what each subject did within the window, as of the last snapshot."""
        with self._lock:
            return self._window.rates()

    @property
    def low(self) -> frozenset[Subject]:
        """Return what is too low at present."""
        with self._lock:
            return self._window.low

    def _tell(self, crossing: Crossing) -> None:
        words = (str(crossing.subject), crossing.hit_rate * 100, crossing.lookups, crossing.threshold * 100)
        if crossing.low:
            log.warning("the hit rate of %s fell to %.1f %% of %d lookups, below %.1f %%", *words)
        else:
            log.info("the hit rate of %s recovered to %.1f %% of %d lookups, threshold %.1f %%", *words)
        callback = self._on_low if crossing.low else self._on_recovered
        if callback is None:
            return
        try:
            callback(crossing)
        except Exception:
            log.exception("a callback of the hit rate monitor failed")

    def _check_quietly(self) -> None:
        try:
            self.check()
        except Exception:
            log.exception("the hit rate monitor failed; it tries again")

    # -- in a thread ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Watch from a daemon thread; nothing happens while it runs already. A forked child starts its own."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopped = stopped = threading.Event()

        def watch() -> None:
            while not stopped.wait(self._interval):
                surrounded(self._check_quietly)  # callbacks may look into a database

        self._thread = threading.Thread(target=watch, name="cachekit-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    # -- in a task --------------------------------------------------------------------------------------------------

    async def arun(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            self._check_quietly()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.arun(), name="cachekit-monitor")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


__all__ = ["Crossing", "HitRateMonitor", "HitRateWindow", "Scope", "Subject"]
