"""One direct test for each thing that caches for functions are compared by. Deeper ones stand with what they test."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from dataclasses import dataclass
from itertools import count

import httpx
import pytest

from cachekit import Cache, Encryption, Kind, LoadTimeout, Policy, Signing, bypass, current, refresh, tag
from cachekit.testing import ManualClock, calls
from tests.conftest import until


def both_kinds(cache, **options):
    """Return a blocking and a coroutine function under the same decorator, and how often each has run."""
    runs = {"def": 0, "async def": 0}

    @cache.cached(**options)
    def plain(x):
        runs["def"] += 1
        return x

    @cache.cached(**options)
    async def coroutine(x):
        runs["async def"] += 1
        return x

    return plain, coroutine, runs


def test_sync_and_async_with_one_decorator(store_url, clock) -> None:
    with Cache(store_url, clock=clock, timeout=5.0) as cache:
        plain, coroutine, runs = both_kinds(cache, ttl="5m")

        async def main():
            assert [await coroutine(1), await coroutine(1)] == [1, 1]
            await cache.aclose()

        assert [plain(1), plain(1)] == [1, 1]
        asyncio.run(main())
        assert runs == {"def": 1, "async def": 1}
        assert inspect.iscoroutinefunction(coroutine)
        assert not inspect.iscoroutinefunction(plain)


def test_ttl_per_call_and_from_result(facade, clock) -> None:
    runs = count()

    def load(x):
        current().ttl = x
        return next(runs)

    made = facade.made(load, ttl="1h")
    assert [made(5), made(50)] == [0, 1]
    facade.set("k", 1, ttl=5)
    clock.advance(6)
    assert [made(5), made(50), facade.get("k")] == [2, 1, None]


def test_named_ttl_profiles(clock) -> None:
    cache = Cache(clock=clock, ttl_classes={"quick": 5, "slow": Policy(ttl=500)})
    runs = count()

    @cache.cached(ttl="quick")
    def load():
        return next(runs)

    load()
    cache.set("k", 1, ttl="slow")
    clock.advance(6)
    assert (load(), cache.get("k")) == (1, 1)
    assert cache.stats().by_class["quick"].loads == 2


def test_tags(facade) -> None:
    load = facade.made(lambda x: x, tags=["t:{x}"])
    load(1), load(2)
    facade.invalidate("t:1")
    assert [load.peek(1), load.peek(2)] == [None, 2]


def test_tags_from_result(facade) -> None:
    def load(x):
        tag(f"inside:{x}")
        return {"id": x + 10}

    made = facade.made(load, result_tags=lambda found: [f"id:{found['id']}"])
    made(1), made(2), made(3)
    facade.invalidate("id:11", "inside:2")
    assert [made.peek(x) for x in (1, 2, 3)] == [None, None, {"id": 13}]


@pytest.mark.server
def test_o1_tag_invalidation(server, clock) -> None:
    with Cache(server.url, clock=clock, timeout=5.0) as cache, server.client() as client:
        cost = []
        cache.invalidate("t")  # the script is sent once
        for size in (10, 500):
            cache.set_many({f"k{i}": i for i in range(size)}, tags=["t"])
            client.config_resetstat()
            cache.invalidate("t")
            stats = client.info("commandstats")
            cost.append({name: found["calls"] for name, found in stats.items() if "config" not in name})
            assert cache.get_many([f"k{i}" for i in range(size)]) == {}
        assert cost[0] == cost[1]


def test_function_wide_invalidation(facade) -> None:
    load = facade.made(lambda x: x)
    other = facade.made(lambda y: y)
    load(1), load(2), other(1)
    load.invalidate_all()
    assert [load.peek(1), load.peek(2), other.peek(1)] == [None, None, 1]


def test_stampede_in_process(cache: Cache, thread, watch) -> None:
    go_on = threading.Event()
    runs = count()

    @cache.cached
    def load():
        next(runs)
        go_on.wait(10)
        return "value"

    callers = [thread(load) for _ in range(8)]
    watch.wait(Kind.COLLAPSED, 7)
    go_on.set()
    assert {caller.result() for caller in callers} == {"value"}
    assert next(runs) == 1


@pytest.mark.server
def test_stampede_distributed(server, clock, thread) -> None:
    """Two caches share nothing but the server, as two processes do."""
    one, two = (Cache(server.url, clock=clock, timeout=5.0) for _ in range(2))
    started, go_on = threading.Event(), threading.Event()
    runs = count()

    def load():
        started.set()
        go_on.wait(10)
        return next(runs)

    first = thread(one.get_or_set, "k", load)
    assert started.wait(10)
    second = thread(two.get_or_set, "k", load)
    go_on.set()
    assert [first.result(), second.result(), next(runs)] == [0, 0, 1]
    one.close()
    two.close()


def test_xfetch(clock, patient, monkeypatch) -> None:
    cache = Cache(clock=clock, chance=lambda: 0.99)
    readings = count(0.0, 1.0)  # every loader seems to take a second
    monkeypatch.setattr("cachekit.engine.stopwatch", lambda: next(readings))
    runs = count()

    @cache.cached(ttl=100, beta=1.0)
    def load():
        return next(runs)

    assert load() == 0
    clock.advance(98)
    assert load() == 0  # served, and refreshed behind before its end
    patient(lambda: load.peek() == 1)


def test_eager_refresh(clock, patient) -> None:
    cache = Cache(clock=clock)
    runs = count()

    @cache.cached(ttl=100, refresh_at=0.8)
    def load():
        return next(runs)

    load()
    clock.advance(79)
    assert (load(), cache.stats().total.loads) == (0, 1)
    clock.advance(2)
    assert load() == 0
    patient(lambda: load.peek() == 1)


def test_stale_while_revalidate(facade, clock, patient) -> None:
    runs = count()
    load = facade.made(lambda: next(runs), ttl=10, stale_while_revalidate=60)
    load()
    clock.advance(11)
    assert load() == 0
    if facade.world.name == "blocking":
        patient(lambda: load.peek() == 1)
    else:
        facade.world.run(lambda _: until(lambda: facade.cache.stats().events.get("stored", 0) >= 2))
    assert load() == 1


def test_stale_if_error(facade, clock) -> None:
    state = {"fail": False}

    def body():
        if state["fail"]:
            raise OSError("the database is away")
        return "kept"

    load = facade.made(body, ttl=10, stale_if_error=60)
    load()
    state["fail"] = True
    clock.advance(11)
    assert load() == "kept"
    clock.advance(60)
    with pytest.raises(OSError, match="away"):
        load()


def test_soft_and_hard_timeouts(clock, patient) -> None:
    cache = Cache(clock=clock)
    go_on = threading.Event()
    go_on.set()
    runs = count()

    @cache.cached(ttl=10, stale_if_error=60, soft_timeout=0.01, hard_timeout=0.02)
    def load(x):
        go_on.wait(10)
        return next(runs)

    patient(lambda: load.peek(1) is not None or _quietly(load, 1))
    go_on.clear()
    clock.advance(11)
    assert load(1) == 0  # the soft one: the stale value
    with pytest.raises(LoadTimeout):
        load(2)  # the hard one: there is nothing to serve
    go_on.set()
    patient(lambda: load.peek(2) is not None)  # and the load went on


def _quietly(load, x) -> None:
    try:
        load(x)
    except LoadTimeout:
        pass


def test_none_is_cached(facade) -> None:
    runs = count()
    load = facade.made(lambda: next(runs) and None)
    load(), load()
    assert next(runs) == 1


def test_exceptions_are_cached(facade, clock) -> None:
    runs = count()

    def body():
        raise LookupError(next(runs))

    load = facade.made(body, exceptions={LookupError: 30})
    for expected in (0, 0):
        with pytest.raises(LookupError, match=str(expected)):
            load()
    clock.advance(31)
    with pytest.raises(LookupError, match="1"):
        load()


@pytest.mark.server
def test_circuit_breaker(own_server, clock, watch) -> None:
    with Cache(own_server.url, clock=clock, timeout=0.25, observers=[watch]) as cache:
        cache.set("k", 1)
        own_server.stop()
        for _ in range(5):
            cache.get("k")
        assert cache.stats().store == "away"
        assert len(watch.of(Kind.BREAKER_OPENED)) == 1
        errors = len(watch.of(Kind.STORE_ERROR))
        for _ in range(5):
            cache.get("k")
        assert len(watch.of(Kind.STORE_ERROR)) == errors  # nothing is tried while it is open


@pytest.mark.server
@pytest.mark.parametrize("tier", ["", "tiered+"])
def test_survives_redis_down(own_server, clock, tier) -> None:
    with Cache(tier + own_server.url, clock=clock, timeout=0.25) as cache:
        plain, _, runs = both_kinds(cache)
        own_server.stop()
        assert [plain(x) for x in range(5)] == list(range(5))
        cache.invalidate("t")
        assert cache.get("k", "default") == "default"
        assert runs["def"] == 5


@pytest.mark.server
def test_l1_and_l2(server, clock) -> None:
    with Cache(f"tiered+{server.url}", clock=clock, timeout=5.0) as one:
        value = {"a": [1]}
        assert one.get_or_set("k", lambda: value) is value
        assert one.get("k") is value  # the object itself: from the first level
        with Cache(f"tiered+{server.url}", clock=clock, timeout=5.0) as two:
            assert two.get("k") == value  # from the second


@pytest.mark.server
def test_backplane(server, clock, patient) -> None:
    one, two = (Cache(f"tiered+{server.url}", clock=clock, timeout=5.0) for _ in range(2))
    one.get_or_set("k", lambda: 1, tags=["t"])
    assert two.get("k") == 1
    assert two.l1 is not None
    assert two.l1.peek("k") is not None
    one.invalidate("t")
    patient(lambda: two.l1.peek("k") is None)
    one.close()
    two.close()


@pytest.mark.server
def test_client_tracking(server, clock, patient) -> None:
    """The server itself says what changed: the cache's connection tracks, and nothing is subscribed to or published."""
    one, two = (Cache(f"tiered+{server.url}", clock=clock, timeout=5.0) for _ in range(2))
    assert two.get_or_set("k", lambda: 1, tags=["t"]) == 1
    patient(lambda: two.stats().channel == "live")
    assert two.get_or_set("k", lambda: 2, tags=["t"]) == 1
    with server.client() as client:
        assert two.stats().channel_kind == "tracking"
        assert [found for found in client.client_list() if "t" in found["flags"]]
        assert client.pubsub_channels() == []
        patient(lambda: two.l1.peek("k") is not None)
        one.invalidate("t")
        patient(lambda: two.l1.peek("k") is None)
    one.close()
    two.close()


