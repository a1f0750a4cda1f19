"""What frameworks make of it: Starlette's request.session, websockets, WSGI bodies of every kind; and what it costs."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from cachekit import Cache, ConfigError
from cachekit.errors import SessionError
from cachekit.sessions import Session, SessionOptions, Sessions
from cachekit.sessions.asgi import SessionMiddleware
from cachekit.sessions.memory import MemorySessions
from cachekit.sessions.wsgi import SessionMiddleware as WsgiSessionMiddleware
from tests.sessions.conftest import SECRET, options, put

# -- a dictionary like any other ---------------------------------------------------------------------------------------


def test_it_is_a_dictionary(site) -> None:
    browser = site().browser()
    browser.ask(lambda session: session.update(a=[1], b={"x": None}, c="text"))
    plain = {"a": [1], "b": {"x": None}, "c": "text"}

    def check(session):
        assert isinstance(session, dict)
        assert isinstance(session, Session)
        for made in (
            json.loads(json.dumps(session)), dict(session), {**session}, session.copy(), dict(session.items()), session,
            dict(zip(session, session.values(), strict=True)), session | {}, {} | session,
        ):  # fmt: skip
            assert made == plain
        assert (len(session), bool(session), "a" in session, "q" in session) == (3, True, True, False)
        assert (session.get("q"), session.get("q", 5), session["c"]) == (None, 5, "text")
        with pytest.raises(KeyError):
            session["q"]
        assert {*reversed(session)} == {"a", "b", "c"}
        assert "text" not in repr(session)

    for look in (check, lambda s: json.dumps(s), lambda s: dict(s), lambda s: {**s}, lambda s: list(s)):
        browser.ask(look)
    assert browser.look(json.dumps) == json.dumps(plain)

    def change(session):
        assert session.pop("c") == "text"
        assert session.pop("c", None) is None
        assert session.setdefault("d", []) == []
        session["d"].append(1)
        session |= {"e": 1}
        del session["a"]
        with pytest.raises(KeyError):
            del session["a"]

    browser.ask(change)
    assert browser.look() == {"b": {"x": None}, "d": [1], "e": 1}
    emptied = browser.look(lambda s: [s.popitem() for _ in range(len(s))])
    assert len(emptied) == 3
    assert browser.look() == {}
    assert browser.jar, "it is empty, not ended"


def test_no_two_requests_share_an_object(site) -> None:
    edge = site()
    browser, kept = edge.browser(), []
    browser.ask(put("list", kept))
    kept.append("changed afterwards")
    first, second = browser.look(lambda s: s["list"]), browser.look(lambda s: s["list"])
    assert first == second == []
    assert first is not second


def test_modified_by_assignment_as_in_flask_and_starlette(site) -> None:
    browser = site().browser()
    browser.ask(put("n", 1))
    assert browser.look(lambda s: (s.new, s.modified, s.accessed)) == (False, False, True)
    assert browser.look(lambda s: [s.update(n=2), s.modified][1]) is True

    def force(session):
        session.modified = True
        session.permanent = True

    assert "Max-Age" in browser.ask(force).get("set-cookie")


# -- Starlette ---------------------------------------------------------------------------------------------------------


def client(app):
    with pytest.warns(DeprecationWarning, match="httpx"):
        from starlette.testclient import TestClient
    return TestClient(app, base_url="https://testserver")


@pytest.fixture
def test_client():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    return lambda app: TestClient(app, base_url="https://testserver")


@pytest.fixture
def starlette(test_client):
    """The views of Starlette's own session tests, and those that its users miss."""
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute

    def view(request):
        return JSONResponse({"session": request.session})

    async def aview(request):
        return JSONResponse({"session": request.session})

    async def update(request):
        request.session.update(await request.json())
        return JSONResponse({"session": request.session})

    async def clear(request):
        request.session.clear()
        return JSONResponse({"session": request.session})

    async def stream(request):
        request.session.setdefault("steps", [])

        async def body():
            for number in range(3):
                request.session["steps"].append(number)
                yield b"."

        return StreamingResponse(body())

    async def background(request):
        async def later():
            request.session["later"] = True

        return JSONResponse(dict(request.session), background=BackgroundTask(later))

    async def fail(request):
        request.session["failed"] = True
        raise RuntimeError("no")

    async def socket(websocket):
        websocket.session["visits"] = websocket.session.get("visits", 0) + 1
        await websocket.accept()
        async for text in websocket.iter_text():
            websocket.session[text] = True
            await websocket.session.asave()
            await websocket.send_text("saved")
            websocket.session["last"] = text

    def build(**given):
        sessions = Sessions("memory://", options(**given))
        routes = [
            Route("/view", view), Route("/aview", aview), Route("/update", update, methods=["POST"]),
            Route("/clear", clear, methods=["POST"]), Route("/stream", stream), Route("/background", background),
            Route("/fail", fail), WebSocketRoute("/ws", socket),
        ]  # fmt: skip
        return test_client(SessionMiddleware(Starlette(routes=routes), sessions)), sessions

    return build


