"""The engine over a store: single flight, stale windows, errors, invalidation during a load; threads and tasks."""

from __future__ import annotations

import asyncio
import gc
import threading
from itertools import count

import pytest

from cachekit import Cache, CacheKitError, Kind, Policy, StoreUnavailable
from cachekit.entry import seal
from cachekit.stores.base import Ticket
from cachekit.stores.memory import Memory
from cachekit.testing import FlakyStore, ManualClock


class Boom(Exception):
    """What a loader raises."""


class Gate:
    """A loader that stops until it is let go on."""

    def __init__(self, *outcomes: object) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.runs = 0
        self._outcomes = outcomes or ("value",)

    def __call__(self) -> object:
        outcome = self._outcomes[min(self.runs, len(self._outcomes) - 1)]
        self.runs += 1
        self.entered.set()
        assert self.leave.wait(10)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


# -- single flight ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["value", None, Boom("no")], ids=["value", "none", "exception"])
def test_threads_share_one_load(cache: Cache, thread, watch, outcome) -> None:
    gate = Gate(outcome)
    callers = [thread(cache.get_or_set, "k", gate) for _ in range(8)]
    watch.wait(Kind.COLLAPSED, 7)
    gate.leave.set()
    for caller in callers:
        if isinstance(outcome, Boom):
            with pytest.raises(Boom) as caught:
                caller.result()
            assert caught.value is outcome
        else:
            assert caller.result() is outcome
    assert gate.runs == 1


@pytest.mark.parametrize("outcome", ["value", None, Boom("no")], ids=["value", "none", "exception"])
def test_tasks_share_one_load(cache: Cache, watch, outcome) -> None:
    runs = count()

    async def job():
        go_on = asyncio.Event()

        async def load():
            next(runs)
            await go_on.wait()
            if isinstance(outcome, Boom):
                raise outcome
            return outcome

        callers = [asyncio.create_task(cache.aget_or_set("k", load)) for _ in range(8)]
        await watch.await_(Kind.COLLAPSED, 7)
        go_on.set()
        return await asyncio.gather(*callers, return_exceptions=True)

    assert [found is outcome for found in asyncio.run(job())] == [True] * 8
    assert next(runs) == 1


def test_after_an_exception_the_next_caller_loads_again(cache: Cache) -> None:
    def fail():
        raise Boom

    with pytest.raises(Boom):
        cache.get_or_set("k", fail)
    assert cache.get_or_set("k", lambda: "value") == "value"


@pytest.mark.parametrize("followers", [1, 3])
def test_a_cancelled_leader_hands_over(cache: Cache, watch, followers) -> None:
    runs = count()

    async def job():
        started, go_on = asyncio.Event(), asyncio.Event()

        async def load():
            started.set()
            await go_on.wait()
            return next(runs)

        leader = asyncio.create_task(cache.aget_or_set("k", load))
        await started.wait()
        others = [asyncio.create_task(cache.aget_or_set("k", load)) for _ in range(followers)]
        await watch.await_(Kind.COLLAPSED, followers)
        started.clear()
        leader.cancel()
        await started.wait()  # one of the others runs the loader now
        go_on.set()
        found = await asyncio.gather(*others)
        with pytest.raises(asyncio.CancelledError):
            await leader
        return found

    assert asyncio.run(job()) == [0] * followers
    assert cache.get("k") == 0


def test_a_cancelled_follower_harms_nobody(cache: Cache, watch) -> None:
    runs = count()

    async def job():
        go_on = asyncio.Event()

        async def load():
            await go_on.wait()
            return next(runs)

        tasks = [asyncio.create_task(cache.aget_or_set("k", load)) for _ in range(3)]
        await watch.await_(Kind.COLLAPSED, 2)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    leader, cancelled, follower = asyncio.run(job())
    assert (leader, follower, cache.get("k"), next(runs)) == (0, 0, 0, 1)
    assert isinstance(cancelled, asyncio.CancelledError)


def test_a_leader_killed_in_a_thread_hands_over(cache: Cache, thread, watch) -> None:
    gate = Gate(KeyboardInterrupt(), "second")
    leader = thread(cache.get_or_set, "k", gate)
    gate.entered.wait(10)
    follower = thread(cache.get_or_set, "k", gate)
    watch.wait(Kind.COLLAPSED)
    gate.leave.set()
    with pytest.raises(KeyboardInterrupt):
        leader.result()
    assert follower.result() == "second"