@pytest.mark.server
@pytest.mark.parametrize("tier", ["", "tiered+"])
def test_cluster(cluster, clock, tier) -> None:
    """Values on every primary, dropped by one tag with one command, which is on one of them."""
    with Cache(tier + cluster.url, clock=clock, timeout=5.0) as cache:
        plain, coroutine, runs = both_kinds(cache, tags=["t"])
        assert [plain(x) for x in range(30)] == [plain(x) for x in range(30)] == list(range(30))
        assert runs["def"] == 30
        assert all(member.client.dbsize() for member in cluster.primaries())
        cache.invalidate("t")
        assert [plain.peek(x) for x in range(30)] == [None] * 30

        async def main():
            assert [await coroutine(1), await coroutine(1)] == [1, 1]
            await cache.aclose()

        asyncio.run(main())
        assert runs["async def"] == 1


@pytest.mark.server
@pytest.mark.parametrize("tier", ["", "tiered+"])
def test_sentinel(sentinels, clock, tier) -> None:
    """The primary is found through Sentinels. What happens at a failover stands in ``contract/test_topologies.py``."""
    with Cache(tier + sentinels.url, clock=clock, timeout=5.0) as cache:
        plain, coroutine, runs = both_kinds(cache, tags=["t"])
        assert [plain(1), plain(1), runs["def"]] == [1, 1, 1]
        assert sentinels.primaries()[0].client.dbsize()
        cache.invalidate("t")
        assert plain.peek(1) is None

        async def main():
            assert [await coroutine(1), await coroutine(1)] == [1, 1]
            await cache.aclose()

        asyncio.run(main())
        assert runs["async def"] == 1


