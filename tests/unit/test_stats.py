"""Snapshots: figures by function and class, and counts that never go down, whatever happens to entries meanwhile."""

from __future__ import annotations

from cachekit import Cache, Figures
from cachekit.stores.memory import Memory, Tally


def test_figures_subtract() -> None:
    before, after = Figures(1, 2, 3, 4, 5, 6.0), Figures(10, 20, 30, 40, 50, 60.0)
    assert after - before == Figures(9, 18, 27, 36, 45, 54.0)
    assert (before + (after - before), after.lookups) == (after, 60)


def test_by_function_and_class(clock) -> None:
    cache = Cache(clock=clock, ttl_classes={"quick": 5, "slow": 50})

    def made(ttl):
        @cache.cached(ttl=ttl, key=f"{ttl}:{{x}}")
        def load(x):
            return x

        return load

    for ttl, calls in (("quick", 2), ("slow", 4)):
        fn = made(ttl)
        for _ in range(calls):
            fn(1)
    cache.get("nothing")
    stats = cache.stats()
    name = f"{__name__}.test_by_function_and_class.<locals>.made.<locals>.load"
    found = {both: (figures.hits, figures.misses) for both, figures in stats.by_function_and_class.items()}
    assert found == {("", ""): (0, 1), (name, "quick"): (1, 1), (name, "slow"): (3, 1)}
    assert stats.by_function[name].hits == 4
    assert stats.total.lookups == 7


def test_a_node_that_goes_between_the_two_readings_is_counted_once(clock, monkeypatch) -> None:
    """Its hits move to its owner: read apart, they would be seen in both places, and be gone the next time."""
    cache = Cache(clock=clock)

    @cache.cached
    def load(x):
        return x

    for _ in range(6):
        load(1)
    read = Memory.hits

    def read_and_lose(self):
        found = read(self)
        load.invalidate(1)
        return found

    monkeypatch.setattr(Memory, "hits", read_and_lose)
    assert [cache.stats().total.hits for _ in range(2)] == [5, 5]


def test_an_entry_that_finds_its_owner_takes_no_hits_along(clock) -> None:
    cache = Cache(clock=clock, max_entries=1)
    cache.set("k:1", "v")
    assert [cache.get("k:1") for _ in range(3)] == ["v"] * 3

    @cache.cached(key="k:{x}")
    def load(x):
        raise AssertionError

    assert [load(1), load(1)] == ["v", "v"]
    hits = {name: figures.hits for name, figures in cache.stats().by_function.items()}
    assert min(hits.items()) == ("", 3)
    assert sum(hits.values()) == 5
    cache.clear()
    assert {name: figures.hits for name, figures in cache.stats().by_function.items()} == hits


def test_an_entry_that_finds_its_owner_was_used_all_the_same(clock) -> None:
    """The eviction policy goes by the hits that a node carries: it must not take it for one that nobody asked for."""
    cache = Cache(clock=clock, max_entries=2)
    cache.set("used", 1)
    assert cache.get("used") == 1
    cache.l1.claim(cache.l1.peek("used"), Tally())
    cache.set("second", 2)
    cache.set("third", 3)
    assert sorted(cache.l1.keys()) == ["third", "used"]
