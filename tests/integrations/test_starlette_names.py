"""``SessionMiddleware`` and ``GZipMiddleware`` with the arguments of Starlette's own: one import line changes."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("starlette")
httpx = pytest.importorskip("httpx")
jinja2 = pytest.importorskip("jinja2")

from cachekit_starlette import CacheKit, GZipMiddleware, Rule, Session, SessionMiddleware  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.background import BackgroundTask  # noqa: E402
from starlette.datastructures import Secret  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

import cachekit.asgi  # noqa: E402
import cachekit.wsgi  # noqa: E402
from cachekit import Cache, ConfigError  # noqa: E402
from cachekit.errors import SessionError  # noqa: E402
from cachekit.testing import ManualClock  # noqa: E402


@pytest.fixture(params=["memory://", "valkey", "redis"])
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    if request.param == "memory://":
        yield Cache()
        return
    server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with server.client() as client:
        client.flushall()
    made = Cache(server.url, timeout=5)
    yield made
    made.close()


async def put(request):
    request.session.update(request.query_params)
    return JSONResponse(dict(request.session))


def look(request):
    return JSONResponse(request.session)


async def clear(request):
    request.session.clear()
    return PlainTextResponse("gone")


async def plain(request):
    return PlainTextResponse("plain")


ROUTES = [Route("/put", put), Route("/look", look), Route("/clear", clear), Route("/plain", plain)]


def shop(store: Any, *outside: Middleware, **given: Any) -> Starlette:
    own = {"secret_key": "partial", **given}
    return Starlette(routes=ROUTES, middleware=[*outside, Middleware(SessionMiddleware, store=store, **own)])


def talk(app: Any, script: Any, cache: Cache | None = None, **more: Any) -> None:
    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop", **more) as client:
            await script(client)
        if cache is not None:
            await cache.aclose()

    asyncio.run(main())


def test_the_data_is_on_the_server(cache):
    app = shop(cache)

    async def script(client):
        line = (await client.get("/put?name=ann")).headers["set-cookie"]
        assert line.startswith("session=")
        assert "; path=/; Max-Age=1209600; httponly; samesite=lax" in line
        assert "ann" not in line
        assert "secure" not in line
        got = await client.get("/look")
        assert got.json() == {"name": "ann"}
        assert "set-cookie" not in got.headers
        assert got.headers["vary"] == "Cookie"
        assert "vary" not in (await client.get("/plain")).headers
        thief = {"cookie": f"session={client.cookies['session']}"}
        gone = (await client.get("/clear")).headers["set-cookie"]
        assert gone.startswith("session=null; path=/; expires=Thu, 01 Jan 1970")
        client.cookies.clear()
        assert (await client.get("/look", headers=thief)).json() == {}, (
            "the cookie of a session that ended opens nothing"
        )
        for wrong in ("invalid", "", "a.b.c", "x" * 5000):
            assert (await client.get("/look", headers={"cookie": f"session={wrong}"})).json() == {}

    talk(app, script, cache)


@pytest.mark.parametrize(
    ("given", "there", "not_there"),
    [
        ({"max_age": None}, [], ["Max-Age"]),
        ({"max_age": 60}, ["; Max-Age=60; "], []),
        ({"session_cookie": "sid", "path": "/shop"}, ["sid=", "; path=/shop; "], ["session="]),
        ({"domain": ".example.com", "same_site": "strict"}, ["; domain=.example.com", "samesite=strict"], []),
        (
            {"https_only": True, "same_site": "none", "partitioned": True},
            ["; secure", "; partitioned", "samesite=none"],
            [],
        ),
        ({"secret_key": Secret("s")}, ["session="], []),
    ],
)
def test_the_cookie(given, there, not_there):
    async def script(client):
        line = (await client.get("/put?a=1")).headers["set-cookie"]
        assert [text for text in there if text not in line] == []
        assert [text for text in not_there if text in line] == []

    talk(shop(Cache(), **given), script)


@pytest.mark.parametrize("max_age", [0, -1])
def test_one_that_has_ended_when_it_begins(max_age):
    async def script(client):
        line = (await client.get("/put?a=1")).headers["set-cookie"]
        assert f"; Max-Age={max_age}; " in line
        cookie = line.partition(";")[0]
        assert (await client.get("/look", headers={"cookie": cookie})).json() == {}

    talk(shop(Cache(), max_age=max_age), script)


def test_it_lives_max_age_after_its_last_use():
    clock = ManualClock()
    app = shop(Cache(clock=clock), max_age=1000)

    async def script(client):
        first = (await client.get("/put?a=1")).headers["set-cookie"]
        cookie = {"cookie": first.partition(";")[0]}
        client.cookies.clear()
        clock.advance(90)
        assert "set-cookie" not in (await client.get("/look", headers=cookie)).headers
        clock.advance(800)
        again = await client.get("/look", headers=cookie)
        assert again.json() == {"a": "1"}
        assert "; Max-Age=1000; " in again.headers["set-cookie"], "the browser keeps it as long as the server does"
        client.cookies.clear()
        clock.advance(900)
        assert (await client.get("/look", headers=cookie)).json() == {"a": "1"}
        client.cookies.clear()
        clock.advance(1001)
        assert (await client.get("/look", headers=cookie)).json() == {}

    talk(app, script)


def test_secrets_may_be_rotated(cache):
    before, after, other = shop(cache), shop(cache, secret_key=["new", "partial"]), shop(cache, secret_key="new")
    kept = {}

    async def first(client):
        kept.update(cookie=(await client.get("/put?a=1")).headers["set-cookie"].partition(";")[0])

    talk(before, first, cache)

    def expects(values):
        async def script(client):
            assert (await client.get("/look", headers=kept)).json() == values

        return script

    if not cache.url.startswith("memory://"):  # which each middleware has for itself
        talk(after, expects({"a": "1"}), cache)
    talk(other, expects({}), cache)


def test_behind_the_http_cache_nobody_gets_anothers_page():
    cache = Cache()
    app = shop(cache, Middleware(CacheKit, cache=cache, rules=[Rule("/**", ttl="1h")]))

    async def script(client):
        await client.get("/put?name=ann")
        assert (await client.get("/look")).json() == {"name": "ann"}
        client.cookies.clear()
        for _ in range(2):
            assert (await client.get("/look")).json() == {}
            assert (await client.get("/plain")).text == "plain"

    talk(app, script)


@pytest.mark.parametrize(
    "outside", [[], [Middleware(CacheKit, cache=Cache(), rules=[Rule("/**", ttl="1h", shared=True)])]]
)
def test_a_stream_may_first_look_while_it_is_sent(cache, outside):
    async def stream(request):
        async def body():
            yield "Hello "
            yield request.session.get("name", "")

        return StreamingResponse(body(), media_type="text/plain")

    async def script(client):
        assert (await client.get("/stream")).text == "Hello "
        for name in ("ann", "bob"):
            await client.get(f"/put?name={name}")
            got = await client.get("/stream")
            assert (got.text, got.headers["cache-control"], got.headers["vary"]) == (
                f"Hello {name}",
                "private",
                "Cookie",
            )
            client.cookies.clear()

    own = Middleware(SessionMiddleware, secret_key="partial", store=cache)
    talk(Starlette(routes=[*ROUTES, Route("/stream", stream)], middleware=[*outside, own]), script, cache)


def test_a_background_task_can_begin_no_session():
    async def later(request):
        request.session["later"] = 1

    async def page(request):
        return PlainTextResponse("page", background=BackgroundTask(later, request))

    async def script(client):
        with pytest.raises(SessionError, match="the client has no id"):
            await client.get("/page")
        await client.get("/put?name=ann")
        await client.get("/page")
        assert (await client.get("/look")).json() == {"name": "ann", "later": 1}

    own = Middleware(SessionMiddleware, secret_key="partial", store=Cache())
    talk(Starlette(routes=[*ROUTES, Route("/page", page)], middleware=[own]), script)


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_is_no_stream(status):
    """Middlewares of Starlette pass everything on as a stream."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            return await call_next(request)

    async def nothing(request):
        return Response(status_code=status)

    async def script(client):
        assert "cache-control" not in (await client.get("/nothing")).headers
        assert "cache-control" not in (await client.get("/plain")).headers, "it says its length"

    own = Middleware(SessionMiddleware, secret_key="partial", store=Cache())
    talk(Starlette(routes=[*ROUTES, Route("/nothing", nothing)], middleware=[own, Middleware(Passing)]), script)


