"""What options, modes and the loader itself say about a result, in both worlds."""

from __future__ import annotations

import asyncio
import threading

import pytest

import cachekit
from cachekit import Cache, ConfigError, LoadTimeout, bypass, current, refresh
from cachekit.testing import ManualClock


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request):
    return request.param


@pytest.fixture
def cache(clock: ManualClock) -> Cache:
    return Cache(clock=clock)


@pytest.fixture
def make(cache, kind):
    """Decorate a loader in the colour of the world, and return a plain function that calls it."""

    def decorate(body, **options):
        if kind == "blocking":

            @cache.cached(**options)
            def load(x):
                return body(x)

            return load, load

        @cache.cached(**options)
        async def aload(x):
            return body(x)

        return (lambda x: asyncio.run(aload(x))), aload

    return decorate


class Counting:
    """A loader that counts its runs and gives back what it was told."""

    def __init__(self, *results):
        self.results = results
        self.runs = 0

    def __call__(self, x):
        result = self.results[min(self.runs, len(self.results) - 1)]
        self.runs += 1
        if isinstance(result, BaseException):
            raise result
        return result() if callable(result) else result


def test_keep_if(make):
    body = Counting([], ["full"])
    call, _ = make(body, ttl=60, keep_if=bool)
    assert [call(1), call(1), call(1)] == [[], ["full"], ["full"]]
    assert body.runs == 2


@pytest.mark.parametrize(
    ("none_ttl", "after", "runs"), [(None, 9, 1), (10, 9, 1), (10, 10, 2), (0, 0, 2), ("5s", 5, 2)]
)
def test_none_ttl(make, clock, none_ttl, after, runs):
    body = Counting(None)
    call, _ = make(body, ttl=60, none_ttl=none_ttl)
    assert call(1) is None
    clock.advance(after)
    assert call(1) is None
    assert body.runs == runs


class Missing(LookupError):
    pass


def test_exceptions_are_kept_when_asked(make, clock, cache):
    body = Counting(Missing("no", 7), "there")
    call, _ = make(body, ttl=60, exceptions={LookupError: "5s"})
    for _ in range(3):
        with pytest.raises(Missing) as caught:
            call(1)
        assert caught.value.args == ("no", 7)
    assert body.runs == 1
    clock.advance(5)
    assert call(1) == "there"


def test_other_exceptions_are_not_kept(make):
    body = Counting(ValueError("bad"), "there")
    call, _ = make(body, ttl=60, exceptions={LookupError: 5})
    with pytest.raises(ValueError, match="bad"):
        call(1)
    assert call(1) == "there"


@pytest.mark.server
def test_a_kept_exception_on_a_server_comes_back_as_the_nearest_known_kind(server, clock):
    def caches():
        return Cache(server.url, namespace="raised", clock=clock)

    body = Counting(Missing("no", 7))
    with caches() as here, caches() as elsewhere:
        made = [
            c.cached(ttl=60, exceptions={LookupError: 5}, key="k:{x}")(lambda x: body(x)) for c in (here, elsewhere)
        ]
        with pytest.raises(Missing):
            made[0](1)
        with pytest.raises(LookupError) as caught:
            made[1](1)
        assert caught.value.args == ("no", 7)
        assert body.runs == 1


def test_the_loader_sets_its_own_lifetime_and_tags(make, clock, cache):
    def result():
        current().ttl = "10s"
        current().tag("own")
        return "value"

    body = Counting(result)
    call, _ = make(body, ttl=60)
    call(1)
    clock.advance(9)
    call(1)
    assert body.runs == 1
    clock.advance(1)
    call(1)
    assert body.runs == 2
    cache.invalidate("own")
    call(1)
    assert body.runs == 3


def test_the_loader_asks_for_nothing_to_be_kept(make):
    def result():
        current().no_store()
        return "value"

    body = Counting(result)
    call, _ = make(body, ttl=60)
    assert [call(1), call(1)] == ["value", "value"]
    assert body.runs == 2


def test_outside_of_a_load_current_has_no_effect():
    current().no_store()
    current().ttl = 5
    assert current().stored
    assert current().ttl is None
    with pytest.raises(ConfigError):
        current().ttl = -1


def test_bypass_and_refresh(make, cache):
    values = iter(range(10))
    body = Counting(lambda: next(values))
    call, _ = make(body, ttl=60, tags=["t"])
    assert [call(1), call(1)] == [0, 0]
    with bypass():
        assert [call(1), call(1)] == [1, 2]
        assert cache.get_or_set("direct", lambda: "loaded") == "loaded"
    assert call(1) == 0
    assert cache.get("direct") is None
    with refresh():
        assert call(1) == 3
    assert [call(1), call(1)] == [3, 3]