def test_late_fill_is_refused(facade) -> None:
    is_blocking = facade.world.name == "blocking"
    if is_blocking:

        @facade.cache.cached(tags=["t"])
        def load():
            facade.cache.invalidate("t")
            return "old"
    else:

        @facade.cache.cached(tags=["t"])
        async def load():
            await facade.cache.ainvalidate("t")
            return "old"

    assert facade.run(load) == "old"
    assert facade.run(load.peek) is None


def test_cached_many(facade) -> None:
    asked = []

    def users(numbers):
        asked.append(list(numbers))
        return {number: str(number) for number in numbers}

    load = facade.made(users, decorate=facade.cache.cached_many(key="user:{item}"))
    load([1, 2])
    assert load([1, 2, 3]) == {1: "1", 2: "2", 3: "3"}
    assert asked == [[1, 2], [3]]


@pytest.mark.server
def test_safe_serializer_by_default(server, clock, watch) -> None:
    class Anything:
        pass

    with Cache(server.url, clock=clock, timeout=5.0, observers=[watch]) as cache:
        assert isinstance(cache.get_or_set("k", Anything), Anything)
        assert cache.get("k") is None  # refused, not pickled
        assert watch.of(Kind.UNENCODABLE)


@pytest.mark.server
@pytest.mark.parametrize("way", [Encryption, Signing])
def test_signed_or_encrypted(server, clock, way) -> None:
    with Cache(server.url, clock=clock, timeout=5.0, protection=way([b"k" * 32])) as cache, server.client() as client:
        cache.set("k", "secret")
        assert cache.get("k") == "secret"
        client.copy("cachekit:v:{k}", "cachekit:v:{other}")
        assert cache.get("other") is None