def test_a_template_finds_the_user_that_an_endpoint_has_put_in():
    page = jinja2.Template("{{ session.user.name or 'nobody' }}")
    session = Session({"n": 1})
    assert (session.user, page.render(session=session)) == ("", "nobody")
    session["user"] = {"name": "Ann"}
    assert (session.user, page.render(session=session)) == ({"name": "Ann"}, "Ann")
    session.bind("ann")
    assert session.user == {"name": "Ann"}
    del session["user"]
    assert session.user == "ann"


def test_a_session_that_stands_alone():
    session = Session({"a": [1]})
    assert (session["a"], session.modified, session.accessed) == ([1], False, False)
    session["a"].append(2)
    assert session.modified
    session = Session({"a": 1})
    session |= {"b": 2}
    assert (dict(session), session.modified, session.accessed) == ({"a": 1, "b": 2}, True, True)


def test_plain_http_is_said_in_the_log(caplog):
    with caplog.at_level(logging.WARNING, "cachekit"):
        SessionMiddleware(plain, "x", https_only=True)
        assert caplog.text == ""
        SessionMiddleware(plain, "x")
    assert "https_only=False" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"secret_key": ""}, "secret_key must be a text"),
        ({"secret_key": 5}, "secret_key must be a text"),
        ({"secret_key": []}, "secret_key must be a text"),
        ({"session_cookie": "a b"}, "session_cookie='a b' is no name"),
        ({"session_cookie": ""}, "session_cookie='' must be"),
        ({"max_age": "1d"}, "max_age='1d' must be a whole number of seconds"),
        ({"path": "x"}, "path='x' must begin with a slash"),
        ({"path": 5}, "path=5 must be text"),
        ({"same_site": "LAX"}, "same_site='LAX' must be 'lax', 'strict' or 'none'"),
        ({"same_site": "none"}, "same_site='none' needs https_only=True"),
        ({"https_only": "yes"}, "https_only='yes' must be True or False"),
        ({"domain": "a b"}, "domain='a b' is no domain"),
        ({"partitioned": True}, "partitioned=True needs https_only=True"),
        ({"store": "http://x"}, "store='http://x': unknown URL scheme"),
        ({"store": 5}, "store=5: .* not in int"),
        ({"options": {"counter": []}}, "options has no 'counter' .did you mean 'counters'"),
        ({"options": {"ttl": "1h"}}, "options has no 'ttl'.*there are absolute_ttl"),
        ({"options": {"counters": "x"}}, "counters='x' must be a list"),
        ({"options": {"timeout": "x"}}, "timeout='x' must be a positive number"),
        ({"options": "x"}, "options='x' must be a dictionary"),
    ],
)
def test_a_wrong_argument_of_sessions_is_named(given, message):
    with pytest.raises(ConfigError, match=f"SessionMiddleware.*{message}"):
        SessionMiddleware(plain, **{"secret_key": "x", **given})