def test_starlette(starlette) -> None:
    browser, _ = starlette()
    for path in ("/view", "/aview"):
        assert browser.get(path).json() == {"session": {}}
    got = browser.post("/update", json={"some": "data"})
    assert got.json() == {"session": {"some": "data"}}
    assert "httponly" in got.headers["set-cookie"].lower()
    for path in ("/view", "/aview") * 3:
        assert browser.get(path).json() == {"session": {"some": "data"}}
    assert browser.post("/clear").json() == {"session": {}}
    assert browser.get("/view").json() == {"session": {}}
    assert not browser.cookies


def test_streams_and_background_tasks(starlette) -> None:
    browser, _ = starlette()
    browser.post("/update", json={"n": 1})
    browser.get("/stream")
    assert browser.get("/view").json() == {"session": {"n": 1, "steps": [0, 1, 2]}}
    browser.get("/background")
    assert browser.get("/view").json()["session"]["later"] is True


def test_an_exception_in_starlette(starlette) -> None:
    browser, _ = starlette()
    browser.post("/update", json={"n": 1})
    with pytest.raises(RuntimeError, match="no"):
        browser.get("/fail")
    assert browser.get("/view").json() == {"session": {"n": 1}}


def test_websockets(starlette) -> None:
    browser, _ = starlette()
    with browser.websocket_connect("/ws") as socket:
        assert any(name == b"set-cookie" for name, _ in socket.extra_headers)
        cookie = dict(socket.extra_headers)[b"set-cookie"].decode().partition(";")[0]
        name, _, value = cookie.partition("=")
        browser.cookies.set(name, value)
        socket.send_text("first")
        socket.receive_text()
        assert browser.get("/view").json() == {"session": {"visits": 1, "first": True}}
    assert browser.get("/view").json() == {"session": {"visits": 1, "first": True, "last": "first"}}
    with browser.websocket_connect("/ws") as socket:
        assert not any(name == b"set-cookie" for name, _ in socket.extra_headers)
    assert browser.get("/view").json()["session"]["visits"] == 2


@pytest.mark.parametrize("within", [False, True], ids=["a server", "this process"])
@pytest.mark.parametrize("load", ["auto", "eager", "explicit"])
def test_when_it_is_read(load, within) -> None:
    async def job():
        store = MemorySessions()
        store.in_process = within
        reads = []
        read, read_now = store.read, store.read_now

        async def spy(io, key, ttl):
            reads.append("loop" if type(io).__name__ == "_Asyncio" else "here")
            return await read(io, key, ttl)

        def spy_now(key, ttl):
            reads.append("now")
            return read_now(key, ttl)

        store.read = spy
        if within:
            store.read_now = spy_now
        sessions = Sessions(store, options(load=load))

        async def app(scope, receive, send):
            if scope["path"] == "/look":
                dict(scope["session"])
            elif scope["path"] == "/load":
                dict(await scope["session"].load())
            elif scope["path"] == "/put":
                scope["session"]["n"] = 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        kit, jar = SessionMiddleware(app, sessions), {}

        async def ask(path):
            async def send(message):
                for name, value in message.get("headers", ()):
                    if name == b"set-cookie":
                        jar["cookie"] = value.partition(b";")[0]

            headers = [(b"cookie", jar["cookie"])] if jar else []
            await kit({"type": "http", "method": "GET", "path": path, "headers": headers}, None, send)
            found, reads[:] = list(reads), []
            return found

        await ask("/put")
        untouched = [await ask("/nothing") for _ in range(3)]
        loaded = [await ask("/load") for _ in range(3)]
        if load == "explicit":
            with pytest.raises(SessionError, match="await request"):
                await ask("/look")
            looked = []
        else:
            looked = [await ask("/look") for _ in range(10)]
        return untouched, loaded, looked

    untouched, loaded, looked = asyncio.run(job())
    here, loop = ("now", "now") if within else ("here", "loop")
    assert loaded == [[loop]] * 3
    if load == "eager":
        assert (untouched, looked) == ([[loop]] * 3, [[loop]] * 10)
    else:
        assert untouched == [[]] * 3
    if load == "auto":
        assert looked == [[here]] * 8 + [[loop]] * 2, "a path that looks is learned"


