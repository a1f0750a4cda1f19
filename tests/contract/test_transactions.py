"""Transactions over every kind of store and in both worlds: all changes at the end, or none."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from cachekit import Cache, ConfigError, Kind, bypass, refresh
from cachekit.testing import FlakyStore, World

MISSING = object()


class Outside:
    """What callers outside of the transaction see: another thread has another context."""

    def __init__(self, facade, thread) -> None:
        self._facade, self._thread = facade, thread

    def __getattr__(self, name):
        return lambda *args, **kwargs: self._thread(getattr(self._facade.cache, name), *args, **kwargs).result()


@pytest.fixture
def outside(facade, thread):
    return Outside(facade, thread)


def script(facade, steps, **options):
    """Run *steps* (a generator function) in a transaction: it yields calls, each of which is made in this world."""
    if facade.world.name == "blocking":
        with facade.cache.transaction(**options) as tx:
            return _drive(steps(tx, facade.cache, ""))

    async def inside(_):
        async with facade.cache.transaction(**options) as tx:
            return await _adrive(steps(tx, facade.cache, "a"))

    return facade.world.run(inside)


def _drive(steps):
    try:
        value = next(steps)
        while True:
            value = steps.send(value())
    except StopIteration as stop:
        return stop.value


async def _adrive(steps):
    try:
        call = next(steps)
        while True:
            made = call()
            call = steps.send(await made if asyncio.iscoroutine(made) else made)
    except StopIteration as stop:
        return stop.value


def call(cache, prefix, name, *args, **kwargs):
    return lambda: getattr(cache, prefix + name)(*args, **kwargs)


def test_changes_are_applied_at_the_end_and_seen_inside_before(facade, outside) -> None:
    facade.set("a", "old")
    facade.set("gone", 1)
    facade.set("tagged", 1, tags=["t"])

    def steps(tx, cache, p):
        yield call(cache, p, "set", "a", "new")
        yield call(cache, p, "delete", "gone")
        yield call(cache, p, "invalidate", "t")
        yield call(cache, p, "set", "b", 2, tags=["t"])
        names = ["a", "gone", "tagged", "b"]
        assert (yield call(cache, p, "get_many", names)) == {"a": "new", "b": 2}
        assert (yield call(cache, p, "get", "a")) == "new"
        assert (yield call(cache, p, "get", "gone")) is None
        assert outside.get_many(names) == {"a": "old", "gone": 1, "tagged": 1}

    script(facade, steps)
    assert facade.get_many(["a", "gone", "tagged", "b"]) == {"a": "new", "b": 2}
    facade.invalidate("t")
    assert facade.get("b") is None


def test_nothing_is_applied_when_the_block_raises(facade, watch) -> None:
    facade.set("a", "old", tags=["t"])

    def steps(tx, cache, p):
        yield call(cache, p, "set", "a", "new")
        yield call(cache, p, "invalidate", "t")
        yield call(cache, p, "set", "b", 1)
        yield call(cache, p, "clear")
        raise LookupError

    with pytest.raises(LookupError):
        script(facade, steps)
    assert facade.get_many(["a", "b"]) == {"a": "old"}
    assert watch.of(Kind.INVALIDATED) == []


def test_what_was_written_and_then_invalidated_is_gone(facade) -> None:
    facade.set("k", "old")

    def steps(tx, cache, p):
        yield call(cache, p, "set", "k", "new", tags=["t"])
        yield call(cache, p, "invalidate", "t")
        assert (yield call(cache, p, "get", "k")) is None

    script(facade, steps)
    assert facade.get("k", MISSING) is MISSING


def test_clear(facade) -> None:
    facade.set("k", 1)

    def steps(tx, cache, p):
        yield call(cache, p, "clear")
        assert (yield call(cache, p, "get", "k")) is None
        yield call(cache, p, "set", "after", 1)

    script(facade, steps)
    assert facade.get_many(["k", "after"]) == {"after": 1}


def test_transactions_nest(facade, outside) -> None:
    is_blocking = facade.world.name == "blocking"

    def outer(tx, cache, p):
        yield call(cache, p, "set", "a", 1)

        def inner():
            if is_blocking:
                with cache.transaction():
                    cache.set("b", 2)
                    cache.invalidate("t")
                with pytest.raises(LookupError), cache.transaction():
                    cache.set("a", "dropped")
                    raise LookupError
                return None

            async def job():
                async with cache.transaction():
                    await cache.aset("b", 2)
                    await cache.ainvalidate("t")
                with pytest.raises(LookupError):
                    async with cache.transaction():
                        await cache.aset("a", "dropped")
                        raise LookupError

            return job()

        yield inner
        assert (yield call(cache, p, "get_many", ["a", "b", "c"])) == {"a": 1, "b": 2}
        assert outside.get_many(["a", "b", "c"]) == {"c": 3}

    facade.set("c", 3, tags=["t"])
    script(facade, outer)
    assert facade.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}


def test_commit_and_rollback_in_the_middle(facade, outside) -> None:
    def steps(tx, cache, p):
        yield call(cache, p, "set", "a", 1)
        yield call(tx, p, "commit")
        assert outside.get("a") == 1
        yield call(cache, p, "set", "a", 2)
        yield lambda: tx.rollback()
        assert (yield call(cache, p, "get", "a")) == 1
        yield call(cache, p, "set", "b", 3)

    script(facade, steps)
    assert facade.get_many(["a", "b"]) == {"a": 1, "b": 3}


def test_a_database_says_when(facade, patient) -> None:
    hooks = []

    def steps(tx, cache, p):
        yield call(cache, p, "set", "a", 1)

    script(facade, steps, on_commit=hooks.append)
    assert facade.get("a") is None
    if facade.world.name == "blocking":
        hooks.pop()()
        assert facade.get("a") == 1
        return

    async def hook(_):
        hooks.pop()()  # as a database calls it: without awaiting
        while await facade.cache.aget("a") is None:
            await asyncio.sleep(0)

    facade.world.run(hook)
    assert facade.get("a") == 1


def test_a_hook_of_an_inner_block_that_is_called_after_the_outer_one(facade) -> None:
    if facade.world.name != "blocking":
        pytest.skip("the same code")
    hooks = []
    with facade.cache.transaction():
        with facade.cache.transaction(on_commit=hooks.append):
            facade.cache.set("a", 1)
        assert facade.cache.get("a") is None
    hooks.pop()()
    assert facade.cache.get("a") == 1


# -- loaders --------------------------------------------------------------------------------------------------------------


def test_what_is_loaded_inside_is_not_kept_for_others(facade) -> None:
    """The row is changed and not committed: a loader inside sees the new one, which may never come to be."""
    committed, uncommitted = ["old"], []
    load = facade.made(lambda x: (uncommitted or committed)[-1], tags=["row:{x}"])

    def steps(tx, cache, p):
        uncommitted.append("never")
        yield call(cache, p, "invalidate", "row:1")
        assert (yield lambda: load.made(1)) == "never"
        assert (yield lambda: load.made.peek(1)) == "never"  # own reads go on seeing it
        raise LookupError

    with pytest.raises(LookupError):
        script(facade, steps)
    uncommitted.clear()
    assert load.peek(1) is None
    assert load(1) == "old"


def test_not_even_before_the_first_change_is_recorded(facade) -> None:
    rows = ["old"]
    load = facade.made(lambda x: rows[-1], tags=["row:{x}"])

    def steps(tx, cache, p):
        rows.append("uncommitted")  # the database was changed; the cache has not been told yet
        assert (yield lambda: load.made(1)) == "uncommitted"
        rows.pop()
        raise LookupError

    with pytest.raises(LookupError):
        script(facade, steps)
    assert load(1) == "old"


def test_hits_from_outside_are_served_until_the_transaction_drops_them(facade, outside) -> None:
    runs = count()
    load = facade.made(lambda x: next(runs), tags=["row:{x}"])
    assert [load(1), load(2), load(1)] == [0, 1, 0]

    def steps(tx, cache, p):
        assert (yield lambda: load.made(1)) == 0
        yield call(cache, p, "invalidate", "row:1")
        assert [(yield lambda: load.made(1)), (yield lambda: load.made(1)), (yield lambda: load.made(2))] == [2, 2, 1]
        yield lambda: load.made.invalidate(2)
        assert (yield lambda: load.made(2)) == 3
        if facade.world.name == "blocking":
            assert [outside._thread(load.made, x).result() for x in (1, 2)] == [0, 1]

    script(facade, steps)
    assert [load(1), load(2)] == [4, 5]


def test_every_handle_waits_for_the_end(facade, outside) -> None:
    runs = count()
    load = facade.made(lambda x: next(runs))
    load(1), load(2)

    def steps(tx, cache, p):
        assert (yield lambda: load.made.refresh(1)) == 2
        assert (yield lambda: load.made(1)) == 2
        yield lambda: load.made.invalidate_all()
        assert (yield lambda: load.made.peek(2)) is None
        if facade.world.name == "blocking":
            assert outside._thread(load.made.peek, 1).result() == 0

    script(facade, steps)
    assert [load.peek(1), load.peek(2)] == [None, None]


def test_a_refresh_inside_drops_the_old_value_at_the_end(facade) -> None:
    runs = count()
    load = facade.made(lambda x: next(runs))
    load(1)

    def steps(tx, cache, p):
        yield lambda: load.made.refresh(1)

    script(facade, steps)
    assert load(1) == 2


def test_many(facade) -> None:
    loaded = []

    def users(numbers):
        loaded.append(list(numbers))
        return dict.fromkeys(numbers, len(loaded))

    many = facade.made(users, decorate=facade.cache.cached_many(key="user:{item}", tags=["user:{item}"]))
    many([1, 2])

    def steps(tx, cache, p):
        yield call(cache, p, "invalidate", "user:2")
        assert (yield lambda: many.made([1, 2, 3])) == {1: 1, 2: 2, 3: 2}
        assert (yield lambda: many.made([2, 3])) == {2: 2, 3: 2}

    script(facade, steps)
    assert loaded == [[1, 2], [2, 3]]
    assert many([1, 2, 3]) == {1: 1, 2: 3, 3: 3}


def test_get_or_set_inside(facade) -> None:
    def steps(tx, cache, p):
        assert (yield call(cache, p, "get_or_set", "k", lambda: 1)) == 1
        assert (yield call(cache, p, "get_or_set", "k", lambda: 2)) == 1

    script(facade, steps)
    assert facade.get("k") is None


def test_a_load_outside_that_the_commit_overtook_is_not_kept(facade) -> None:
    if facade.world.name != "blocking":
        pytest.skip("the same code")

    @facade.cache.cached(tags=["t"])
    def load(x):
        with facade.cache.transaction():
            facade.cache.invalidate("t")
        return "old"

    load(1)
    assert load.peek(1) is None


def test_counters_act_at_once_and_own_keys_wait(facade, outside) -> None:
    facade.incr("n")

    def steps(tx, cache, p):
        assert (yield call(cache, p, "incr", "n")) == 2
        assert outside.get("n") == 2
        yield call(cache, p, "set", "own", 10)
        assert (yield call(cache, p, "incr", "own")) == 11
        assert (yield call(cache, p, "add", "own", 0)) is False
        assert outside.get("own") is None
        yield call(cache, p, "delete", "n")
        assert (yield call(cache, p, "add", "n", 7)) is True

    script(facade, steps)
    assert facade.get_many(["n", "own"]) == {"n": 7, "own": 11}


def test_changes_of_own_keys_wait_too(facade, outside) -> None:
    facade.set("n", 1)

    def steps(tx, cache, p):
        assert (yield call(cache, p, "change", "n", lambda value: value + 1, adds=1)) == 2
        assert outside.get("n") == 2
        yield call(cache, p, "set", "own", 10)
        assert (yield call(cache, p, "change", "own", lambda value: value + 1, adds=1)) == 11
        assert (yield call(cache, p, "touch", "own", ttl=60)) is True
        assert (yield call(cache, p, "entry", "own")).value == 11
        assert outside.get("own") is None
        yield call(cache, p, "delete", "n")
        assert (yield call(cache, p, "entry", "n")) is None
        assert outside.get("n") == 2

    script(facade, steps)
    assert facade.get_many(["n", "own"]) == {"own": 11}


# -- scope ----------------------------------------------------------------------------------------------------------------


def test_modes_inside_and_around(cache: Cache) -> None:
    runs = count()

    @cache.cached
    def load():
        return next(runs)

    load()
    with cache.transaction():
        with bypass():
            assert load() == 1
        assert load() == 0
        with refresh():
            assert load() == 2
        assert load() == 2
    with bypass(), cache.transaction():
        assert load() == 3


def test_loaders_inside_see_what_was_dropped_too(cache: Cache) -> None:
    runs = count()

    @cache.cached(tags=["t"])
    def inner():
        return next(runs)

    @cache.cached
    def outer():
        return inner()

    assert inner() == inner() == 0
    with cache.transaction():
        cache.invalidate("t")
        assert outer() == 1
    assert outer() == 2


def test_each_cache_has_its_own(clock) -> None:
    one, two = Cache(clock=clock), Cache(clock=clock)
    with pytest.raises(LookupError), one.transaction():
        one.set("k", 1)
        two.set("k", 2)
        raise LookupError
    assert (one.get("k"), two.get("k")) == (None, 2)


def test_tasks_that_outlive_it_go_on_without_it(cache: Cache) -> None:
    async def main():
        go_on = asyncio.Event()

        async def late():
            await go_on.wait()
            await cache.aset("late", 1)

        async def sibling():
            await cache.aset("sibling", 1)

        outside = asyncio.create_task(sibling())
        async with cache.transaction() as tx:
            task = asyncio.create_task(late())
            await outside
            assert cache.l1 is not None
            assert cache.l1.peek("sibling") is not None
        go_on.set()
        await task
        assert cache.get("late") == 1
        assert repr(tx) == "<Transaction, ended>"

    asyncio.run(main())


def test_it_is_entered_once(cache: Cache) -> None:
    tx = cache.transaction()
    with pytest.raises(ConfigError, match="not begun"):
        tx.commit()
    with tx:
        pass
    with pytest.raises(ConfigError, match="once"), tx:
        pass


def test_a_refresh_of_what_is_stale_is_left_to_others(cache: Cache, clock) -> None:
    runs = count()

    @cache.cached(ttl=10, stale_while_revalidate=100)
    def load():
        return next(runs)

    load()
    clock.advance(20)
    with cache.transaction():
        assert [load(), load()] == [0, 0]
    assert next(runs) == 1


# -- faults ---------------------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_the_server_goes_away_before_the_end(own_server, clock, patient) -> None:
    with Cache(own_server.url, clock=clock, timeout=5.0) as cache:
        cache.set("k", "old", tags=["t"])
        with cache.transaction():
            cache.invalidate("t")
            cache.set("other", 1)
            own_server.stop()
        assert cache.stats().pending >= 1
        own_server.start()
        patient(lambda: (clock.advance(1), cache.stats().pending)[1] == 0)
        assert cache.get_many(["k", "other"]) == {}


@pytest.mark.server
@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_value_that_cannot_be_encoded_does_not_keep_back_the_others(valkey, clock, watch, caplog, kind) -> None:
    world = World(kind)
    with valkey.client() as client:
        client.flushall()
    cache = Cache(valkey.url, clock=clock, observers=[watch], timeout=5.0)
    cache.set("bad", "old")
    if kind == "blocking":
        with cache.transaction():
            cache.set("bad", object())
            cache.set("good", 1)
    else:

        async def job(_):
            async with cache.transaction():
                await cache.aset("bad", object())
                await cache.aset("good", 1)

        world.run(job)
    assert cache.get_many(["bad", "good"]) == {"good": 1}
    assert [event.key for event in watch.of(Kind.UNENCODABLE)] == ["bad"]
    world.close(cache.store)
    cache.close()


def test_a_store_that_fails_inside_is_like_an_empty_one(clock) -> None:
    from cachekit.stores.memory import Memory

    flaky = FlakyStore(Memory(clock=clock))
    cache = Cache(flaky, clock=clock)
    flaky.down = True
    with cache.transaction():
        assert cache.get("k") is None
        assert cache.get_or_set("k", lambda: 1) == 1
        assert cache.get("k") == 1
        assert cache.delete("other") is False
        flaky.down = False


ENDS = ["raises", "rolled back", "commits", "commits inside of one that raises", "its database may yet roll back"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("seen", ["set", "loaded", "nothing"])
def test_what_is_made_around_a_transaction_is_kept_only_where_it_came_to_be(facade, seen, end):
    cache = facade.cache
    options = {"on_commit": lambda apply: None} if "database" in end else {}

    def steps(tx, cache, a):
        yield lambda: getattr(cache, f"{a}set")("stock", 4)
        if seen == "set":
            assert (yield lambda: getattr(cache, f"{a}get")("stock")) == 4
        elif seen == "loaded":
            assert (yield lambda: getattr(cache, f"{a}get_or_set")("price", lambda: 4)) == 4
        if end == "rolled back":
            tx.rollback()
        if end == "raises":
            raise LookupError

    def change():
        if facade.world.name == "blocking":
            if "inside" not in end:
                return script(facade, steps, **options)
            with cache.transaction():
                script(facade, steps)
                raise LookupError

        async def inside():
            if "inside" not in end:
                async with cache.transaction(**options) as tx:
                    return await _adrive(steps(tx, cache, "a"))
            async with cache.transaction():
                async with cache.transaction() as tx:
                    await _adrive(steps(tx, cache, "a"))
                raise LookupError

        return inside()

    if facade.world.name == "blocking":

        def make():
            try:
                change()
            except LookupError:
                pass
            return "made"

    else:

        async def make():
            try:
                await change()
            except LookupError:
                pass
            return "made"

    around = cache.cached(ttl="1h")(make)
    facade.run(around)
    assert facade.run(around.peek) == ("made" if seen == "nothing" or end == "commits" else None)
