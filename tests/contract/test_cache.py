"""The ``Cache`` facade, over every kind of store and in both worlds: ``get`` and ``aget`` must do the same."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count

import pytest

from cachekit import Cache, CodecError, ConfigError, Policy, StoreError
from cachekit.tags import collecting
from cachekit.testing import ManualClock, World

STORES = ["memory", "valkey", "redis", "tiered+valkey", "tiered+redis"]
MISSING = object()


@pytest.fixture(params=[pytest.param(s, marks=() if s == "memory" else pytest.mark.server) for s in STORES])
def url(request) -> str:
    name = request.param
    if name == "memory":
        return "memory://"
    server = request.getfixturevalue("redis_server" if name.endswith("redis") else "valkey")
    with server.client() as client:
        client.flushall()
    return ("tiered+" if name.startswith("tiered+") else "") + server.url


class Facade:
    """Calls ``name`` or ``aname``."""

    def __init__(self, cache: Cache, world: World) -> None:
        self.cache, self.world = cache, world

    def __getattr__(self, name):
        if self.world.name == "blocking":
            return getattr(self.cache, name)
        return lambda *args, **kwargs: self.world.run(lambda _: getattr(self.cache, "a" + name)(*args, **kwargs))


@pytest.fixture
def api(url, world, clock):
    cache = Cache(url, clock=clock, timeout=5.0, ttl_classes={"quick": 5})
    facade = Facade(cache, world)
    yield facade
    facade.close()


def test_get_set_delete(api) -> None:
    assert api.get("k") is None
    assert api.get("k", MISSING) is MISSING
    api.set("k", [1, {"a": None}])
    assert api.get("k", MISSING) == [1, {"a": None}]
    api.set("k", 2)
    assert api.get("k") == 2
    assert api.delete("k") is True
    assert api.delete("k") is False
    assert api.get("k", "gone") == "gone"


def test_none_is_not_absence(api) -> None:
    api.set("k", None)
    assert api.get("k", MISSING) is None
    assert api.get_many(["k"]) == {"k": None}
    assert api.add("k", 1) is False
    assert api.get_or_set("k", lambda: 1) is None
    assert api.delete("k") is True


def test_lifetimes(api, clock: ManualClock) -> None:
    for name, ttl in {"a": 5, "b": "10s", "c": None, "d": "quick", "e": Policy(ttl=10)}.items():
        api.set(name, 1, ttl=ttl)
    clock.advance(4.99)
    assert sorted(api.get_many("abcde")) == list("abcde")
    clock.advance(0.02)
    assert sorted(api.get_many("abcde")) == list("bce")
    clock.advance(5)
    assert sorted(api.get_many("abcde")) == ["c"]
    assert [api.get(name) for name in "abcde"] == [None, None, 1, None, None]


def test_many(api) -> None:
    api.set_many({f"k{i}": i for i in range(10)}, tags=["all"])
    assert api.get_many(f"k{i}" for i in range(0, 20, 2)) == {f"k{i}": i for i in range(0, 10, 2)}
    assert api.delete_many(["k0", "k1", "nothing"]) == 2
    assert api.get_many(["k0", "k2"]) == {"k2": 2}
    api.invalidate("all")
    assert api.get_many([f"k{i}" for i in range(10)]) == {}
    api.set_many({})
    assert (api.get_many([]), api.delete_many([])) == ({}, 0)


def test_many_come_in_the_order_asked_for(api) -> None:
    names = [f"k{number}" for number in (5, 1, 4, 2, 3)]
    api.set_many(dict.fromkeys(sorted(names), 1))
    api.get("k4")  # lies in the first level, where there is one
    for order in (names, names[::-1]):
        assert list(api.get_many(["absent", *order])) == order


def test_long_and_odd_keys(api) -> None:
    keys = ["x" * 5000, "x" * 5000 + "y", "a\x00b", "a", "b", "\ud800", "{}", "ключ", "a b\n"]
    for key in keys:
        api.set(key, key[-3:].encode("utf-8", "replace"))
    assert [api.get(key) for key in keys] == [key[-3:].encode("utf-8", "replace") for key in keys]
    assert api.get_many(keys).keys() == set(keys)
    assert api.delete_many(keys) == len(keys)


def test_get_or_set(api, clock: ManualClock) -> None:
    runs = count()
    assert [api.get_or_set("k", lambda: next(runs), ttl=10, tags=["t"]) for _ in range(3)] == [0, 0, 0]
    api.invalidate("t")
    assert api.get_or_set("k", lambda: next(runs), ttl=10, tags=["t"], lock=False) == 1
    clock.advance(11)
    assert api.get_or_set("k", lambda: next(runs), ttl=10) == 2


def test_get_or_set_returns_what_was_set_meanwhile(url, api, world, thread, clock: ManualClock) -> None:
    """By whoever did it: the loader itself, another thread of this process, another process."""
    own = api.cache

    def meanwhile(change):
        def load():
            thread(change).result()
            return "loaded"

        return load

    changes = {
        "set": lambda: own.set("set", "newer", tags=["t"]),
        "add": lambda: own.add("add", "newer", tags=["t"]),
        "set_many": lambda: own.set_many({"set_many": "newer"}, tags=["t"]),
    }
    if url != "memory://":
        other = Cache(url, clock=clock, timeout=5.0)
        changes["elsewhere"] = lambda: other.set("elsewhere", "newer", tags=["t"])
        changes["added"] = lambda: other.add("added", "newer", tags=["t"])
    for name, change in changes.items():
        assert (name, api.get_or_set(name, meanwhile(change))) == (name, "newer")
        assert api.get(name) == "newer"
    for name, change in {"deleted": own.delete, "cleared": lambda _: own.clear()}.items():
        assert api.get_or_set(name, meanwhile(lambda: change(name))) == "loaded"  # noqa: B023 - called at once
        assert api.get(name) is None


def test_what_was_set_meanwhile_brings_its_tags(api, thread) -> None:
    def load():
        thread(lambda: api.cache.set("k", "newer", tags=["t"])).result()
        return "loaded"

    with collecting() as used:
        assert api.get_or_set("k", load) == "newer"
    assert "t" in used or api.world.name == "asyncio", "its context is that of its own tasks"


def test_get_or_set_takes_loaders_of_the_right_kind(api) -> None:
    async def load():
        return 1

    if api.world.name == "asyncio":
        assert api.get_or_set("k", load) == 1
        assert api.get_or_set("l", lambda: load()) == 1
        return
    with pytest.raises(ConfigError, match="aget_or_set"):
        api.get_or_set("k", load)
    with pytest.raises(ConfigError, match="only once"):
        api.get_or_set("k", lambda: load())
    assert api.get("k") is None


def test_add(api, clock: ManualClock) -> None:
    assert api.add("k", 1, ttl=10, tags=["t"]) is True
    assert api.add("k", 2) is False
    assert api.get("k") == 1
    clock.advance(10)
    assert api.add("k", 3, tags=["t"]) is True
    api.invalidate("t")
    assert api.add("k", 4) is True
    assert api.get("k") == 4


def test_touch(api, clock: ManualClock) -> None:
    assert api.touch("k", ttl=10) is False
    api.set("k", "v", ttl=10, tags=["t"])
    clock.advance(9)
    assert api.touch("k", ttl=10) is True
    clock.advance(9)
    assert api.get("k") == "v"
    assert api.touch("k") is True
    clock.advance(1000)
    assert api.get("k") == "v"
    api.invalidate("t")  # tags outlive the touch
    assert api.get("k") is None
    assert api.touch("k") is False


def test_incr(api, clock: ManualClock) -> None:
    assert [api.incr("n"), api.incr("n"), api.incr("n", 5), api.incr("n", -10)] == [1, 2, 7, -3]
    assert api.incr("m", 2, initial=10, ttl=10) == 12
    clock.advance(6)
    assert api.incr("m", ttl=10) == 13  # the lifetime stays
    clock.advance(6)
    assert api.get("m") is None
    assert api.incr("m") == 1
    assert api.incr("n", 2**70) == 2**70 - 3


@pytest.mark.parametrize("value", ["1", 1.0, True, None, [1]])
def test_incr_of_what_is_no_number(api, value) -> None:
    api.set("k", value)
    with pytest.raises(ConfigError, match=f"'k'.*{type(value).__name__}"):
        api.incr("k")
    assert api.get("k") == value


def test_incr_loses_nothing(api, thread) -> None:
    threads, rounds = 4, 25

    def work():
        if api.world.name == "blocking":
            return [api.cache.incr("n") for _ in range(rounds)]

        async def job():
            try:
                return await asyncio.gather(*(api.cache.aincr("n") for _ in range(rounds)))
            finally:
                link = getattr(getattr(getattr(api.cache.store, "l2", api.cache.store), "inner", None), "link", None)
                if link is not None:
                    await link._aclose()

        return asyncio.run(job())

    running = [thread(work) for _ in range(threads)]
    seen = sorted(number for each in running for number in each.result())
    assert seen == list(range(1, threads * rounds + 1))
    assert api.get("n") == threads * rounds


def test_a_write_overtakes_a_load(api) -> None:
    """What a load brings must not replace what was written while it ran."""
    for name, write in {
        "set": lambda: api.cache.set("set", "written"),
        "add": lambda: api.cache.add("add", "written"),
        "incr": lambda: api.cache.incr("incr", 7),
    }.items():

        def load(write=write):
            write()
            return "loaded"

        if api.world.name == "blocking":
            api.get_or_set(name, load)
        else:

            async def aload(name=name):
                if name == "set":
                    await api.cache.aset(name, "written")
                elif name == "add":
                    await api.cache.aadd(name, "written")
                else:
                    await api.cache.aincr(name, 7)
                return "loaded"

            api.get_or_set(name, aload)
        assert api.get(name) == (7 if name == "incr" else "written"), name


def test_tags(api) -> None:
    api.set("a", 1, tags=["x", "y"])
    api.set("b", 2, tags=["y"])
    api.set("c", 3)
    assert api.get_or_set("d", lambda: 4, tags=["x"]) == 4
    api.invalidate("x")
    assert api.get_many("abcd") == {"b": 2, "c": 3}
    api.set("a", 5, tags=["x", "y"])
    assert api.get("a") == 5
    api.invalidate("nothing carries this", "y")
    assert api.get_many("abcd") == {"c": 3}


def test_a_set_without_tags_drops_those_it_had(api) -> None:
    api.set("k", 1, tags=["t"])
    api.set("k", 2)
    api.invalidate("t")
    assert api.get("k") == 2


def test_clear(api) -> None:
    api.set_many({f"k{i}": i for i in range(50)}, tags=["t"])
    api.get("k1")
    api.clear()
    assert api.get_many([f"k{i}" for i in range(50)]) == {}
    api.set("k1", "again", tags=["t"])
    assert api.get("k1") == "again"


def test_decorated_functions(api) -> None:
    runs = count()
    if api.world.name == "blocking":

        @api.cache.cached(ttl=60, tags=["x:{x}"])
        def load(x):
            return {"x": x, "run": next(runs)}

        call, drop, refresh = load, load.invalidate, load.refresh
    else:

        @api.cache.cached(ttl=60, tags=["x:{x}"])
        async def aload(x):
            return {"x": x, "run": next(runs)}

        def call(x):
            return api.world.run(lambda _: aload(x))

        def drop(x):
            return api.world.run(lambda _: aload.invalidate(x))

        def refresh(x):
            return api.world.run(lambda _: aload.refresh(x))

    assert [call(1)["run"], call(1)["run"], call(2)["run"]] == [0, 0, 1]
    drop(1)
    assert [call(1)["run"], call(1)["run"]] == [2, 2]
    assert refresh(1)["run"] == 3
    assert call(1)["run"] == 3
    api.invalidate("x:1")
    assert [call(1)["run"], call(2)["run"]] == [4, 1]


def test_nested_functions_are_kept_at_once(api) -> None:
    """A tag that nobody used before is learnt while the outer function runs: that is no invalidation."""
    runs = {"inner": count(), "outer": count()}
    if api.world.name == "blocking":

        @api.cache.cached(tags=["new:{x}"])
        def inner(x):
            return next(runs["inner"])

        @api.cache.cached
        def outer(x):
            return [inner(x), next(runs["outer"])]

        call = outer
    else:

        @api.cache.cached(tags=["new:{x}"])
        async def ainner(x):
            return next(runs["inner"])

        @api.cache.cached
        async def aouter(x):
            return [await ainner(x), next(runs["outer"])]

        def call(x):
            return api.world.run(lambda _: aouter(x))

    assert [call(1), call(1)] == [[0, 0], [0, 0]]
    api.invalidate("new:1")
    assert [call(1), call(1)] == [[1, 1], [1, 1]]


def test_refusals(api) -> None:
    for call in (
        lambda: api.get(5),
        lambda: api.get(""),
        lambda: api.set(None, 1),
        lambda: api.set("k", 1, ttl=0),
        lambda: api.set("k", 1, ttl=-1),
        lambda: api.set("k", 1, ttl="unheard of"),
        lambda: api.set("k", 1, tags="t"),
        lambda: api.set("k", 1, tags=[5]),
        lambda: api.set("k", 1, tags=["a\nb"]),
        lambda: api.set("k", 1, tags=["x" * 513]),
        lambda: api.set_many({"k": 1, "": 2}),
        lambda: api.get_many([5]),
        lambda: api.add("k", 1, ttl=0),
        lambda: api.touch("k", ttl="0s"),
        lambda: api.incr("n", ttl=-5),
        lambda: api.invalidate(),
        lambda: api.invalidate(5),
        lambda: api.invalidate(""),
        lambda: api.get_or_set("k", lambda: 1, tags=[""]),
    ):
        with pytest.raises(ConfigError):
            call()
    assert api.get("k", MISSING) is MISSING


def test_values_that_a_server_cannot_hold(api) -> None:
    if api.cache.url.startswith("memory"):
        return
    with pytest.raises(CodecError) as caught:
        api.set_many({"fine": 1, "bad": [1, {"x": object()}]})
    assert "object" in caught.value.type_name
    assert caught.value.path == "[1]['x']"
    assert api.get_many(["fine", "bad"]) == {}


def test_leaving_the_context_closes_and_the_cache_opens_again(url, clock, world) -> None:
    async def used(cache):
        async with cache as same:
            assert same is cache
            await cache.aset("k", 1)
            assert await cache.aget("k") == 1

    cache = Cache(url, clock=clock, timeout=5.0)
    for _ in range(2):
        if world.name == "asyncio":
            world.run(lambda _: used(cache))
        else:
            with cache as same:
                assert same is cache
                cache.set("k", 1)
                assert cache.get("k") == 1
    with contextlib.suppress(StoreError):
        cache.close()


def test_it_shows_no_secrets(clock) -> None:
    cache = Cache("redis://user:secret@example.invalid:1/0", clock=clock)
    assert "secret" not in repr(cache)
    assert "secret" not in repr(cache.store.inner.link)
    assert "example.invalid" in repr(cache)
    with pytest.raises(ConfigError, match="unknown URL scheme 'reddis' in 'reddis://example.invalid/0'"):
        Cache("reddis://user:secret@example.invalid/0?password=secret")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "memcached://x"}, "unknown URL scheme 'memcached'.*redis://"),
        ({"url": "tiered+memory://"}, "tiered"),
        ({"url": "unix://"}, "names no socket"),
        ({"url": "redis://localhost:port/0"}, "URL"),
        ({"url": "redis://localhost/zero"}, "'zero' is no number of a database.*redis://host:port/0"),
        ({"url": "redis://localhost/0/1"}, "'0/1' is no number of a database"),
        ({"url": "redis://localhost?timeout=3"}, r"'timeout' is no option.*Cache\(timeout=...\)"),
        ({"url": "tiered+valkeys://localhost?no_such=3"}, "'no_such' is no option of a connection$"),
        ({"url": "sentinel://localhost?service=m&no_such=3"}, "'no_such' is no option"),
        ({"url": "redis://localhost?decode_responses=true"}, "decode_responses= cannot be chosen"),
        ({"url": "redis://localhost?protocol=3"}, "protocol= cannot be chosen"),
        ({"url": "redis://localhost?socket_timeout=3"}, r"socket_timeout= cannot be chosen.*Cache\(timeout=...\)"),
        ({"url": "redis://localhost?retry_on_timeout=yes"}, "retry_on_timeout= cannot be chosen"),
        ({"url": "redis://localhost?max_connections=0"}, "max_connections=0 must be at least 1"),
        ({"url": "redis://localhost:99999"}, "'localhost:99999' in .* is not host:port"),
        ({"url": "redis://user:secret@a b"}, "'a b' in 'redis://a b' is not host:port"),
        ({"url": "redis://[::1"}, "cannot be used: Invalid IPv6 URL"),
        ({"url": "redis+cluster://localhost?encoding=latin-1"}, "encoding= cannot be chosen"),
        ({"url": None}, "a URL such as 'redis://localhost', or of a Store, not of NoneType"),
        ({"url": 6379}, "not of int"),
        ({"ttl": 0}, "ttl=0"),
        ({"jitter": 2}, "jitter=2"),
        ({"ttl_classes": {"5m": 5}}, "'5m' cannot name"),
        ({"ttl_classes": {"quick": -5}}, "-5"),
        ({"max_entries": 0}, "max_entries=0"),
        ({"max_bytes": "1k"}, "max_bytes='1k'"),
        ({"url": "redis://localhost/0", "namespace": "a:b"}, "namespace='a:b'"),
        ({"url": "redis://localhost/0", "timeout": 0}, "timeout=0"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(options, says) -> None:
    with pytest.raises(ConfigError, match=says):
        Cache(**options)