def test_a_client_that_leaves_cancels_the_request(clock) -> None:
    async def job():
        sessions = Sessions("memory://", options(), clock=clock)
        begun = asyncio.Event()
        jar = {}

        async def app(scope, receive, send):
            scope["session"]["n"] = scope["session"].get("n", 0) + 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            if scope["path"] == "/stay":
                scope["session"]["late"] = True
                begun.set()
                await asyncio.Event().wait()

        kit = SessionMiddleware(app, sessions)

        async def send(message):
            for name, value in message.get("headers", ()):
                if name == b"set-cookie":
                    jar["cookie"] = value.partition(b";")[0]

        def scope(path):
            return {"type": "http", "method": "GET", "path": path,
                    "headers": [(b"cookie", jar["cookie"])] if jar else []}  # fmt: skip

        await kit(scope("/"), None, send)
        task = asyncio.create_task(kit(scope("/stay"), None, send))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(5):
            await asyncio.sleep(0)
        exchange = sessions.driver.open([jar["cookie"].decode()])
        return dict(exchange.session)

    assert asyncio.run(job()) == {"n": 2, "late": True}


# -- WSGI --------------------------------------------------------------------------------------------------------------


def wsgi_call(app, cookie=""):
    heads = []

    def start_response(status, headers, exc_info=None):
        heads.append((status, headers))
        return written.append

    written: list[bytes] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    if cookie:
        environ["HTTP_COOKIE"] = cookie
    body = app(environ, start_response)
    parts = written + list(body)
    if hasattr(body, "close"):
        body.close()
    cookies = [value.partition(";")[0] for name, value in heads[-1][1] if name == "Set-Cookie"]
    return b"".join(parts), cookies, heads


def test_wsgi_bodies_of_every_kind() -> None:
    closed = []

    class Body:
        def __init__(self, session):
            self.session, self.left = session, [b"x", b"y"]

        def __iter__(self):
            return self

        def __next__(self):
            if not self.left:
                raise StopIteration
            self.session["n"] = len(self.left)
            return self.left.pop()

        def close(self):
            closed.append(True)

    def as_list(environ, start_response):
        start_response("200 OK", [])
        environ["cachekit.session"]["n"] = 1  # after start_response
        return [b"xy"]

    def as_iterator(environ, start_response):
        start_response("200 OK", [])
        return Body(environ["cachekit.session"])

    def by_write(environ, start_response):
        write = start_response("200 OK", [])
        environ["cachekit.session"]["n"] = 1
        write(b"xy")
        return []

    def twice(environ, start_response):
        environ["cachekit.session"]["n"] = 1
        start_response("200 OK", [])
        start_response("404 Not Found", [("X", "y")], (ValueError, ValueError(), None))
        return [b"xy"]

    def late(environ, start_response):
        environ["cachekit.session"]["n"] = 1

        def body():
            start_response("200 OK", [])  # a generator that begins when it is asked
            yield b"xy"

        return body()

    for app in (as_list, as_iterator, by_write, twice, late):
        sessions = Sessions("memory://", options())
        kit = WsgiSessionMiddleware(app, sessions)
        body, cookies, heads = wsgi_call(kit)
        assert len(body) == 2, app
        assert len(cookies) == 1, app
        assert dict(sessions.driver.open(cookies).session) == {"n": 1}, app
        assert len(heads) == 1, app
    assert closed == [True]


def test_wsgi_under_the_grammar_checker(site) -> None:
    import warnings
    from wsgiref.util import setup_testing_defaults
    from wsgiref.validate import validator

    def app(environ, start_response):
        environ["cachekit.session"]["n"] = 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    kit = validator(WsgiSessionMiddleware(validator(app), Sessions("memory://", options())))
    environ: dict[str, object] = {}
    setup_testing_defaults(environ)
    environ["QUERY_STRING"] = ""

    def start_response(status, headers, exc_info=None):
        return lambda data: None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        body = kit(environ, start_response)
        assert b"".join(body) == b"x"
        body.close()


