"""Loads against invalidations, through the whole engine, in every order that the explorer can reach.

The truth starts at 0. A writer changes it to 1 and invalidates. Whoever starts to read after ``invalidate`` returned must
see 1, in the writer's process and in any other; what is left in the store at the end must be 1 or nothing.
"""

from __future__ import annotations

import itertools
import os

import pytest

from cachekit.engine import Engine
from cachekit.events import Events
from cachekit.jobs import Job, Plan
from cachekit.policy import Policy
from cachekit.stores.build import build
from cachekit.stores.memory import Memory
from cachekit.stores.tiered import Tiered
from cachekit.tags import collecting, tag
from tests.contract.test_stores import settings
from tests.schedules import Schedule, SteppedStore, explore, step

MOST = 5_000 if os.environ.get("CACHEKIT_SOAK") else 600
namespaces = itertools.count()


class FakeBus:
    """Delivers announcements when an actor says so; the first level hears them late, as on a real network."""

    first = None

    def __init__(self, on_message, on_live):
        from concurrent.futures import Future

        self.first = Future()
        self.first.set_result(True)
        self.on_message = on_message
        on_live()

    def stop(self):
        pass

    def close(self):
        pass


class Network:
    """Two processes over one server, each with its own first level, its own engine and its own world."""

    def __init__(self, kind, clock, schedule: Schedule, server):
        self.buses: list[FakeBus] = []
        self.queue: list[bytes] = []
        events = Events()
        if kind == "memory":
            shared = SteppedStore(Memory(clock=clock))
            stores = [(shared, None)]
        else:
            options = settings(clock)
            link = build(server.url, options)[0].inner.link
            name = f"s{next(namespaces)}"
            stores = [self._remote(kind, link, name, clock, events) for _ in range(2)]
        self.engines = [
            (Engine(store, clock=clock, chance=lambda: 0.5, events=events, l1=l1), schedule.io())
            for store, l1 in stores
        ]

    def _remote(self, kind, link, name, clock, events):
        from cachekit.codecs.msgpack import MsgpackCodec
        from cachekit.stores.redis import RedisStore

        remote = RedisStore(link, MsgpackCodec(), namespace=name, emit=events, clock=clock)
        if kind == "server":
            return SteppedStore(remote), None
        l1 = Memory(clock=clock)

        def open_bus(on_message, on_live, on_lost):
            bus = FakeBus(on_message, on_live)
            self.buses.append(bus)
            return bus

        tell = remote.told
        remote.told = lambda what, names=(): self._announced(tell(what, names))
        tiered = Tiered(
            l1, SteppedStore(remote), open_bus=open_bus, origin=lambda: remote.origin, clock=clock, emit=events
        )
        return tiered, l1

    def _announced(self, told):
        self.queue.append(told.payload())
        return told

    async def deliver(self):
        """Hand every announcement to every first level, one at a time, with the others running in between."""
        sent = 0
        while sent < len(self.queue):
            payload = self.queue[sent]
            sent += 1
            for bus in self.buses:
                await step()
                bus.on_message(payload)


@pytest.fixture(params=["memory", *(pytest.param(name, marks=pytest.mark.server) for name in ("server", "tiered"))])
def kind(request):
    return request.param


@pytest.fixture
def far(kind, request):
    return None if kind == "memory" else request.getfixturevalue("valkey")


@pytest.mark.parametrize("learnt", [False, True], ids=["tag known before", "tag learnt from the result"])
def test_no_order_serves_the_old_value_after_an_invalidation(kind, clock, far, learnt):
    plan = Plan("f", Policy(ttl=3600), shared_flight=False)
    tags = () if learnt else ("t",)

    def scenario(schedule: Schedule) -> None:
        network = Network(kind, clock, schedule, far)
        truth = [0]

        async def load():
            value = truth[0]
            await step()
            tag("t")
            return value

        async def fetch(engine, io):
            with collecting():
                return await engine.fetch(io, "k", tags, load, plan)

        async def reader(engine, io):
            assert await fetch(engine, io) in (0, 1)

        async def writer(engine, io):
            truth[0] = 1
            await step()
            await engine.invalidate(io, ["t"])
            assert await fetch(engine, io) == 1, "the writer's own process"
            await network.deliver()
            for other, its_io in network.engines:
                assert await fetch(other, its_io) == 1, "another process, once it was told"

        first = network.engines[0]
        schedule.add(reader(*first))
        schedule.add(reader(*network.engines[-1]))
        schedule.add(writer(*network.engines[-1]))
        schedule.run()
        schedule.add(leftovers(network))
        schedule.run()

    async def leftovers(network):
        for engine, io in network.engines:
            entry = await engine.store.get(io, "k")
            assert entry is None or entry.value == 1, "what is left"

    assert explore(scenario, most=MOST) > 100


