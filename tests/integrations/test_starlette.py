"""The Starlette adapter in front of real applications: routes, tags, lifespan, what passes through."""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("starlette")

import anyio  # noqa: E402
import cachekit_starlette  # noqa: E402
from cachekit_starlette import CacheKit, Compression, HttpOptions, Rule, cached_route, cachekit_lifespan, get_cache, tag  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser  # noqa: E402
from starlette.background import BackgroundTask  # noqa: E402
from starlette.endpoints import HTTPEndpoint  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.authentication import AuthenticationMiddleware  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.middleware.gzip import GZipMiddleware  # noqa: E402
from starlette.middleware.sessions import SessionMiddleware  # noqa: E402
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse  # noqa: E402
from starlette.routing import Mount, Route, WebSocketRoute  # noqa: E402

from cachekit import Cache, ConfigError  # noqa: E402
from cachekit.testing import ManualClock  # noqa: E402
from cachekit.warm import Warmer  # noqa: E402


def get(app, *paths, headers=None, method="GET", **more):
    """Return what *app* answers to *paths*, one after the other."""
    import httpx

    async def main():
        transport = httpx.ASGITransport(app=app, **more)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return [await client.request(method, path, headers=headers) for path in paths]

    return asyncio.run(main())


def shop(*routes, cache=None, below=(), above=(), **options):
    kit = Middleware(CacheKit, cache=cache or Cache(), **options)
    return Starlette(routes=list(routes), middleware=[*above, kit, *below])


class Calls:
    """Endpoints of each kind that count what reaches them."""

    def __init__(self):
        self.seen = []
        calls = self

        @cached_route(ttl="5m", tags=["product:{number}"])
        async def coroutine(request):
            calls.seen.append(request.path_params["number"])
            return JSONResponse({"calls": len(calls.seen)})

        @cached_route(ttl="5m", tags=["product:{number}"])
        def plain(request):
            calls.seen.append(request.path_params["number"])
            return JSONResponse({"calls": len(calls.seen)})

        @cached_route(ttl="5m", tags=["product:{number}"])
        class Endpoint(HTTPEndpoint):
            async def get(self, request):
                calls.seen.append(request.path_params["number"])
                return JSONResponse({"calls": len(calls.seen)})

        self.kinds = {"coroutine": coroutine, "plain": plain, "class": Endpoint}


async def _pass_on(request, call_next):
    response = await call_next(request)
    response.headers["x-passed"] = "yes"
    return response


BASE = Middleware(BaseHTTPMiddleware, dispatch=_pass_on)


AROUND = {
    "base": BASE,
    "gzip": Middleware(GZipMiddleware, minimum_size=1),
    "our-gzip": Middleware(cachekit_starlette.GZipMiddleware, minimum_size=1),
    "session": Middleware(SessionMiddleware, secret_key="a secret for tests alone"),
    "our-session": Middleware(
        cachekit_starlette.SessionMiddleware, secret_key="a secret for tests alone", store="memory://"
    ),
}


@pytest.mark.parametrize(
    "place", ["route", "mount", *(f"{name} {where}" for name in AROUND for where in ("above", "below"))]
)
@pytest.mark.parametrize("kind", ["coroutine", "plain", "class"])
def test_cached_route(kind, place):
    calls, cache = Calls(), Cache()
    route = Route("/products/{number}", calls.kinds[kind])
    prefix = "/shop" if place == "mount" else ""
    routes = [Mount("/shop", routes=[route])] if prefix else [route]
    name, _, where = place.partition(" ")
    app = shop(*routes, cache=cache, **{where: [AROUND[name]]} if where else {})
    one, two = f"{prefix}/products/1", f"{prefix}/products/2"
    first, again, other = get(app, one, one, two)
    assert [r.json()["calls"] for r in (first, again, other)] == [1, 1, 2]
    assert "hit" in again.headers["cache-status"]
    assert again.headers["cache-tag"] == "product:1"
    cache.invalidate("product:1")
    assert [r.json()["calls"] for r in get(app, one, two)] == [3, 2]