# -- compression ------------------------------------------------------------------------------------------------------


def compressed(**given: Any) -> Starlette:
    async def page(request):
        return PlainTextResponse("x" * int(request.query_params["size"]))

    async def odd(request):
        return PlainTextResponse("x" * 4000, media_type=request.query_params["type"])

    async def stream(request):
        async def body():
            yield b"a" * 600
            yield b""
            yield b"b" * 600

        return StreamingResponse(body(), media_type="text/plain")

    routes = [Route("/page", page), Route("/odd", odd), Route("/stream", stream)]
    return Starlette(routes=routes, middleware=[Middleware(GZipMiddleware, **given)])


def test_compression_as_starlette_has_it():
    async def script(client):
        big = await client.get("/page?size=4000")
        assert (big.headers["content-encoding"], big.headers["vary"], len(big.text)) == (
            "gzip",
            "Accept-Encoding",
            4000,
        )
        small = await client.get("/page?size=499")
        assert "vary" not in small.headers
        assert "content-encoding" not in small.headers
        for kind in ("image/png", "text/event-stream", "application/zip"):
            assert "content-encoding" not in (await client.get(f"/odd?type={kind}")).headers
        for kind in ("image/svg%2Bxml", "application/x-unheard-of"):
            assert (await client.get(f"/odd?type={kind}")).headers["content-encoding"] == "gzip"
        for accept in ("identity", "gzip;q=0", "identity;q=0, br"):
            got = await client.get("/page?size=4000", headers={"accept-encoding": accept})
            assert (got.status_code, "content-encoding" in got.headers, got.headers["vary"]) == (
                200,
                False,
                "Accept-Encoding",
            )
        assert (await client.get("/stream")).text == "a" * 600 + "b" * 600

    talk(compressed(), script, headers={"accept-encoding": "gzip"})


