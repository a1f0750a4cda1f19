"""Sessions in front of the HTTP cache, where they should stand behind it: nobody gets another's page all the same."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

import httpx
import pytest

from cachekit import Cache
from cachekit.asgi import CacheKit, HttpCache, Rule
from cachekit.http.outside import private_wsgi
from cachekit.sessions import SessionOptions, Sessions
from cachekit.sessions.asgi import SessionMiddleware
from cachekit.sessions.wsgi import SessionMiddleware as WsgiSessionMiddleware
from cachekit.wsgi import CacheKit as WsgiCacheKit
from cachekit.wsgi import HttpCache as WsgiHttpCache

RULES = [Rule("/**", cache_control="public, s-maxage=60", override=True, shared=True)]


class Plain:
    """Gives each request a session that does not tell whether anybody looked, as many middlewares do."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        await self.app({**scope, "session": {}}, receive, send)


@pytest.fixture
def sessions(clock) -> Sessions:
    return Sessions("memory://", SessionOptions(secrets="a long random text, not this one"), clock=clock)


def asgi_site(outer, clock, *, late: bool = False, piecewise: bool = False, reads: bool = False, kind=CacheKit):
    numbers = count()

    async def app(scope, receive, send) -> None:
        async def start() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        if late:
            await start()
        if piecewise:
            await send({"type": "http.response.body", "body": b"page: ", "more_body": True})
        body = "the same for all"
        if scope["path"] == "/own":
            session = scope["session"]
            body = str(session.get("token")) if reads else session.setdefault("token", f"token {next(numbers)}")
        if not late:
            await start()
        await send({"type": "http.response.body", "body": body.encode()})

    site = outer(kind(app, cache=Cache(clock=clock), rules=RULES))

    def ask(path: str) -> httpx.Response:
        async def get() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="https://shop") as client:
                return await client.get(path)

        return asyncio.run(get())

    return ask


def wsgi_site(sessions, clock, kind: str):
    numbers = count()

    def app(environ, start_response):
        if "early" in kind:
            return respond(environ, start_response)
        start_response("200 OK", fields(environ))
        return respond(environ, lambda *head: None)

    def fields(environ):
        said = [("Content-Type", "text/plain")]
        if "stream" in kind and environ["PATH_INFO"] == "/all":  # where nobody says so, a stream may still look
            said.append(("Cache-Control", "public"))
        return said

    def respond(environ, start_response):
        if "stream" in kind:
            return iter(pieces(environ, start_response))
        return list(pieces(environ, start_response))

    def pieces(environ, start_response):
        if "empty" in kind:
            yield b""
        body = "the same for all"
        if environ["PATH_INFO"] == "/own":
            body = environ["cachekit.session"].setdefault("token", f"token {next(numbers)}")
        start_response("200 OK", fields(environ))
        yield body.encode()

    made = WsgiHttpCache if "bare" in kind else WsgiCacheKit
    site = WsgiSessionMiddleware(made(app, cache=Cache(clock=clock), rules=RULES), sessions)

    def ask(path: str) -> httpx.Response:
        with httpx.Client(transport=httpx.WSGITransport(site), base_url="https://shop") as client:
            return client.get(path)

    return ask


@pytest.fixture(
    params=[
        "asgi",
        "asgi, late",
        "asgi, dict",
        "asgi, bare",
        "asgi, late, bare",
        "wsgi, early, bare",
        "wsgi, late stream, bare",
        "wsgi, early",
        "wsgi, late",
        "wsgi, early stream",
        "wsgi, late stream",
        "wsgi, late stream, empty",
    ]  # fmt: skip
)
def ask(request, sessions, clock):
    """Send a request of somebody who was never here."""
    if request.param.startswith("wsgi"):
        return wsgi_site(sessions, clock, request.param)
    outer = Plain if "dict" in request.param else lambda app: SessionMiddleware(app, sessions)
    kind = HttpCache if "bare" in request.param else CacheKit
    return asgi_site(outer, clock, late="late" in request.param, kind=kind)


def test_what_was_made_with_a_session_is_kept_for_nobody(ask) -> None:
    first, second = ask("/own"), ask("/own")
    assert (first.text, second.text) == ("token 0", "token 1")
    for got in (first, second):
        assert got.headers["cache-control"] == "private"
        assert "stored" not in got.headers["cache-status"]


def test_what_was_made_without_it_is_kept(ask) -> None:
    assert "stored" in ask("/all").headers["cache-status"]
    got = ask("/all")
    assert "hit" in got.headers["cache-status"]
    assert got.headers["cache-control"] == "public, s-maxage=60"