def test_a_mode_reaches_functions_inside_and_tags_still_reach_outside(cache):
    runs = []

    @cache.cached(ttl=60, tags=["inner"])
    def inner():
        runs.append("inner")
        return 1

    @cache.cached(ttl=60)
    def outer():
        runs.append("outer")
        return inner()

    outer()
    with cachekit.collecting() as tags:
        with bypass():
            outer()
        assert "inner" in tags
    assert runs == ["outer", "inner"] * 2
    with refresh():
        outer()
    cache.invalidate("inner")
    outer()
    assert runs == ["outer", "inner"] * 4


def test_a_version_is_another_key(cache):
    def body(x):
        return x

    first, second = cache.cached(ttl=60)(body), cache.cached(ttl=60, version=2)(body)
    assert first.key_for(1) != second.key_for(1)
    templated = cache.cached(ttl=60, key="k:{x}", version="2026-11")(body)
    assert templated.key_for(1) == "k:1@2026-11"


def test_eager_refresh(make, clock, cache):
    values = iter(range(10))
    body = Counting(lambda: next(values))
    refreshed = threading.Event()
    cache.events.subscribe(lambda event: refreshed.set() if event.kind == "stored" and body.runs > 1 else None)
    call, coroutine = make(body, ttl=100, refresh_at=0.8)
    call(1)
    clock.advance(79)
    assert call(1) == 0
    assert body.runs == 1
    clock.advance(1)
    if call is coroutine:
        assert call(1) == 0  # served at once, refreshed behind
        assert refreshed.wait(5)
    else:

        async def main():
            assert await coroutine(1) == 0
            while not refreshed.is_set():
                await asyncio.sleep(0)

        asyncio.run(main())
    assert call(1) == 1


def test_a_soft_time_out_serves_the_stale_value_while_the_load_goes_on(cache, clock):
    release, loading, values = threading.Event(), threading.Event(), iter(range(10))
    stored = threading.Semaphore(0)
    cache.events.subscribe(lambda event: stored.release() if event.kind == "stored" else None)
    slow = []

    @cache.cached(ttl=10, stale_if_error=100, soft_timeout=0.01)
    def load():
        if slow:
            loading.set()
            assert release.wait(10)
        return next(values)

    assert load() == 0
    assert stored.acquire(timeout=5)
    clock.advance(11)
    slow.append(True)
    assert load() == 0  # stale, in time
    assert loading.wait(5)
    release.set()
    assert stored.acquire(timeout=5)
    assert load() == 1


def test_a_soft_time_out_in_asyncio(cache, clock):
    async def main():
        release, values, slow = asyncio.Event(), iter(range(10)), []

        @cache.cached(ttl=10, stale_if_error=100, soft_timeout=0.01)
        async def load():
            if slow:
                await release.wait()
            return next(values)

        assert await load() == 0
        clock.advance(11)
        slow.append(True)
        assert await load() == 0
        release.set()
        while await load() == 0:
            await asyncio.sleep(0)
        assert await load() == 1

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_hard_time_out_gives_up_and_the_load_goes_on(cache):
    async def main():
        release = asyncio.Event()

        @cache.cached(ttl=10, hard_timeout=0.01)
        async def load(x):
            await release.wait()
            return x

        with pytest.raises(LoadTimeout, match="goes on behind") as caught:
            await load(1)
        assert caught.value.seconds == 0.01
        assert caught.value.key == load.key_for(1)
        release.set()
        assert await load(1) == 1

    asyncio.run(asyncio.wait_for(main(), 10))


def test_the_loader_s_own_time_out_is_not_ours(make):
    body = Counting(TimeoutError("of the database"))
    call, _ = make(body, ttl=10, hard_timeout=5)
    with pytest.raises(TimeoutError, match="of the database") as caught:
        call(1)
    assert not isinstance(caught.value, LoadTimeout)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep_if": 1}, "keep_if=1"),
        ({"none_ttl": "soon"}, "none_ttl='soon'"),
        ({"exceptions": {KeyboardInterrupt: 5}}, "KeyboardInterrupt"),
        ({"exceptions": {LookupError: 0}}, "exceptions[LookupError]"),
        ({"exceptions": {LookupError("x"): 5}}, "no kind of Exception"),
        ({"version": "a b"}, "version='a b'"),
        ({"refresh_at": 1}, "refresh_at=1"),
        ({"soft_timeout": 0}, "soft_timeout=0"),
        ({"hard_timeout": -1}, "hard_timeout=-1"),
        ({"tll": 5}, "tll"),
        ({"lock": "no"}, "lock='no' must be True or False"),
        ({"copy": None}, "copy=None must be True or False"),
    ],
)
def test_a_wrong_option_is_refused_by_name(cache, options, said):
    with pytest.raises(ConfigError) as caught:
        cache.cached(ttl=60, **options)(lambda: None)
    assert said in str(caught.value)


@pytest.mark.parametrize("wrong", [["redis://a", "redis://b"], b"memory://", 6379])
def test_what_is_neither_a_url_nor_a_store_is_refused(wrong):
    with pytest.raises(ConfigError, match="a URL such as 'redis://localhost', or of a Store, not of"):
        Cache(wrong)
