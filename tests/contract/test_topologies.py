"""Clusters and Sentinels: what commands touch, primaries that are lost in the middle, slots that move."""

from __future__ import annotations

import asyncio
import signal
import time
from itertools import count

import pytest
from redis.crc import key_slot

from cachekit import Cache, ConfigError, Kind, StoreError
from cachekit._io import ASYNCIO, BLOCKING, drive
from cachekit.stores.address import Topology, parse
from cachekit.stores.link import RedisLink
from cachekit.stores.links import connect
from cachekit.testing import World

pytestmark = pytest.mark.server


@pytest.fixture
def process(clock, request):
    """Makes caches, each with an origin and observer of its own, and closes them."""
    made: list[Cache] = []

    def start(url: str, **options) -> Cache:
        watch = request.getfixturevalue("watch").__class__()
        cache = Cache(url, observers=[watch], **{"clock": clock, "timeout": 5.0, **options})
        cache.watch = watch
        made.append(cache)
        if url.startswith("tiered+"):
            cache.get("opens the bus")
            watch.wait(Kind.CHANNEL_LIVE)
        return cache

    yield start
    for cache in made:
        cache.close()


# -- URLs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "topology", "hosts", "service"),
    [
        ("redis://h", Topology.SINGLE, (), ""),
        ("sentinel://a:1,b:2/3?service=m", Topology.SENTINEL, (("a", 1), ("b", 2)), "m"),
        ("redis+sentinel://u:p@a,b/m/3", Topology.SENTINEL, (("a", 26379), ("b", 26379)), "m"),
        ("valkey+sentinel://[::1]:1,[::2]/m", Topology.SENTINEL, (("::1", 1), ("::2", 26379)), "m"),
        ("redis+cluster://a:1,b", Topology.CLUSTER, (("a", 1), ("b", 6379)), ""),
        ("valkeys+cluster://u:p@a:1/0", Topology.CLUSTER, (("a", 1),), ""),
    ],
)
def test_urls(url, topology, hosts, service) -> None:
    address = parse(url)
    assert (address.topology, address.hosts, address.service) == (topology, hosts, service)
    assert "p@" not in address.shown
    assert "p@" not in repr(connect(url))


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sentinel://a:1/0", "service=mymaster"),
        ("redis+cluster://a:1/1", "database 0 alone"),
        ("redis+cluster://a:b", "host:port"),
        ("redis+cluster://", "host:port"),
        ("redis+clusters://a", "unknown URL scheme"),
        ("redis+cluster://a:0", "'a:0' in .* is not host:port"),
        ("sentinel://a:1,b:99999/m", "'b:99999' in .* is not host:port"),
        ("sentinel://a:1/m/x", "'/m/x' is no database and no name of a primary"),
        ("sentinel://a:1/1/2?service=m", "'/1/2' is no database"),
    ],
)
def test_urls_that_cannot_be_used(url, complaint) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Cache(url)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("redis://", "redis://localhost"),
        ("valkey:///1", "redis://localhost/1"),
        ("rediss://u:p@:7000/1", "rediss://u:p@localhost:7000/1"),
        ("redis://[::1]:7000", "redis://[::1]:7000"),
        ("unix:///run/a.sock?db=1", "unix:///run/a.sock?db=1"),
    ],
)
def test_a_server_without_a_host_is_here(url, plain) -> None:
    assert parse(url).url == plain
    Cache(f"tiered+{url}").close()


def test_the_database_and_the_credentials_are_those_of_the_servers() -> None:
    address = parse("sentinel://u:p@a:1/3?service=m&sentinel_username=x&sentinel_password=y&ssl_cert_reqs=none")
    assert address.url == "redis://u:p@a:1/3?ssl_cert_reqs=none"
    assert address.sentinel_url == "redis://x:y@a:1?ssl_cert_reqs=none"
    assert parse("rediss+cluster://a").url == "rediss://a:6379/0"


