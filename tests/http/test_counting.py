"""Requests are counted once each, as hits, stale or misses of ``http``, whatever entries they took."""

from __future__ import annotations

import pytest

from cachekit import Cache
from cachekit.observe.hotkeys import HotKeys
from cachekit.stats import Figures

CC = "Cache-Control"


def counted(cache: Cache) -> tuple[int, int, int]:
    stats = cache.stats()
    figures = stats.by_function["http"]
    assert stats.total == figures, "nothing is counted elsewhere"
    return figures.hits, figures.stale, figures.misses


@pytest.fixture
def cache(store_url, clock):
    """A cache on each kind of store."""
    return Cache(store_url, clock=clock, timeout=5.0)


@pytest.fixture
def site(build, cache):
    site = build(cache)
    yield site
    if hasattr(site, "loop"):
        site.loop.run_until_complete(cache.aclose())
    cache.close()


def test_hits_stale_and_misses(site, cache):
    site.says("max-age=60, stale-while-revalidate=60")
    assert counted(cache) == (0, 0, 0)
    site.get()
    assert counted(cache) == (0, 0, 1)
    for _ in range(3):
        site.get()
    assert counted(cache) == (3, 0, 1)
    site.clock.advance(61)
    site.get()
    site.settle()
    assert counted(cache) == (3, 1, 1)


def test_a_chosen_variant_is_one_hit(site, cache):
    site.answer([(CC, "max-age=60"), ("Vary", "X-Kind")])
    site.get(x_kind="a")
    site.get(x_kind="b")
    for kind in "abab":
        assert site.get(x_kind=kind).hit
    assert counted(cache) == (4, 0, 2)


def test_what_is_found_and_not_used_is_a_miss(site, cache):
    site.says("max-age=60")
    site.get()
    site.get(cache_control="no-cache")
    assert counted(cache) == (0, 0, 2)
    site.get("/y", cache_control="only-if-cached")
    assert counted(cache) == (0, 0, 3)


def test_what_is_not_looked_up_is_not_counted(site, cache):
    site.says("no-store")
    site.get()
    for _ in range(3):
        site.get()  # remembered as uncacheable
        site.request("POST")
    assert counted(cache) == (0, 0, 1)


def test_direct_calls_are_counted_beside_them(site, cache):
    site.says("max-age=60")
    site.get()
    site.get()
    cache.set("k", 1)
    cache.get("k")
    assert cache.stats().by_function == {"": Figures(hits=1), "http": Figures(hits=1, misses=1)}


def test_hot_keys_are_told_as_responses(build, clock):
    cache = Cache(clock=clock)
    hot = HotKeys(cache)
    site = build(cache)
    site.says("max-age=60")
    for _ in range(4):
        site.get()
    hot.sample()
    assert list(hot.by_function()) == ["http"]
