"""Collecting tags: who sees what is noted, and who does not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cachekit import Cache, ConfigError, Kind, LoadTimeout, bypass, collecting, tag
from cachekit.tags import note


def test_inside_outside_and_nested() -> None:
    tag("nobody")
    with collecting() as outer:
        tag("a", "b")
        with collecting() as inner:
            tag("b", "c")
        note(("d",))
        assert set(inner) == {"b", "c"}
        assert (len(outer), "a" in outer, "c" in outer) == (3, True, False)
    tag("too late")
    assert set(outer) == {"a", "b", "d"}


def test_it_ends_with_an_exception() -> None:
    with pytest.raises(LookupError), collecting() as tags:
        tag("a")
        raise LookupError
    tag("b")
    assert set(tags) == {"a"}


def test_tasks_add_to_what_started_them_and_not_to_each_other() -> None:
    async def one(name):
        with collecting() as own:
            await asyncio.sleep(0)
            tag(name)
            await asyncio.sleep(0)
        tag(f"after {name}")
        return set(own)

    async def job():
        with collecting() as tags:
            return await asyncio.gather(one("a"), one("b")), set(tags)

    assert asyncio.run(job()) == ([{"a"}, {"b"}], {"after a", "after b"})


def test_threads_are_apart() -> None:
    with collecting() as tags:
        other = threading.Thread(target=tag, args=("other",))
        other.start()
        other.join()
    assert set(tags) == set()


@pytest.mark.parametrize("bad", ["", "a\n", 5, None, "x" * 513])
def test_bad_tags_are_refused_even_where_nobody_collects(bad) -> None:
    with pytest.raises(ConfigError):
        tag(bad)


def failing(cache: Cache, entered: threading.Event, leave: threading.Event, **options):
    @cache.cached(ttl=60, tags=["row:{number}"])
    def row(number: int) -> str:
        raise LookupError(number)

    @cache.cached(ttl=60, tags=["own"], **options)
    def load(number: int) -> str:
        entered.set()
        assert leave.wait(10)
        return row(number)

    return load


def used_by(call, expected: type[Exception] = LookupError) -> set[str]:
    with collecting() as tags, pytest.raises(expected):
        call()
    return set(tags)


def test_whoever_gets_an_exception_has_the_tags_of_what_failed(watch, thread) -> None:
    """What is made without a value is to be made anew once the value may be there."""
    cache = Cache(observers=[watch])
    entered, leave = threading.Event(), threading.Event()
    load = failing(cache, entered, leave)
    first = thread(used_by, lambda: load(1))
    assert entered.wait(10)
    second = thread(used_by, lambda: load(1))
    watch.wait(Kind.COLLAPSED, 1)
    leave.set()
    assert first.result() == second.result() == {"own", "row:1"}
    with bypass():
        assert used_by(lambda: load(2)) == {"own", "row:2"}


def test_a_kept_exception_has_the_tags_of_what_failed() -> None:
    cache, leave = Cache(), threading.Event()
    leave.set()
    load = failing(cache, threading.Event(), leave, exceptions={LookupError: "1h"})
    assert [used_by(lambda: load(1)) for _ in range(2)] == [{"own", "row:1"}] * 2
    assert load.counters.loads == 1
    cache.invalidate("row:1")
    used_by(lambda: load(1))
    assert load.counters.loads == 2


def test_whoever_waits_no_longer_has_the_tags_of_the_function() -> None:
    cache, leave = Cache(), threading.Event()
    load = failing(cache, threading.Event(), leave, hard_timeout=0.01)
    assert used_by(lambda: load(1), LoadTimeout) == {"own"}
    leave.set()


def test_a_failure_of_many_has_the_tags_of_all() -> None:
    cache = Cache()

    @cache.cached_many(key="row:{item}", ttl=60, tags=["row:{item}"])
    def rows(numbers: list[int]) -> dict[int, str]:
        tag("used")
        raise LookupError

    assert used_by(lambda: rows([1, 2])) == {"row:1", "row:2", "used"}