def test_other_codings_by_choice():
    async def script(client):
        answer = await client.get("/page?size=10", headers={"accept-encoding": "br, gzip"})
        assert answer.headers["content-encoding"] == "br"

    pytest.importorskip("brotli")
    talk(compressed(minimum_size=10, codings=("br", "gzip")), script)


def test_under_trio_large_bodies_are_encoded_in_line():
    trio = pytest.importorskip("trio")
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x" * 5000, "more_body": True})
        await send({"type": "http.response.body", "body": b"y" * 5000})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(b"accept-encoding", b"gzip")]}
    trio.run(GZipMiddleware(app, thread_minimum_size=100), scope, None, send)
    assert gzip.decompress(b"".join(m["body"] for m in sent[1:])) == b"x" * 5000 + b"y" * 5000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"minimum_size": -1}, "minimum_size=-1 must be a number of bytes"),
        ({"compresslevel": 10}, "compresslevel=10 must be a whole number from 1 to 9"),
        ({"thread_minimum_size": "x"}, "thread_minimum_size='x' must be a number of bytes"),
        ({"exclude_content_types": "image/*"}, "exclude_content_types='image/.*' must be a list"),
        ({"exclude_content_types": 5}, "exclude_content_types=5 must be a list"),
        ({"codings": ["deflate"]}, "unknown coding 'deflate'"),
        ({"codings": "gzip"}, "codings='gzip' must be a list"),
    ],
)
def test_a_wrong_argument_of_compression_is_named(given, message):
    with pytest.raises(ConfigError, match=f"GZipMiddleware: .*{message}"):
        GZipMiddleware(plain, **given)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cache", "redis://x", "cache='redis://x' must be a Cache"),
        ("rules", 5, "rules=5 must be a list of Rule"),
        ("rules", ["/a"], "rules must be a list of Rule"),
        ("options", {"max_body": 1}, "options={.*} must be HttpOptions"),
        ("compression", "gzip", "compression='gzip' must be True, False"),
        ("sessions", True, "must be a cachekit.sessions.Sessions, not bool"),
        ("webhook", "secret", "webhook='secret' must be Webhook"),
        ("degradation", "x", "degradation='x' must be DegradeOptions"),
        ("routes", 5, "routes=5 must be a list of Route"),
        ("routes", ["/a"], "routes must be a list of Route"),
    ],
)
def test_a_wrong_argument_of_the_middleware_is_named(name, value, message):
    with pytest.raises(ConfigError, match=message):
        CacheKit(plain, **{name: value})


@pytest.mark.parametrize("kit", [CacheKit, cachekit.asgi.CacheKit, cachekit.wsgi.CacheKit])
@pytest.mark.parametrize("wrong", [None, "shop:app"])
def test_what_is_no_application_is_refused(kit, wrong):
    with pytest.raises(ConfigError, match=f"app={wrong!r} must be an? .SGI application"):
        kit(wrong, cache=Cache())