def test_flask_can_use_it() -> None:
    from flask import Flask, request

    flask = Flask(__name__)

    @flask.get("/")
    def page():
        session = request.environ["cachekit.session"]
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    flask.wsgi_app = WsgiSessionMiddleware(flask.wsgi_app, Sessions("memory://", options(development=True)))
    browser = flask.test_client()
    assert [browser.get("/").text for _ in range(3)] == ["1", "2", "3"]


# -- commands, counted on the server --------------------------------------------------------------------------------------


@pytest.mark.server
def test_commands(server, site) -> None:
    edge = site(server.url)
    browser = edge.browser()

    def sent(do, who=browser):
        with server.client() as client, client.monitor() as monitor:
            client.echo("start")
            who.ask(do)
            client.echo("end")
            seen = []
            for command in monitor.listen():
                if command["command"] == "ECHO end":
                    return [line for line in seen if not line.startswith(("CLIENT", "HELLO", "ECHO"))]
                if command["client_type"] != "lua":
                    seen.append(command["command"].split()[0])
            return None

    stranger = edge.browser()
    assert sent(None, stranger) == []
    assert sent(len, stranger) == []
    for _ in range(2):  # the server learns the scripts
        browser.ask(lambda session: session.clear())
        browser.ask(put("n", 0))
        browser.ask(put("n", 1))
    browser.look()
    assert sent(None) == []
    assert sent(dict) == ["GETEX"]
    assert sent(put("n", 2)) == ["GETEX", "EVALSHA"]
    assert sent(put("n", 2)) == ["GETEX"], "nothing has changed"
    tab = browser.copy()

    def conflict(session):
        len(session)
        tab.ask(put("other", 1))
        session["n"] = 3

    assert sent(conflict) == ["GETEX", "GETEX", "EVALSHA", "EVALSHA", "EVALSHA"], "the conflict costs one more"
    assert browser.look() == {"n": 3, "other": 1}


# -- settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"secrets": "short"}, "at least 16"),
        ({"secrets": []}, "at least 16"),
        ({"ttl": 0}, "ttl=0"),
        ({"ttl": "soon"}, "not a duration"),
        ({"cookie_name": "a b"}, "no name for a cookie"),
        ({"cookie_name": "__Host-x", "domain": "example.com"}, "__Host-"),
        ({"cookie_name": "__Host-x", "development": True}, "__Host-"),
        ({"cookie_name": "__Secure-x", "development": True}, "__Secure-"),
        ({"path": "x"}, "begin with a slash"),
        ({"path": "/; Domain=evil"}, "begin with a slash"),
        ({"domain": "a;b"}, "no domain"),
        ({"same_site": "Lax"}, "'lax', 'strict' or 'none'"),
        ({"same_site": "none", "development": True}, "need Secure"),
        ({"partitioned": True, "development": True}, "need Secure"),
        ({"compression": "gzip"}, "one of snappy, zstd"),
        ({"at_return": "keep"}, "one of merge, drop"),
        ({"load": "lazy"}, "one of auto, eager, explicit"),
        ({"sets": "cart"}, "a list of keys"),
        ({"sets": ["_flash"]}, "cachekit's own"),
        ({"sets": ["a"], "counters": ["a"]}, "both sets and counters"),
        ({"max_bytes": 0}, "must be positive"),
        ({"timeout": 0}, "positive number of seconds"),
    ],
)
def test_settings_that_cannot_be_meant(wrong, said) -> None:
    with pytest.raises(ConfigError, match=said):
        options(**wrong)


def test_settings_keep_their_secrets() -> None:
    assert SECRET not in repr(SessionOptions(secrets=SECRET))


def test_what_is_no_store() -> None:
    for wrong in (object(), 5, "rdis://x"):
        with pytest.raises(ConfigError):
            Sessions(wrong, options())
    assert Sessions(Cache(), options()).count() == 0


def test_forked_workers_make_their_locks_anew() -> None:
    sessions = Sessions("memory://", options())
    held = sessions.driver._lock
    with held:
        sessions.driver._renew()
        sessions.driver.keeper.local._renew()
        sessions.store._breaking._renew()
        assert sessions.driver._lock is not held
        done = threading.Thread(target=lambda: sessions.driver.may_touch(None))
        done.start()
        done.join(5)
        assert not done.is_alive()