def test_a_stranger_s_session_may_be_looked_at_in_the_middle_of_a_stream(clock) -> None:
    """Ours refuses that, where the head went out as one that caches may share; others say nothing at all."""
    ask = asgi_site(Plain, clock, late=True, piecewise=True)
    first, second = ask("/own"), ask("/own")
    assert (first.text, second.text) == ("page: token 0", "page: token 1")
    for got in (first, second):
        assert got.headers["cache-control"] == "private"
        assert "stored" not in got.headers["cache-status"]


def test_our_session_may_be_looked_at_in_the_middle_of_a_stream(sessions, clock) -> None:
    """The rule that says it is for all comes from who did not write the stream."""
    ask = asgi_site(lambda app: SessionMiddleware(app, sessions), clock, late=True, piecewise=True, reads=True)
    for got in (ask("/own"), ask("/own")):
        assert got.text == "page: None"
        assert got.headers["cache-control"] == "private"
        assert "stored" not in got.headers["cache-status"]


@pytest.mark.parametrize("kind", [WsgiCacheKit, WsgiHttpCache])
def test_our_session_may_be_looked_at_in_the_middle_of_a_wsgi_stream(sessions, clock, kind) -> None:
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"page: "
        yield str(environ["cachekit.session"].get("token")).encode()

    site = WsgiSessionMiddleware(kind(app, cache=Cache(clock=clock), rules=RULES), sessions)
    with httpx.Client(transport=httpx.WSGITransport(site), base_url="https://shop") as client:
        for _ in range(2):
            got = client.get("/own")
            assert got.text == "page: None"
            assert (got.headers["cache-control"], got.headers["vary"]) == ("private", "Cookie")
            assert "stored" not in got.headers["cache-status"]


@pytest.mark.parametrize(("pieces", "own"), [([b"ab"], False), ((part for part in [b"ab"]), True)])
def test_only_what_is_made_while_it_is_sent_is_a_stream(pieces, own) -> None:
    class Body:
        """What frameworks return that have made all of it."""

        def __iter__(self):
            return iter(pieces)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body()

    heads = []
    body = private_wsgi(app)(
        {"REQUEST_METHOD": "GET", "cachekit.session": {}}, lambda status, headers: heads.append(headers)
    )
    assert list(body) == [b"ab"]
    assert heads == [[("Cache-Control", "private"), ("Vary", "Cookie")] if own else []]


@pytest.mark.parametrize(("said", "own"), [([], True), ([("Content-Length", "2")], False)])
def test_our_session_may_be_looked_at_between_what_is_written(said, own) -> None:
    def app(environ, start_response):
        start_response("200 OK", said)(b"ab")
        return []

    heads = []

    def start_response(status, headers, exc_info=None):
        heads.append(headers)
        return lambda data: None

    list(private_wsgi(app)({"REQUEST_METHOD": "GET", "cachekit.session": {}}, start_response))
    assert heads == [[*said, *([("Cache-Control", "private"), ("Vary", "Cookie")] if own else [])]]


@pytest.mark.parametrize("kind", [WsgiCacheKit, WsgiHttpCache])
def test_a_second_head_before_the_first_of_the_body_counts(sessions, clock, kind) -> None:
    """The page that took the place of one that failed was made with a session too, and is told further out to be kept."""
    numbers = count()

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Head", "first")])
        try:
            raise ValueError("a page that fails while it is made")
        except ValueError:
            start_response("200 OK", [("Content-Type", "text/plain"), ("X-Head", "second")], sys.exc_info())
        yield environ["cachekit.session"].setdefault("token", f"token {next(numbers)}").encode()

    site = WsgiSessionMiddleware(kind(app, cache=Cache(clock=clock), rules=RULES), sessions)
    with httpx.Client(transport=httpx.WSGITransport(site), base_url="https://shop") as client:
        for number in range(2):
            client.cookies.clear()
            got = client.get("/own")
            assert (got.text, got.headers["x-head"]) == (f"token {number}", "second")
            assert got.headers["cache-control"] == "private"
            assert "stored" not in got.headers["cache-status"]


def test_a_second_head_after_the_first_of_the_body_is_for_the_server_to_decide() -> None:
    def app(environ, start_response):
        start_response("200 OK", [("X-Head", "first")])
        yield b"the first"
        try:
            raise ValueError("a page that fails while it is sent")
        except ValueError:
            start_response("500 Internal Server Error", [("X-Head", "second")], sys.exc_info())
        yield b"the second"

    told = []

    def start_response(status, headers, exc_info=None):
        told.append((status, headers, exc_info and exc_info[0]))
        return lambda data: None

    body = private_wsgi(app)({"REQUEST_METHOD": "GET", "cachekit.session": {}}, start_response)
    assert b", ".join(body) == b"the first, the second"
    assert told == [
        ("200 OK", [("X-Head", "first"), ("Cache-Control", "private"), ("Vary", "Cookie")], None),
        (
            "500 Internal Server Error",
            [("X-Head", "second"), ("Cache-Control", "private"), ("Vary", "Cookie")],
            ValueError,
        ),
    ]
