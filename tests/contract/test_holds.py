"""Whether a ticket still holds, asked in the middle of a load: on every store, in both worlds, as ``commit`` has it."""

from __future__ import annotations

import pytest

from cachekit import Cache
from cachekit.testing import FlakyStore

STORES = ["memory", "valkey", "redis", "tiered+valkey", "tiered+redis"]


@pytest.fixture(params=[pytest.param(s, marks=() if s == "memory" else pytest.mark.server) for s in STORES])
def cache(request, world, clock):
    name = request.param
    url = "memory://"
    if name != "memory":
        server = request.getfixturevalue("redis_server" if name.endswith("redis") else "valkey")
        with server.client() as client:
            client.flushall()
        url = ("tiered+" if name.startswith("tiered+") else "") + server.url
    made = Cache(url, clock=clock, timeout=5.0)
    yield made
    world.run(lambda io: made.store.close(io))


CHANGES = [
    ("nothing", lambda cache, io: None, True),
    ("its own tag", lambda cache, io: cache.engine.invalidate(io, ["a"]), False),
    ("a tag learnt from the result", lambda cache, io: cache.engine.invalidate(io, ["b"]), False),
    ("another tag", lambda cache, io: cache.engine.invalidate(io, ["c"]), True),
    ("its key", lambda cache, io: cache.drop(io, "k"), False),
    ("another key", lambda cache, io: cache.drop(io, "other"), True),
    ("everything", lambda cache, io: cache.engine.clear(io), False),
]


@pytest.mark.parametrize(("change", "holds"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_holds(cache, world, change, holds):
    async def job(io):
        ticket = await cache.begin(io, "k", ["a"])
        assert ticket is not None
        assert await cache.holds(io, ticket, ["a", "b"])
        changing = change(cache, io)
        if changing is not None:
            await changing
        assert await cache.holds(io, ticket, ["a", "b"]) is holds
        await cache.release(io, ticket)

    world.run(job)


def test_stamps_that_contradict_do_not_hold(cache, world):
    async def job(io):
        ticket = await cache.begin(io, "k", ["a"])
        assert ticket is not None
        stamps = [("b", b"0" * 16), ("b", b"1" * 16)]
        held = await cache.holds(io, ticket, ["a", "b"], stamps)
        assert held is (cache.url.startswith("memory"))  # where stamps mean nothing
        await cache.release(io, ticket)

    world.run(job)


def test_a_store_without_the_ability_holds_nothing(world):
    cache = Cache(FlakyStore(Cache().store))

    async def job(io):
        ticket = await cache.begin(io, "k")
        assert ticket is not None
        assert not await cache.holds(io, ticket, [])

    world.run(job)
