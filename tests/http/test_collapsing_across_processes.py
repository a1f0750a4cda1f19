"""Another process makes the response: wait for it by its lease, but for one only, and never for ever."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachekit import Cache
from cachekit.http import arriving
from cachekit.http.asgi import HttpCache
from cachekit.http.options import HttpOptions
from cachekit.http.wsgi import HttpCache as WsgiCache
from cachekit.stores.base import Ticket
from tests.http.conftest import Answer, FakeCache, environ_of
from tests.http.test_collapsing import fetch


class Elsewhere(FakeCache):
    """A cache in which another process holds the lease for some polls; then *after* happens."""

    def __init__(self, clock, polls, after, lease=30.0):
        super().__init__(clock)
        self.polls = polls
        self.after = after
        self.lease = lease
        self.begun = 0

    async def begin(self, io, key, tags=(), *, lease=30.0):
        self.begun += 1
        if self.begun <= self.polls:
            return Ticket(key, False, retry_in=self.lease - self.begun / 1000)
        return self.after(self, key) or await super().begin(io, key, tags, lease=lease)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(arriving, "_FIRST_POLL", 0.0001)
    monkeypatch.setattr(arriving, "_LONGEST_POLL", 0.0001)


def entry_of(build, clock, control="max-age=60", body=b"theirs"):
    other = FakeCache(clock)
    site = build(other)
    site.says(control, body=body)
    site.get()
    return next(iter(other.entries.values()))


def test_the_response_of_the_other_process_is_served(build, clock):
    entry = entry_of(build, clock)

    def appears(cache, key):
        cache.entries[key] = entry
        return Ticket(key, True, entry)

    cache = Elsewhere(clock, 3, appears)
    site = build(cache)
    got = site.get()
    assert (got.body, got.cache_status) == (b"theirs", "cachekit; fwd=uri-miss; collapsed; ttl=60")
    assert site.forwards == 0
    assert cache.events.counts["collapsed"] == 1
    assert ("release", "http:https://example.org/x") in cache.log


class Told(FakeCache):
    """A cache in which another process holds the lease, and the store tells of its end."""

    def __init__(self, clock, end):
        super().__init__(clock)
        self.end = end
        self.begun = 0
        self.other_leads = True

    async def begin(self, io, key, tags=(), *, lease=30.0):
        self.begun += 1
        ticket = await super().begin(io, key, tags, lease=lease)
        return ticket if ticket is None or ticket.leads else Ticket(key, False, retry_in=30.0)

    async def ended(self, io, ticket, poll):
        self._check("ended", ticket.key)
        return self.end(self, ticket.key)


def test_who_is_told_of_the_end_takes_the_response_and_no_lease(build, clock):
    entry = entry_of(build, clock)

    def kept(cache, key):
        cache.entries[key] = entry
        return True

    cache = Told(clock, kept)
    site = build(cache)
    got = site.get()
    assert (got.body, got.cache_status) == (b"theirs", "cachekit; fwd=uri-miss; collapsed; ttl=60")
    assert (site.forwards, cache.begun) == (0, 1)


@pytest.mark.parametrize("free", [True, False])
def test_what_was_kept_for_others_is_waited_for_once(build, clock, free):
    entry = entry_of(build, clock, "max-age=60", b"old")
    clock.advance(100)

    def kept(cache, key):
        cache.entries[key] = entry  # stale: nothing to be served
        cache.other_leads = not free
        return True

    cache = Told(clock, kept)
    site = build(cache)
    site.says("max-age=60", body=b"mine")
    assert site.get().body == b"mine"
    assert cache.begun == 2
    assert [name for name, _ in cache.log].count("ended") == 1
    assert site.forwards == 1


def test_a_store_that_cannot_tell_is_asked_no_faster_than_before(build, clock):
    cache = Told(clock, lambda cache, key: False)
    cache.raises.add("ended")
    site = build(cache).setup(collapse_timeout=0.002)
    assert site.get().status == 200
    assert 1 < cache.begun < 100


@pytest.mark.server
@pytest.mark.parametrize("control", ["max-age=60", "no-store"])
@pytest.mark.parametrize("levels", ["tiered", "one"])
def test_processes_tell_each_other_of_the_end(server, patient, monkeypatch, control, levels):
    """No timer: a poll would come only after this test's patience has ended."""
    monkeypatch.setattr(arriving, "_FIRST_POLL", 1000.0)
    monkeypatch.setattr(arriving, "_LONGEST_POLL", 1000.0)
    url = ("tiered+" if levels == "tiered" else "") + server.url
    running, go_on = threading.Event(), threading.Event()

    def slow(environ, start_response):
        running.set()
        assert go_on.wait(10)
        start_response("200 OK", [("Cache-Control", control)])
        return [b"theirs"]

    def quick(environ, start_response):
        start_response("200 OK", [("Cache-Control", control)])
        return [b"own"]

    def get(site):
        return b"".join(site(environ_of("GET", "/x", []), lambda *args: None))

    with Cache(url, timeout=5.0) as first, Cache(url, timeout=5.0) as second, server.client() as client:
        client.flushall()
        with ThreadPoolExecutor() as pool:
            leader = pool.submit(get, WsgiCache(slow, first))
            assert running.wait(10)
            waiter = pool.submit(get, WsgiCache(quick, second))
            lease = "cachekit:l:{http:https://example.org/x}"
            patient(lambda: (client.get(lease) or b"").endswith(b"w"))
            go_on.set()
            assert leader.result(10) == b"theirs"
            assert waiter.result(10) == (b"own" if control == "no-store" else b"theirs")