# -- a cluster -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["", "tiered+"])
def test_everything_works_across_slots(cluster, process, tier) -> None:
    cache = process(tier + cluster.url)
    values = {f"k{i}": i for i in range(300)}
    cache.set_many(values, tags=["all", "odd}{tag", "{b}"])
    assert len({cluster.owner(f"cachekit:v:{{{key}}}").port for key in values}) == 3
    assert cache.get_many(values) == values
    assert cache.delete_many(["k1", "k2", "nothing"]) == 2
    assert cache.incr("n") == 1
    assert [cache.add("n", 7), cache.touch("n", ttl=60), cache.incr("n")] == [False, True, 2]
    cache.invalidate("odd}{tag")
    assert cache.get_many(values) == {}
    cache.set_many(values)
    cache.clear()
    assert cache.get_many(values) == {}
    left = [name for member in cluster.primaries() for name in member.client.scan_iter("cachekit:v:*")]
    assert left == []


def test_many_tasks_at_once(cluster, process) -> None:
    """The client library's own cluster client refuses more than a hundred requests in flight to a node."""
    cache = process(cluster.url)
    values = {f"k{i}": i for i in range(1000)}
    cache.set_many(values, tags=["t"])

    async def burst():
        found = await asyncio.gather(*(cache.aget(key) for key in values))
        made = await asyncio.gather(*(cache.aget_or_set(f"n{i}", lambda i=i: i, tags=["t"]) for i in range(300)))
        await cache.store.inner.link._aclose()
        return found, made

    found, made = asyncio.run(burst())
    assert found == list(values.values())
    assert made == list(range(300))
    assert cache.watch.of(Kind.STORE_ERROR) == []


def test_a_primary_that_turns_out_to_be_new_while_it_is_read(cluster, process) -> None:
    """The stamp of the namespace, read before, may not vouch for what is read there afterwards."""
    cache = process(cluster.url)
    link, names = cache.store.inner.link, cache.store.inner.names
    here = cluster.owner(names.tag(""))
    tag = next(f"t{number}" for number in count() if cluster.owner(names.tag(f"t{number}")).port != here.port)
    cache.set_many({"k": "before", "j": "before"}, tags=[tag])
    assert cache.get("k") == cache.get("j") == "before"
    for read in (lambda: cache.get("k"), lambda: cache.get_many(["j"]).get("j")):
        node = link.owner(names.tag(tag))
        cluster.owner(names.seen).client.delete(names.seen)  # nobody knows the history of any primary
        node.unsettle()  # as when a connection breaks, or somebody else has moved in
        assert read() is None


def test_slots_that_move_are_followed(cluster, process, world, request) -> None:
    """Values, leases and stamps are found while their slots are on the way and when they have arrived."""
    # A namespace of its own: whoever else meets a primary of an emptied cluster first drops everything in its namespace.
    cache, other = (process(url, namespace="moving") for url in (cluster.url, f"tiered+{cluster.url}"))
    request.addfinalizer(lambda: world.run(cache.store.close))

    def call(name, *args, **kwargs):
        if world.name == "blocking":
            return getattr(cache, name)(*args, **kwargs)
        return world.run(lambda _: getattr(cache, "a" + name)(*args, **kwargs))

    call("set_many", {f"probe{i}": i for i in range(30)})  # every primary is known now
    call("set", "k", "v", tags=["t"])
    call("set", "k:n", 1, tags=["t"])
    sums = count(2)
    assert other.get("k") == "v"
    for name in ("moving:v:{k}", "moving:v:{k:n}", "moving:t:{t}", "moving:n:{moving}"):
        source = cluster.owner(name)
        target = next(member for member in cluster.primaries() if member is not source)

        def half_way() -> None:
            assert call("get", "k") == "v", (name, cache.watch.events, other.watch.events)
            call("set", "absent there", 1, tags=["t"])
            assert call("get_or_set", "k", lambda: "not this") == "v"

        cluster.move(name, target, half_way)
        assert cluster.owner(name) is target
        assert call("touch", "k", ttl=600) is True
        assert call("incr", "k:n") == call("get", "k:n") == next(sums)
        assert call("get", "k") == "v"
        assert call("get_or_set", f"new {name}", lambda: "loaded", tags=["t"]) == "loaded"
        assert call("get", f"new {name}") == "loaded"
        cluster.move(name, source, lambda: None)
    call("invalidate", "t")
    assert call("get", "k") is None
    assert cache.watch.of(Kind.STORE_ERROR) == []


