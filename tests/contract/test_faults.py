"""Servers that are away, freeze, come back, refuse, or hold what nobody here wrote: callers must hardly notice."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from dataclasses import dataclass
from itertools import count

import pytest

from cachekit import Cache, CodecError, Kind, StoreError, StoreTimeout, StoreUnavailable
from cachekit._io import BLOCKING, drive
from cachekit.breaker import Breaker
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.stores.node import Dial, Node
from cachekit.testing import World

pytestmark = pytest.mark.server

TIMEOUT = 0.25
AT_ONCE = 0.1
LONGEST_PAUSE = 11
"""More than the longest pause of a breaker: the next call is a probe."""


@pytest.fixture
def process(clock, watch):
    made: list[Cache] = []

    def start(url: str, **options) -> Cache:
        options = {"timeout": TIMEOUT, "clock": clock, "observers": [watch.__class__()], **options}
        made.append(Cache(url, **options))
        made[-1].watch = options["observers"][0]
        return made[-1]

    yield start
    for cache in made:
        cache.close()


@pytest.fixture(params=["blocking", "asyncio"])
def call(request):
    """Calls an operation of a cache in one of the worlds; the loop stays the same during a test."""
    world = World(request.param)

    def run(cache, name, *args, **kwargs):
        if world.name == "blocking":
            return getattr(cache, name)(*args, **kwargs)
        seen.append(cache)
        return world.run(lambda _: getattr(cache, "a" + name)(*args, **kwargs))

    seen: list[Cache] = []
    yield run
    for cache in {id(c): c for c in seen}.values():
        world.run(cache.store.close)
    world.close()


@contextlib.contextmanager
def frozen(server):
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def cut_off(server):
    """Break the connections over the unix socket and let nobody connect there; over TCP the server stays reachable."""
    away = server.socket.with_suffix(".away")
    server.socket.rename(away)
    with _tcp(server) as client:
        for connection in client.client_list():
            if "s.sock" in connection["addr"] or connection["addr"].startswith("/"):
                client.client_kill_filter(_id=connection["id"])
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    try:
        yield
    finally:
        away.rename(server.socket)


def _tcp(server):
    import redis

    return redis.Redis(port=server.port)


def took(job) -> tuple[object, float]:
    started = time.monotonic()
    return job(), time.monotonic() - started


# -- away -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["", "tiered+"])
def test_a_server_that_is_not_there_at_the_start(own_server, process, clock, call, caplog, patient, tier) -> None:
    own_server.stop()
    cache = process(tier + own_server.url)
    runs = count()

    def load():
        return next(runs)

    call(cache, "set", "k", 1)
    assert call(cache, "get", "k", "nothing") == "nothing"
    assert [call(cache, "get_or_set", "l", load, ttl=60) for _ in range(5)][0] == 0
    call(cache, "invalidate", "t")
    assert call(cache, "delete", "k") is False
    if not tier:
        assert cache.stats().store == "away"
        assert "the store is away, going on without it" in caplog.text
        with pytest.raises(StoreError):
            call(cache, "incr", "n")
    own_server.start()
    clock.advance(LONGEST_PAUSE)
    call(cache, "get", "probe")
    patient(lambda: cache.stats().pending == 0)
    if tier:
        patient(lambda: cache.stats().channel == "live")
    call(cache, "set", "k", 2)
    assert call(cache, "get", "k") == 2
    assert call(cache, "incr", "n") == 1
    assert (cache.stats().store, cache.stats().pending) == ("ok", 0)
    assert cache.watch.of(Kind.BREAKER_OPENED) and cache.watch.of(Kind.BREAKER_CLOSED)


def test_a_restart_costs_idle_connections_nothing(own_server, process, call) -> None:
    cache = process(own_server.url)
    call(cache, "set", "k", 1)
    own_server.stop()
    own_server.start()
    assert call(cache, "get", "k") is None
    call(cache, "set", "k", 2)
    assert call(cache, "get", "k") == 2
    assert cache.watch.of(Kind.STORE_ERROR) == []


def test_a_hiccup_under_a_burst_keeps_the_breaker_shut_only_briefly(own_server, process, clock) -> None:
    """Callers that were under way when it opened must not make it wait longer, each of them."""
    cache = process(own_server.url)

    async def burst():
        await asyncio.gather(*(cache.aget(f"k{i}") for i in range(50)))
        with frozen(own_server):
            await asyncio.gather(*(cache.aget(f"k{i}") for i in range(50)))
        await cache.store.inner.link._aclose()

    asyncio.run(burst())
    assert len(cache.watch.of(Kind.STORE_ERROR)) == 50
    assert cache.stats().store == "away"
    clock.advance(0.6)  # just over the first pause
    cache.set("k", 1)
    assert cache.get("k") == 1


# -- frozen ----------------------------------------------------------------------------------------------------------------


def test_a_frozen_server_delays_callers_by_the_time_out_and_then_not_at_all(own_server, process, call, clock) -> None:
    cache = process(own_server.url)
    runs = count()

    def load():
        return next(runs)

    call(cache, "set", "k", "kept")
    with frozen(own_server):
        value, seconds = took(lambda: call(cache, "get_or_set", "l", load))
        assert value == 0
        assert TIMEOUT <= seconds < 2 * TIMEOUT, "one caller waits, once"
        value, seconds = took(lambda: [call(cache, "get_or_set", "l", load) for _ in range(10)])
        assert value == list(range(1, 11))
        assert seconds < AT_ONCE
        assert cache.stats().store == "away"
    clock.advance(LONGEST_PAUSE)
    assert call(cache, "get", "k") == "kept"
    assert cache.stats().store == "ok"


class FreezeAtMiss:
    """Freezes the server between the look and the request for the lease."""

    def __init__(self, server, watch) -> None:
        self.server, self.watch, self.armed = server, watch, False

    def __call__(self, event) -> None:
        self.watch(event)
        if event.kind is Kind.MISS and self.armed:
            os.kill(self.server.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        self.armed = False
        os.kill(self.server.process.pid, signal.SIGCONT)


def _no_lease_holds_up(cache: Cache, call, server, patient) -> None:
    with server.client() as client:
        patient(lambda: client.info("clients")["blocked_clients"] == 0)
    call(cache, "get_or_set", "something else", lambda: 1)
    value, seconds = took(lambda: call(cache, "get_or_set", "k", lambda: "after"))
    assert value == "after"
    assert seconds < 5


def test_a_lease_that_was_asked_for_in_vain_holds_nobody_up(own_server, process, call, watch, patient) -> None:
    """The frozen server grants the lease when it thaws, long after its caller has gone."""
    freeze = FreezeAtMiss(own_server, watch)
    cache = process(own_server.url, observers=[freeze])
    call(cache, "get_or_set", "warm", lambda: 1)  # the server knows the scripts
    freeze.armed = True
    assert call(cache, "get_or_set", "k", lambda: "meanwhile") == "meanwhile"
    freeze.thaw()
    _no_lease_holds_up(cache, call, own_server, patient)


@pytest.mark.parametrize("load", ["returns", "raises"])
def test_a_lease_that_ends_while_the_server_is_away_holds_nobody_up(own_server, process, call, clock, load) -> None:
    """The breaker lets nothing through then: the server would not hear of the end, and others wait for it."""
    first, second = process(own_server.url), process(own_server.url)

    def slow() -> str:
        os.kill(own_server.process.pid, signal.SIGSTOP)
        for _ in range(3):
            assert first.get("other") is None
        assert first.store.breaker.is_open
        if load == "raises":
            raise LookupError("no such row")
        return "value"

    with contextlib.suppress(LookupError):
        call(first, "get_or_set", "k", slow)
    os.kill(own_server.process.pid, signal.SIGCONT)
    clock.advance(LONGEST_PAUSE)
    value, seconds = took(lambda: call(second, "get_or_set", "k", lambda: "after"))
    assert value == "after"
    assert seconds < 5, "of the 30 that a lease lasts"


def test_a_lease_that_was_asked_for_in_vain_by_one_who_then_rests(own_server, process, call, clock, watch) -> None:
    freeze = FreezeAtMiss(own_server, watch)
    first, second = process(own_server.url, observers=[freeze]), process(own_server.url)
    call(first, "get_or_set", "warm", lambda: 1)
    freeze.armed = True
    assert call(first, "get_or_set", "k", lambda: "meanwhile") == "meanwhile"
    freeze.thaw()
    clock.advance(LONGEST_PAUSE)
    value, seconds = took(lambda: call(second, "get_or_set", "k", lambda: "after"))
    assert value == "after"
    assert seconds < 5


def test_a_lease_whose_caller_was_cancelled_holds_nobody_up(own_server, process, watch, patient) -> None:
    freeze = FreezeAtMiss(own_server, watch)
    cache = process(own_server.url, observers=[freeze], timeout=10.0)
    other = process(own_server.url, timeout=10.0)

    async def job():
        await cache.aget_or_set("warm", lambda: 1)
        freeze.armed = True
        task = asyncio.create_task(cache.aget_or_set("k", lambda: "cancelled"))
        await watch.await_(Kind.MISS, 2)
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        freeze.thaw()
        async with asyncio.timeout(5):
            assert await other.aget_or_set("k", lambda: "after") == "after"
        for each in (cache, other):
            await each.store.inner.link._aclose()

    asyncio.run(job())


def test_what_waits_is_delivered_although_the_loop_of_its_caller_has_ended(own_server, process, patient) -> None:
    one, other = process(own_server.url), process(own_server.url)
    other.set("k", "old", tags=["t"])

    async def drop():
        await one.ainvalidate("t")
        await one.store.inner.link._aclose()

    with frozen(own_server):
        asyncio.run(drop())
        assert one.stats().pending == 1
        one.store.breaker = one.store._breaking.breaker = Breaker()  # the clock stands still
    patient(lambda: one.stats().pending == 0)
    assert other.get("k") is None


def test_a_lease_whose_grant_nobody_heard_of_holds_nobody_up(server, process, call, monkeypatch) -> None:
    """The connection broke, and broke again, after the server had granted it."""
    one, other = process(server.url), process(server.url)
    stamps = one.store.inner._stamps
    granted = stamps.begin

    async def begin(io, asked):
        await granted(io, asked)
        raise StoreUnavailable("the connection broke")

    monkeypatch.setattr(stamps, "begin", begin)
    assert call(one, "get_or_set", "k", lambda: "one") == "one"
    value, seconds = took(lambda: call(other, "get_or_set", "k", lambda: "other"))
    assert value == "other"
    assert seconds < 5


def test_a_lease_whose_value_could_not_be_looked_at_holds_nobody_up(server, process, call, monkeypatch) -> None:
    """It was granted; then the stamps of what lies there, whose tags nobody had named, could not be read."""
    one, other = process(server.url), process(server.url)
    other.set("k", "old", tags=["learnt"])
    other.invalidate("learnt")

    async def late(*_: object) -> None:
        raise StoreTimeout("no answer in time")

    monkeypatch.setattr(one.store.inner, "_mget", late)
    with pytest.raises(StoreTimeout):
        drive(one.store.begin(BLOCKING, "k", (), 30))
    assert one.store.inner.owes
    drive(one.store.inner.give_back(BLOCKING))
    value, seconds = took(lambda: call(other, "get_or_set", "k", lambda: "other"))
    assert value == "other"
    assert seconds < 5


def test_a_lease_that_has_ended_by_itself_is_owed_no_longer(server, process, clock) -> None:
    store = process(server.url).store.inner
    ticket = drive(store.begin(BLOCKING, "k", (), 30))
    store.owe(ticket)
    assert store.owes
    clock.advance(30)
    assert not store.owes


def test_a_reply_that_nobody_waited_for_is_not_given_to_the_next(own_server, process, clock, call) -> None:
    cache = process(own_server.url)
    values = {f"k{i}": i for i in range(10)}
    call(cache, "set_many", values)
    for key in values:
        with frozen(own_server):
            assert call(cache, "get", key) is None
        clock.advance(LONGEST_PAUSE)
        assert [call(cache, "get", name) for name in values] == list(values.values())


def test_a_reply_to_a_cancelled_task_is_not_given_to_the_next(own_server, process, clock) -> None:
    cache = process(own_server.url, timeout=10.0)

    async def job():
        await cache.aset_many({f"k{i}": i for i in range(10)})
        with frozen(own_server):
            tasks = [asyncio.create_task(cache.aget(f"k{i}")) for i in range(5)]
            for _ in range(20):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        found = await asyncio.gather(*(cache.aget(f"k{i}") for i in range(10)))
        await cache.store.inner.link._aclose()
        return found

    assert asyncio.run(job()) == list(range(10))


# -- invalidations that cannot be delivered ------------------------------------------------------------------------------


@dataclass
class Change:
    make: object
    then: object = None


CHANGES = {
    "invalidate": Change(lambda call, cache: call(cache, "invalidate", "t")),
    "delete": Change(lambda call, cache: call(cache, "delete", "k")),
    "set": Change(lambda call, cache: call(cache, "set", "k", "never arrives")),
    "clear": Change(lambda call, cache: call(cache, "clear")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_made_while_away_is_delivered_before_anything_is_read(own_server, process, call, clock, name) -> None:
    here, elsewhere = process(own_server.url), process(own_server.tcp, timeout=5.0)
    call(elsewhere, "set", "k", "old", tags=["t"])
    assert call(here, "get", "k") == "old"
    with cut_off(own_server):
        for _ in range(4):
            call(here, "get", "anything")
        assert cache_is_away(here)
        CHANGES[name].make(call, here)
        assert here.stats().pending == 1
        assert here.watch.of(Kind.INVALIDATION_PENDING)
        assert call(here, "get", "k") is None
    clock.advance(LONGEST_PAUSE)
    assert call(here, "get", "k") is None
    assert call(elsewhere, "get", "k") is None
    assert here.stats().pending == 0


def cache_is_away(cache: Cache) -> bool:
    return cache.stats().store == "away"


def test_it_is_delivered_though_nobody_asks_for_anything(own_server, process, clock, patient) -> None:
    here, elsewhere = process(own_server.url), process(own_server.tcp, timeout=5.0)
    elsewhere.set("k", "old", tags=["t"])
    with cut_off(own_server):
        here.invalidate("t")
        assert here.stats().pending == 1
    clock.advance(LONGEST_PAUSE)
    patient(lambda: elsewhere.get("k") is None)


def test_more_than_can_be_remembered_drops_everything(own_server, process, clock, monkeypatch) -> None:
    monkeypatch.setattr("cachekit.stores.guarded.MAX_PENDING", 5)
    here, elsewhere = process(own_server.url), process(own_server.tcp, timeout=5.0)
    elsewhere.set("k", "old", tags=["t0"])
    with cut_off(own_server):
        for i in range(10):
            here.invalidate(f"t{i}")
        assert here.stats().pending <= 6
    clock.advance(LONGEST_PAUSE)
    here.get("anything")
    assert elsewhere.get("k") is None


def test_a_closed_cache_stops_trying(own_server, process, patient) -> None:
    cache = process(own_server.url)
    with cut_off(own_server):
        cache.invalidate("t")
        cache.close()
        patient(lambda: not [t for t in threading.enumerate() if t.name == "cachekit-background"])


# -- the first level alone -------------------------------------------------------------------------------------------------


def test_the_first_level_serves_for_a_while_when_everything_is_gone(own_server, process, clock, call, patient) -> None:
    cache = process(f"tiered+{own_server.url}", isolated_ttl=30.0)
    call(cache, "get", "opens the bus")
    cache.watch.wait(Kind.CHANNEL_LIVE)
    for key in "abc":
        call(cache, "get_or_set", key, lambda key=key: key, ttl=600, tags=[f"t:{key}"])
    call(cache, "delete", "b")
    own_server.stop()
    cache.watch.wait(Kind.CHANNEL_LOST)
    call(cache, "invalidate", "t:c")
    for _ in range(5):
        assert call(cache, "get_many", "abc") == {"a": "a"}
        assert [call(cache, "get", key) for key in "abc"] == ["a", None, None]
    assert call(cache, "get_or_set", "d", lambda: "made alone", tags=["t:d"]) == "made alone"
    assert call(cache, "get_or_set", "d", lambda: "not again", tags=["t:d"]) == "made alone"
    call(cache, "invalidate", "t:d")
    assert call(cache, "get", "d") is None
    clock.advance(29)
    assert call(cache, "get", "a") == "a"
    clock.advance(2)
    assert call(cache, "get", "a") is None
    own_server.start()
    clock.advance(LONGEST_PAUSE)
    patient(lambda: cache.stats().channel == "live")
    assert call(cache, "get", "a") is None  # what was held alone may have been changed by others


def test_a_dead_entry_is_not_served_alone(own_server, process, clock) -> None:
    cache = process(f"tiered+{own_server.url}", isolated_ttl=3000.0)
    cache.get_or_set("k", lambda: 1, ttl=5)
    own_server.stop()
    cache.watch.wait(Kind.CHANNEL_LOST)
    assert cache.get("k") == 1
    clock.advance(5)
    assert drive(cache.read(BLOCKING, "k")) is None
    assert cache.get_or_set("k", lambda: 2, ttl=5) == 2


def test_a_broken_channel_makes_the_server_be_asked(own_server, process, patient) -> None:
    """Invalidations of others cannot reach the first level now, so that it must not answer."""
    here, elsewhere = process(f"tiered+{own_server.url}"), process(own_server.tcp, timeout=5.0)
    here.get_or_set("k", lambda: "old", tags=["t"])
    assert here.peek("k").value == "old"
    bus = here.store.l2.inner.channel._bus
    reconnect, may_reconnect = bus._connect, threading.Event()

    def wait_first():
        may_reconnect.wait(10)
        return reconnect()

    bus._connect = wait_first
    with _tcp(own_server) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    here.watch.wait(Kind.CHANNEL_LOST)
    assert (here.peek("k"), here.get("k")) == (None, "old")
    elsewhere.invalidate("t")
    assert here.get("k") is None
    assert here.get_or_set("k", lambda: "new", tags=["t"]) == "new"
    may_reconnect.set()
    here.watch.wait(Kind.CHANNEL_LIVE, 2)
    assert here.get("k") == "new"
    assert here.peek("k").value == "new"


def test_a_frozen_channel_is_noticed(own_server, process) -> None:
    cache = process(f"tiered+{own_server.url}", isolated_ttl=0)
    cache.get_or_set("k", lambda: "v")
    with frozen(own_server):
        cache.watch.wait(Kind.CHANNEL_LOST)  # two heartbeats
        assert cache.get("k") is None
    cache.watch.wait(Kind.CHANNEL_LIVE, 2)


# -- what is in the server, and what it refuses ---------------------------------------------------------------------------


def _good(server, process) -> tuple[Cache, bytes]:
    cache = process(server.url, compress_from=10)
    cache.set("k", {"a": ["text" * 10, 1.5, None]}, tags=["t:1", "t:2"])
    with server.client() as client:
        return cache, client.get("cachekit:v:{k}")


def test_bytes_that_nobody_here_wrote_are_misses(server, process) -> None:
    cache, good = _good(server, process)
    whole = cache.get("k")
    damaged = [b"", b"\x00", b"{}", b"\x80\x04K\x01.", os.urandom(200), good + b"x", good[:2] + b"\xff" * 200]
    damaged += [good[:size] for size in range(0, len(good), 3)]
    damaged += [good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :] for at in range(0, len(good), 3)]
    with server.client() as client:
        for data in damaged:
            client.set("cachekit:v:{k}", data)
            assert cache.get("k") is None, data
            assert cache.get_many(["k"]) == {}, data
            assert cache.get_or_set("l", lambda: 1) == 1
        client.set("cachekit:v:{k}", good)
        assert cache.get("k") == whole
        client.set("cachekit:v:{k}", b"foreign")
        assert cache.get_or_set("k", lambda: "loaded") == "loaded"
        assert cache.get("k") == "loaded"
        client.set("cachekit:v:{k}", b"foreign")
        assert cache.add("k", "added") is True
        client.set("cachekit:v:{k}", b"foreign")
        assert cache.incr("k") == 1
    assert {event.key for event in cache.watch.of(Kind.UNREADABLE)} == {"k"}
    assert cache.stats().store == "ok"
    assert all(event.detail and isinstance(event.error, CodecError) for event in cache.watch.of(Kind.UNREADABLE))


def test_another_type_under_our_name_is_a_miss(server, process) -> None:
    cache = process(server.url)
    with server.client() as client:
        client.rpush("cachekit:v:{k}", "foreign")
    for i in range(10):
        assert cache.get_or_set("k", lambda i=i: i) == i
    cache.set("other", 1)
    assert cache.get("other") == 1
    cache.delete("k")
    assert cache.get_or_set("k", lambda: "fine") == "fine"


def test_values_of_another_codec_are_misses(server, process) -> None:
    class Other(MsgpackCodec):
        id = 77

    writer, reader = process(server.url, codec=Other()), process(server.url)
    writer.set("k", 1)
    assert (writer.get("k"), reader.get("k")) == (1, None)
    assert "codec 77" in reader.watch.of(Kind.UNREADABLE)[0].detail


@pytest.mark.parametrize("tier", ["", "tiered+"])
def test_a_value_that_cannot_be_encoded_still_reaches_its_caller(server, process, call, caplog, tier) -> None:
    class Odd:
        pass

    cache = process(tier + server.url, timeout=5.0)
    runs = count()
    for i in range(2):
        found = call(cache, "get_or_set", "k", lambda: {"rows": [next(runs), Odd()]})
        assert found["rows"][0] == i
    event = cache.watch.of(Kind.UNENCODABLE)[0]
    assert (event.key, event.error.path, "Odd" in event.error.type_name) == ("k", "['rows'][1]", True)
    assert "Odd" in event.detail and "['rows'][1]" in event.detail
    assert "k is not cached" in caplog.text
    with server.client() as client:
        assert list(client.scan_iter("cachekit:l:*")) == []  # the lease was given back


def test_a_value_over_the_bound_still_reaches_its_caller(server, process) -> None:
    cache = process(server.url, max_value_bytes=1000, compress_from=10)
    assert cache.get_or_set("small", lambda: "x" * 500) == cache.get("small")
    noise = os.urandom(2000)
    assert cache.get_or_set("big", lambda: noise) == noise
    assert cache.get("big") is None
    bomb = "x" * 100_000  # small when compressed, but it could not be read again
    assert cache.get_or_set("bomb", lambda: bomb) == bomb
    assert cache.get("bomb") is None
    assert [event.key for event in cache.watch.of(Kind.UNENCODABLE)] == ["big", "bomb"]
    assert cache.watch.of(Kind.UNREADABLE) == []


def test_a_server_that_is_full_still_serves_what_it_has(own_server, process, call) -> None:
    cache = process(own_server.url)
    call(cache, "set", "k", "kept", tags=["t"])
    with own_server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
    for i in range(10):
        assert call(cache, "get", "k") == "kept"
        assert call(cache, "get_or_set", "l", lambda i=i: i) == i
    assert cache.watch.of(Kind.STORE_ERROR)


@contextlib.contextmanager
def full(*clients):
    for client in clients:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        for client in clients:
            client.config_set("maxmemory", 0)


DROPS = {
    "invalidate": lambda call, cache: call(cache, "invalidate", "t"),
    "delete": lambda call, cache: call(cache, "delete", "k"),
    "clear": lambda call, cache: call(cache, "clear"),
}


@pytest.mark.parametrize("drop", DROPS)
def test_what_is_dropped_on_a_full_server_is_dropped_everywhere(server, process, call, patient, drop) -> None:
    """Other processes read on from a server that is full, for as long as it is: they would serve the old value."""
    one, other, tiered = process(server.url), process(server.url), process("tiered+" + server.url)
    call(one, "set", "k", "old", tags=["t"])
    patient(lambda: tiered.get("k") == "old" and tiered.stats().channel == "live")
    with server.client() as client, full(client):
        DROPS[drop](call, one)
        patient(lambda: one.stats().pending == 0)
        assert call(other, "get", "k") is None
        patient(lambda: tiered.get("k") is None)


def test_a_replica_that_cannot_be_written_is_like_one_that_is_full(own_server, process) -> None:
    cache = process(own_server.url)
    cache.set("k", "kept")
    with own_server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        client.config_set("replica-serve-stale-data", "yes")
    assert cache.get("k") == "kept"
    assert cache.get_or_set("l", lambda: "loaded") == "loaded"
    with pytest.raises(StoreError, match="refuses writes"):
        cache.incr("n")


def test_wrong_credentials_degrade_and_say_so(own_server, process, caplog) -> None:
    cache = process(own_server.tcp.replace("://", "://user:secret@"))
    assert [cache.get_or_set("k", lambda i=i: i) for i in range(5)] == list(range(5))
    assert "refused the credentials" in caplog.text
    assert "secret" not in caplog.text


def test_a_burst_opens_no_more_connections_than_it_may(own_server, process) -> None:
    cache = process(own_server.url, timeout=10.0)
    most = cache.store.inner.link._max_connections

    async def burst():
        await asyncio.gather(*(cache.aset(f"k{i}", i) for i in range(3 * most)))
        with own_server.client() as client:
            opened = client.info("clients")["connected_clients"]
        await cache.store.inner.link._aclose()
        return opened

    assert 1 < asyncio.run(burst()) <= most + 2  # and the two that this test looks with
    assert cache.get_many([f"k{i}" for i in range(3 * most)]) == {f"k{i}": i for i in range(3 * most)}


@pytest.mark.parametrize("replaceable", [False, True])
def test_connections_end_with_what_they_were_made_for(server, replaceable) -> None:
    """Who comes after ``close``, as a background job may, opens a connection that nobody would close."""
    node = Node(Dial(server.url, 5.0, 10), "a server", replaceable=replaceable)
    node.run(("PING",))
    node.close()
    node.run(("PING",))
    lanes = node._lanes
    sock = lanes._idle[0].connection._sock
    node.itself = node  # only the garbage collector finds it
    del node
    gc.collect()
    assert sock.fileno() == -1
    assert lanes._idle == []


def test_who_asks_is_found_out_once(server, monkeypatch) -> None:
    """The client library would read the metadata of its package for each connection, which takes longer than to connect."""
    Node(Dial(server.url, 5.0, 10), "the first").close()
    asked = []
    monkeypatch.setattr("importlib.metadata.version", lambda name: asked.append(name) or "1.0")
    node = Node(Dial(server.url, 5.0, 10), "another")
    assert node.run(("PING",)) in (b"PONG", True)
    node.close()
    assert asked == []
