"""What a cache holds, looked at and changed atomically, on every store and in both worlds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from cachekit import Cache, ConfigError
from cachekit.errors import StoreError
from cachekit.stores.glob import glob
from cachekit.testing import FlakyStore


def run(world, cache, name, *args, **kwargs):
    """Call the method *name*, or its twin with an a in front."""
    return world.run(lambda io: getattr(cache, f"_{name}")(io, *args, **kwargs))


@pytest.fixture(params=["memory", "valkey", "redis", "tiered"])
def held(request, clock, world):
    if request.param == "memory":
        yield Cache(clock=clock)
        return
    server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with server.client() as client:
        client.flushall()
    cache = Cache(f"{'tiered+' if request.param == 'tiered' else ''}{server.url}", clock=clock)
    yield cache
    run(world, cache, "close")


def test_entry(held, world, clock):
    run(world, held, "set", "a", 1, ttl=60, tags=["x"])
    entry = run(world, held, "entry", "a")
    assert (entry.value, entry.tags, entry.fresh_until) == (1, ("x",), clock() + 60)
    clock.advance(61)
    assert run(world, held, "entry", "a") is None


def test_change(held, world, clock):
    absent = object()
    run(world, held, "set", "n", 1, ttl=60, tags=["x"])
    assert run(world, held, "change", "n", lambda value: value + 1) == 2
    assert run(world, held, "entry", "n").fresh_until == clock() + 60
    assert run(world, held, "entry", "n").tags == ("x",)
    clock.advance(30)
    assert run(world, held, "change", "n", lambda value: value + 1, ttl=60, slide=True) == 3
    assert run(world, held, "entry", "n").fresh_until == clock() + 60
    assert run(world, held, "change", "n", lambda value: absent, absent=absent) is absent
    assert run(world, held, "get", "n") is None
    assert run(world, held, "change", "n", lambda value: [value], ttl=60, tags=("y",)) == [None]
    run(world, held, "invalidate", "y")
    assert run(world, held, "get", "n") is None


def test_what_change_raises_reaches_the_caller_and_changes_nothing(held, world):
    run(world, held, "set", "n", 1)
    with pytest.raises(ZeroDivisionError):
        run(world, held, "change", "n", lambda value: value / 0)
    assert run(world, held, "get", "n") == 1


def test_no_change_of_many_is_lost(held):
    def add(_):
        for _ in range(10):
            held.change("n", lambda value: value + 1, absent=0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert held.get("n") == 80


def test_change_has_no_honest_answer_without_a_server(world, own_server):
    cache = Cache(own_server.url)
    own_server.stop()
    with pytest.raises(StoreError):
        run(world, cache, "change", "n", lambda value: 1)
    assert run(world, cache, "scan") == (None, [])
    run(world, cache, "close")


def pages(world, cache, *args, **kwargs):
    found, cursor = [], None
    while True:
        cursor, names = run(world, cache, "scan", *args, cursor, **kwargs)
        found += names
        if cursor is None:
            return sorted(set(found))


def test_scan(held, world):
    run(world, held, "set_many", {f"user:{n}": n for n in range(2500)}, tags=["users"])
    run(world, held, "set", "post}%:1", 1)
    assert len(pages(world, held, "user:*")) == 2500
    assert pages(world, held, "user:[12]") == ["user:1", "user:2"]
    assert pages(world, held, "post}%:?") == ["post}%:1"]
    run(world, held, "invalidate", "users")
    assert pages(world, held, "user:*") == []
    assert pages(world, held, "*") == ["post}%:1"]


def test_a_store_that_cannot_list_its_keys_says_so(world):
    class Deaf(FlakyStore):
        """Has no ``scan``."""

    with pytest.raises(ConfigError, match="Deaf cannot list"):
        run(world, Cache(Deaf(Cache().store)), "scan")


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a*", "abc", True), ("a?", "abc", False), ("a[bc]", "ac", True), ("a[^bc]", "ac", False), ("a[0-9]", "a5", True),
        (r"a\*", "ab", False), (r"a\*", "a*", True), ("a.c", "abc", False), ("a[", "a[", True), ("*", "a\nb", True),
    ],
)  # fmt: skip
def test_glob(pattern, text, matches):
    assert bool(glob(pattern).match(text)) is matches