def test_a_lease_on_a_primary_that_is_away_keeps_nobody_from_the_others(cluster, process, request) -> None:
    cache = process(cluster.url, timeout=0.25)
    store = cache.store.inner
    here = cluster.owner(store.names.tag(""))
    key = {cluster.owner(store.names.value(name).decode()): name for name in map(str, range(30))}
    there = next(member for member in key if member is not here)
    cache.set(key[here], "kept")
    store.owe(drive(store.begin(BLOCKING, key[there], (), 30)))
    there.signal(signal.SIGSTOP)
    request.addfinalizer(lambda: there.signal(signal.SIGCONT))
    assert cache.get_many([key[here]]) == {key[here]: "kept"}


def test_a_lease_whose_slot_is_on_its_way_is_given_back_when_it_has_arrived(cluster, process) -> None:
    store = process(cluster.url).store.inner
    name = store.names.lease("k").decode()
    source = cluster.owner(name)
    target = next(member for member in cluster.primaries() if member is not source)
    store.owe(drive(store.begin(BLOCKING, "k", (), 30)))

    def half_way() -> None:
        with pytest.raises(StoreError):
            drive(store.give_back(BLOCKING))

    cluster.move(name, target, half_way)
    assert target.client.exists(name) == 1
    drive(store.give_back(BLOCKING))
    assert not store.owes
    assert target.client.exists(name) == 0


def test_a_ticket_is_vouched_for_with_tags_learnt_from_the_result(cluster, process, world) -> None:
    cache = process(cluster.url)

    async def job(io):
        await cache.store.invalidate(io, ["learnt"])  # its stamp is there, and older than the load
        ticket = await cache.store.begin(io, "k", ["a"], 30)
        before = await cache.store.holds(io, ticket, ["a", "learnt"])
        await cache.store.invalidate(io, ["learnt"])
        after = await cache.store.holds(io, ticket, ["a", "learnt"])
        await cache.store.close(io)
        return before, after

    assert world.run(job) == (True, False)


@pytest.mark.parametrize("drop", ["invalidate", "delete"])
def test_what_is_dropped_in_a_cluster_that_is_full_is_dropped_everywhere(cluster, process, patient, drop) -> None:
    one, tiered = process(cluster.url), process("tiered+" + cluster.url)
    one.set("k", "old", tags=["t"])
    patient(lambda: tiered.get("k") == "old")
    primaries = cluster.primaries()
    for member in primaries:
        member.client.config_set("maxmemory-policy", "noeviction")
        member.client.config_set("maxmemory", 1)
    try:
        getattr(one, drop)({"invalidate": "t", "delete": "k"}[drop])
        assert one.stats().pending == 0
        assert one.get("k") is None
        patient(lambda: tiered.get("k") is None)
    finally:
        for member in primaries:
            member.client.config_set("maxmemory", 0)


def test_a_tag_learnt_from_a_result_is_compared_by_the_clock_that_made_its_stamp(cluster, process) -> None:
    """Just after an invalidation a load is kept, wherever its tag lies: no margin for clocks is needed then."""
    cache = process(cluster.url)
    for i in range(30):
        cache.invalidate(f"t{i}")
        assert cache.get_or_set(f"k{i}", lambda i=i: i) == i
        loads = count()
        load = cache.cached(key=f"l{i}", result_tags=lambda _, i=i: [f"t{i}"])(lambda loads=loads: next(loads))
        assert [load(), load()] == [0, 0]
        cache.invalidate(f"t{i}")
        assert load() == 1


# -- a primary is lost -----------------------------------------------------------------------------------------------------


