"""The circuit breaker: when it opens, whom it lets through, when it closes."""

from __future__ import annotations

import pytest

from cachekit import ConfigError
from cachekit.breaker import Breaker


def opened(now: float = 0.0, **options) -> Breaker:
    breaker = Breaker(**{"failures": 3, "pause": 1.0, "longest_pause": 8.0, **options})
    while not breaker.record(False, now):
        assert breaker.allow(now)
    return breaker


def test_it_opens_after_consecutive_failures_only() -> None:
    breaker = Breaker(failures=3)
    for ok in (False, False, True, False, False, True):
        assert breaker.record(ok, 0.0) is False
        assert breaker.allow(0.0)
    assert [breaker.record(False, 0.0) for _ in range(4)] == [False, False, True, False]
    assert breaker.is_open
    assert not breaker.allow(0.0)


def test_one_probe_a_pause() -> None:
    breaker = opened()
    assert [breaker.allow(t) for t in (0.0, 0.99)] == [False, False]
    assert breaker.retry_after(0.25) == 0.75
    assert [breaker.allow(1.0) for _ in range(3)] == [True, False, False]
    assert breaker.allow(2.0)  # the probe was never heard of again


def test_the_pause_doubles_with_each_failed_probe_up_to_a_cap() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(6):
        pauses.append(breaker.retry_after(now))
        now += pauses[-1]
        assert breaker.allow(now)
        assert breaker.record(False, now) is False
    assert pauses == [1, 2, 4, 8, 8, 8]


def test_stragglers_do_not_make_it_longer() -> None:
    breaker = opened()
    for _ in range(100):
        breaker.record(False, 0.5)
    assert breaker.retry_after(0.0) == 1.0
    assert breaker.allow(1.0)


def test_success_closes_it_and_starts_anew() -> None:
    breaker = opened()
    breaker.allow(1.0)
    breaker.record(False, 1.0)
    assert breaker.allow(3.0)
    assert breaker.record(True, 3.0) is True
    assert (breaker.is_open, breaker.retry_after(3.0), breaker.allow(3.0)) == (False, 0.0, True)
    assert [breaker.record(False, 4.0) for _ in range(3)] == [False, False, True]
    assert breaker.retry_after(4.0) == 1.0


@pytest.mark.parametrize("options", [{"failures": 0}, {"pause": 0}, {"pause": -1}, {"pause": 5, "longest_pause": 4}])
def test_bad_options(options) -> None:
    with pytest.raises(ConfigError):
        Breaker(**options)


def test_a_slow_failure_opens_it_at_once() -> None:
    breaker = Breaker(failures=3, pause=1.0)
    assert breaker.record(False, 0.0, slow=True)
    assert breaker.is_open
    assert not breaker.allow(0.5)
    assert breaker.allow(1.0)