@pytest.mark.server
def test_compression_threshold(server, clock) -> None:
    with Cache(server.url, clock=clock, timeout=5.0, compress_from=1000) as cache, server.client() as client:
        cache.set_many({"short": "x" * 900, "long": "x" * 1100})
        assert client.strlen("cachekit:v:{short}") > 900
        assert client.strlen("cachekit:v:{long}") < 300
        assert cache.get("long") == "x" * 1100


def test_positional_keyword_and_default_are_one_key(facade) -> None:
    runs = count()

    def body(a, b=2, *, c=3):
        return next(runs)

    load = facade.made(body)
    assert {load(1), load(a=1), load(1, 2), load(1, b=2), load(b=2, a=1, c=3)} == {0}


def test_1_true_and_text_1_are_distinct(facade) -> None:
    load = facade.made(lambda x: [type(x).__name__])
    values = [1, True, 1.0, "1"]
    for _ in range(3):
        assert [load(value) for value in values] == [["int"], ["bool"], ["float"], ["str"]]


def test_methods_without_a_leak_of_self(cache: Cache) -> None:
    class Tenant:
        @cache.cached
        def plan(self, month):
            return id(self)

    one, two = Tenant(), Tenant()
    assert (one.plan(1), two.plan(1), one.plan(1)) == (id(one), id(two), id(one))
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


@dataclass
class Item:
    number: int


def test_typed_decode(facade) -> None:
    def body(n) -> list[Item]:
        return [Item(n)]

    load = facade.made(body)
    load(1)
    assert load.peek(1) == [Item(1)]


def test_bounded_with_a_policy(clock) -> None:
    cache = Cache(clock=clock, max_entries=50, max_bytes=10**6)
    for key in range(1000):
        cache.set(str(key), key)
    stats = cache.stats()
    assert (stats.entries, stats.evictions) == (50, 950)


def test_scan_resistant(clock) -> None:
    cache = Cache(clock=clock, max_entries=100)
    plain, _, runs = both_kinds(cache)
    for _ in range(3):
        for x in range(50):
            plain(x)
    for x in range(10_000, 15_000):
        plain(x)
    runs["def"] = 0
    for x in range(50):
        plain(x)
    assert runs["def"] == 0


def test_prometheus_and_opentelemetry(cache: Cache) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from prometheus_client import CollectorRegistry, generate_latest

    from cachekit.observe.otel import CacheInstruments
    from cachekit.observe.prometheus import CacheCollector

    plain, _, _ = both_kinds(cache)
    plain(1), plain(1)
    registry = CollectorRegistry()
    registry.register(CacheCollector({"c": cache}))
    assert b"both_kinds.<locals>.plain" in generate_latest(registry)
    reader = InMemoryMetricReader()
    CacheInstruments(cache, name="c", meter_provider=MeterProvider([reader]))
    assert reader.get_metrics_data() is not None