@pytest.mark.parametrize("inside", [(), ("our-gzip",), ("our-session",), ("our-gzip", "our-session")])
@pytest.mark.parametrize(
    "asked", [{}, {"accept-encoding": "gzip"}, {"if-none-match": '"a-gzip"', "accept-encoding": "gzip"}]
)
def test_who_stands_further_out_sees_which_route_answered(inside, asked):
    seen = []

    class Measures:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            async def relay(message):
                if message["type"] == "http.response.start":
                    seen.append((scope["endpoint"], scope["path_params"], scope["path"]))
                await send(message)

            before = scope["headers"]
            await self.app(scope, receive, relay)
            assert scope["headers"] is before and "note" in scope and "gone" not in scope

    @cached_route(ttl="5m")
    async def product(request):
        request.scope.update(note=1, gone=2)
        assert request.scope.pop("gone") == 2 and request.scope.pop("gone", 3) == 3
        assert request.scope.setdefault("note", 4) == 1 and request.scope.setdefault("other", 5) == 5
        del request.scope["other"]
        return PlainTextResponse("text " * 500, headers={"etag": '"b"'})

    app = shop(
        Route("/products/{number}", product), above=[Middleware(Measures)], below=[AROUND[one] for one in inside],
        compression=True,
    )  # fmt: skip
    get(app, "/products/1", headers=asked)
    assert seen == [(product, {"number": "1"}, "/products/1")]


def test_a_route_is_private_where_its_response_is():
    @cached_route(ttl="5m", shared=True)
    async def mine(request):
        return PlainTextResponse("mine", headers={"cache-control": "private"})

    @cached_route(ttl="5m", shared=True)
    async def cookie(request):
        response = PlainTextResponse("cookie")
        response.set_cookie("a", "b")
        return response

    @cached_route(ttl="5m")
    async def strangers(request):
        return PlainTextResponse("for strangers")

    @cached_route(ttl="5m")
    async def failing(request):
        raise HTTPException(503)

    app = shop(*(Route(f"/{fn.__name__}", fn) for fn in (mine, cookie, strangers, failing)))
    for path in ("/mine", "/cookie", "/failing"):
        assert "hit" not in get(app, path, path)[1].headers["cache-status"]
    get(app, "/strangers")
    assert "hit" in get(app, "/strangers")[0].headers["cache-status"]
    assert "hit" not in get(app, "/strangers", headers={"cookie": "user=1"})[0].headers["cache-status"]
    assert "hit" not in get(app, "/strangers", headers={"authorization": "Bearer x"})[0].headers["cache-status"]


class Members(AuthenticationBackend):
    """Knows users by a field of the application's own."""

    async def authenticate(self, conn):
        name = conn.headers.get("x-member")
        return (AuthCredentials(["member"]), SimpleUser(name)) if name else None


@pytest.mark.parametrize("where", ["above", "below"])
@pytest.mark.parametrize("stored", ["route", "rule", "age"])
def test_whom_the_application_knows_gets_their_own(where, stored):
    """``scope["user"]``, however AuthenticationMiddleware came to it, and wherever it stands."""

    async def endpoint(request):
        age = {"Cache-Control": "max-age=60"} if stored == "age" else None
        return PlainTextResponse(request.user.display_name or "stranger", headers=age)

    page = cached_route(ttl="5m")(endpoint) if stored == "route" else endpoint
    rules = [Rule("/**", ttl="5m")] if stored == "rule" else []
    place = {where: [Middleware(AuthenticationMiddleware, backend=Members())]}
    app = shop(Route("/me", page), rules=rules, **place)
    seen = [get(app, "/me", headers={"x-member": who} if who else {})[0] for who in ("ann", "bob", "", "", "")]
    assert [got.text for got in seen] == ["ann", "bob", *["stranger"] * 3]
    assert "hit" in seen[4].headers["cache-status"]
    if where == "above":
        assert get(app, "/me", headers={"x-member": "ann"})[0].text == "ann", "nor is the page of a stranger theirs"


def test_a_rule_that_keeps_responses_out_stands_in_front_of_a_route():
    calls = Calls()
    route = Route("/products/{number}", calls.kinds["plain"])
    kept_out = shop(route, rules=[Rule("/products/**", store=False)])
    assert [r.json()["calls"] for r in get(kept_out, "/products/1", "/products/1")] == [1, 2]
    clock = ManualClock()
    shorter = shop(route, cache=Cache(clock=clock), rules=[Rule("/**", ttl="10s")])
    get(shorter, "/products/1")
    clock.advance(60)  # the route's own five minutes hold
    assert "hit" in get(shorter, "/products/1")[0].headers["cache-status"]


