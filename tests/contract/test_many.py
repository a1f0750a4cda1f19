"""``cached_many`` on memory, servers and two levels, in both worlds."""

from __future__ import annotations

import asyncio

import pytest

from cachekit import Cache, ConfigError, bypass, refresh
from cachekit.testing import ManualClock


@pytest.fixture(
    params=["memory://", *(pytest.param(url, marks=pytest.mark.server) for url in ("{url}", "tiered+{url}"))]
)
def cache(request, clock: ManualClock):
    url = request.param
    if "{url}" in url:
        url = url.format(url=request.getfixturevalue("valkey").url)
    with Cache(url, clock=clock, timeout=5.0) as made:
        made.clear()
        yield made


@pytest.fixture(params=["blocking", "asyncio"])
def users(request, cache):
    """The decorated loader as a plain function, with the lists that it was asked for."""
    asked: list[list[int]] = []
    known = {n: f"user {n}" for n in range(10)}
    options = {"key": "user:{region}:{item}", "tags": ["user:{item}", "users"], "ttl": 60, "missing_ttl": 5}
    if request.param == "blocking":

        @cache.cached_many(**options)
        def load(numbers, region="eu"):
            asked.append(list(numbers))
            return {n: known[n] for n in numbers if n in known}

        load.asked, load.known = asked, known
        return load

    @cache.cached_many(**options)
    async def aload(numbers, region="eu"):
        asked.append(list(numbers))
        await asyncio.sleep(0)
        return {n: known[n] for n in numbers if n in known}

    def call(*args, **kwargs):
        async def main():
            try:
                return await aload(*args, **kwargs)
            finally:
                await close(cache)

        return asyncio.run(main())

    async def invalidate(*args):
        try:
            await aload.invalidate(*args)
        finally:
            await close(cache)

    call.invalidate = lambda *args: asyncio.run(invalidate(*args))
    call.asked, call.known = asked, known
    return call


async def close(cache) -> None:
    """Close this loop's connections, and leave the rest open."""
    guarded = getattr(cache.store, "l2", cache.store)
    link = getattr(getattr(guarded, "inner", None), "link", None)
    if link is not None:
        await link._aclose()


def test_one_call_for_what_is_missing(users):
    assert users([1, 2]) == {1: "user 1", 2: "user 2"}
    assert users([3, 2, 1, 3]) == {3: "user 3", 2: "user 2", 1: "user 1"}
    assert list(users([3, 1])) == [3, 1]
    assert users([]) == {}
    assert users.asked == [[1, 2], [3]]


def test_items_are_dropped_alone(users, cache):
    users([1, 2, 3])
    cache.invalidate("user:2")
    users.invalidate([3])
    users.known.update({2: "new 2", 3: "new 3"})
    assert users([1, 2, 3]) == {1: "user 1", 2: "new 2", 3: "new 3"}
    assert users.asked == [[1, 2, 3], [2, 3]]


def test_an_unknown_item_is_known_to_be_unknown_for_a_while(users, clock):
    assert users([1, 99]) == {1: "user 1"}
    assert users([1, 99]) == {1: "user 1"}
    assert users.asked == [[1, 99]]
    clock.advance(5)
    users.known[99] = "there"
    assert users([99]) == {99: "there"}


def test_other_arguments_are_part_of_the_key(users):
    users([1], "eu")
    users([1], region="us")
    assert users([1]) == {1: "user 1"}
    assert users.asked == [[1], [1]]


def test_a_load_that_an_invalidation_overtook_is_not_kept(cache):
    @cache.cached_many(key="k:{item}", tags=["t"], ttl=60)
    def load(items):
        value = truth[0]
        if value == "old":
            truth[0] = "new"
            cache.invalidate("t")
        return dict.fromkeys(items, value)

    truth = ["old"]
    assert load([1, 2]) == {1: "old", 2: "old"}
    assert load([1, 2]) == {1: "new", 2: "new"}


def test_modes_and_tags_reach_through(cache):
    runs = []

    @cache.cached_many(key="k:{item}", tags=["k:{item}"], ttl=60)
    def load(items):
        runs.append(items)
        return dict.fromkeys(items, len(runs))

    @cache.cached(ttl=60)
    def page():
        return sum(load([1, 2]).values())

    assert page() == 2
    cache.invalidate("k:2")
    assert page() == 3
    with bypass():
        assert load([1]) == {1: 3}
    assert load([1]) == {1: 1}
    with refresh():
        assert load([1]) == {1: 4}
    assert load([1]) == {1: 4}


def test_a_failing_loader_is_untouched_and_nothing_is_held_up(cache):
    failures = [ValueError("no")]

    @cache.cached_many(key="k:{item}", ttl=60)
    def load(items):
        if failures:
            raise failures.pop()
        return dict.fromkeys(items, "value")

    with pytest.raises(ValueError, match="no"):
        load([1])
    assert load([1]) == {1: "value"}


@pytest.mark.parametrize(
    ("fn", "options", "said"),
    [
        (lambda items: {}, {"key": "constant"}, "{item}"),
        (lambda items: {}, {"key": "k:{item}:{nothing}"}, "nothing"),
        (lambda items: {}, {"key": "k:{item}", "ttl": -1}, "-1"),
        (lambda items: {}, {"key": "k:{item}", "missing_ttl": 0}, "missing_ttl"),
        (lambda: 1, {"key": "k:{item}"}, "first parameter"),
        (dict, {"key": "k:{item}"}, "no signature"),
    ],
)
def test_wrong_options_are_refused_by_name(fn, options, said):
    with pytest.raises(ConfigError) as caught:
        Cache().cached_many(**options)(fn)
    assert said in str(caught.value)


def test_what_is_no_mapping_is_refused():
    @Cache().cached_many(key="k:{item}")
    def load(items):
        return list(items)

    with pytest.raises(ConfigError, match="mapping"):
        load([1])
