"""Streams that first look at their session when the head is out, through both edges: they are for one visitor."""

from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit import Cache
from cachekit.errors import SessionError
from cachekit.http.personal import is_open
from cachekit.http.rules import Rule
from cachekit.sessions import Sessions
from cachekit.sessions.asgi import SessionMiddleware
from cachekit.sessions.wsgi import SessionMiddleware as WsgiSessionMiddleware
from tests.sessions.conftest import options, put


@pytest.fixture(params=["memory", "valkey", "redis"])
def source(request):
    """Where the sessions of a test are kept."""
    if request.param == "memory":
        return "memory://"
    server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with server.client() as client:
        client.flushall()
    return server.url


def looking(found):
    """Return what an application does in the middle of its stream: it looks, and keeps what it has found."""
    return lambda session: found.append(session.get("n"))


@pytest.mark.parametrize("said", [None, "max-age=60", "no-cache", "must-revalidate, max-age=0"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_stream_may_begin_to_look(site, source, said, method) -> None:
    browser, found = site(source).browser(), []
    browser.ask(put("n", 1))
    headers = [("X-Kind", "stream"), *([("Cache-Control", said)] if said else [])]
    got = browser.ask(None, after=looking(found), headers=headers, method=method)
    assert found == [1]
    assert got.get("cache-control").split(", ") == ["private", *([] if said is None else said.split(", "))]
    assert (got.get("vary"), got.get("x-kind"), got.body) == ("Cookie", "stream", b"ab")
    stranger = site(source).browser()
    got = stranger.ask(None, after=looking(found), headers=headers, method=method)
    assert (found, got.get("vary"), got.get("set-cookie")) == ([1, None], "Cookie", None)


def test_it_is_so_whether_somebody_looks_or_not(site) -> None:
    """Before the head goes out nobody can tell."""
    got = site().browser().ask(None)
    assert (got.get("cache-control"), got.get("vary")) == ("private", "Cookie")
    assert site(no_store=True).browser().ask(None).get("cache-control") == "no-store"


@pytest.mark.parametrize(
    "said",
    [
        ("Cache-Control", "public, max-age=60"),
        ("Cache-Control", "s-maxage=60"),
        ("Cache-Control", "proxy-revalidate"),
        ("CDN-Cache-Control", "max-age=60"),
        ("Surrogate-Control", "max-age=60"),
        ("X-Accel-Expires", "60"),
        ("Content-Length", "2"),
    ],
)
def test_what_is_for_all_or_made_stays_as_it_is(site, said) -> None:
    browser = site().browser()
    browser.ask(put("n", 1))
    got = browser.ask(None, headers=[said])
    assert got.headers == [said]
    with pytest.raises(SessionError, match="caches may give to others"):
        browser.ask(None, headers=[said], after=lambda session: session["n"])


@pytest.mark.parametrize("said", [("CDN-Cache-Control", "no-store"), ("X-Accel-Expires", "0"), ("Vary", "Accept")])
def test_what_says_that_no_cache_may_have_it_is_no_word_for_all(site, said) -> None:
    got = site().browser().ask(None, headers=[said], after=len)
    assert got.get("cache-control") == "private"
    assert got.get("vary") == ("Accept, Cookie" if said[0] == "Vary" else "Cookie")


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_stays_as_it_is(site, status) -> None:
    assert site().browser().ask(None, status=status).headers == []


@pytest.mark.parametrize("said", ["private", "no-store", "private, no-store"])
def test_what_was_said_to_be_for_one_stays_as_it_is(site, said) -> None:
    browser, found = site().browser(), []
    browser.ask(put("n", 1))
    got = browser.ask(None, headers=[("Cache-Control", said)], after=looking(found))
    assert (got.headers, found) == ([("Cache-Control", said)], [1])


def test_the_answer_to_a_form_stays_as_it_is(site) -> None:
    assert site().browser().ask(None, method="POST", after=len).headers == []


def test_a_late_change_is_kept_where_the_client_has_an_id(site, source) -> None:
    edge = site(source)
    browser = edge.browser()
    browser.ask(put("n", 1))
    got = browser.ask(None, after=put("n", 2))
    assert (browser.look(), got.get("set-cookie")) == ({"n": 2}, None)
    with pytest.raises(SessionError, match="the client has no id"):
        edge.browser().ask(None, after=put("n", 1))
    with pytest.raises(SessionError, match="the response has begun"):
        browser.ask(None, after=lambda session: session.regenerate())
    browser.ask(None, after=lambda session: session.clear())
    assert browser.look() == {}


def test_late_looks_keep_a_session_in_the_lists_of_its_user(site, source, passing) -> None:
    edge = site(source, ttl="1h")
    browser = edge.browser()
    browser.ask(lambda session: session.bind("ann"))
    for _ in range(3):
        passing(40 * 60)
        browser.ask(None, after=len)
    assert len(edge.sessions.of("ann")) == edge.sessions.count() == 1
    assert browser.look(lambda session: session.user) == "ann"


def test_a_late_look_notes_the_use_once_an_interval(site, clock) -> None:
    """Also where the cookie is due to be renewed, which no late look can."""
    edge = site(claims=["n"])
    browser = edge.browser()
    browser.ask(put("n", 1))
    clock.advance(3000)
    touched, touch = [], edge.sessions.store.touch

    def noting(io, key, life):
        touched.append(key)
        return touch(io, key, life)

    edge.sessions.driver.store.touch = noting
    for _ in range(3):
        assert browser.ask(None, after=len).get("set-cookie") is None
    assert len(touched) == 1


@pytest.mark.parametrize("cached", [Rule("/", ttl="1h"), Rule("/", ttl="1h", shared=True, override=True)])
def test_no_rule_gives_a_stream_to_all(edge_kind, clock, cached) -> None:
    from cachekit.asgi import CacheKit as Asgi
    from cachekit.wsgi import CacheKit as Wsgi

    sessions = Sessions("memory://", options(), clock=clock)
    edge = edge_kind(sessions)
    kit = Asgi if edge.kind == "asgi" else Wsgi
    edge.app = kit(edge.inner, cache=Cache(clock=clock), rules=[cached], sessions=sessions)
    try:
        first, second = edge.browser(), edge.browser()
        for name, browser in (("ann", first), ("bob", second)):
            browser.ask(put("n", name))
        for _ in range(2):
            for name, browser in (("ann", first), ("bob", second)):
                found = []
                got = browser.ask(None, after=looking(found))
                assert found == [name]
                assert "stored" not in got.get("cache-status") and "hit" not in got.get("cache-status")
                assert "private" in got.get("cache-control")
        said = [("Cache-Control", "public, max-age=60")]  # the application's own word holds
        assert "hit" in [edge.browser().ask(None, headers=said).get("cache-status") for _ in range(3)][-1]
    finally:
        edge.close()


# What is a stream: in the words of each grammar


def heads_of(messages):
    """Return the head that a client of ASGI gets of *messages*."""
    sent = []

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    async def send(message):
        sent.append(message)

    async def job():
        scope = {"type": messages[0]["type"].partition(".")[0], "method": "GET", "path": "/", "headers": []}
        await SessionMiddleware(app, Sessions("memory://", options()))(scope, None, send)

    asyncio.run(job())
    return [message["headers"] for message in sent if message["type"].endswith(".start")]


START = {"type": "http.response.start", "status": 200, "headers": [(b"x-kind", b"a")]}
PRIVATE = [(b"cache-control", b"private"), (b"vary", b"Cookie")]


@pytest.mark.parametrize(
    ("rest", "more"),
    [
        ([{"type": "http.response.body", "body": b"a"}], []),
        ([{"type": "http.response.body", "body": b"a", "more_body": False}], []),
        ([{"type": "http.response.pathsend", "path": "/tmp/file"}], []),
        ([{"type": "http.response.zerocopysend", "file": 3, "more_body": True}], []),
        ([{"type": "http.response.body", "body": b"", "more_body": True}, {"type": "http.response.body"}], PRIVATE),
        (
            [
                {"type": "http.response.early_hint", "links": []},
                {"type": "http.response.body", "body": b"a", "more_body": True},
                {"type": "http.response.body", "body": b"a"},
            ],
            PRIVATE,
        ),
    ],
)
def test_a_stream_under_asgi(rest, more) -> None:
    assert heads_of([START, *rest]) == [[(b"x-kind", b"a"), *more]]


def test_a_websocket_that_is_refused_is_no_stream() -> None:
    body = {"type": "websocket.http.response.body", "body": b"a", "more_body": True}
    start = {"type": "websocket.http.response.start", "status": 403, "headers": []}
    assert heads_of([start, body, {**body, "more_body": False}]) == [[]]


class Closing:
    """A body as Werkzeug gives it: what passes another on, and closes it."""

    def __init__(self, parts) -> None:
        self.parts = iter(parts)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.parts)


class Wrapper:
    def __init__(self, file) -> None:
        self.file = file

    def __iter__(self):
        return iter(self.file.read, b"")


@pytest.mark.parametrize(
    ("body", "method", "fields", "streamed"),
    [
        (lambda: [b"ab"], "GET", [], False),
        (lambda: (b"a", b"b"), "GET", [], False),
        (lambda: iter([b"a", b"b"]), "GET", [], False),
        (lambda: Wrapper(io.BytesIO(b"ab")), "GET", [], False),
        (lambda: Closing([b"ab"]), "GET", [("Content-Length", "2")], False),
        (lambda: Closing([b"a", b"b"]), "GET", [], True),
        (lambda: (part for part in (b"", b"ab")), "GET", [], True),
        (lambda: Closing([]), "HEAD", [("Content-Length", "2")], False),
        (lambda: Closing([]), "HEAD", [], True),
        (list, "HEAD", [], False),
        (lambda: Closing([]), "GET", [], False),
    ],
)
def test_a_stream_under_wsgi(body, method, fields, streamed) -> None:
    def app(environ, start_response):
        start_response("200 OK", list(fields))
        return body()

    heads = []
    environ = {"REQUEST_METHOD": method, "wsgi.file_wrapper": Wrapper}
    kit = WsgiSessionMiddleware(app, Sessions("memory://", options()))
    b"".join(kit(environ, lambda status, headers, exc_info=None: heads.append(headers)))
    more = [("Cache-Control", "private"), ("Vary", "Cookie")] if streamed else []
    assert heads == [[*fields, *more]]


def test_what_is_written_is_a_stream() -> None:
    found, heads = [], []

    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"a")
        found.append(environ["cachekit.session"].get("n"))
        return []

    kit = WsgiSessionMiddleware(app, Sessions("memory://", options()))
    list(kit({"REQUEST_METHOD": "GET"}, lambda status, headers: heads.append(headers) or (lambda data: None)))
    assert (found, heads) == ([None], [[("Cache-Control", "private"), ("Vary", "Cookie")]])


NAMES = st.sampled_from(["Cache-Control", "CDN-Cache-Control", "Surrogate-Control", "X-Accel-Expires", "Vary", "X"])
VALUES = st.sampled_from(["public", "private", "no-store", "s-maxage=1", "max-age=1", "0", "", '"', "Cookie", "a=b;c"])


@given(st.lists(st.tuples(NAMES, VALUES)), st.sampled_from(["GET", "HEAD", "POST"]))
def test_it_never_becomes_open_by_what_was_said(headers, method) -> None:
    """More words can only say more exactly who may have it."""
    if is_open(method, 200, headers):
        assert is_open(method, 200, [])
        assert not any("public" in value or "s-maxage" in value for name, value in headers if name == "Cache-Control")
    assert not is_open(method, 304, headers)
    assert not is_open(method, 200, [*headers, ("content-length", "1")])
