"""The monitor of hit rates: a pure window over snapshots, and the thread and task that feed it."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from cachekit import Cache, ConfigError, Figures, Stats
from cachekit.observe.monitor import Crossing, HitRateMonitor, HitRateWindow, Scope, Subject

TOTAL = Subject(Scope.TOTAL)
F = Subject(Scope.FUNCTION, "f")
QUICK = Subject(Scope.TTL_CLASS, "quick")


def stats(hits: int, misses: int, stale: int = 0, *, name: str = "f", ttl_class: str = "quick") -> Stats:
    figures = Figures(hits, misses, stale)
    return Stats(total=figures, by_function={name: figures}, by_class={ttl_class: figures, "": Figures()})


def only(scope: Scope = Scope.TOTAL, **options) -> HitRateWindow:
    return HitRateWindow(scopes=[scope], **{"threshold": 0.85, "window": 60, "minimum": 100, "margin": 0.0, **options})


def test_it_falls_once_and_recovers_once() -> None:
    window = only()
    assert window.take(stats(0, 0), 0) == []
    assert window.take(stats(90, 10), 10) == []
    assert window.take(stats(150, 50), 20) == [Crossing(TOTAL, True, 0.75, 200, 0.85)]
    assert window.low == {TOTAL}
    assert window.take(stats(200, 100), 30) == []
    assert window.take(stats(1700, 100), 40) == [Crossing(TOTAL, False, 1700 / 1800, 1800, 0.85)]
    assert window.low == frozenset()


def test_what_left_the_window_no_longer_counts() -> None:
    window = only()
    window.take(stats(0, 0), 0)
    assert [crossing.low for crossing in window.take(stats(0, 100), 30)] == [True]
    assert window.take(stats(99, 100), 60) == []
    assert window.rates() == {TOTAL: Figures(99, 100)}
    assert window.take(stats(99, 100), 89) == []
    [crossing] = window.take(stats(100, 100), 90)  # the misses of the first 30 seconds are out
    assert (crossing.low, crossing.hit_rate, crossing.lookups) == (False, 1.0, 100)


def test_what_was_before_the_first_snapshot_does_not_count() -> None:
    window = only()
    assert window.rates() == {}
    assert window.take(stats(0, 1_000_000), 0) == []
    assert window.take(stats(100, 1_000_000), 1) == []
    assert window.rates()[TOTAL].hit_rate == 1.0


@pytest.mark.parametrize(("hits", "misses", "low"), [(0, 99, False), (84, 16, True), (85, 15, False)])
def test_minimum_and_threshold(hits, misses, low) -> None:
    window = only()
    window.take(stats(0, 0), 0)
    assert bool(window.take(stats(hits, misses), 1)) is low


def test_stale_values_were_served_from_the_cache() -> None:
    window = only()
    window.take(stats(0, 0), 0)
    assert window.take(stats(0, 10, stale=90), 1) == []


def test_silence_is_no_recovery() -> None:
    window = only()
    window.take(stats(0, 0), 0)
    window.take(stats(0, 100), 1)
    for now in (100, 200, 300):
        assert window.take(stats(50, 100), now) == []
        assert window.low == {TOTAL}


def test_noise_round_the_threshold_raises_one_alarm() -> None:
    window = only(margin=0.02, window=10)
    hits = misses = 0
    window.take(stats(0, 0), 0)
    found = []
    for now, rate in enumerate([84, 86, 84, 86, 84, 88, 86, 84], 1):
        hits, misses = hits + rate, misses + 100 - rate
        found += [crossing.low for crossing in window.take(stats(hits, misses), now * 10)]
    assert found == [True, False, True]


def test_a_threshold_near_one_can_be_reached_again() -> None:
    window = only(threshold=0.99, margin=0.5, window=10)
    window.take(stats(0, 0), 0)
    assert [crossing.low for crossing in window.take(stats(98, 2), 10)] == [True]
    assert [crossing.low for crossing in window.take(stats(98 + 996, 6), 20)] == [False]


def test_each_function_and_class_has_its_own_rate() -> None:
    window = HitRateWindow(window=60, minimum=10)
    good, bad = Figures(100, 0), Figures(0, 100)
    zero = Stats(total=Figures(), by_function={"good": Figures()}, by_class={"": Figures()})
    assert window.take(zero, 0) == []
    now = Stats(
        total=good + bad,
        by_function={"good": good, "new": bad},  # decorated after the first snapshot
        by_class={"": good, "quick": bad},
    )
    low = {crossing.subject for crossing in window.take(now, 1)}
    assert low == {TOTAL, Subject(Scope.FUNCTION, "new"), QUICK}
    assert [str(subject) for subject in (TOTAL, F, Subject(Scope.FUNCTION), QUICK)] == [
        "the cache", "f", "direct calls", "TTL class 'quick'"
    ]  # fmt: skip


def test_a_clock_that_is_set_back_begins_anew() -> None:
    window = only()
    window.take(stats(0, 0), 1000)
    window.take(stats(0, 50), 1010)
    assert window.take(stats(0, 120), 10) == []
    assert window.rates()[TOTAL].lookups == 0
    assert [crossing.lookups for crossing in window.take(stats(0, 230), 20)] == [110]


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0},
        {"threshold": 1.1},
        {"minimum": 0},
        {"margin": -0.1},
        {"margin": 1},
        {"window": 0},
        {"window": "x"},
    ],
)
def test_wrong_arguments(options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        HitRateWindow(**options)
    with pytest.raises(ConfigError, match="interval"):
        HitRateMonitor(Cache(), interval=0)


# -- the monitor of a cache ---------------------------------------------------------------------------------------------


def look_up(cache: Cache, hits: int, misses: int) -> None:
    cache.set("k", 1)
    for _ in range(hits):
        cache.get("k")
    for _ in range(misses):
        cache.get("nothing")


def test_it_logs_and_calls_back(cache: Cache, clock, caplog) -> None:
    caplog.set_level(logging.INFO, "cachekit")
    look_up(cache, 0, 500)  # before it watches
    low, recovered = [], []
    monitor = HitRateMonitor(cache, on_low=low.append, on_recovered=recovered.append, scopes=["total"])
    look_up(cache, 50, 50)
    clock.advance(10)
    assert monitor.check() == low == [Crossing(TOTAL, True, 0.5, 100, 0.85)]
    assert monitor.low == {TOTAL}
    assert caplog.messages == ["the hit rate of the cache fell to 50.0 % of 100 lookups, below 85.0 %"]
    clock.advance(300)
    monitor.check()
    look_up(cache, 200, 0)
    clock.advance(10)
    assert monitor.check() == recovered
    assert (len(recovered), monitor.rates()[TOTAL].hits, monitor.low) == (1, 200, frozenset())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_callback_that_fails_harms_nobody(cache: Cache, clock, caplog) -> None:
    def fail(_crossing):
        raise RuntimeError("no")

    monitor = HitRateMonitor(cache, on_low=fail, minimum=1)
    look_up(cache, 0, 5)
    assert {crossing.subject for crossing in monitor.check()} == {TOTAL, Subject(Scope.FUNCTION)}
    assert caplog.text.count("a callback of the hit rate monitor failed") == 2


class Failing:
    """A cache whose snapshots fail as told."""

    def __init__(self, cache: Cache) -> None:
        self.clock, self._cache, self.failures = cache.clock, cache, 0

    def stats(self) -> Stats:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no")
        return self._cache.stats()


def test_a_thread_watches_until_it_is_stopped(cache: Cache, caplog) -> None:
    low = threading.Event()
    flaky = Failing(cache)
    monitor = HitRateMonitor(flaky, interval=0.001, minimum=1, on_low=lambda _: low.set())
    flaky.failures = 2
    look_up(cache, 0, 5)
    with monitor:
        monitor.start()  # is running already
        assert low.wait(10)
        assert [t.name for t in threading.enumerate()].count("cachekit-monitor") == 1
    assert "cachekit-monitor" not in [t.name for t in threading.enumerate()]
    assert caplog.text.count("it tries again") == 2
    low.clear()
    monitor.stop()
    monitor.start()
    monitor.stop()


def test_a_callback_may_stop_the_thread(cache: Cache) -> None:
    stopped = threading.Event()

    def stop(_crossing):
        monitor.stop()
        stopped.set()

    monitor = HitRateMonitor(cache, interval=0.001, minimum=1, on_low=stop, scopes=["total"])
    look_up(cache, 0, 5)
    monitor.start()
    assert stopped.wait(10)


def test_a_task_watches_until_it_is_left(cache: Cache) -> None:
    async def job():
        low = asyncio.Event()
        look = HitRateMonitor(cache, interval=0.001, minimum=1, on_low=lambda _: low.set())
        look_up(cache, 0, 5)
        async with asyncio.timeout(10), look:
            await low.wait()
        return [task for task in asyncio.all_tasks() if task.get_name() == "cachekit-monitor"]

    assert asyncio.run(job()) == []