def test_every_loop_may_use_the_cache(cache: Cache) -> None:
    runs = count()

    @cache.cached
    async def load(x):
        return next(runs)

    assert [asyncio.run(load(1)), asyncio.run(load(1)), asyncio.run(load(2))] == [0, 0, 1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what Python says of such a loop
def test_a_loop_that_was_closed_in_the_middle_leaves_nothing_behind(cache: Cache) -> None:
    """Nobody cancels the tasks of a loop that is simply closed; the next loop often gets its address."""

    async def never():
        await asyncio.get_running_loop().create_future()

    async def start():
        task = asyncio.create_task(cache.aget_or_set("k", never))
        await asyncio.sleep(0)
        task._log_destroy_pending = False

    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(start())
        loop.close()
        del loop
        gc.collect()

    async def again():
        async with asyncio.timeout(5):
            return await cache.aget_or_set("k", lambda: "value")

    for _ in range(5):
        assert asyncio.run(again()) == "value"
        cache.delete("k")


# -- stale windows ----------------------------------------------------------------------------------------------------


def test_one_refresh_runs_behind_stale_values_in_threads(cache: Cache, clock: ManualClock, thread, watch) -> None:
    policy = Policy(ttl=10, stale_while_revalidate=5)
    cache.set("k", "old", ttl=policy)
    clock.advance(12)
    gate = Gate("new")
    assert [cache.get_or_set("k", gate, ttl=policy) for _ in range(5)] == ["old"] * 5
    assert gate.entered.wait(10)
    assert cache.get_or_set("k", gate, ttl=policy) == "old"
    gate.leave.set()
    watch.wait(Kind.STORED)
    assert cache.get_or_set("k", gate, ttl=policy) == "new"
    assert (gate.runs, len(watch.of(Kind.STALE))) == (1, 6)


def test_one_refresh_runs_behind_stale_values_in_tasks(cache: Cache, clock: ManualClock, watch) -> None:
    policy = Policy(ttl=10, stale_while_revalidate=5)
    cache.set("k", "old", ttl=policy)
    clock.advance(12)
    runs = count()

    async def load():
        return f"new {next(runs)}"

    async def job():
        found = await asyncio.gather(*(cache.aget_or_set("k", load, ttl=policy) for _ in range(20)))
        await watch.await_(Kind.STORED)
        await asyncio.sleep(0)
        return {*found}, await cache.aget_or_set("k", load, ttl=policy)

    assert asyncio.run(job()) == ({"old"}, "new 0")
    assert next(runs) == 1


def test_after_the_window_the_caller_waits(cache: Cache, clock: ManualClock) -> None:
    policy = Policy(ttl=10, stale_while_revalidate=5)
    cache.set("k", "old", ttl=policy)
    clock.advance(15)
    assert cache.get_or_set("k", lambda: "new", ttl=policy) == "new"


def test_a_failing_refresh_leaves_the_stale_value(cache: Cache, clock: ManualClock, watch) -> None:
    policy = Policy(ttl=10, stale_while_revalidate=5)
    cache.set("k", "old", ttl=policy)
    clock.advance(12)

    def fail():
        raise Boom

    assert cache.get_or_set("k", fail, ttl=policy) == "old"
    assert isinstance(watch.wait(Kind.LOAD_FAILED)[0].error, Boom)
    assert cache.get_or_set("k", lambda: "new", ttl=policy) == "old"
    watch.wait(Kind.STORED)
    assert cache.get_or_set("k", fail, ttl=policy) == "new"


def test_a_stale_value_is_not_served_to_plain_reads(cache: Cache, clock: ManualClock) -> None:
    cache.set("k", "old", ttl=Policy(ttl=10, stale_while_revalidate=5, stale_if_error=5))
    clock.advance(10)
    assert (cache.get("k"), cache.get_many(["k"]), cache.touch("k")) == (None, {}, False)


@pytest.mark.parametrize(("after", "served"), [(9.9, "old"), (10.0, "old"), (14.9, "old"), (15.0, None), (100.0, None)])
def test_stale_if_error(cache: Cache, clock: ManualClock, watch, after, served) -> None:
    policy = Policy(ttl=10, stale_if_error=5)
    cache.set("k", "old", ttl=policy)
    clock.advance(after)
    error = Boom()

    def fail():
        raise error

    if served is None:
        with pytest.raises(Boom) as caught:
            cache.get_or_set("k", fail, ttl=policy)
        assert caught.value is error
        return
    assert cache.get_or_set("k", fail, ttl=policy) == served
    assert [event.error for event in watch.of(Kind.STALE)] == ([] if after < 10 else [error])


def test_stale_if_error_ends_while_the_loader_runs(cache: Cache, clock: ManualClock) -> None:
    policy = Policy(ttl=10, stale_if_error=5)
    cache.set("k", "old", ttl=policy)
    clock.advance(14)

    def slow_failure():
        clock.advance(2)
        raise Boom

    with pytest.raises(Boom):
        cache.get_or_set("k", slow_failure, ttl=policy)


def test_stale_if_error_reaches_every_waiter(cache: Cache, clock: ManualClock, thread, watch) -> None:
    policy = Policy(ttl=10, stale_if_error=5)
    cache.set("k", "old", ttl=policy)
    clock.advance(12)
    gate = Gate(Boom())

    def call():
        return cache.get_or_set("k", gate, ttl=policy)

    callers = [thread(call) for _ in range(4)]
    watch.wait(Kind.COLLAPSED, 3)
    gate.leave.set()
    assert [caller.result() for caller in callers] == ["old"] * 4
    assert gate.runs == 1


@pytest.mark.parametrize("window", ["stale_while_revalidate", "stale_if_error"])
def test_an_invalidated_value_is_never_served_stale(cache: Cache, clock: ManualClock, window) -> None:
    policy = Policy(ttl=10, **{window: 50})
    cache.set("k", "old", ttl=policy, tags=["t"])
    clock.advance(12)
    cache.invalidate("t")

    def fail():
        raise Boom

    with pytest.raises(Boom):
        cache.get_or_set("k", fail, ttl=policy)


# -- invalidation during a load -----------------------------------------------------------------------------------------

OVERTAKE = {
    "invalidate": lambda cache: cache.invalidate("t"),
    "delete": lambda cache: cache.delete("k"),
    "clear": lambda cache: cache.clear(),
    "set": lambda cache: cache.set("k", "written"),
}


@pytest.mark.parametrize("learnt", [False, True], ids=["declared", "learnt"])
@pytest.mark.parametrize("name", OVERTAKE)
def test_late_callers_never_get_what_was_overtaken(cache: Cache, thread, watch, name, learnt) -> None:
    """The load began before the change and ends after it; whoever comes after the change gets the new value."""
    source = ["old"]
    gate = Gate()

    @cache.cached(
        key="k",
        tags=() if learnt and name == "invalidate" else ["t"],
        result_tags=(lambda _: ["t"]) if learnt else None,
    )
    def load():
        value = source[0]
        gate()
        return value

    early = thread(load)
    assert gate.entered.wait(10)
    source[0] = "new"
    OVERTAKE[name](cache)
    late = thread(load)
    new = "written" if name == "set" else "new"
    if name != "set":
        watch.wait(Kind.MISS, 2)
    else:
        assert late.result() == "written"
    gate.leave.set()
    assert early.result() in ("old", new)
    assert late.result() == new
    assert load() == new


def test_a_follower_from_before_gets_what_it_waited_for(cache: Cache, thread, watch) -> None:
    gate = Gate("old", "new")

    def load():
        return gate()

    callers = [thread(lambda: cache.get_or_set("k", load, tags=["t"])) for _ in range(3)]
    watch.wait(Kind.COLLAPSED, 2)
    cache.invalidate("t")
    gate.leave.set()
    assert {caller.result() for caller in callers} == {"old"}
    assert (gate.runs, cache.get("k")) == (1, None)


# -- a store that fails -------------------------------------------------------------------------------------------------


@pytest.fixture
def flaky(clock) -> FlakyStore:
    return FlakyStore(Memory(clock=clock))


def test_a_store_that_fails_is_as_good_as_an_empty_one(flaky: FlakyStore, clock, watch) -> None:
    cache = Cache(flaky, clock=clock, observers=[watch])
    runs = count()

    @cache.cached(tags=["t"])
    def load(x):
        return next(runs)

    assert [load(1), load(1)] == [0, 0]
    flaky.down = True
    assert [load(1), load(1)] == [1, 2]
    assert (cache.get("k"), cache.get_many(["k"])) == (None, {})
    assert cache.add("k", 1) is False
    assert cache.touch("k") is False
    cache.set("k", 1)
    with pytest.raises(StoreUnavailable):
        cache.incr("n")
    with pytest.raises(Boom):
        cache.get_or_set("k", lambda: (_ for _ in ()).throw(Boom()))
    flaky.down = False
    assert load(1) == 0


def test_threads_share_one_load_while_the_store_is_away(flaky: FlakyStore, clock, thread, watch) -> None:
    cache = Cache(flaky, clock=clock, observers=[watch])
    flaky.down = True
    gate = Gate()
    callers = [thread(cache.get_or_set, "k", gate) for _ in range(5)]
    watch.wait(Kind.COLLAPSED, 4)
    gate.leave.set()
    assert [caller.result() for caller in callers] == ["value"] * 5
    assert gate.runs == 1


def test_an_observer_that_fails_harms_nobody(clock, caplog) -> None:
    def observer(_event):
        raise Boom

    cache = Cache(clock=clock, observers=[observer])
    assert cache.get_or_set("k", lambda: 1) == 1
    assert "an observer of cachekit events failed" in caplog.text


def test_what_loaders_raise_is_counted_apart_from_what_the_store_raises(flaky: FlakyStore, clock) -> None:
    cache = Cache(flaky, clock=clock)
    with pytest.raises(CacheKitError):
        cache.get_or_set("k", lambda: (_ for _ in ()).throw(StoreUnavailable("the loader's own")))
    assert cache.stats().total.load_errors == 1


class SlowReply:
    """A store whose reply to a commit is late: it was accepted, and nobody here knows it yet."""

    def __init__(self, inner: Memory) -> None:
        self.inner = inner
        self.accepted, self.reply = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    async def commit(self, io, ticket, entry):
        kept = await self.inner.commit(io, ticket, entry)
        self.accepted.set()
        await self.reply.wait()
        return kept


def test_a_caller_who_comes_while_the_result_is_on_its_way_to_the_store_looks_again(clock) -> None:
    """Another process invalidated it after it was accepted: the store could not refuse it any more."""
    truth = ["old"]

    async def job() -> list[object]:
        store = SlowReply(Memory(clock=clock))
        cache = Cache(store, clock=clock)

        async def load() -> str:
            return truth[0]

        early = asyncio.create_task(cache.aget_or_set("k", load, tags=["t"]))
        await store.accepted.wait()
        truth[0] = "new"
        await store.inner.invalidate(None, ["t"])  # elsewhere: this cache's flights know nothing of it
        late = asyncio.create_task(cache.aget_or_set("k", load, tags=["t"]))
        for _ in range(5):
            await asyncio.sleep(0)
        store.reply.set()
        return [await early, await late]

    assert asyncio.run(job()) == ["old", "new"]


# -- what another process made -----------------------------------------------------------------------------------------


class Elsewhere(FlakyStore):
    """A store in which another process has made the value by the time that somebody here may."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(Memory(clock=clock))
        self.clock = clock
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def begin(self, io, key, tags, lease, *, exclusive=True):
        self.calls.append("begin")
        self.asked.set()
        await self.answer.wait()
        made = seal("theirs", Policy(ttl=60), self.clock())
        await self.inner.set_many(io, {key: made})
        return Ticket(key, leads=False, found=made, retry_in=1.0, proof=None)

    async def release(self, io, ticket):
        self.calls.append("release")


@pytest.mark.parametrize("callers", [1, 2, 9])
def test_one_look_serves_all_who_waited_for_what_another_process_made(clock: ManualClock, callers: int) -> None:
    async def main() -> None:
        store = Elsewhere(clock)
        cache = Cache(store, clock=clock)
        tasks = [asyncio.create_task(cache.aget_or_set("k", lambda: "ours")) for _ in range(callers)]
        await store.asked.wait()
        await asyncio.sleep(0)
        before = store.calls.count("get")
        store.answer.set()
        assert await asyncio.gather(*tasks) == ["theirs"] * callers
        assert store.calls.count("get") - before == (callers > 1), "none for the leader alone"
        assert store.calls.count("begin") == 1

    asyncio.run(main())


def test_who_waits_for_the_store_to_listen_does_not_ask_what_is_loading_by_then(clock: ManualClock) -> None:
    """All come before it listens; the first one that goes on loads, and the others need not ask the server."""

    class Listening(FlakyStore):
        def __init__(self) -> None:
            super().__init__(Memory(clock=clock))
            self.live = asyncio.Event()

        async def listen(self, io) -> None:
            await self.live.wait()

    async def main() -> None:
        store, done = Listening(), asyncio.Event()
        cache = Cache(store, clock=clock)

        async def load() -> str:
            await done.wait()
            return "value"

        tasks = [asyncio.create_task(cache.aget_or_set("k", load)) for _ in range(6)]
        await asyncio.sleep(0)
        store.live.set()
        while cache.stats().events.get("collapsed", 0) < 5:
            await asyncio.sleep(0)
        assert store.calls.count("get") == 1
        done.set()
        assert await asyncio.gather(*tasks) == ["value"] * 6

    asyncio.run(main())
