"""One load for all processes: how those who wait learn of its end, what that costs, and how long a lease is held."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from itertools import count

import pytest

from cachekit import Cache, Kind
from cachekit._io import ASYNCIO, BLOCKING, drive
from cachekit.testing import World

pytestmark = pytest.mark.server

CALLER = """
import asyncio, json, sys, threading, time
from cachekit import Cache

kind, url, callers = sys.argv[1], sys.argv[2], int(sys.argv[3])
runs, took, asked = [], [], []
cache = Cache(url, timeout=5.0)

def ask():
    asked.append(1)
    if len(asked) == callers:
        print("asked", flush=True)

def load():
    runs.append(1)
    sys.stdin.readline()  # until everybody has asked
    time.sleep(0.3)
    return "value"

async def aload():
    runs.append(1)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.sleep(0.3)
    return "value"

def here():
    def call():
        started = time.perf_counter()
        ask()
        assert cache.get_or_set("k", load, ttl=60) == "value"
        took.append(time.perf_counter() - started)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    print("ready", flush=True)
    sys.stdin.readline()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()

async def there():
    async def call():
        started = time.perf_counter()
        ask()
        assert await cache.aget_or_set("k", aload, ttl=60) == "value"
        took.append(time.perf_counter() - started)

    print("ready", flush=True)
    sys.stdin.readline()
    await asyncio.gather(*(call() for _ in range(callers)))
    await cache.aclose()