def test_ttl_classes_and_stale_while_revalidate():
    clock = ManualClock()
    calls = []

    @cached_route("prices", stale_while_revalidate="1h", tags=lambda request: [f"page:{request.url.path}"])
    async def prices(request):
        calls.append(1)
        return JSONResponse(len(calls))

    cache = Cache(clock=clock, ttl_classes={"prices": "1m"})
    app = shop(Route("/prices", prices), cache=cache)
    assert [r.json() for r in get(app, "/prices", "/prices")] == [1, 1]
    clock.advance(61)

    async def main():
        import httpx

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop") as client:
            stale = (await client.get("/prices")).json()
            for _ in range(100):
                await asyncio.sleep(0)
            return stale, (await client.get("/prices")).json()

    assert asyncio.run(main()) == (1, 2)
    cache.invalidate("page:/prices")
    assert get(app, "/prices")[0].json() == 3


def test_a_route_added_later_is_found():
    calls = Calls()
    app = shop()
    get(app, "/nothing")
    app.router.routes.append(Route("/products/{number}", calls.kinds["plain"]))
    assert [r.json()["calls"] for r in get(app, "/products/1", "/products/1")] == [1, 1]


def test_a_tag_that_cannot_be_made_keeps_the_response_out(caplog):
    @cached_route(ttl="5m", tags=lambda request: [1 / 0])
    async def broken(request):
        return PlainTextResponse("fine")

    app = shop(Route("/", broken))
    with caplog.at_level(logging.ERROR, "cachekit"):
        first, again = get(app, "/", "/")
    assert (first.text, "hit" in again.headers["cache-status"]) == ("fine", False)
    assert "its response is not kept" in caplog.text


def test_a_tag_that_a_client_has_spoilt_keeps_the_response_out_whatever_else_says_that_it_may_stay(caplog):
    seen = []

    @cached_route(ttl="5m", tags=["catalogue", "product:{name}"])
    async def product(request):
        seen.append(request.path_params["name"])
        return PlainTextResponse(str(len(seen)), headers={"cache-control": "max-age=300"})

    cache = Cache()
    app = shop(Route("/products/{name}", product), cache=cache, rules=[Rule("/products/*", ttl="5m")])
    for name in ("x" * 600, "%00"):
        first, again = get(app, f"/products/{name}", f"/products/{name}")
        assert (first.text == again.text, "hit" in again.headers["cache-status"]) == (False, False)
    assert [record.exc_info for record in caplog.records if "its response is not kept" in record.message] == [None] * 4
    assert get(app, "/products/1", "/products/1")[1].headers["cache-tag"] == "catalogue,product:1"