def test_what_was_made_of_an_old_result_is_not_kept(kind, clock, far):
    """A process that has not heard of an invalidation yet must not carry the old value on under a new name."""
    plan = Plan("f", Policy(ttl=3600), shared_flight=False)

    def scenario(schedule: Schedule) -> None:
        network = Network(kind, clock, schedule, far)
        truth = [0]

        async def load_inner():
            value = truth[0]
            await step()
            return value

        async def inner(engine, io):
            return await engine.fetch(io, "inner", ("t",), load_inner, plan)

        async def outer(engine, io):
            with collecting():
                return await engine.fetch(io, "outer", (), lambda: inner(engine, io), plan)

        async def reader(engine, io):
            with collecting():
                await inner(engine, io)
            await outer(engine, io)

        async def writer(engine, io):
            truth[0] = 1
            await engine.invalidate(io, ["t"])

        async def afterwards():
            await network.deliver()
            for engine, io in network.engines:
                assert await outer(engine, io) == 1

        schedule.add(reader(*network.engines[0]))
        schedule.add(writer(*network.engines[-1]))
        schedule.run()
        schedule.add(afterwards())
        schedule.run()

    assert explore(scenario, most=MOST) > 50


@pytest.mark.parametrize("what", ["delete", "refresh"])
def test_no_order_keeps_a_load_that_a_delete_or_refresh_overtook(kind, clock, far, what):
    plan = Plan("f", Policy(ttl=3600), shared_flight=False)

    def scenario(schedule: Schedule) -> None:
        network = Network(kind, clock, schedule, far)
        truth = [0]

        async def load():
            value = truth[0]
            await step()
            return value

        async def reader(engine, io):
            assert await engine.fetch(io, "k", (), load, plan) in (0, 1)

        async def writer(engine, io):
            truth[0] = 1
            if what == "delete":
                await engine.delete(io, ["k"])
            else:
                engine.flights.void(keys=["k"])
                assert await engine.load(io, Job("k", (), load, plan, force=True)) == 1
            assert await engine.fetch(io, "k", (), load, plan) == 1

        schedule.add(reader(*network.engines[0]))
        schedule.add(writer(*network.engines[-1]))
        schedule.run()

    assert explore(scenario, most=MOST // 2) > 20


def test_callers_of_one_process_share_one_load_in_every_order(clock):
    plan = Plan("f", Policy(ttl=3600))

    def scenario(schedule: Schedule) -> None:
        network = Network("memory", clock, schedule, None)
        loads = []

        async def load():
            loads.append(1)
            await step()
            return "value"

        async def caller(engine, io):
            assert await engine.fetch(io, "k", (), load, plan) == "value"

        for _ in range(3):
            schedule.add(caller(*network.engines[0]))
        schedule.run()
        assert len(loads) == 1

    assert explore(scenario, most=MOST) > 100


def test_the_explorer_finds_a_lost_invalidation(clock):
    """A store without tickets loses the race in some order: the explorer must notice."""

    def scenario(schedule: Schedule) -> None:
        kept = {}
        truth = [0]

        async def reader():
            value = truth[0]
            await step()
            kept["k"] = value

        async def writer():
            truth[0] = 1
            kept.pop("k", None)

        schedule.add(reader())
        schedule.add(writer())
        schedule.run()
        assert kept.get("k", 1) == 1

    with pytest.raises(AssertionError) as caught:
        explore(scenario, most=50)
    assert "schedule:" in caught.value.__notes__[0]
