"""Followers get the leader's bytes as they come, and never what was invalidated before they came."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachekit import Cache, tag
from cachekit._io import ASYNCIO, BLOCKING, drive
from cachekit.http.asgi import HttpCache as AsgiCache
from cachekit.http.following import BrokenOff, Stream
from cachekit.http.message import StoredResponse
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from cachekit.http.wsgi import HttpCache as WsgiCache
from tests.http.conftest import Grammar, environ_of
from tests.http.test_collapsing import receive, run, scope_of, turn

FRESH = [(b"cache-control", b"max-age=60")]
KEY = "http:http://example.org/x"


class Piecewise:
    """An ASGI application that sends a piece each time it is told to."""

    def __init__(self, headers=FRESH, pieces=(b"one", b"two", b"three"), tags=()):
        self.headers = headers
        self.pieces = pieces
        self.tags = tags
        self.calls = 0
        self.steps = asyncio.Semaphore(0)
        self.breaks = False

    async def __call__(self, scope, receive, send):
        self.calls += 1
        tag(*self.tags)
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        for piece in self.pieces:
            await self.steps.acquire()
            if self.breaks:
                raise ValueError("broke off")
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    def step(self, times=1):
        for _ in range(times):
            self.steps.release()


class Client:
    def __init__(self, site, headers=(), path="/x"):
        self.sent = Grammar()
        self.task = asyncio.create_task(site(scope_of(path, headers), receive, self.sent))

    @property
    def body(self):
        return b"".join(self.sent.chunks)

    async def got(self):
        await self.task
        return self.sent.got()


def test_pieces_reach_followers_as_they_come(cache):
    async def job():
        app = Piecewise()
        site = AsgiCache(app, cache)
        leader = Client(site)
        await turn()
        early = Client(site)
        app.step()
        await turn()
        late = Client(site)
        await turn()
        assert [one.body for one in (leader, early, late)] == [b"one"] * 3
        app.step()
        await turn()
        assert [one.body for one in (leader, early, late)] == [b"onetwo"] * 3
        app.step()
        got = [await one.got() for one in (leader, early, late)]
        assert {one.body for one in got} == {b"onetwothree"}
        assert app.calls == 1
        assert [one.cache_status for one in got[1:]] == ["cachekit; fwd=uri-miss; collapsed; ttl=60"] * 2
        assert [one.get("age") for one in got[1:]] == ["0", "0"]
        after = Client(site)
        assert (await after.got()).hit
        assert len(site._driver._flights) == 0

    run(job())


@pytest.mark.parametrize("how", ["tag", "rule", "key", "all"])
def test_what_was_invalidated_before_it_came_does_not_reach_a_request(cache, how):
    async def job():
        app = Piecewise(tags=["page"])
        site = AsgiCache(app, cache, rules=[Rule("/x", tags=["ruled"])])
        leader = Client(site)
        await turn()
        app.step()
        await turn()
        before = Client(site)
        await turn()
        if how == "key":
            await cache.drop(ASYNCIO, KEY)
        elif how == "all":
            await cache.aclear()
        else:
            await cache.ainvalidate("page" if how == "tag" else "ruled")
        app.pieces = (b"new",)
        after = Client(site)
        await turn()
        app.step(10)
        assert (await leader.got()).body == b"onetwothree"
        assert (await before.got()).body == b"onetwothree"
        assert (await after.got()).body == b"new"
        assert app.calls == 2

    run(job())


def test_a_store_that_cannot_say_whether_it_holds_streams_nothing(fake):
    async def job():
        fake.raises.add("holds")
        app = Piecewise()
        site = AsgiCache(app, fake)
        leader = Client(site)
        await turn()
        app.step()
        await turn()
        follower = Client(site)
        await turn()
        assert follower.body == b""
        app.step(2)
        assert {(await one.got()).body for one in (leader, follower)} == {b"onetwothree"}
        assert app.calls == 1

    run(job())


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        (FRESH, [(b"if-none-match", b'"a"')]),
        ([*FRESH, (b"vary", b"accept")], [(b"accept", b"b")]),
        ([(b"cache-control", b"no-cache"), (b"etag", b'"a"')], []),
        ([(b"cache-control", b"max-age=0"), (b"etag", b'"a"')], []),
        (FRESH, [(b"cache-control", b"min-fresh=99")]),
    ],
)
def test_what_is_not_for_a_request_is_not_streamed_to_it(cache, headers, asked):
    async def job():
        app = Piecewise(headers)
        site = AsgiCache(app, cache)
        leader = Client(site)
        await turn()
        app.step()
        await turn()
        follower = Client(site, asked)
        await turn()
        assert follower.body == b""
        app.step(10)
        await leader.got()
        await follower.got()

    run(job())


def test_users_get_nothing_of_a_stranger_s_stream(cache):
    async def job():
        app = Piecewise()
        site = AsgiCache(app, cache)
        Client(site)
        await turn()
        app.step()
        await turn()
        user = Client(site, [(b"cookie", b"a=1")])
        await turn()
        assert app.calls == 2
        app.step(10)
        assert "collapsed" not in (await user.got()).cache_status

    run(job())


def test_a_break_is_a_break_for_those_who_have_begun(cache):
    async def job():
        app = Piecewise()
        site = AsgiCache(app, cache)
        leader = Client(site)
        await turn()
        app.step()
        await turn()
        begun = Client(site)
        await turn()
        app.breaks = True
        app.step()
        results = await asyncio.gather(leader.task, begun.task, return_exceptions=True)
        assert [type(one) for one in results] == [ValueError, BrokenOff]
        assert not begun.sent.ended
        app.breaks = False
        app.step(10)
        assert (await Client(site).got()).body == b"onetwothree"

    run(job())


def test_a_break_before_the_first_piece_is_none_for_the_others(cache):
    async def job():
        app = Piecewise()
        app.breaks = True
        site = AsgiCache(app, cache)
        leader, waiting = Client(site), Client(site)
        await turn()
        app.step()
        await turn()
        app.breaks = False
        app.step(10)
        with pytest.raises(ValueError, match="broke off"):
            await leader.task
        assert (await waiting.got()).body == b"onetwothree"

    run(job())


def test_a_leader_that_leaves_or_stops_reading_holds_nobody_up(cache):
    async def job(leaves):
        app = Piecewise(pieces=[b"x" * 1000] * 50)
        site = AsgiCache(app, Cache())
        stuck = asyncio.Event()

        async def slow(message):
            await stuck.wait()

        async def never():
            return await asyncio.get_running_loop().create_future()

        leader = asyncio.create_task(site(scope_of(), never, slow))
        await turn()
        followers = [Client(site) for _ in range(3)]
        await turn()
        stuck.set() if leaves else None
        app.step(50)
        await turn()
        if leaves:
            leader.cancel()
        got = [await one.got() for one in followers]
        assert {len(one.body) for one in got} == {50_000}
        assert app.calls == 1
        stuck.set()
        await asyncio.gather(leader, return_exceptions=True)

    run(job(leaves=True))


def test_what_turns_out_too_large_still_reaches_those_who_have_begun(cache):
    async def job():
        app = Piecewise(pieces=[b"x" * 60] * 4)
        site = AsgiCache(app, cache, options=HttpOptions(max_body=100))
        leader = Client(site)
        await turn()
        app.step()
        await turn()
        begun = Client(site)
        await turn()
        app.step()
        await turn()
        late = Client(site)
        await turn()
        assert app.calls == 2
        app.step(20)
        assert {len((await one.got()).body) for one in (leader, begun, late)} == {240}

    run(job())


def test_a_hundred_cold_requests_make_one_forward(cache):
    async def job():
        app = Piecewise()
        site = AsgiCache(app, cache)
        crowd = [Client(site) for _ in range(100)]
        await turn()
        app.step(3)
        assert {(await one.got()).body for one in crowd} == {b"onetwothree"}
        assert app.calls == 1

    run(job())


def test_threads_follow_too(cache):
    steps, calls = threading.Semaphore(0), []

    def app(environ, start_response):
        calls.append(1)
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        for piece in (b"one", b"two"):
            assert steps.acquire(timeout=30)
            yield piece

    site = WsgiCache(app, cache)

    def ask():
        heads = []
        body = site(environ_of("GET", "/x", []), lambda status, headers, exc_info=None: heads.append(dict(headers)))
        return heads, body

    steps.release()
    _, leader = ask()
    assert next(iter(leader)) == b"one"
    heads, follower = ask()  # in the same thread: what it gets is there already
    pieces = iter(follower)
    assert next(pieces) == b"one"
    assert "collapsed" in heads[0]["Cache-Status"]
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(lambda: list(pieces))
        steps.release()
        assert list(leader) == [b"two"]
        assert b"".join(rest.result(30)) == b"two"
    leader.close()
    follower.close()
    assert len(calls) == 1
    assert b"".join(ask()[1]) == b"onetwo"


# The pieces themselves

HEAD = StoredResponse(200, "", [], b"", 0.0, 0.0, 60.0)


def stream(bound=100):
    return Stream(HEAD, None, lambda: ((), ()), bound)


def take(of, cursor):
    return drive(of.take(BLOCKING, cursor, 0.01))


def test_nobody_joins_after_the_end():
    one = stream()
    one.feed(b"a")
    one.end(True)
    assert one.join() is None


def test_what_everybody_has_is_given_up_once_nobody_may_join():
    one = stream()
    first, second = one.join(), one.join()
    one.feed(b"abc")
    assert take(one, first) == b"abc"
    one.close()
    one.feed(b"def")
    assert len(one._pieces) == 2
    assert take(one, second) == b"abcdef"
    assert len(one._pieces) == 1
    assert take(one, first) == b"def"
    assert one._pieces == []
    with pytest.raises(TimeoutError):
        take(one, first)
    one.end(True)
    assert take(one, first) is None


def test_the_slowest_is_given_up_when_it_holds_up_too_much():
    one = stream(bound=10)
    slow, quick = one.join(), one.join()
    one.close()
    for _ in range(5):
        one.feed(b"1234")
        assert take(one, quick) == b"1234"
    with pytest.raises(BrokenOff):
        take(one, slow)
    assert sum(map(len, one._pieces)) <= 10


def test_without_followers_nothing_is_kept():
    one = stream()
    one.close()
    one.feed(b"abc")
    assert one._pieces == []
    cursor_free = stream()
    cursor = cursor_free.join()
    cursor_free.feed(b"a")
    cursor_free.part(cursor)
    cursor_free.end(False)
    assert not cursor_free.followed