def test_the_tags_of_a_response_that_is_not_kept_are_not_asked_for(caplog):
    def tags(request):
        return [f"user:{request.query_params['user']}"]

    @cached_route(ttl="5m", tags=tags)
    async def page(request):
        if "user" not in request.query_params:
            raise HTTPException(422)
        return PlainTextResponse("fine")

    app = shop(Route("/", page))
    assert [answer.status_code for answer in get(app, "/", "/?user=1")] == [422, 200]
    assert not caplog.records


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cached_route(tll="5m"), "no option 'tll' .did you mean 'ttl'"),
        (lambda: cached_route(lambda request: None), "parentheses"),
        (lambda: cached_route(status=200), "status=200"),
        (lambda: cached_route("5m", tags=None), "tags=None must be a list"),
        (lambda: cached_route("5m")(1), "1 cannot be marked"),
        (lambda: shop_of(cached_route("prices")), "prices"),
        (lambda: shop_of(cached_route(ttl="5m", tags=["product:{id}"])), "product:{id}"),
        (lambda: shop_of(cached_route(ttl="5m", tags="product")), "tags"),
        (lambda: shop_of(cached_route(), rules=["/x"]), "Rule"),
        (lambda: shop_of(cached_route(), options={"max_body": 1}), "HttpOptions"),
        (lambda: shop_of(cached_route(), compression="gzip"), "compression='gzip'"),
        (lambda: shop_of(cached_route(), cache="redis://localhost"), "cache='redis://localhost'"),
        (lambda: cachekit_lifespan("redis://localhost"), "must be a Cache"),
        (lambda: cachekit_lifespan(Cache(), "warm"), "Warmer"),
        (lambda: cachekit_lifespan(Cache(), lifespan=1), "lifespan=1"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def shop_of(mark, **options):
    @mark
    async def product(request): ...

    app = shop(Route("/products/{number}", product), **options)
    asyncio.run(app({"type": "lifespan", "app": None}, _startup(), _discard))


def _startup():
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    return receive


async def _discard(message): ...


def test_lifespan_warms_and_closes_around_the_applications_own():
    order = []

    class Closing(Cache):
        async def aclose(self):
            order.append("closed")
            await super().aclose()

    cache = Closing()
    warmer = Warmer(progress=False)

    @warmer.job
    async def warm():
        order.append("warmed")

    @asynccontextmanager
    async def own(app):
        order.append("opened")
        yield {"pool": 7}
        order.append("stopped")

    app = Starlette(lifespan=cachekit_lifespan(cache, warmer, lifespan=own))
    sent, state = [], {}

    async def send(message):
        sent.append(message["type"])
        order.append(message["type"].rpartition(".")[0])

    asyncio.run(app({"type": "lifespan", "app": app, "state": state}, _startup(), send))
    assert order == ["opened", "warmed", "lifespan.startup", "stopped", "closed", "lifespan.shutdown"]
    assert state["pool"] == 7


def test_the_lifespan_closes_the_cache_when_the_application_fails_to_start():
    closed = []

    class Closing(Cache):
        async def aclose(self):
            closed.append(True)

    @asynccontextmanager
    async def own(app):
        raise RuntimeError("no database")
        yield

    async def main():
        async with cachekit_lifespan(Closing(), lifespan=own)(None):
            raise AssertionError("not reached")

    with pytest.raises(RuntimeError, match="no database"):
        asyncio.run(main())
    assert closed == [True]


def test_tags_and_the_cache_of_a_request():
    cache, calls = Cache(), []

    async def page(request):
        calls.append(1)
        assert get_cache(request) is cache
        tag(request, "product:{number}", "catalog")
        return JSONResponse(len(calls))

    app = shop(Route("/{number}", page), cache=cache, rules=[Rule("/**", ttl="1h")])
    assert get(app, "/7")[0].headers["cache-tag"] == "catalog,product:7"
    cache.invalidate("product:7")
    assert get(app, "/7", "/8", "/7")[2].json() == 2
    with pytest.raises(ConfigError, match="Middleware"):
        get(Starlette(routes=[Route("/{number}", page)]), "/7")


def test_what_is_no_plain_response_passes_through(tmp_path):
    done, pieces = [], []
    (tmp_path / "a.txt").write_bytes(b"0123456789" * 1000)

    async def background(request):
        async def later():
            await anyio.sleep(0)
            done.append(request.url.path)

        return PlainTextResponse("ok", background=BackgroundTask(later))

    async def stream(request):
        async def body():
            for number in range(3):
                pieces.append(number)
                yield f"{number}\n".encode() * 400

        return StreamingResponse(body(), media_type="text/plain")

    async def file(request):
        return FileResponse(tmp_path / "a.txt")

    async def talk(websocket):
        assert isinstance(get_cache(websocket), Cache)
        await websocket.accept()
        await websocket.send_text((await websocket.receive_text()).upper())
        await websocket.close()

    async def wrong(request):
        raise ValueError("broken")

    async def handler(request, exc):
        return PlainTextResponse(f"handled {exc}", status_code=418)

    app = Starlette(
        routes=[
            Route("/background", background), Route("/stream", stream), Route("/file", file), Route("/wrong", wrong),
            WebSocketRoute("/talk", talk), Mount("/mounted", routes=[Route("/file", file)]),
        ],
        middleware=[Middleware(CacheKit, cache=Cache(), compression=Compression(minimum=1))],
        exception_handlers={ValueError: handler},
    )  # fmt: skip
    answers = get(
        app, "/background", "/stream", "/file", "/mounted/file", "/wrong", headers={"accept-encoding": "gzip"}
    )
    assert [r.status_code for r in answers] == [200, 200, 200, 200, 418]
    assert (done, pieces) == (["/background"], [0, 1, 2])
    assert answers[1].text == "0\n" * 400 + "1\n" * 400 + "2\n" * 400
    assert answers[1].headers["content-encoding"] == "gzip"
    assert answers[2].content == answers[3].content == b"0123456789" * 1000
    assert answers[4].text == "handled broken"
    part = get(shop(Route("/file", file)), "/file", headers={"range": "bytes=5-9"})[0]
    assert (part.status_code, part.content) == (206, b"56789")

    said = []

    async def socket(message):
        said.append(message)

    heard = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}])

    async def hear():
        return next(heard)

    scope = {"type": "websocket", "path": "/talk", "headers": [], "query_string": b"", "subprotocols": []}
    asyncio.run(app(scope, hear, socket))
    assert [m["type"] for m in said] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert said[1]["text"] == "HELLO"


