"""The handles of cached functions over every kind of store and in both worlds: ``peek`` and ``invalidate_all``."""

from __future__ import annotations

from itertools import count

import pytest

from cachekit import Cache, Kind, bypass, collecting, refresh
from cachekit.tags import is_implicit

MISSING = object()


def test_peek_returns_what_is_there_and_loads_nothing(facade, clock) -> None:
    runs = count()
    load = facade.made(lambda x: (x, next(runs)), ttl=60)
    assert load.peek(1) is None
    assert load.peek_or(MISSING, 1) is MISSING
    assert load(1) == (1, 0)
    assert load.peek(1) == load.peek(x=1) == load.peek_or(MISSING, 1) == (1, 0)
    assert load.peek_or(MISSING, 2) is MISSING
    clock.advance(61)
    assert load.peek_or(MISSING, 1) is MISSING
    assert next(runs) == 1


def test_peek_tells_none_from_nothing(facade) -> None:
    load = facade.made(lambda x: None)
    load(1)
    assert load.peek_or(MISSING, 1) is None
    load.invalidate(1)
    assert load.peek_or(MISSING, 1) is MISSING


def test_peek_shows_what_a_call_would_be_served_stale(facade, clock) -> None:
    load = facade.made(lambda x: x, ttl=10, stale_while_revalidate=10, stale_if_error=100)
    load(1)
    clock.advance(15)
    assert load.peek(1) == 1
    clock.advance(10)
    assert load.peek(1) is None  # only the loader's failure could bring it back


def test_peek_counts_nothing_and_is_no_use(facade) -> None:
    load = facade.made(lambda x: x)
    load(1)
    before = facade.cache.stats().total
    for _ in range(3):
        load.peek(1)
        load.peek(2)
    assert facade.cache.stats().total == before
    if facade.cache.l1 is not None and (node := facade.cache.l1.peek(load.key_for(1))) is not None:
        assert node.hits == 0


def test_a_kept_exception_is_no_value(facade) -> None:
    def fail(x):
        raise LookupError(x)

    load = facade.made(fail, exceptions={LookupError: 60})
    with pytest.raises(LookupError):
        load(1)
    assert load.peek_or(MISSING, 1) is MISSING


def test_peek_passes_tags_outward_and_keeps_to_bypass(cache: Cache) -> None:
    @cache.cached(tags=["t:{x}"])
    def load(x):
        return x

    load(1)
    with collecting() as tags:
        assert load.peek(1) == 1
    assert set(tags) == {"t:1"}
    with bypass():
        assert load.peek(1) is None
    with refresh():
        assert load.peek(1) == 1


def test_what_copies_gives_copies(facade) -> None:
    load = facade.made(lambda x: [x], copy=True)
    load(1)
    load.peek(1).append(2)
    assert load.peek(1) == [1]


def test_blocking_functions_have_awaitable_twins(facade) -> None:
    if facade.world.name == "blocking":
        pytest.skip("needs a loop")

    @facade.cache.cached
    def load(x):
        return x

    async def job(_):
        assert await load.apeek(1) is None
        assert await load.apeek_or(MISSING, 1) is MISSING
        load(1)
        assert await load.apeek(1) == await load.apeek_or(MISSING, 1) == 1
        await load.ainvalidate_all()
        assert await load.apeek(1) is None

    facade.world.run(job)


# -- invalidate_all -------------------------------------------------------------------------------------------------------


def test_all_results_of_one_function_go_and_no_other(facade, watch) -> None:
    runs = count()
    load = facade.made(lambda x, y=0: (x, y, next(runs)), key="load:{x}:{y}", version=3)
    other = facade.made(lambda x: (x, next(runs)), tags=["x:{x}"])
    outer = facade.made(lambda x: x)
    for x in range(3):
        load(x), other(x), outer(x)
    load.invalidate_all()
    assert [load.peek(x) for x in range(3)] == [None] * 3
    assert None not in [other.peek(x) for x in range(3)]
    assert load(1) == (1, 0, 6)
    assert load(1) == (1, 0, 6)
    (event,) = watch.of(Kind.INVALIDATED)
    assert ("<lambda>" in event.name, event.detail) == (True, "")


def test_what_used_a_result_goes_with_it(facade) -> None:
    runs = count()
    inner = facade.made(lambda x: next(runs))
    is_blocking = facade.world.name == "blocking"

    if is_blocking:

        @facade.cache.cached
        def outer(x):
            return [inner.made(x)]
    else:

        @facade.cache.cached
        async def outer(x):
            return [await inner.made(x)]

    def call():
        return facade.run(lambda: outer(1))

    assert [call(), call()] == [[0], [0]]
    inner.invalidate_all()
    assert [call(), call()] == [[1], [1]]


def test_a_method_drops_the_results_of_all_instances(facade) -> None:
    runs = count()

    class Tenant:
        @facade.cache.cached
        def plan(self, month):
            return next(runs)

        @facade.cache.cached
        @classmethod
        def best(cls, month):
            return next(runs)

    a, b = Tenant(), Tenant()
    assert [a.plan(1), b.plan(1), Tenant.best(1), a.plan(1)] == [0, 1, 2, 0]
    Tenant.plan.invalidate_all()
    assert [Tenant.plan.peek(a, 1), Tenant.plan.peek(b, 1), Tenant.best.peek(1)] == [None, None, 2]
    Tenant.best.invalidate_all()
    assert Tenant.best.peek_or("gone", 1) == "gone"


def test_all_items_of_cached_many_go(facade) -> None:
    loaded = []

    def users(numbers):
        loaded.append(list(numbers))
        return {number: str(number) for number in numbers}

    many = facade.made(users, decorate=facade.cache.cached_many(key="user:{item}"))
    many([1, 2])
    many.invalidate_all()
    assert many([1, 2]) == {1: "1", 2: "2"}
    assert loaded == [[1, 2], [1, 2]]


def test_a_load_that_it_overtook_is_not_kept(facade) -> None:
    if facade.world.name == "blocking":

        @facade.cache.cached
        def load(x):
            load.invalidate_all()
            return x
    else:

        @facade.cache.cached
        async def load(x):
            await load.invalidate_all()
            return x

    assert facade.run(lambda: load(1)) == 1
    assert facade.run(lambda: load.peek(1)) is None


def test_the_tag_of_a_function_stays_hidden_and_costs_no_command(facade) -> None:
    load = facade.made(lambda x: x, tags=["t"])
    load(1)
    with collecting() as tags:
        if facade.world.name == "blocking":
            load.made(1)
        else:
            facade.world.run(lambda _: load.made(1))
    assert all(not is_implicit(tag) for tag in tags)


@pytest.mark.server
def test_one_command_whatever_it_covers(server, clock) -> None:
    with Cache(server.url, clock=clock, timeout=5.0) as cache, server.client() as client:

        @cache.cached
        def load(x):
            return x

        for x in range(50):
            load(x)

        def calls():
            stats = client.info("commandstats")
            return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "mget")}

        before = calls()
        load(1)
        after = calls()
        assert (after["mget"] - before["mget"], after["evalsha"]) == (1, before["evalsha"])
        load.invalidate_all()
        assert calls()["evalsha"] == after["evalsha"] + 1
        assert [load.peek(x) for x in range(50)] == [None] * 50
