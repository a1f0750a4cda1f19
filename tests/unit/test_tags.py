"""Collecting tags: who sees what is noted, and who does not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cachekit import ConfigError, collecting, tag
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
