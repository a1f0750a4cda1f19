"""Values that are changed where they lie: whatever the order of changes, a store comes to what a dictionary comes to.

A server changes numbers and lifetimes by itself where it can, so that what it writes has to be what ``update`` writes:
each step is compared, with the tags and the time at which the entry ends.
"""

from __future__ import annotations

import math
import time
from itertools import count

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cachekit import Cache, CacheKitError
from cachekit.testing import ManualClock

KEYS = ("a", "b")
TAGS = ("t", "u")
NUMBERS = st.one_of(
    st.integers(-200, 200), st.integers(-(2**64) + 1, 2**64 - 1), st.sampled_from([2**31, 2**32, 2**53 - 1, 2**53])
)
VALUES = st.one_of(
    NUMBERS, st.booleans(), st.none(), st.text(max_size=40), st.binary(max_size=40), st.floats(-1e9, 1e9)
)
LIVES = st.sampled_from([5.0, 60.0, 3600.0, math.inf])
key, tag = st.sampled_from(KEYS), st.sampled_from(TAGS)
STEPS = st.one_of(
    st.tuples(st.just("set"), key, VALUES, st.lists(tag, unique=True).map(tuple), LIVES),
    st.tuples(st.just("incr"), key, NUMBERS),
    st.tuples(st.just("touch"), key, LIVES),
    st.tuples(st.just("change"), key, NUMBERS),
    st.tuples(st.just("delete"), key),
    st.tuples(st.just("invalidate"), tag),
    st.tuples(st.just("clear")),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 4.0, 10.0, 100.0])),
)


class Model:
    """What should be there: value, tags, and when it ends."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.kept: dict[str, tuple[object, tuple[str, ...], float]] = {}

    def found(self, name: str) -> tuple[object, tuple[str, ...], float] | None:
        entry = self.kept.get(name)
        return entry if entry is not None and self._clock() < entry[2] else None

    def set(self, name: str, value: object, tags: tuple[str, ...], life: float) -> None:
        self.kept[name] = value, tags, self._clock() + life

    def incr(self, name: str, delta: int) -> object:
        entry = self.found(name)
        if entry is None:
            self.kept[name] = delta, (), math.inf
        elif type(entry[0]) is not int:
            return None
        else:
            self.kept[name] = entry[0] + delta, *entry[1:]
        return self.kept[name][0]

    def touch(self, name: str, life: float) -> bool:
        entry = self.found(name)
        if entry is not None:
            self.kept[name] = *entry[:2], self._clock() + life
        return entry is not None

    def invalidate(self, name: str) -> None:
        self.kept = {key: entry for key, entry in self.kept.items() if name not in entry[1]}


def run(cache: Cache, clock: ManualClock, steps: list[tuple]) -> None:
    model = Model(clock)
    for what, *args in steps:
        if what == "set":
            cache.set(args[0], args[1], tags=args[2], ttl=args[3])
            model.set(*args)
        elif what == "incr":
            try:
                assert cache.incr(args[0], args[1], ttl=math.inf) == model.incr(*args)
            except CacheKitError:
                assert (
                    model.incr(*args) is None or abs(model.kept[args[0]][0]) >= 2**63
                )  # no whole number, or too large
                cache.delete(args[0])
                model.kept.pop(args[0], None)
        elif what == "change":
            name, delta = args
            if (there := model.found(name)) is None or type(there[0]) is not int or abs(there[0] + delta) >= 2**63:
                continue
            assert cache.change(name, lambda value, delta=delta: value + delta, adds=delta) == model.incr(name, delta)
        elif what == "touch":
            assert cache.touch(args[0], ttl=args[1]) == model.touch(*args)
        elif what == "advance":
            clock.advance(args[0])
        elif what == "clear":
            cache.clear()
            model.kept.clear()
        elif what == "delete":
            cache.delete(args[0])
            model.kept.pop(args[0], None)
        else:
            cache.invalidate(args[0])
            model.invalidate(args[0])
        for name in KEYS:
            entry, there = cache.entry(name), model.found(name)
            seen = None if entry is None else (entry.value, set(entry.tags), entry.fresh_until)
            assert seen == (None if there is None else (there[0], set(there[1]), there[2])), (what, args)
            if entry is not None and there is not None:
                assert type(entry.value) is type(there[0])


NAMESPACES = count()


def compare(url: str, steps: list[tuple]) -> None:
    clock = ManualClock(float(int(time.time())))
    with Cache(url, clock=clock, timeout=5.0, namespace=f"changes{next(NAMESPACES)}") as cache:
        run(cache, clock, steps)


SEARCH = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.server
@pytest.mark.parametrize("prefix", ["", "tiered+"])
@SEARCH
@given(st.lists(STEPS, max_size=25))
@example([("set", "a", 1, ("t",), 60.0), ("incr", "a", 1), ("invalidate", "t"), ("incr", "a", 1)])
@example([("set", "a", -1, (), 60.0), ("incr", "a", 2**32), ("touch", "a", math.inf), ("incr", "a", -(2**32))])
def test_a_server_comes_to_what_a_dictionary_comes_to(server, prefix, steps) -> None:
    compare(prefix + server.url, steps)


@pytest.mark.server
@SEARCH
@given(st.lists(STEPS, max_size=25))
@example([("set", "a", 1, ("t", "u"), 60.0), ("incr", "a", 1), ("invalidate", "u"), ("incr", "a", 1)])
def test_a_cluster_comes_to_the_same(cluster, steps) -> None:
    compare(cluster.url, steps)


@SEARCH
@given(st.lists(STEPS, max_size=25))
def test_memory_comes_to_the_same(steps) -> None:
    compare("memory://", steps)