here() if kind == "blocking" else asyncio.run(there())
print(json.dumps({"runs": len(runs), "took": took}), flush=True)
"""


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
@pytest.mark.parametrize("tier", ["", "tiered+"])
def test_a_stampede_of_processes_makes_one_load_and_few_commands(server, commands, kind, tier) -> None:
    """200 callers in 4 processes, and nothing that they need is there: the scripts, the value, the channel."""
    with server.client() as client:
        client.script_flush()
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, kind, tier + server.url, "50"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    try:
        for caller in callers:
            assert caller.stdout.readline() == "ready\n"
        with commands() as seen:
            for expected in ("asked\n", None):
                for caller in callers:
                    caller.stdin.write("\n")
                    caller.stdin.flush()
                if expected:
                    assert [caller.stdout.readline() for caller in callers] == [expected] * 4
            said = [json.loads(caller.stdout.readline()) for caller in callers]
    finally:
        for caller in callers:
            caller.kill()
            caller.communicate()
    assert sum(one["runs"] for one in said) == 1
    assert sum(len(one["took"]) for one in said) == 200
    assert len(seen) < 30, seen


# -- those who wait are told ---------------------------------------------------------------------------------------------


@pytest.fixture
def process(clock, watch):
    made: list[Cache] = []

    def start(url: str, **options) -> Cache:
        observer = watch.__class__()
        made.append(Cache(url, clock=clock, timeout=5.0, observers=[observer], **options))
        made[-1].watch = observer
        return made[-1]

    yield start
    for cache in made:
        cache.close()


ENDS = {
    "kept": (lambda cache, load: cache.get_or_set("k", load), "made"),
    "failed": (lambda cache, load: pytest.raises(LookupError, cache.get_or_set, "k", lambda: _fail(load)), "own"),
    "deleted": (lambda cache, load: (_held(cache, load), cache.delete("k")), "own"),
    "set": (lambda cache, load: (_held(cache, load), cache.set("k", "written")), "written"),
}


def _fail(load):
    load()
    raise LookupError


def _held(cache, load):
    """Hold the lease, and do not give it back."""
    ticket = World("blocking").run(lambda io: cache.store.begin(io, "k", [], 30.0))
    assert ticket.leads
    load()


@pytest.mark.parametrize("topology", ["server", "cluster"])
@pytest.mark.parametrize("name", ENDS)
def test_whoever_waits_is_told_of_the_end(request, engine, process, thread, patient, name, topology) -> None:
    """No timer: the lease would last for longer than this test may take."""
    if topology == "cluster":
        deployment = request.getfixturevalue("deployments")("cluster", engine)
        deployment.flush()
        url, lease_at = deployment.url, deployment.owner("cachekit:l:{k}").client
    else:
        server = request.getfixturevalue("valkey" if engine == "valkey" else "redis_server")
        url, lease_at = server.url, server.client()
        lease_at.flushall()
    first, second = process(url), process(url)
    loading, go_on = threading.Event(), threading.Event()

    def load():
        loading.set()
        go_on.wait(10)
        return "made"

    end, then = ENDS[name]
    leader = thread(end, first, load)
    assert loading.wait(10)
    waiter = thread(second.get_or_set, "k", lambda: "own")
    patient(lambda: (lease_at.get("cachekit:l:{k}") or b"").endswith(b"w"))
    patient(lambda: second.stats().channel_kind == "tracking")
    go_on.set()
    assert waiter.result() == then
    leader.result()
    if topology == "server":
        lease_at.close()


@pytest.mark.parametrize("topology", ["server", "cluster"])
def test_ends_that_were_not_heard_of_are_told_in_few_trips(request, engine, process, topology) -> None:
    """On a server that was away for a moment; those of the newest, where there are too many."""
    if topology == "cluster":
        deployment = request.getfixturevalue("deployments")("cluster", engine)
        deployment.flush()
        url = deployment.url
    else:
        server = request.getfixturevalue("valkey" if engine == "valkey" else "redis_server")
        url = server.url
        with server.client() as client:
            client.flushall()
    first, second = process(url).store, process(url).store
    keys = [f"k{number}" for number in range(1050)]
    trips = []
    scripts = first.inner.link.scripts
    first.inner.link.scripts = lambda *args: trips.append(len(args[2])) or scripts(*args)
    for ticket in [drive(first.begin(BLOCKING, key, (), 30)) for key in keys]:
        first.inner.owe(ticket)
    drive(first.inner.give_back(BLOCKING))
    assert trips == [500, 500]
    assert not first.inner.owes
    assert [drive(second.begin(BLOCKING, key, (), 30)).leads for key in keys] == [False] * 50 + [True] * 1000


def test_without_a_waiter_nothing_is_announced(server, process) -> None:
    cache = process(server.url)
    cache.get_or_set("warm", lambda: 1)
    with server.client() as client:
        client.config_resetstat()
        cache.get_or_set("k", lambda: 1, tags=["t"])
        stats = client.info("commandstats")
    assert "cmdstat_publish" not in stats
    assert cache.stats().channel_kind == "none"


def test_a_leader_that_is_gone_loses_its_lease_when_that_ends(server, process) -> None:
    """Nobody tells of it: those who wait look again when it should have ended."""
    cache = process(server.url)
    with server.client() as client:
        client.set("cachekit:l:{k}", b"x" * 16, px=200)
        assert cache.get_or_set("k", lambda: "own") == "own"
        assert cache.stats().channel_kind == "tracking"  # it was listening
        assert cache.get("k") == "own"


# -- leases that are held --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_load_longer_than_its_lease_keeps_it(server, process, thread, patient, kind) -> None:
    """The load ends when the lease was renewed often enough to have ended without that; the other process waits."""
    first, second = process(server.url), process(server.url)
    runs = count(1)
    lease = 0.3

    def renewals(client) -> int:
        return client.info("commandstats").get("cmdstat_pexpire", {}).get("calls", 0)

    with server.client() as client:
        client.config_resetstat()

        def load():
            patient(lambda: renewals(client) >= 5)  # of a third of a lease each
            return next(runs)

        async def aload():
            return await asyncio.to_thread(load)

        if kind == "blocking":
            leader = thread(first.cached(key="k", lease=lease, ttl=60)(load))
        else:
            leader = thread(asyncio.run, _once(first, first.cached(key="k", lease=lease, ttl=60)(aload)))
        patient(lambda: client.exists("cachekit:l:{k}"))
        follower = thread(second.cached(key="k", lease=lease, ttl=60)(lambda: next(runs)))
        assert [leader.result(), follower.result()] == [1, 1]
        assert first.get("k") == 1
        assert not client.exists("cachekit:l:{k}")


async def _once(cache: Cache, load) -> object:
    try:
        return await load()
    finally:
        await cache.store.inner.link._aclose()


def test_a_lease_that_was_taken_over_is_not_renewed(server, process) -> None:
    cache, other = process(server.url), process(server.url)
    for io in (BLOCKING, ASYNCIO):
        world = World("blocking" if io is BLOCKING else "asyncio")
        mine = world.run(lambda io: cache.store.begin(io, "k", [], 30.0))
        assert world.run(lambda io, mine=mine: cache.store.renew(io, mine, 30.0)) is True
        theirs = world.run(lambda io: other.store.begin(io, "k", [], 30.0, exclusive=False))
        assert world.run(lambda io, mine=mine: cache.store.renew(io, mine, 30.0)) is False
        assert world.run(lambda io, theirs=theirs: other.store.renew(io, theirs, 30.0)) is True
        world.run(lambda io, theirs=theirs: other.store.release(io, theirs))
        for one in (cache, other):
            world.run(one.store.close)
        world.close()


def test_a_request_for_a_lease_that_is_repeated_gets_it(server, process) -> None:
    """The reply to the first was lost with its connection: the lease is the caller's own."""
    cache = process(server.url)
    with server.client() as client:
        client.set("cachekit:l:{k}", b"t" * 16, px=30_000)
    from cachekit.stores.stamps import Asked

    begun = World("blocking").run(
        lambda io: cache.store.inner._stamps.begin(io, Asked("k", [""], b"t" * 16, 30_000, take=False, waits=True))
    )
    assert begun.leads
    assert cache.watch.of(Kind.STORE_ERROR) == []