def test_a_server_that_sends_files_itself_still_does(tmp_path):
    if "pathsend" not in inspect.getsource(FileResponse):
        pytest.skip("this version of Starlette sends all files itself")
    (tmp_path / "a.txt").write_bytes(b"file")

    async def file(request):
        return FileResponse(tmp_path / "a.txt")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"shop")], "query_string": b"", "scheme": "http",
        "http_version": "1.1", "extensions": {"http.response.pathsend": {}},
    }  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    app = shop(Route("/", file), rules=[Rule("/**", ttl="1h")], compression=True)
    asyncio.run(app(scope, receive, send))
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.pathsend"]


def test_conditional_requests_are_answered_from_the_cache():
    calls = Calls()
    app = shop(Route("/products/{number}", calls.kinds["plain"]), options=HttpOptions(status_name="shop"))
    etag = get(app, "/products/1", "/products/1")[1].headers["etag"]
    answer = get(app, "/products/1", headers={"if-none-match": etag})[0]
    assert (answer.status_code, calls.seen) == (304, ["1"])
    assert answer.headers["cache-status"].startswith("shop; hit")


@pytest.mark.parametrize("place", ["middleware", "outside"])
def test_the_page_of_an_error_is_not_kept(place):
    from cachekit.asgi import CacheKit as Outside

    calls = []

    async def wrong(request):
        calls.append(1)
        raise ValueError(f"secret {len(calls)}")

    kit = Middleware(CacheKit, cache=Cache(), rules=[Rule("/**", ttl="1h")])
    app = Starlette(debug=True, routes=[Route("/", wrong)], middleware=[kit] if place == "middleware" else [])
    if place == "outside":
        app = Outside(app, cache=Cache(), rules=[Rule("/**", ttl="1h")], compression=True)
    answers = get(app, "/", "/", headers={"accept": "text/html"}, raise_app_exceptions=False)
    assert [answer.status_code for answer in answers] == [500, 500]
    assert "secret 1" in answers[0].text
    assert "secret 2" in answers[1].text


def test_what_a_route_declares_is_told_past_the_cache_too():
    @cached_route(ttl="5m", tags=["product:{number}"], cache_control="max-age=60")
    async def product(request):
        return PlainTextResponse("one")

    @cached_route(ttl="5m", tags=["product:{number}"])
    async def late(request):
        calls.append(request)
        return PlainTextResponse("one", headers={"cache-control": "private"} if len(calls) == 1 else None)

    calls: list[object] = []
    app = shop(Route("/products/{number}", product), Route("/late/{number}", late), cache=Cache())
    answers = get(app, *["/products/1"] * 4, headers={"cookie": "theme=dark"})
    told = [(r.headers.get("cache-tag"), r.headers.get("cache-control")) for r in answers]
    assert told == [("product:1", "private, max-age=60")] * 4
    said = [r.headers["cache-status"] for r in get(app, *["/late/1"] * 4)]
    assert [status.rpartition("; ")[2].partition("=")[0] for status in said] == ["fwd", "fwd", "stored", "ttl"]
    told = [r.headers.get("cache-tag") for r in get(app, *["/late/2"] * 3, headers={"cookie": "theme=dark"})]
    assert told == ["product:2"] * 3