def test_a_failover(own_deployment, process, patient) -> None:
    """Callers go on with their loaders, and nothing that was invalidated before is served afterwards.

    The replica never hears of the last invalidation: what it has of the tag is the stamp from before.
    """
    deployment = own_deployment
    url = deployment.url
    started = time.time()
    offset = [0.0]

    def clock() -> float:
        return started + offset[0]  # moves only to let the breaker try again

    plain, writer = process(url, clock=clock, timeout=0.5), process(url, clock=clock, timeout=0.5)
    tiered = process(f"tiered+{url}", clock=clock, timeout=0.5)
    world = World("asyncio")
    tags = ["t1", "t2", "t3"]
    keys = [f"k{i}" for i in range(30)]
    runs = count(1)

    def load(_key):
        return f"after {next(runs)}"

    writer.set_many(dict.fromkeys(keys, "before"), tags=tags)
    for cache in (plain, tiered):
        assert set(cache.get_many(keys).values()) == {"before"}
    lost = deployment.owner("cachekit:t:{t1}")
    deployment.lose(lost, lambda: writer.invalidate("t1"))

    served = {key: plain.get_or_set(key, lambda key=key: load(key), ttl=600) for key in keys}
    served |= {f"tiered {key}": tiered.get_or_set(key, lambda key=key: load(key), ttl=600) for key in keys}
    assert {value for value in served.values() if value == "before"} == set(), "callers go on, with nothing old"

    def settled() -> bool:
        offset[0] += 11  # more than the longest pause of a breaker
        return all(cache.incr(f"probe{i}") for i in range(20) for cache in (plain, tiered, writer))  # on every primary

    def comes_back() -> bool:
        try:
            return settled()
        except Exception:
            return False

    deadline = time.monotonic() + 30
    while not comes_back():
        for key in keys:
            assert plain.get(key) != "before"
            assert tiered.get(key) != "before"
        assert world.run(lambda _: plain.aget_or_set("k0", lambda: "async")) != "before"
        assert time.monotonic() < deadline, "it never came back"
    for cache in (plain, tiered, writer):
        assert "before" not in cache.get_many(keys).values()
    assert world.run(lambda _: plain.aget_or_set("new", lambda: "value")) == "value"
    assert plain.get("new") == "value"
    assert lost not in deployment.primaries()
    patient(lambda: tiered.stats().channel == "live")
    assert tiered.get_or_set("again", lambda: "value", tags=["t1"]) == "value"
    assert tiered.peek("again").value == "value"
    plain.invalidate("t1")
    patient(lambda: tiered.peek("again") is None)
    world.run(plain.store.close)
    world.close()


def test_a_primary_that_was_seen_before_drops_nothing(sentinels, process) -> None:
    first = process(sentinels.url)
    first.set("k", "v")
    assert [process(sentinels.url).get("k") for _ in range(3)] == ["v"] * 3


def test_a_replica_is_never_read(sentinels) -> None:
    """A server that Sentinel made a replica is behind: a connection to it must not be used."""
    replica = sentinels.replica_of(sentinels.primaries()[0])
    link = connect(sentinels.url, timeout=5.0)
    link._sentinels = []  # nobody to correct it

    async def stubborn(_io):
        return link._nodes.setdefault(("127.0.0.1", replica.port), RedisLink(f"redis://127.0.0.1:{replica.port}").node)

    for io in (BLOCKING, ASYNCIO):
        node = drive(stubborn(io))
        node.replaceable = True
        node._renew()
        with pytest.raises(Exception, match="not a primary"):
            drive(link_run(node)) if io is BLOCKING else asyncio.run(link_arun(node))


async def link_run(node):
    return node.run(("GET", "k"))


async def link_arun(node):
    try:
        return await node.arun(("GET", "k"))
    finally:
        await node.aclose()


def test_all_sentinels_away_is_a_server_away(process, clock) -> None:
    cache = process("sentinel://127.0.0.1:1,127.0.0.1:2/0?service=m", timeout=0.25)
    assert [cache.get_or_set("k", lambda i=i: i) for i in range(5)] == list(range(5))
    assert cache.stats().store == "away"
    cache = process("redis+cluster://127.0.0.1:1", timeout=0.25)
    assert [cache.get_or_set("k", lambda i=i: i) for i in range(5)] == list(range(5))
    assert cache.stats().store == "away"
    assert key_slot(b"x") >= 0
