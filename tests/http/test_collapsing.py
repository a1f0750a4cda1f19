"""Request collapsing, and the one revalidation: concurrent requests, in asyncio and in threads, without sleeping."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachekit.http.asgi import HttpCache as AsgiCache
from cachekit.http.collapse import Flights, Landing
from cachekit.http.following import BrokenOff
from cachekit.http.options import HttpOptions
from cachekit.http.wsgi import HttpCache as WsgiCache
from tests.background import background_done
from tests.http.conftest import Grammar, environ_of

CROWD = 50


def scope_of(path="/x", headers=()):
    return {
        "type": "http", "method": "GET", "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"example.org"), *headers],
    }  # fmt: skip


class GatedApp:
    """An ASGI application that answers when it is told to."""

    def __init__(self, headers, body=b"body"):
        self.headers = headers
        self.body = body
        self.calls = 0
        self.running = 0
        self.peak = 0
        self.gate = asyncio.Event()
        self.error = None
        self.after_head = None
        self.status = 200

    async def __call__(self, scope, receive, send):
        self.calls += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self.gate.wait()
            if self.error is not None:
                raise self.error
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
            if self.after_head is not None:
                await self.after_head.wait()
            await send({"type": "http.response.body", "body": self.body})
        finally:
            self.running -= 1


async def turn(times=20):
    for _ in range(times):
        await asyncio.sleep(0)


async def receive():
    return {"type": "http.request", "body": b""}


async def fetch(app, path="/x", headers=()):
    send = Grammar()
    await app(scope_of(path, headers), receive, send)
    return send.got()


FRESH = [(b"cache-control", b"max-age=60")]


def run(job):
    asyncio.run(asyncio.wait_for(job, 30))


def test_one_forward_for_all(cache):
    async def job():
        app = GatedApp(FRESH)
        site = AsgiCache(app, cache)
        crowd = [asyncio.create_task(fetch(site)) for _ in range(CROWD)]
        await turn()
        assert app.calls == 1
        app.gate.set()
        got = await asyncio.gather(*crowd)
        assert app.calls == 1
        assert {one.body for one in got} == {b"body"}
        statuses = sorted(one.cache_status for one in got)
        assert statuses[0] == "cachekit; fwd=uri-miss; collapsed; ttl=60"
        assert statuses[-1] == "cachekit; fwd=uri-miss; stored"
        assert len(site._driver._flights) == 0

    run(job())


def test_what_one_client_was_refused_lets_the_next_crowd_wait_for_one(cache):
    async def job():
        app = GatedApp(FRESH)
        site = AsgiCache(app, cache)
        app.status = 429
        app.gate.set()
        assert (await fetch(site)).status == 429
        app.status = 200
        app.gate.clear()
        crowd = [asyncio.create_task(fetch(site)) for _ in range(CROWD)]
        await turn()
        assert app.running == 1
        app.gate.set()
        await asyncio.gather(*crowd)

    run(job())


def test_nobody_queues_behind_what_is_uncacheable(cache, clock):
    async def job():
        app = GatedApp([(b"cache-control", b"no-store")])
        site = AsgiCache(app, cache, options=HttpOptions(uncacheable_for=10))
        crowd = [asyncio.create_task(fetch(site)) for _ in range(CROWD)]
        await turn()
        assert app.calls == 1
        app.gate.set()
        await turn()
        app.gate.clear()
        await asyncio.gather(*crowd) if app.gate.is_set() else None
        app.gate.set()
        await asyncio.gather(*crowd)
        assert app.calls == CROWD
        # Remembered: the next crowd does not wait for a first one at all.
        app.gate.clear()
        app.peak = 0
        crowd = [asyncio.create_task(fetch(site)) for _ in range(CROWD)]
        await turn()
        assert app.peak == CROWD
        app.gate.set()
        await asyncio.gather(*crowd)
        # And forgotten again.
        clock.advance(10)
        app.gate.clear()
        crowd = [asyncio.create_task(fetch(site)) for _ in range(CROWD)]
        await turn()
        assert app.running == 1
        app.gate.set()
        await asyncio.gather(*crowd)

    run(job())


def test_followers_go_on_as_soon_as_the_head_says_no(cache):
    async def job():
        app = GatedApp([(b"cache-control", b"no-store")])
        app.after_head = asyncio.Event()
        site = AsgiCache(app, cache)
        crowd = [asyncio.create_task(fetch(site)) for _ in range(5)]
        await turn()
        app.gate.set()
        await turn(100)
        assert app.running == 5
        app.after_head.set()
        await asyncio.gather(*crowd)

    run(job())


def test_a_response_that_must_be_asked_for_each_time_is_no_queue(cache):
    async def job():
        app = GatedApp([(b"cache-control", b"max-age=0"), (b"etag", b'"a"')])
        site = AsgiCache(app, cache)
        crowd = [asyncio.create_task(fetch(site)) for _ in range(CROWD)]
        await turn()
        app.gate.set()
        await asyncio.gather(*crowd)
        app.gate.clear()
        app.peak = 0
        crowd = [asyncio.create_task(fetch(site)) for _ in range(CROWD)]
        await turn()
        assert app.peak == CROWD
        app.gate.set()
        await asyncio.gather(*crowd)

    run(job())


def test_a_leader_whose_client_leaves_goes_on_for_the_others(cache):
    async def job():
        app = GatedApp(FRESH)
        site = AsgiCache(app, cache)
        crowd = [asyncio.create_task(fetch(site)) for _ in range(10)]
        await turn()
        crowd[0].cancel()
        await turn()
        assert app.running == 1
        app.gate.set()
        got = await asyncio.gather(*crowd, return_exceptions=True)
        assert isinstance(got[0], asyncio.CancelledError)
        assert {one.body for one in got[1:]} == {b"body"}
        assert app.calls == 1

    run(job())


def test_a_leader_whose_client_leaves_ends_when_nobody_waits(cache):
    async def job():
        app = GatedApp(FRESH)
        site = AsgiCache(app, cache)
        first = asyncio.create_task(fetch(site))
        await turn()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert app.running == 0
        assert len(site._driver._flights) == 0
        app.gate.set()
        assert (await fetch(site)).body == b"body"

    run(job())


@pytest.mark.parametrize("how", ["disconnect", "oserror"])
@pytest.mark.parametrize("others", [0, 3])
def test_an_application_hears_of_a_client_that_left_only_when_nobody_waits(cache, how, others):
    """As frameworks do it: stop when ``receive`` says that the client left, or ``send`` fails."""

    async def app(scope, receive, send):
        calls.append(1)
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": FRESH})
        listener = asyncio.create_task(receive())
        for chunk in (b"bo", b"dy"):
            await asyncio.sleep(0)
            if listener.done() and listener.result()["type"] == "http.disconnect":
                left.append(1)
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})
        assert (await listener)["type"] == "http.disconnect"

    async def gone():
        if how == "oserror":
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def broken(message):
        if how == "oserror":
            raise OSError("gone")

    calls, left, gate = [], [], None

    async def job():
        nonlocal gate
        gate = asyncio.Event()
        site = AsgiCache(app, cache)
        first = asyncio.create_task(site(scope_of(), gone, broken))
        await turn()
        crowd = [asyncio.create_task(fetch(site)) for _ in range(others)]
        await turn()
        gate.set()
        (result,) = await asyncio.gather(first, return_exceptions=True)
        got = await asyncio.gather(*crowd)
        if others:
            assert result is None
            assert {one.body for one in got} == {b"body"}
            assert (len(calls), left) == (1, [])
        else:
            assert left or isinstance(result, OSError)
            assert len(site._driver._flights) == 0

    run(job())


def test_what_breaks_after_the_client_left_is_not_stored(cache):
    async def job():
        app = GatedApp(FRESH)
        app.error = ValueError("late")
        site = AsgiCache(app, cache)
        crowd = [asyncio.create_task(fetch(site)) for _ in range(3)]
        await turn()
        crowd[0].cancel()
        await turn()
        app.gate.set()
        got = await asyncio.gather(*crowd, return_exceptions=True)
        assert [type(one) for one in got] == [asyncio.CancelledError, ValueError, ValueError]
        app.error = None
        assert (await fetch(site)).body == b"body"

    run(job())


@pytest.mark.parametrize("breaks", [False, True])
def test_a_wsgi_response_is_taken_in_for_the_others(cache, breaks):
    gate, calls = threading.Event(), []

    def app(environ, start_response):
        calls.append(1)
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        yield b"bo"
        if breaks and len(calls) == 1:
            raise ValueError("late")
        yield b"dy"

    site = WsgiCache(app, cache)

    def get():
        gate.set()
        return b"".join(site(environ_of("GET", "/x", []), lambda *args: None))

    body = iter(site(environ_of("GET", "/x", []), lambda *args: None))
    assert next(body) == b"bo"
    flight = next(iter(site._driver._flights._flights.values()))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(get)
        assert gate.wait(30)
        while not flight.followers:
            assert not other.done()
        body.close()
        if breaks:
            with pytest.raises(BrokenOff):  # it has the first piece already
                other.result(30)
        else:
            assert other.result(30) == b"body"
    assert len(calls) == 1
    assert b"".join(site(environ_of("GET", "/x", []), lambda *args: None)) == b"body"


def test_a_cancelled_follower_cancels_nobody(cache):
    async def job():
        app = GatedApp(FRESH)
        site = AsgiCache(app, cache)
        crowd = [asyncio.create_task(fetch(site)) for _ in range(10)]
        await turn()
        crowd[3].cancel()
        await turn()
        app.gate.set()
        got = await asyncio.gather(*crowd, return_exceptions=True)
        assert sum(isinstance(one, asyncio.CancelledError) for one in got) == 1
        assert app.calls == 1

    run(job())


def test_an_exception_is_the_leader_s_own(cache):
    async def job():
        app = GatedApp(FRESH)
        app.error = ValueError("once")
        site = AsgiCache(app, cache)
        crowd = [asyncio.create_task(fetch(site)) for _ in range(10)]
        await turn()
        app.gate.set()
        got = await asyncio.gather(*crowd, return_exceptions=True)
        assert all(isinstance(one, ValueError) for one in got)
        assert app.calls == 10
        assert not site._driver._flights._uncacheable

    run(job())


def test_users_do_not_wait_for_strangers(cache):
    async def job():
        app = GatedApp(FRESH)
        site = AsgiCache(app, cache)
        crowd = [asyncio.create_task(fetch(site)), asyncio.create_task(fetch(site, headers=[(b"cookie", b"a=b")]))]
        await turn()
        assert app.calls == 2
        app.gate.set()
        await asyncio.gather(*crowd)

    run(job())


def test_variants_are_sorted_out(cache):
    async def app(scope, receive, send):
        calls.append(1)
        await gate.wait()
        language = dict(scope["headers"])[b"accept-language"]
        await send({"type": "http.response.start", "status": 200, "headers": [*FRESH, (b"vary", b"accept-language")]})
        await send({"type": "http.response.body", "body": language})

    calls, gate = [], None

    async def job():
        nonlocal gate
        gate = asyncio.Event()
        site = AsgiCache(app, cache)
        languages = [b"en", b"de"] * 10
        crowd = [asyncio.create_task(fetch(site, headers=[(b"accept-language", one)])) for one in languages]
        await turn()
        assert len(calls) == 1
        gate.set()
        got = await asyncio.gather(*crowd)
        assert [one.body for one in got] == languages
        assert len(calls) == 2

    run(job())


def test_collapsing_can_be_turned_off(cache):
    async def job():
        app = GatedApp(FRESH)
        site = AsgiCache(app, cache, options=HttpOptions(collapse=False))
        crowd = [asyncio.create_task(fetch(site)) for _ in range(5)]
        await turn()
        assert app.calls == 5
        app.gate.set()
        await asyncio.gather(*crowd)

    run(job())


def test_one_revalidation_behind_a_crowd(cache, clock):
    async def job():
        app = GatedApp([(b"cache-control", b"max-age=60, stale-while-revalidate=60")])
        site = AsgiCache(app, cache)
        app.gate.set()
        await fetch(site)
        app.gate.clear()
        clock.advance(61)
        got = await asyncio.gather(*(fetch(site) for _ in range(CROWD)))
        assert all(one.hit for one in got)
        await turn()
        assert app.calls == 2
        app.gate.set()
        await background_done()
        assert app.calls == 2
        assert (await fetch(site)).get("age") == "0"

    run(job())


def test_threads_wait_for_one_forward(cache):
    entered, gate = threading.Event(), threading.Event()
    calls = []

    def app(environ, start_response):
        calls.append(1)
        entered.set()
        assert gate.wait(30)
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [b"body"]

    site = WsgiCache(app, cache)

    def get():
        return b"".join(site(environ_of("GET", "/x", []), lambda *args: None))

    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(get)
        assert entered.wait(30)
        others = [pool.submit(get) for _ in range(10)]
        gate.set()
        assert {one.result(30) for one in [first, *others]} == {b"body"}
    assert len(calls) == 1


def test_a_flight_that_never_lands_is_replaced():
    flights = Flights(30.0, time.monotonic)
    lost, leads = flights.join(None, ("k",), 0.0)
    assert leads
    assert flights.join(None, ("k",), 29.0) == (lost, False)
    other, leads = flights.join(None, ("k",), 30.0)
    assert leads
    assert other is not lost
    flights.land(lost, Landing.FAILED)
    assert flights.join(None, ("k",), 31.0) == (other, False)


def test_the_memory_of_what_is_uncacheable_is_bounded():
    flights = Flights(30.0, time.monotonic)
    for n in range(10_000):
        flights.remember((n,), 10.0)
    assert len(flights._uncacheable) == 4096
    assert flights.is_uncacheable((9_999,), 5.0)
    assert not flights.is_uncacheable((0,), 5.0)
    assert not flights.is_uncacheable((9_999,), 10.0)
    flights.forget((9_999,))
    assert not flights.is_uncacheable((9_999,), 5.0)


@pytest.mark.parametrize("landing", list(Landing))
def test_a_flight_lands_once(landing):
    flights = Flights(30.0, time.monotonic)
    flight, _ = flights.join(None, ("k",), 0.0)
    flights.land(flight, landing)
    flights.land(flight, Landing.FAILED)
    assert flight.landed.result(0) is landing
    assert flight.started.done()
    assert not len(flights)


def test_nobody_waits_for_ever(cache):
    async def job():
        app = GatedApp(FRESH)
        site = AsgiCache(app, cache, options=HttpOptions(collapse_timeout=0))
        first = asyncio.create_task(fetch(site))
        await turn()
        flight = next(iter(site._driver._flights._flights.values()))
        flight.since = float("inf")
        second = asyncio.create_task(fetch(site))
        await turn()
        assert app.running == 2
        app.gate.set()
        await asyncio.gather(first, second)

    run(job())