def test_paramspec() -> None:
    """Type checkers hold ``tests/typing/api.py`` to it; at run time the signature is the function's own."""
    cache = Cache()

    @cache.cached(ttl=5)
    def load(a: int, /, b: str = "x", *, c: float = 1.0) -> list[int]:
        """What it does."""
        return [a]

    assert str(inspect.signature(load)) == "(a: 'int', /, b: 'str' = 'x', *, c: 'float' = 1.0) -> 'list[int]'"
    assert (load.__name__, load.__doc__) == ("load", "What it does.")


def test_bypass_and_refresh(cache: Cache) -> None:
    runs = count()

    @cache.cached
    def load():
        return next(runs)

    load()
    with bypass():
        assert load() == 1
    assert load() == 0
    with refresh():
        assert load() == 2
    assert load() == 2


def test_transactions(facade) -> None:
    def fail(_):
        facade_set = facade.cache.set if facade.world.name == "blocking" else None
        if facade_set is not None:
            facade_set("k", "new")
            raise LookupError
        return afail()

    async def afail():
        await facade.cache.aset("k", "new")
        raise LookupError

    facade.set("k", "old")
    with pytest.raises(LookupError):
        facade.within(facade.cache.transaction(), fail)
    assert facade.get("k") == "old"


def test_ttl_jitter(clock) -> None:
    draws = iter([0.0, 0.5, 0.999])
    cache = Cache(clock=clock, jitter=0.2, chance=lambda: next(draws))
    for key in "abc":
        cache.set(key, 1, ttl=100)
    alive = []
    for _ in range(3):
        clock.advance(30 if not alive else 10)
        alive.append(sorted(cache.get_many("abc")))
        if len(alive) == 1:
            clock.advance(45)
    assert alive == [["a", "b", "c"], ["a", "b"], ["a"]]


def test_a_helper_for_tests() -> None:
    clock = ManualClock()
    cache = Cache(clock=clock)
    plain, _, _ = both_kinds(cache, ttl=10)
    with calls(cache) as seen:
        plain(1), plain(1)
        clock.advance(11)
        plain(1)
    assert (seen.hits, seen.misses, seen.loads) == (1, 2, 2)


def test_warmer_command_line_and_dashboard(cache: Cache, capsys) -> None:
    from cachekit.cli import main
    from cachekit.dashboard import Dashboard
    from cachekit.dashboard.wsgi import DashboardApp
    from cachekit.warm import Warmer

    plain, _, runs = both_kinds(cache)
    warmer = Warmer(progress=False)
    warmer.add_each(plain, [(1,), (2,)])
    warmer.run()
    assert (runs["def"], plain.peek(1), plain.peek(2)) == (2, 1, 2)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "run" in capsys.readouterr().out
    page = httpx.WSGITransport(DashboardApp(Dashboard("/-/cachekit", password="correct horse battery"), cache))
    with httpx.Client(transport=page, base_url="http://a", auth=("ops", "correct horse battery")) as client:
        assert client.get("/-/cachekit.json").json()["total"]["loads"] == 2
        assert "both_kinds" in client.get("/-/cachekit").text


def test_http_etag_and_304(clock) -> None:
    from cachekit.asgi import CacheKit as Asgi
    from cachekit.http.options import HttpOptions
    from cachekit.wsgi import CacheKit as Wsgi

    options = HttpOptions(generate_etag=True)
    runs = count()

    def wsgi(environ, start_response):
        next(runs)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "public, max-age=60")])
        return [b"hello"]

    async def asgi(scope, receive, send):
        next(runs)
        headers = [(b"content-type", b"text/plain"), (b"cache-control", b"public, max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    with httpx.Client(
        transport=httpx.WSGITransport(Wsgi(wsgi, cache=Cache(clock=clock), options=options)), base_url="http://a"
    ) as client:
        client.get("/")
        first = client.get("/")
        again = client.get("/", headers={"If-None-Match": first.headers["ETag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")

    async def main():
        transport = httpx.ASGITransport(Asgi(asgi, cache=Cache(clock=clock), options=options))
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            await client.get("/")
            first = await client.get("/")
            again = await client.get("/", headers={"If-None-Match": first.headers["ETag"]})
            assert (first.status_code, again.status_code, again.content) == (200, 304, b"")

    asyncio.run(main())
    assert next(runs) == 2