def test_a_response_that_is_not_for_this_request_is_not_served(build, clock):
    entry = entry_of(build, clock)

    def appears(cache, key):
        cache.entries[key] = entry
        return Ticket(key, True, entry)

    site = build(Elsewhere(clock, 3, appears))
    site.says("private", body=b"mine")
    assert site.get(cookie="a=1").body == b"mine"
    assert site.get(cookie="a=2").body == b"mine"


def test_when_the_other_gives_up_this_one_leads(build, clock):
    site = build(Elsewhere(clock, 3, lambda cache, key: None))
    site.says("max-age=60")
    assert site.get().cache_status == "cachekit; fwd=uri-miss; stored"
    assert site.get().hit


def test_nobody_waits_in_line_for_a_third(build, clock):
    cache = Elsewhere(clock, 3, lambda cache, key: Ticket(key, False, retry_in=30.0))
    site = build(cache)
    assert site.get().cache_status == "cachekit; fwd=uri-miss"
    assert cache.begun == 4
    # It is remembered: the next one goes at once.
    site.get()
    assert cache.begun == 4


@pytest.mark.parametrize("third", [False, True])
def test_followers_wait_once(clock, third):
    """When nothing came of the response of the other process, nobody here queues behind another one."""

    async def job():
        gate, running = asyncio.Event(), []

        async def app(scope, receive, send):
            running.append(1)
            await gate.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"no-store")]})
            await send({"type": "http.response.body", "body": b"mine"})

        def then(cache, key):
            return Ticket(key, False, retry_in=30.0) if third else None

        cache = Elsewhere(clock, 3, then)
        site = HttpCache(app, cache)
        crowd = [asyncio.create_task(fetch(site)) for _ in range(10)]
        while len(running) < 10:
            await asyncio.sleep(0.001)
        gate.set()
        assert {one.body for one in await asyncio.gather(*crowd)} == {b"mine"}
        cache.begun = 10
        await fetch(site)
        assert cache.begun == 10

    asyncio.run(asyncio.wait_for(job(), 30))


def test_the_wait_is_bounded(build, clock):
    cache = Elsewhere(clock, 10**9, None, lease=0.002)
    site = build(cache)
    site.says("max-age=60")
    assert site.get().status == 200
    assert cache.begun < 100
    cache = Elsewhere(clock, 10**9, None)
    site = build(cache).setup(collapse_timeout=0.002)
    assert site.get().status == 200
    assert cache.begun < 100


@pytest.mark.parametrize("headers", [{"cache-control": "no-cache"}, {"if-none-match": '"a"'}, {"range": "bytes=0-1"}])
def test_who_would_not_collapse_does_not_wait(build, clock, headers):
    cache = Elsewhere(clock, 10**9, None)
    site = build(cache)
    assert site.request(headers=headers).status == 200
    assert cache.begun <= 1


def test_a_store_that_goes_away_is_not_waited_for(build, clock):
    def gone(cache, key):
        cache.away = True

    site = build(Elsewhere(clock, 2, gone))
    assert site.get().body == b"body"


def test_a_client_that_leaves_while_waiting_leaves_nothing_behind(clock):
    async def job():
        calls = []

        async def app(scope, receive, send):
            calls.append(scope)

        site = HttpCache(app, Elsewhere(clock, 10**9, None), options=HttpOptions())
        scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/x", "headers": [(b"host", b"a")]}
        task = asyncio.create_task(site(scope, None, None))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not calls
        assert len(site._driver._flights) == 0

    asyncio.run(job())


def test_answers_are_not_mixed_up(build, clock):
    entry = entry_of(build, clock, "max-age=60", b"theirs")

    def appears(cache, key):
        if key.endswith("/x"):
            cache.entries[key] = entry
            return Ticket(key, True, entry)
        return None

    site = build(Elsewhere(clock, 1, appears))
    site.answers = lambda seen: Answer(headers=[("Cache-Control", "max-age=60")], body=seen.path.encode())
    assert site.get("/y").body == b"/y"
    assert site.get("/x").body == b"theirs"
