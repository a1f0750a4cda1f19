"""Bounds and oddities, over every kind of store and in both worlds: each has a stated outcome."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from itertools import count

import pytest

from cachekit import Cache, ConfigError, Kind, current
from cachekit.keys import MAX_KEY_BYTES, MAX_TAGS

YEAR = 365 * 86400.0

# -- tags -----------------------------------------------------------------------------------------------------------------


def test_as_many_tags_as_allowed_all_work(facade) -> None:
    tags = [f"t:{i}" for i in range(MAX_TAGS - 1)]  # and the function's own
    load = facade.made(lambda x: x, tags=tags)
    load(1)
    assert load.peek(1) == 1
    facade.invalidate(tags[-1])
    assert load.peek(1) is None


@pytest.mark.parametrize("where", ["result", "inside", "arguments"])
def test_more_tags_than_allowed_are_not_kept_and_never_left_out(facade, watch, caplog, where) -> None:
    runs = count()
    many = [f"t:{i}" for i in range(MAX_TAGS + 1)]
    options = {"result": {"result_tags": lambda _: many}, "arguments": {"tags": lambda x: many}}.get(where, {})

    def body(x):
        if where == "inside":
            current().tag(*many)
        return next(runs)

    load = facade.made(body, **options)
    assert [load(1), load(1)] == [0, 1]  # the caller has the value, and nothing is kept
    events = [event for event in watch.of(Kind.NOT_STORED) if event.detail]
    assert len(events) == 2
    assert "tags, over the bound of 1,000" in events[0].detail
    assert "is not cached" in caplog.text


def test_set_says_so_at_once(facade) -> None:
    many = [f"t:{i}" for i in range(MAX_TAGS + 1)]
    for name in ("set", "add"):
        with pytest.raises(ConfigError, match="1,001 tags for one entry"):
            getattr(facade, name)("k", 1, tags=many)
    facade.invalidate(*many)  # as many as one likes


# -- keys -----------------------------------------------------------------------------------------------------------------


def test_a_long_key_keeps_its_head_and_is_told_apart(facade) -> None:
    load = facade.made(lambda text: len(text), key="report:{text}")
    one, two = "x" * 500, "x" * 500 + "y"
    assert [load(one), load(two)] == [500, 501]
    assert [load.peek(one), load.peek(two)] == [500, 501]
    key = load.key_for(one)
    assert key.startswith("report:xxxxx")
    assert "~#" in key
    assert len(key.encode()) <= MAX_KEY_BYTES
    short = "x" * (MAX_KEY_BYTES - len("report:"))
    assert load.key_for(short) == f"report:{short}"


# -- values ---------------------------------------------------------------------------------------------------------------


def test_a_value_over_the_bound_reaches_its_caller_and_is_not_kept(store_url, clock, watch) -> None:
    bound = {"max_bytes": 10_000} if store_url == "memory://" else {"max_value_bytes": 10_000}
    with Cache(store_url, clock=clock, timeout=5.0, observers=[watch], **bound) as cache:
        runs = count()

        @cache.cached
        def load(size):
            next(runs)
            return os.urandom(size)

        assert len(load(100)) == len(load(100)) == 100
        assert len(load(20_000)) == len(load(20_000)) == 20_000
        assert next(runs) == 3
        assert load.peek(20_000) is None
        assert load.peek(100) is not None
        if store_url != "memory://":
            assert "over the bound" in watch.of(Kind.UNENCODABLE)[0].detail


# -- the clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [3600.0, YEAR])
def test_a_clock_that_jumps_forward_only_ends_lifetimes(facade, clock, jump) -> None:
    runs = count()
    load = facade.made(lambda x: next(runs), ttl=60)
    assert [load(1), load(1)] == [0, 0]
    clock.advance(jump)
    assert [load(1), load(1)] == [1, 1]


@pytest.mark.parametrize("jump", [3600.0, YEAR])
def test_a_clock_that_is_set_back_makes_nothing_live_longer(facade, clock, jump) -> None:
    runs = count()
    load = facade.made(lambda x: next(runs), ttl=60)
    assert [load(1), load(2), load(1)] == [0, 1, 0]
    clock.advance(-jump)
    load(3)  # something is loaded: the step is noticed at the latest then
    assert [load(1), load(1)] == [3, 3]
    assert facade.get(load.key_for(2)) is None
    clock.advance(61)
    assert load(1) == 4


def test_after_an_excursion_all_is_as_before(facade, clock) -> None:
    runs = count()
    load = facade.made(lambda x: next(runs), ttl=60)
    load(1)
    clock.advance(YEAR)
    assert load(1) == 1  # made in a year that has not come
    clock.advance(-YEAR)
    load(2)
    assert [load(1), load(1)] == [3, 3]
    clock.advance(61)
    assert load(1) == 4


@pytest.mark.parametrize("jump", [0.5, 60.0, 299.0])
def test_a_small_step_back_costs_nothing(facade, clock, jump) -> None:
    runs = count()
    load = facade.made(lambda x: next(runs), ttl=600)
    load(1)
    clock.advance(-jump)
    load(2)
    assert load(1) == 0


@pytest.mark.server
def test_a_clock_that_is_set_back_does_not_keep_the_breaker_open(own_server, clock) -> None:
    with Cache(own_server.url, clock=clock, timeout=0.25) as cache:
        own_server.stop()
        for i in range(5):
            cache.get_or_set("k", lambda i=i: i)
        assert cache.stats().store == "away"
        own_server.start()
        clock.advance(-3600)
        cache.set("k", 1)
        assert cache.get("k") == 1
        assert cache.stats().store == "ok"


# -- connections ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def half_closing():
    """A server that takes connections, and closes its half of each after the first bytes have come."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                held.append(peer)
                peer.recv(1)
                peer.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        for peer in held:
            peer.close()


@pytest.mark.parametrize("tier", ["", "tiered+"])
def test_a_half_closed_connection_is_a_server_that_is_away(world, clock, watch, tier) -> None:
    with half_closing() as url:
        cache = Cache(tier + url, clock=clock, timeout=0.25, observers=[watch])

        def load(i):
            if world.name == "blocking":
                return cache.get_or_set("k", lambda: i)
            return world.run(lambda _: cache.aget_or_set("k", lambda: i))

        values = [load(i) for i in range(5)]
        assert values == list(range(5)) if not tier else values[0] == 0
        assert watch.of(Kind.STORE_ERROR)
        assert cache.stats().store == "away"
        world.run(cache.store.close)
        cache.close()
