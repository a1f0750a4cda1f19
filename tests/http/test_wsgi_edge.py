"""What is particular to WSGI: start_response and write, iterables, file wrappers, and a real framework."""

from __future__ import annotations

import io
from wsgiref.util import FileWrapper

import pytest

from cachekit.wsgi import CacheKit, Rule
from tests.http.conftest import environ_of

FRESH = [("Cache-Control", "max-age=60")]


class Server:
    """Calls an application as PEP 3333 tells a server to."""

    def __init__(self):
        self.heads = []
        self.body = []
        self.result = None

    def start_response(self, status, headers, exc_info=None):
        if self.heads and exc_info is None:
            raise AssertionError("twice")
        if self.body and exc_info is not None:
            raise exc_info[1].with_traceback(exc_info[2])
        self.heads.append((status, headers))
        return self.body.append

    def run(self, app, environ=None, upto=None):
        self.result = app(environ or environ_of("GET", "/x", []), self.start_response)
        try:
            for at, chunk in enumerate(self.result):
                self.body.append(chunk)
                if at + 1 == upto:
                    break
        finally:
            if hasattr(self.result, "close"):
                self.result.close()
        return self

    @property
    def content(self):
        return b"".join(self.body)

    @property
    def hit(self):
        return "; hit" in dict(self.heads[-1][1])["Cache-Status"]


class Body:
    """An iterable that counts how often it is closed."""

    def __init__(self, *chunks, error=None):
        self.chunks = iter(chunks)
        self.closed = 0
        self.error = error

    def __iter__(self):
        return self

    def __next__(self):
        if self.error is not None:
            raise self.error
        return next(self.chunks)

    def close(self):
        self.closed += 1


def answering(*bodies, headers=FRESH):
    todo = list(bodies)

    def app(environ, start_response):
        start_response("200 OK", list(headers))
        return todo.pop(0)

    return app


@pytest.mark.parametrize("upto", [None, 1])
def test_what_the_application_returned_is_closed_once(cache, upto):
    body = Body(b"a", b"b")
    server = Server().run(CacheKit(answering(body), cache=cache), upto=upto)
    assert body.closed == 1
    server.result.close()
    assert body.closed == 1


def test_a_body_that_was_not_read_to_its_end_is_not_stored(cache):
    app = CacheKit(answering(Body(b"a", b"b"), Body(b"a", b"b")), cache=cache)
    Server().run(app, upto=1)
    server = Server().run(app)
    assert (server.hit, server.content) == (False, b"ab")
    assert Server().run(app).hit


def test_a_list_is_handed_on_as_it_is(cache):
    body = [b"a"]
    server = Server().run(CacheKit(answering(body), cache=cache))
    assert server.result is body


def test_a_failure_closes_and_comes_through(cache):
    error = ValueError("mine")
    body = Body(error=error)
    with pytest.raises(ValueError, match="mine") as caught:
        Server().run(CacheKit(answering(body), cache=cache))
    assert caught.value is error
    assert body.closed == 1


def test_a_failure_of_the_body_is_answered_by_a_stale_response(cache, clock):
    headers = [("Cache-Control", "max-age=60, stale-if-error=60")]
    body = Body(error=ValueError("mine"))
    app = CacheKit(answering([b"good"], body, headers=headers), cache=cache)
    Server().run(app)
    clock.advance(61)
    server = Server().run(app)
    assert server.content == b"good"
    assert body.closed == 1


def test_a_body_that_is_replaced_is_closed_too(cache, clock):
    body = Body(b"never sent")
    calls = iter(["200 OK", "503 Away"])
    bodies = iter([[b"good"], body])

    def app(environ, start_response):
        start_response(next(calls), [("Cache-Control", "max-age=60, stale-if-error=60")])
        return next(bodies)

    site = CacheKit(app, cache=cache)
    Server().run(site)
    clock.advance(61)
    server = Server().run(site)
    assert (server.heads[0][0], server.content, body.closed) == ("200 OK", b"good", 1)


def test_generators_start_late(cache):
    def app(environ, start_response):
        start_response("200 OK", FRESH)
        yield b"a"
        yield b""
        yield b"b"

    site = CacheKit(app, cache=cache)
    assert Server().run(site).body == [b"a", b"", b"b"]
    assert Server().run(site).content == b"ab"


def test_write(cache):
    def app(environ, start_response):
        write = start_response("200 OK", FRESH)
        write(b"a")
        write(b"b")
        return [b"c"]

    site = CacheKit(app, cache=cache)
    assert Server().run(site).body == [b"a", b"b", b"c"]
    server = Server().run(site)
    assert (server.hit, server.content) == (True, b"abc")


def test_write_while_the_client_gets_a_304(cache, clock):
    def app(environ, start_response):
        write = start_response("200 OK", [*FRESH, ("ETag", f'"{len(calls)}"')])
        calls.append(1)
        write(b"a")
        return Body(b"b") if len(calls) > 1 else [b"b"]

    calls = []
    site = CacheKit(app, cache=cache)
    Server().run(site)
    clock.advance(61)
    server = Server().run(site, environ_of("GET", "/x", [("if-none-match", '"1"')]))
    assert (server.heads[0][0], server.content) == ("304 Not Modified", b"")
    server = Server().run(site)
    assert (server.hit, server.content) == (True, b"ab")


