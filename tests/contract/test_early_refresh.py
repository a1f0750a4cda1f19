"""Early refresh by chance (XFetch): on by itself where no lease is held, on every kind of store and in both worlds."""

from __future__ import annotations

import math
from itertools import count

import pytest

from cachekit import Cache, ConfigError, Kind, Policy
from cachekit.jobs import Plan
from tests.conftest import Facade, until


class Chance:
    """Draws what it is told to."""

    def __init__(self) -> None:
        self.next, self.draws = 0.0, 0

    def __call__(self) -> float:
        self.draws += 1
        return self.next


@pytest.fixture
def chance() -> Chance:
    return Chance()


@pytest.fixture
def api(store_url, world, clock, watch, chance):
    made = Facade(Cache(store_url, clock=clock, timeout=5.0, observers=[watch], chance=chance), world)
    yield made
    made.close()


def took(monkeypatch, seconds: float) -> None:
    """Let every loader seem to take *seconds*."""
    readings = count(0.0, seconds)
    monkeypatch.setattr("cachekit.engine.stopwatch", lambda: next(readings))


@pytest.mark.parametrize("lock", [True, False])
def test_it_is_on_where_no_lease_is_held(api, clock, chance, watch, monkeypatch, patient, lock) -> None:
    runs = count()
    took(monkeypatch, 1.0)
    load = api.made(lambda x: next(runs), ttl=100, lock=lock)
    assert load(1) == 0
    clock.advance(50)
    chance.next = 0.999  # as eager as chance can be: -ln(0.001) = 6.9 times the loader's duration
    assert load(1) == 0
    clock.advance(48)
    before = chance.draws
    assert load(1) == 0  # served at once; a refresh may run behind
    if lock:
        assert chance.draws == before
        return

    def refreshed():
        return len(watch.of(Kind.STORED)) == 2

    if api.world.name == "blocking":
        patient(refreshed)
    else:
        api.world.run(lambda _: until(refreshed))
    chance.next = 0.0
    assert load(1) == 1


def test_nodes_say_until_when_no_number_is_drawn(clock, chance, monkeypatch) -> None:
    """The chance is below exp(-12) before: a hit in process compares one time and draws nothing."""
    took(monkeypatch, 1.0)
    cache = Cache(clock=clock, chance=chance)

    @cache.cached(ttl=100, lock=False)
    def load(x):
        return x

    load(1)
    assert cache.l1 is not None
    node = cache.l1.peek(load.key_for(1))
    assert node is not None
    delta = node.entry.delta
    assert delta > 0
    assert node.quiet_until == node.entry.fresh_until - 12 * delta
    draws = chance.draws
    for _ in range(10):
        load(1)
    assert chance.draws == draws


@pytest.mark.parametrize(
    ("policy", "lock", "beta"),
    [
        (Policy(), True, 0.0),
        (Policy(), False, 1.0),
        (Policy(beta=0), False, 0.0),
        (Policy(beta=2.5), True, 2.5),
        (Policy(beta=2.5), False, 2.5),
    ],
)
def test_what_is_asked_for_comes_first(policy, lock, beta) -> None:
    assert Plan("", policy, shared_flight=lock).beta == beta


@pytest.mark.parametrize("beta", [-1.0, math.nan])
def test_bad_values(beta) -> None:
    with pytest.raises(ConfigError, match="beta"):
        Policy(beta=beta)
