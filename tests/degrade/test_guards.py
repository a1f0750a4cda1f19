"""Applications that are slow, broken, silent or endless, behind ``Guards``, and behind the HTTP cache outside of them."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator

import pytest

from cachekit import AppTimeout, Cache, ConfigError, Kind, tag
from cachekit.degrade import Route, asgi, wsgi
from cachekit.http import asgi as http_asgi
from cachekit.http import wsgi as http_wsgi
from cachekit.http.rules import Rule
from tests.conftest import until

SHORT = 0.03
"""A time-out that a test waits out: nothing else may depend on how long it is."""


# -- ASGI ----------------------------------------------------------------------------------------------------------------


async def ok(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


async def call(app, path: str = "/slow", messages=None, method: str = "GET", send=None):
    sent: list[dict] = []
    waiting = list(messages or [{"type": "http.request", "body": b"", "more_body": False}])

    async def receive():
        if not waiting:
            await asyncio.get_running_loop().create_future()
        return waiting.pop(0)

    async def keep(message):
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": []}, receive, send or keep)
    return sent


def guarded(app, clock=None, watch=None, **route):
    options = {"path": "/slow", **route}
    return asgi.Guards(app, [Route(**options)], emit=watch, **({"clock": clock} if clock else {}))


def test_a_quick_application_is_left_alone() -> None:
    app = guarded(ok, timeout=5, concurrency=1, failures=1)
    for path in ("/slow", "/slow/er", "/other"):
        sent = asyncio.run(call(app, path))
        assert (sent[0]["status"], sent[1]["body"]) == (200, b"fine")
    assert (app.counts["/slow"].passed, app.counts["/slow"].failed) == (2, 0)


def test_an_application_that_never_returns_is_given_up(watch) -> None:
    ended = []

    async def never(scope, receive, send) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    app = guarded(never, watch=watch, timeout=SHORT, concurrency=1)

    async def run() -> None:
        for _ in range(2):  # the place is free again
            sent = await call(app)
            assert sent[0]["status"] == 504
            assert json.loads(sent[1]["body"])["title"] == "Gateway Timeout"
            await until(lambda: app._gates.find("/slow").active == 0)

    asyncio.run(run())
    assert ended == [True, True]
    assert (app.counts["/slow"].timed_out, app.counts["/slow"].failed) == (2, 2)
    assert len(watch.of(Kind.TIMED_OUT)) == 2


def test_one_that_cannot_be_cancelled_keeps_its_place_and_its_mouth_shut() -> None:
    async def run() -> None:
        let_go = asyncio.Event()

        async def stubborn(scope, receive, send) -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    pass
            await ok(scope, receive, send)

        app = guarded(stubborn, timeout=SHORT, concurrency=1)
        sent = await call(app)
        assert [m.get("status") for m in sent] == [504, None]
        assert (await call(app))[0]["status"] == 503  # still inside
        let_go.set()
        await until(lambda: app._gates.find("/slow").active == 0)
        assert [m.get("status") for m in sent] == [504, None]

    asyncio.run(run())


def test_silence_in_the_middle_cuts_the_response() -> None:
    async def stops(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.get_running_loop().create_future()

    sent: list[dict] = []

    async def keep(message) -> None:
        sent.append(message)

    with pytest.raises(AppTimeout, match="middle"):
        asyncio.run(call(guarded(stops, timeout=SHORT), send=keep))
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]


def test_a_stream_that_goes_on_is_no_silence() -> None:
    async def streams(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(5):
            await asyncio.sleep(0.2 * 0.4)
            await send({"type": "http.response.body", "body": b".", "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    sent = asyncio.run(call(guarded(streams, timeout=0.2)))
    assert b"".join(m.get("body", b"") for m in sent) == b".....end"


def test_time_that_the_client_takes_does_not_count() -> None:
    async def run() -> None:
        slow = asyncio.Event()

        async def reads(scope, receive, send) -> None:
            await receive()
            await ok(scope, receive, send)

        async def receive():
            await slow.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        sent = []

        async def send(message):
            await slow.wait()
            sent.append(message)

        app = guarded(reads, timeout=SHORT)
        task = asyncio.create_task(
            app({"type": "http", "method": "POST", "path": "/slow", "headers": []}, receive, send)
        )
        done, _ = await asyncio.wait({task}, timeout=4 * SHORT)
        assert not done
        slow.set()
        await task
        assert sent[0]["status"] == 200

    asyncio.run(run())


def test_an_application_that_sends_nothing_is_a_502() -> None:
    async def mute(scope, receive, send) -> None:
        pass

    for route in ({"timeout": 5}, {"concurrency": 3}):
        app = guarded(mute, **route)
        sent = asyncio.run(call(app))
        assert (sent[0]["status"], app.counts["/slow"].failed) == (502, 1)


def test_an_application_that_raises_goes_on_raising() -> None:
    async def broken(scope, receive, send) -> None:
        raise ValueError("a bug")

    for route in ({"timeout": 5}, {"concurrency": 3}):
        app = guarded(broken, **route)
        with pytest.raises(ValueError, match="a bug"):
            asyncio.run(call(app))
        assert app.counts["/slow"].failed == 1


def test_a_client_that_leaves_ends_the_application_and_says_nothing_of_it() -> None:
    async def run() -> None:
        inside, ended = asyncio.Event(), asyncio.Event()

        async def waits(scope, receive, send) -> None:
            inside.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

        for route in ({"timeout": 60}, {}):
            inside.clear()
            ended.clear()
            app = guarded(waits, concurrency=1, failures=1, **route)
            task = asyncio.create_task(call(app))
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended.is_set()
            assert (app.counts["/slow"].failed, app._gates.find("/slow").active) == (0, 0)

    asyncio.run(run())


def test_more_than_may_run_wait_and_more_than_may_wait_are_refused(watch) -> None:
    async def run() -> None:
        let_go = asyncio.Event()
        running, most = 0, 0

        async def slow(scope, receive, send) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await let_go.wait()
            running -= 1
            await ok(scope, receive, send)

        app = guarded(slow, watch=watch, concurrency=2, queue=3, queue_timeout=60)
        tasks = [asyncio.create_task(call(app)) for _ in range(9)]
        await until(lambda: app.counts["/slow"].shed == 4)
        let_go.set()
        answers = sorted(sent[0]["status"] for sent in await asyncio.gather(*tasks))
        assert (answers, most) == ([200] * 5 + [503] * 4, 2)
        assert app._gates.find("/slow").active == 0

    asyncio.run(run())
    assert len(watch.of(Kind.REFUSED)) == 4


def test_nobody_waits_in_line_for_ever() -> None:
    async def run() -> None:
        let_go = asyncio.Event()

        async def slow(scope, receive, send) -> None:
            await let_go.wait()
            await ok(scope, receive, send)

        app = guarded(slow, concurrency=1, queue=5, queue_timeout=SHORT)
        first = asyncio.create_task(call(app))
        await until(lambda: app._gates.find("/slow").active == 1)
        assert (await call(app))[0]["status"] == 503
        waiting = asyncio.create_task(call(app))
        await until(lambda: len(app._gates.find("/slow")._waiting) == 1)
        waiting.cancel()  # the client of one in line leaves
        await asyncio.wait({waiting})
        assert len(app._gates.find("/slow")._waiting) == 0
        let_go.set()
        assert (await first)[0]["status"] == 200
        assert app._gates.find("/slow").active == 0

    asyncio.run(run())


def test_the_breaker_of_a_route(clock, watch) -> None:
    status = 500
    reached = 0

    async def app(scope, receive, send) -> None:
        nonlocal reached
        reached += 1
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guards = guarded(app, clock=clock, watch=watch, failures=3, pause=5)

    def get():
        sent = asyncio.run(call(guards))
        return sent[0]["status"], dict(sent[0]["headers"]).get(b"retry-after")

    assert [get()[0] for _ in range(3)] == [500] * 3
    assert get() == (503, b"5")
    assert (reached, guards.counts["/slow"].broken) == (3, 1)
    assert asyncio.run(call(guards, "/other"))[0]["status"] == 500  # another path
    clock.advance(5)
    assert get()[0] == 500  # one is let through to try
    assert get() == (503, b"10")
    clock.advance(10)
    status = 404  # the client's mistake is no failure of the application
    assert get()[0] == 404
    assert get()[0] == 404
    assert [len(watch.of(k)) for k in (Kind.BREAKER_OPENED, Kind.BREAKER_CLOSED)] == [1, 1]


def test_behind_the_http_cache_stale_comes_before_refusal(clock) -> None:
    """Order: HTTP cache outside, guards inside. Each way of failing is served stale while that is allowed."""
    mode = "ok"

    async def app(scope, receive, send) -> None:
        if mode == "never":
            await asyncio.get_running_loop().create_future()
        if mode == "mute":
            return
        if mode == "raise":
            raise ValueError("a bug")
        tag("seen")
        await ok(scope, receive, send)

    cache = Cache(clock=clock)
    guards = guarded(app, clock=clock, timeout=SHORT, failures=4, pause=5)
    site = http_asgi.HttpCache(guards, cache, rules=[Rule("/slow", ttl=10, stale_if_error="1h")])

    def get():
        async def run():
            sent: list[dict] = []

            async def receive():
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message):
                sent.append(message)

            scope = {
                "type": "http", "method": "GET", "path": "/slow", "raw_path": b"/slow", "query_string": b"",
                "headers": [(b"host", b"e.example")], "scheme": "http",
            }  # fmt: skip
            await site(scope, receive, send)
            return sent[0]["status"], sent[1].get("body")

        return asyncio.run(run())

    assert get() == (200, b"fine")
    clock.advance(11)
    for mode in ("never", "mute", "raise", "never"):
        assert get() == (200, b"fine")
    assert guards.counts["/slow"].failed == 4
    assert get() == (200, b"fine")  # its breaker is open now
    assert guards.counts["/slow"].broken == 1
    cache.invalidate("seen")  # the tag was noted although the application ran in a task of its own
    assert get()[0] == 503


# -- WSGI ----------------------------------------------------------------------------------------------------------------


def wok(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fi", b"ne"]


def environ_of(path: str = "/slow", body: object = None, method: str = "GET") -> dict:
    return {
        "REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", "HTTP_HOST": "e.example",
        "SERVER_NAME": "h", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "wsgi.input": body or io.BytesIO(b""),
    }  # fmt: skip


def wcall(app, path: str = "/slow", body: object = None):
    got = []
    answer = app(environ_of(path, body), lambda s, h, *_: got.append((int(s[:3]), {n.lower(): v for n, v in h})))
    try:
        content = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return (*got[0], content)


def wguarded(app, clock=None, watch=None, **route):
    options = {"path": "/slow", **route}
    return wsgi.Guards(app, [Route(**options)], emit=watch, **({"clock": clock} if clock else {}))


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("route", [{"timeout": 5}, {"concurrency": 1}, {"timeout": 5, "concurrency": 1, "failures": 1}])
def test_wsgi_a_quick_application_is_left_alone(route, patient) -> None:
    app = wguarded(wok, **route)
    for path in ("/slow", "/slow/er", "/other"):
        status, headers, body = wcall(app, path)
        assert (status, headers, body) == (200, {"content-type": "text/plain"}, b"fine")
        patient(lambda: app._gates.find("/slow").active == 0)
    assert app.counts["/slow"].passed == 2


def test_wsgi_one_that_never_returns_is_answered_and_keeps_its_place(let_go, patient, watch) -> None:
    closed = []

    class Body:
        def __iter__(self):
            yield b"late"

        def close(self):
            closed.append(True)

    def never(environ, start_response):
        let_go.wait(30)
        start_response("200 OK", [])
        return Body()

    app = wguarded(never, watch=watch, timeout=SHORT, concurrency=1)
    status, headers, _ = wcall(app)
    assert (status, headers["content-type"]) == (504, "application/problem+json")
    assert wcall(app)[0] == 503  # its thread is still there: that is the bound
    let_go.set()
    patient(lambda: app._gates.find("/slow").active == 0)
    assert wcall(app)[0] == 200
    assert (app.counts["/slow"].timed_out, app.counts["/slow"].shed) == (1, 1)


def test_wsgi_a_body_that_was_given_up_is_closed_in_its_thread(let_go, patient) -> None:
    threads = []

    class Body:
        def __iter__(self):
            yield b"half"
            let_go.wait(30)
            yield b"more"

        def close(self):
            threads.append(threading.current_thread().name)

    def stops(environ, start_response):
        start_response("200 OK", [])
        return Body()

    app = wguarded(stops, timeout=SHORT)
    answer = iter(app(environ_of(), lambda *_: None))
    assert next(answer) == b"half"
    with pytest.raises(AppTimeout):
        next(answer)
    let_go.set()
    patient(lambda: threads)
    assert threads == ["cachekit-guard"]


def test_wsgi_no_byte_of_the_next_request_is_read(let_go, patient) -> None:
    """A thread that was given up still holds wsgi.input, which is the connection."""
    outcome = []

    def late(environ, start_response):
        let_go.wait(30)
        try:
            outcome.append(environ["wsgi.input"].read(10))
        except OSError as exc:
            outcome.append(str(exc))
        return wok(environ, start_response)

    source = io.BytesIO(b"the next request")
    assert wcall(wguarded(late, timeout=SHORT), body=source)[0] == 504
    let_go.set()
    patient(lambda: outcome)
    assert outcome == ["the request was given up"]
    assert source.tell() == 0


def test_wsgi_a_slow_upload_does_not_count(let_go, thread) -> None:
    class Slow:
        def read(self, size=-1):
            let_go.wait(30)
            return b"body"

    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    running = thread(wcall, wguarded(app, timeout=SHORT), "/slow", Slow())
    running.join(4 * SHORT)
    assert running.is_alive()
    let_go.set()
    assert running.result()[2] == b"body"


def test_wsgi_a_client_that_leaves_stops_the_application(patient) -> None:
    made = []

    def endless(environ, start_response):
        start_response("200 OK", [])
        for i in range(10**9):
            made.append(i)
            yield b"x"

    app = wguarded(endless, timeout=30, failures=1)
    answer = app(environ_of(), lambda *_: None)
    assert next(iter(answer)) == b"x"
    answer.close()
    patient(lambda: app._gates.find("/slow").active == 0)
    assert len(made) < 100  # it was never far ahead
    assert app.counts["/slow"].failed == 0


@pytest.mark.parametrize("route", [{"timeout": 5}, {"concurrency": 3}])
def test_wsgi_silence_faults_and_502(route, patient) -> None:
    def mute(environ, start_response):
        return []

    def broken(environ, start_response):
        raise ValueError("a bug")

    def breaks(environ, start_response):
        start_response("200 OK", [])
        yield b"half"
        raise ValueError("a bug")

    app = wguarded(mute, **route)
    assert wcall(app)[0] == 502
    for faulty in (broken, breaks):
        app = wguarded(faulty, **route)
        with pytest.raises(ValueError, match="a bug"):
            wcall(app)
        patient(lambda: app._gates.find("/slow").active == 0)
        assert app.counts["/slow"].failed == 1


def test_wsgi_concurrency_and_queue(let_go, thread, patient) -> None:
    def slow(environ, start_response):
        let_go.wait(30)
        return wok(environ, start_response)

    for route in ({}, {"timeout": 60}):
        let_go.clear()
        app = wguarded(slow, concurrency=2, queue=3, queue_timeout=60, **route)
        running = [thread(wcall, app) for _ in range(9)]
        patient(lambda: app.counts["/slow"].shed == 4)
        let_go.set()
        assert sorted(each.result()[0] for each in running) == [200] * 5 + [503] * 4
        patient(lambda: app._gates.find("/slow").active == 0)


def test_wsgi_behind_the_http_cache_stale_comes_before_refusal(clock, let_go) -> None:
    mode = "ok"

    def app(environ, start_response):
        if mode == "never":
            let_go.wait(30)
        if mode == "mute":
            return []
        if mode == "raise":
            raise ValueError("a bug")
        tag("seen")
        return wok(environ, start_response)

    cache = Cache(clock=clock)
    guards = wguarded(app, clock=clock, timeout=SHORT, failures=4, pause=5)
    site = http_wsgi.HttpCache(guards, cache, rules=[Rule("/slow", ttl=10, stale_if_error="1h")])
    assert wcall(site)[2] == b"fine"
    clock.advance(11)
    for mode in ("never", "mute", "raise", "never"):
        assert (wcall(site)[0], wcall.__name__) == (200, "wcall")
    assert guards.counts["/slow"].failed >= 3
    while not guards.counts["/slow"].broken:
        assert wcall(site)[0] == 200
    cache.invalidate("seen")
    assert wcall(site)[0] == 503


def test_wsgi_exc_info_and_write_are_passed_on() -> None:
    import sys

    def app(environ, start_response):
        write = start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError:
            write = start_response("500 Oops", [("X", "y")], sys.exc_info())
        write(b"written ")
        return [b"returned"]

    assert wcall(wguarded(app, timeout=5)) == (500, {"x": "y"}, b"written returned")


# -- settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "slow"}, "path="),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"queue": -1}, "queue"),
        ({"queue": 3}, "queue needs concurrency"),
        ({"failures": 0}, "failures"),
        ({"pause": 9, "longest_pause": 3}, "longest_pause"),
    ],
)
def test_wrong_routes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Route(**{"path": "/slow", **options})
    with pytest.raises(ConfigError, match="routes"):
        asgi.Guards(ok, ["/slow"])  # type: ignore[list-item]