def test_start_response_again_with_exc_info(cache):
    def app(environ, start_response):
        start_response("200 OK", FRESH)
        try:
            raise KeyError("x")
        except KeyError:
            import sys

            start_response("500 Oops", [("X-Error", "1")], sys.exc_info())
        return [b"sorry"]

    site = CacheKit(app, cache=cache)
    server = Server().run(site)
    assert [head[0] for head in server.heads] == ["500 Oops"]
    assert server.content == b"sorry"


def test_start_response_again_after_the_body_began(cache):
    def app(environ, start_response):
        start_response("200 OK", FRESH)
        yield b"a"
        try:
            raise KeyError("x")
        except KeyError:
            import sys

            start_response("500 Oops", [], sys.exc_info())

    site = CacheKit(app, cache=cache)
    with pytest.raises(KeyError):
        Server().run(site)
    with pytest.raises(KeyError):
        Server().run(site)


def test_start_response_twice_is_the_application_s_fault(cache):
    def app(environ, start_response):
        start_response("200 OK", FRESH)
        start_response("200 OK", FRESH)
        return []

    with pytest.raises(AssertionError):
        Server().run(CacheKit(app, cache=cache))


@pytest.mark.parametrize("kind", ["class", "function"])
def test_file_wrappers_reach_the_server(cache, kind):
    wrapper = FileWrapper if kind == "class" else lambda file, size=8192: FileWrapper(file, size)
    files = []

    def app(environ, start_response):
        start_response("200 OK", FRESH)
        files.append(environ["wsgi.file_wrapper"](io.BytesIO(b"file")))
        return files[-1]

    site = CacheKit(app, cache=cache)
    for _ in range(2):
        environ = environ_of("GET", "/x", []) | {"wsgi.file_wrapper": wrapper}
        server = Server().run(site, environ)
        assert server.result is files[-1]
        assert environ["wsgi.file_wrapper"] is wrapper
        assert not server.hit
        assert files[-1].filelike.closed


def test_a_status_line_that_is_none_passes_by(cache):
    def app(environ, start_response):
        start_response("weird", [])
        return [b"a"]

    server = Server().run(CacheKit(app, cache=cache))
    assert (server.heads, server.content) == ([("weird", [])], b"a")


def test_the_reason_is_kept(cache):
    def app(environ, start_response):
        start_response("200 Fine Indeed", FRESH)
        return [b"a"]

    site = CacheKit(app, cache=cache)
    assert [Server().run(site).heads[0][0] for _ in range(2)] == ["200 Fine Indeed"] * 2


def test_context_variables_do_not_leak(cache):
    from cachekit.tags import current

    def app(environ, start_response):
        start_response("200 OK", FRESH)
        yield b"a"
        yield b"b"

    result = CacheKit(app, cache=cache)(environ_of("GET", "/x", []), lambda *args: None)
    next(iter(result))
    assert current() is None
    result.close()
    assert current() is None


KEYS = [
    ({"SCRIPT_NAME": "/app", "PATH_INFO": "/x"}, "/app/x"),
    ({"SCRIPT_NAME": "", "PATH_INFO": ""}, "/"),
    ({"PATH_INFO": "/a b"}, "/a%20b"),
    ({"PATH_INFO": "/a/b", "RAW_URI": "/a%2Fb?x"}, "/a%2Fb"),
    ({"PATH_INFO": "/a", "REQUEST_URI": "/other"}, "/a?/other"),
    ({"PATH_INFO": "/a", "RAW_URI": "http://example.org/a"}, "/a"),
]


@pytest.mark.parametrize(("environ", "target"), KEYS)
def test_what_the_key_is_made_of(environ, target):
    from cachekit.http.wsgi import request_of

    assert request_of(environ_of("GET", "/", []) | environ).target == target


def test_the_host_without_a_host_field():
    from cachekit.http.wsgi import request_of

    environ = environ_of("GET", "/", [])
    del environ["HTTP_HOST"]
    assert request_of(environ).origin() == "https://localhost:80"


def test_flask(cache):
    import flask

    app = flask.Flask(__name__)
    app.secret_key = "x"
    calls = []

    @app.get("/product/<int:number>")
    def product(number):
        calls.append(number)
        return f"product {number}"

    @app.get("/login")
    def login():
        calls.append("login")
        flask.session["user"] = 1
        return "hello"

    @app.get("/stream")
    def stream():
        def generate():
            yield flask.request.args["a"]
            yield "!"

        calls.append("stream")
        return flask.Response(flask.stream_with_context(generate()), headers={"Cache-Control": "max-age=60"})

    app.wsgi_app = CacheKit(app.wsgi_app, cache=cache, rules=[Rule("/**", ttl="1h", tags=["all"])])
    for _ in range(2):
        client = app.test_client()
        assert client.get("/product/42").text == "product 42"
        assert client.get("/stream?a=1").text == "1!"
        assert "Set-Cookie" in client.get("/login").headers
        assert client.get("/product/42").headers["Cache-Status"].startswith("cachekit; fwd=bypass")
    assert calls == [42, "stream", "login", 42, "login", 42]
    cache.invalidate("all")
    assert app.test_client().get("/product/42").text == "product 42"
    assert calls[-1] == 42
    assert len(calls) == 7
