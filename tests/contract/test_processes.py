"""Several processes on one server, each played by a ``Cache`` of its own: invalidation, leases, and what commands cost."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from itertools import count

import pytest

from cachekit import Cache, Kind
from cachekit.keys import bounded
from cachekit.testing import World

pytestmark = pytest.mark.server


@pytest.fixture
def process(clock, request):
    """Makes caches, each with an origin and observer of its own, and closes them."""
    made: list[Cache] = []

    def start(url: str, **options) -> Cache:
        watch = request.getfixturevalue("watch").__class__()
        cache = Cache(url, clock=clock, timeout=5.0, observers=[watch], **options)
        cache.watch = watch
        made.append(cache)
        if url.startswith("tiered+"):
            cache.get("opens the bus")
            watch.wait(Kind.CHANNEL_LIVE)
        return cache

    yield start
    for cache in made:
        cache.close()


def held(cache: Cache, key: str) -> object:
    """Return what the first level of *cache* would serve."""
    entry = cache.peek(key)
    return None if entry is None else entry.value


# -- what one changes, the others see ------------------------------------------------------------------------------------

CHANGES = {
    "invalidate": (lambda cache, key: cache.invalidate("t"), None),
    "delete": (lambda cache, key: cache.delete(key), None),
    "set": (lambda cache, key: cache.set(key, "new"), "new"),
    "clear": (lambda cache, key: cache.clear(), None),
}


@pytest.mark.parametrize("key", ["k", "a\x00b", "ключ", "}", "\ud800", "x" * 500])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_reaches_the_first_level_of_others(valkey, process, patient, name, key) -> None:
    change, then = CHANGES[name]
    with valkey.client() as client:
        client.flushall()
    writer, reader = process(f"tiered+{valkey.url}"), process(f"tiered+{valkey.url}")
    before = reader.l1.sequence
    writer.set_many({key: "old", "other": 1}, tags=["t"])
    writer.set("untagged", 1)
    patient(lambda: reader.l1.sequence >= before + 2)  # the announcements of these writes are through
    assert (reader.get(key), reader.get("other"), reader.get("untagged")) == ("old", 1, 1)
    stored = bounded(key)
    assert held(reader, stored) == "old"
    change(writer, key)
    patient(lambda: held(reader, stored) is None)
    assert reader.get(key) == then
    assert (held(reader, "untagged") is None) is (name == "clear")


def test_what_is_kept_together_reaches_the_first_level_of_others(valkey, process, patient) -> None:
    with valkey.client() as client:
        client.flushall()
    writer, reader = process(f"tiered+{valkey.url}"), process(f"tiered+{valkey.url}")
    before = reader.l1.sequence
    names = [f"k{number}" for number in range(1200)]
    writer.set_many(dict.fromkeys(names, "old"), tags=["t"])
    patient(lambda: reader.l1.sequence >= before + 3)  # in batches
    assert reader.get_many(names) == dict.fromkeys(names, "old")
    assert all(reader.get(name) == "old" and held(reader, name) == "old" for name in names)
    writer.set_many(dict.fromkeys(names, "new"), ttl=None)
    patient(lambda: all(held(reader, name) is None for name in names))
    assert reader.get_many(names) == dict.fromkeys(names, "new")
    reader.invalidate("t")
    assert reader.get(names[0]) == "new", "it carries the tag no more"
    reader.clear()
    assert reader.get_many(names) == {}


def test_what_is_kept_together_voids_the_loads_of_others(server, process) -> None:
    writer, reader = process(server.url), process(server.url)

    def load() -> str:
        writer.set_many({"k": "new", "j": 1})
        return "loaded"

    assert reader.get_or_set("k", load) == "new"
    assert reader.get_many(["k", "j"]) == {"k": "new", "j": 1}


def test_without_a_first_level_a_change_is_seen_at_once(server, process) -> None:
    for name, (change, then) in CHANGES.items():
        writer, reader = process(server.url), process(server.url)
        writer.set("k", "old", tags=["t"])
        assert reader.get("k") == "old"
        change(writer, "k")
        assert reader.get("k") == then, name


def test_ones_own_change_does_not_wait_for_the_server_to_announce_it(server, process) -> None:
    cache = process(f"tiered+{server.url}")
    for name, (change, then) in CHANGES.items():
        cache.get_or_set("k", lambda: "old", tags=["t"])
        assert held(cache, "k") == "old"
        change(cache, "k")
        assert cache.get("k") == then, name
        cache.clear()


def test_a_load_elsewhere_that_was_overtaken_is_refused(server, process, thread) -> None:
    """One process loads, another invalidates; nobody may ever read the old value, on either level."""
    for url in (server.url, f"tiered+{server.url}"):
        for tags, learnt in ((["t"], ()), ([], ["t"])):
            loader, writer = process(url), process(url)
            writer.invalidate("t")
            source, reading, go_on = ["old"], threading.Event(), threading.Event()

            @loader.cached(key="k", tags=tags, result_tags=lambda _, learnt=learnt: learnt)
            def load(source=source, reading=reading, go_on=go_on):
                value = source[0]
                reading.set()
                go_on.wait(10)
                return value

            early = thread(load)
            assert reading.wait(10)
            source[0] = "new"
            writer.invalidate("t")
            late = thread(load)  # joins the flight of the early one, in this process
            loader.watch.wait(Kind.COLLAPSED)
            go_on.set()
            assert early.result() == "old"
            assert late.result() == "new"
            assert [load(), writer.get("k")] == ["new", "new"]
            writer.clear()


# -- one load for all processes -----------------------------------------------------------------------------------------


def test_processes_share_one_load(server, process, thread) -> None:
    first, second = process(server.url), process(server.url)
    loading, go_on, runs = threading.Event(), threading.Event(), count()

    def load():
        next(runs)
        loading.set()
        go_on.wait(10)
        return "value"

    leader = thread(first.get_or_set, "k", load)
    assert loading.wait(10)
    waiting = [thread(second.get_or_set, "k", load), thread(asyncio.run, _once(second, "k", load))]
    second.watch.wait(Kind.MISS, 2)
    go_on.set()
    assert {each.result() for each in [leader, *waiting]} == {"value"}
    assert next(runs) == 1
    assert second.watch.of(Kind.LOAD) == []


async def _once(cache: Cache, key: str, load) -> object:
    try:
        return await cache.aget_or_set(key, load)
    finally:
        await cache.store.inner.link._aclose()


def test_without_the_lock_each_process_loads(server, process, thread) -> None:
    first, second = process(server.url), process(server.url)
    loading, go_on = threading.Event(), threading.Event()

    def load():
        loading.set()
        go_on.wait(10)
        return "first"

    leader = thread(first.get_or_set, "k", load)
    assert loading.wait(10)
    assert second.get_or_set("k", lambda: "second", lock=False) == "second"
    go_on.set()
    assert leader.result() == "first"


def test_a_leader_whose_loader_fails_lets_the_next_process_load_at_once(server, process, thread) -> None:
    first, second = process(server.url), process(server.url)
    loading, go_on = threading.Event(), threading.Event()

    def fail():
        loading.set()
        go_on.wait(10)
        raise LookupError

    leader = thread(first.get_or_set, "k", fail)
    assert loading.wait(10)
    follower = thread(second.get_or_set, "k", lambda: "value")
    second.watch.wait(Kind.MISS)
    go_on.set()
    with pytest.raises(LookupError):
        leader.result()
    assert follower.result() == "value"


def test_a_leader_that_came_too_late_is_refused(server, process, thread) -> None:
    """Its lease ended (here the server forgets it) and another process stored meanwhile."""
    first, second = process(server.url), process(server.url)
    loading, go_on = threading.Event(), threading.Event()

    def load():
        loading.set()
        go_on.wait(10)
        return "late"

    leader = thread(first.get_or_set, "k", load)
    assert loading.wait(10)
    with server.client() as client:
        assert client.delete("cachekit:l:{k}") == 1
    assert second.get_or_set("k", lambda: "newer") == "newer"
    go_on.set()
    assert leader.result() == "newer", "what is there, and everybody else sees"
    assert [first.get("k"), second.get("k")] == ["newer", "newer"]
    assert first.watch.of(Kind.NOT_STORED)


def test_a_cancelled_load_gives_its_lease_back(server, process) -> None:
    cache = process(server.url)

    async def job():
        loading = asyncio.Event()

        async def load():
            loading.set()
            await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(cache.aget_or_set("k", load))
        await loading.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            assert await cache.aget_or_set("k", lambda: "value") == "value"
        await cache.store.inner.link._aclose()

    asyncio.run(job())


def test_a_blocking_call_does_not_wait_for_the_lease_of_its_own_loop(server, process, thread) -> None:
    """The load that holds the lease runs on the loop that the blocking caller stops."""
    cache = process(server.url)

    async def job():
        loading, go_on = asyncio.Event(), asyncio.Event()

        async def load():
            loading.set()
            await go_on.wait()
            return "async"

        task = asyncio.create_task(cache.aget_or_set("k", load))
        await loading.wait()
        value = cache.get_or_set("k", lambda: "blocking")
        go_on.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await cache.store.inner.link._aclose()
        return value

    assert thread(asyncio.run, job()).result() == "blocking"


# -- what it costs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_commands(server, process, commands, kind) -> None:
    world = World(kind)
    cache = process(server.url)

    def call(name, *args, **kwargs):
        if kind == "blocking":
            return getattr(cache, name)(*args, **kwargs)
        return world.run(lambda _: getattr(cache, "a" + name)(*args, **kwargs))

    cache.set_many({f"k{i}": i for i in range(1000)}, tags=["many"])
    call("set", "k", 1, tags=["a", "b"])
    call("delete", "nothing")
    call("invalidate", "nothing")
    call("get_or_set", "warm", lambda: 1, tags=["a"])
    call("get", "k")
    for name, args, options, cost in (
        ("get", ["k"], {}, ["MGET"]),
        ("get_or_set", ["k", None], {"tags": ["a", "b"]}, ["MGET"]),
        ("get_or_set", ["k", None], {"tags": ["a"]}, ["MGET"]),  # "b" was learnt
        ("get", ["absent"], {}, ["MGET"]),
        ("set", ["k", 1], {"tags": ["a", "b", "c"]}, ["EVALSHA"]),
        ("delete", ["k"], {}, ["EVALSHA"]),
        ("invalidate", ["many"], {}, ["EVALSHA"]),
        ("get_or_set", ["new", lambda: 1], {"tags": ["a", "b"]}, ["MGET", "EVALSHA", "EVALSHA"]),
    ):
        with commands() as seen:
            call(name, *args, **options)
        assert seen == cost, (name, args, options)
    assert cache.get_many([f"k{i}" for i in range(1000)]) == {}
    if kind == "asyncio":
        world.run(cache.store.close)
    world.close()


def test_a_hit_in_the_first_level_costs_no_command(server, process, commands) -> None:
    cache = process(f"tiered+{server.url}")

    @cache.cached(tags=["t:{x}"])
    def load(x):
        return x

    load(1)
    with commands() as seen:
        assert [load(1), cache.get(load.key_for(1))] == [1, 1]
    assert seen == []


def test_scripts_that_the_server_forgot_are_sent_again(server, process) -> None:
    cache = process(server.url)
    cache.set("k", 1, tags=["t"])
    with server.client() as client:
        client.script_flush()
    assert cache.get_or_set("l", lambda: 2, tags=["t"]) == 2
    cache.invalidate("t")
    assert (cache.get("k"), cache.get("l")) == (None, None)


def test_nothing_is_left_without_an_end(server, process) -> None:
    """Values, leases and stamps of values that end must end too, or the server fills up with them."""
    cache = process(server.url)
    for i in range(20):
        cache.get_or_set(f"k{i}", lambda: 1, ttl=60, tags=[f"t{i}", "all"])
        cache.invalidate(f"t{i}")
    cache.set("k", 1, ttl=60, tags=["set"])
    cache.delete("k")
    with server.client() as client:
        endless = [name for name in client.scan_iter("*", count=1000) if client.ttl(name) == -1]
        leases = list(client.scan_iter("cachekit:l:*"))
    assert (endless, leases) == ([], [])


def test_a_tag_outlives_every_entry_that_carries_it(server, process) -> None:
    """A short-lived entry must not shorten the life of a stamp that a long-lived one needs."""
    cache = process(server.url)
    cache.set("long", 1, ttl=50_000, tags=["t"])
    cache.set("short", 1, ttl=1, tags=["t"])
    cache.get_or_set("shorter", lambda: 1, ttl=1, tags=["t"])
    cache.invalidate("t")
    cache.set("long", 1, ttl=50_000, tags=["t"])
    cache.get_or_set("shorter", lambda: 1, ttl=1, tags=["t"])
    with server.client() as client:
        assert client.ttl("cachekit:t:t") > 50_000
        assert client.ttl("cachekit:t:") > 50_000
    cache.set("for ever", 1, tags=["t"])
    cache.set("short", 1, ttl=1, tags=["t"])
    with server.client() as client:
        assert client.ttl("cachekit:t:t") == -1


def test_a_tag_that_the_server_lost_drops_its_entries(server, process) -> None:
    cache = process(server.url)
    cache.set("k", 1, tags=["t"])
    with server.client() as client:
        assert client.delete("cachekit:t:t") == 1
    assert cache.get("k") is None
    assert cache.get_or_set("l", lambda: 2, tags=["t"]) == 2  # makes the tag anew
    assert (cache.get("k"), cache.get("l")) == (None, 2)


def test_namespaces_share_nothing(server, process) -> None:
    for scheme in ("", "tiered+"):
        one, other = process(scheme + server.url, namespace="one"), process(scheme + server.url, namespace="other")
        for cache in (one, other):
            cache.set("k", cache.store is one.store, tags=["t"])
        one.invalidate("t")
        assert (one.get("k"), other.get("k")) == (None, False)
        one.clear()
        assert other.get("k") is False


@pytest.mark.parametrize("outcome", ["a failure", "a failure that is kept", "what is not kept"])
@pytest.mark.parametrize("level", ["", "tiered+"])
def test_whoever_joins_after_another_process_has_invalidated_gets_nothing_older(
    valkey, process, thread, level, outcome
) -> None:
    with valkey.client() as client:
        client.flushall()
    here, there = process(f"{level}{valkey.url}"), process(valkey.url)
    known: dict[int, str] = {}
    entered, leave = threading.Event(), threading.Event()
    options = {
        "a failure": {},
        "a failure that is kept": {"exceptions": {LookupError: "1h"}},
        "what is not kept": {"keep_if": lambda found: found is not None},
    }[outcome]

    @here.cached(ttl=60, key="row:{number}", tags=["row:{number}"], **options)
    def row(number: int) -> str | None:
        found = known.get(number)
        entered.set()
        assert leave.wait(10)
        if found is None and outcome != "what is not kept":
            raise LookupError(number)
        return found

    def ask() -> str | None:
        try:
            return row(1)
        except LookupError:
            return None

    first = thread(ask)
    assert entered.wait(10)
    before = thread(ask)
    here.watch.wait(Kind.COLLAPSED, 1)
    known[1] = "saw"
    there.invalidate("row:1")
    after = thread(ask)
    here.watch.wait(Kind.COLLAPSED, 2)
    leave.set()
    assert (first.result(), after.result()) == (None, "saw")
    assert before.result() in (None, "saw")
    assert ask() == "saw"


def test_a_failure_is_shared_by_all_who_waited_where_nothing_was_invalidated(valkey, process, thread) -> None:
    with valkey.client() as client:
        client.flushall()
    here, entered, leave = process(valkey.url), threading.Event(), threading.Event()

    @here.cached(ttl=60, tags=["row"])
    def row() -> str:
        entered.set()
        assert leave.wait(10)
        raise LookupError

    callers = [thread(row) for _ in range(4)]
    assert entered.wait(10)
    here.watch.wait(Kind.COLLAPSED, 3)
    leave.set()
    for caller in callers:
        with pytest.raises(LookupError):
            caller.result()
    assert row.counters.loads == 1
