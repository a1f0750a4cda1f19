"""The hottest keys: a bounded summary that overestimates at most by what it says."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.hit_ratio import zipf
from cachekit import ConfigError
from cachekit.observe.hotkeys import HotKey, HotKeys, TopKeys


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(1, 5)), max_size=200), st.integers(1, 6))
def test_what_the_summary_promises(stream, size) -> None:
    summary, truth = TopKeys(size), Counter[str]()
    for key, count in stream:
        summary.add(key, count)
        truth[key] += count
    found = summary.top(100)
    assert len(found) <= size
    assert summary.total == sum(truth.values())
    for one in found:
        assert one.lookups - one.error <= truth[one.key] <= one.lookups
    frequent = {key for key, count in truth.items() if count > summary.total / size}
    assert frequent <= {one.key for one in found}


def test_the_hottest_of_many_are_found_in_little_room() -> None:
    import random

    draw = zipf(random.Random(1), 5_000, 1.1)
    stream = [str(draw()) for _ in range(20_000)]
    summary = TopKeys(200)
    for key in stream:
        summary.add(key)
    expected = [key for key, _ in Counter(stream).most_common(5)]
    assert [one.key for one in summary.top(5)] == expected


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_bad_sizes(size, cache) -> None:
    with pytest.raises(ConfigError, match="size"):
        HotKeys(cache, size=size)


def test_every_kind_of_lookup_counts_once(facade) -> None:
    hot = HotKeys(facade.cache)
    load = facade.made(lambda x: x, key="item:{x}")
    for x, times in ((1, 5), (2, 3), (3, 1)):
        for _ in range(times):
            load(x)
    facade.set("direct", 1)
    facade.get("direct")
    facade.get("direct")
    hot.sample()
    hot.sample()  # nothing new: nothing is counted twice
    (name,) = [name for name in hot.by_function() if name]
    assert hot.top(name) == [HotKey("item:1", 5), HotKey("item:2", 3), HotKey("item:3", 1)]
    assert hot.top(name, 1) == [HotKey("item:1", 5)]
    assert hot.top("") == [HotKey("direct", 2)]
    assert hot.top("unknown") == []


def test_an_entry_that_was_replaced_starts_anew(cache) -> None:
    hot = HotKeys(cache)

    @cache.cached(key="item:{x}")
    def load(x):
        return x

    for _ in range(4):
        load(1)
    hot.sample()
    load.invalidate(1)
    for _ in range(3):
        load(1)
    hot.sample()
    assert hot.top(f"{load.__module__}.{load.__qualname__}") == [HotKey("item:1", 7)]


def test_it_counts_from_when_it_was_made(cache) -> None:
    cache.set("k", 1)
    for _ in range(5):
        cache.get("k")
    hot = HotKeys(cache)
    cache.get("k")
    hot.sample()
    assert hot.top("") == [HotKey("k", 1)]
