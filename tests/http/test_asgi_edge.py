"""What is particular to ASGI: other scopes, extensions, odd applications, and a real framework."""

from __future__ import annotations

import asyncio

import pytest

from cachekit.asgi import CacheKit, HttpOptions, Rule
from cachekit.http.asgi import request_of
from tests.background import background_done
from tests.http.test_collapsing import receive, scope_of

FRESH = [(b"cache-control", b"max-age=60")]


def call(app, scope, messages=None, receive=receive):
    sent = []

    async def send(message):
        sent.append(message)

    async def inner(scope, receive, send):
        for message in messages:
            await send(message)

    asyncio.run((app if messages is None else app(inner))(scope, receive, send))
    return sent


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something.else"])
def test_other_scopes_pass_untouched(cache, kind):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    async def send(message): ...

    scope = {"type": kind}
    asyncio.run(CacheKit(app, cache=cache)(scope, receive, send))
    assert seen[0][0] is scope
    assert seen[0][1:] == (receive, send)


def start(**more):
    return {"type": "http.response.start", "status": 200, "headers": FRESH, **more}


EXTENSIONS = [
    ("pathsend", [start(), {"type": "http.response.pathsend", "path": "/etc/x"}]),
    ("zero copy", [start(), {"type": "http.response.zerocopysend", "file": 3}]),
    (
        "trailers",
        [
            start(trailers=True),
            {"type": "http.response.body", "body": b"a"},
            {"type": "http.response.trailers", "headers": [(b"x", b"y")]},
        ],
    ),
    ("body, then pathsend", [start(), {"type": "http.response.body", "body": b"a", "more_body": True},
                             {"type": "http.response.pathsend", "path": "/etc/x"}]),
]  # fmt: skip


@pytest.mark.parametrize("messages", [e[1] for e in EXTENSIONS], ids=[e[0] for e in EXTENSIONS])
def test_extensions_pass_and_are_not_stored(cache, messages):
    for _ in range(2):
        sent = call(lambda inner: CacheKit(inner, cache=cache), scope_of(), messages)
        assert sent[1:] == messages[1:]
        assert sent[0].get("trailers") == messages[0].get("trailers")
        assert not any(b"hit" in value for _, value in sent[0]["headers"])


def test_early_hints_pass_before_the_response(cache):
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>"]}
    messages = [hint, start(), {"type": "http.response.body", "body": b"a"}]
    app = lambda inner: CacheKit(inner, cache=cache)  # noqa: E731
    assert call(app, scope_of(), messages)[0] is hint
    sent = call(app, scope_of(), messages)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


def test_receive_is_the_server_s_own(cache):
    seen = []

    async def app(scope, receive, send):
        seen.append(receive)
        await send(start())
        await send({"type": "http.response.body"})

    call(CacheKit(app, cache=cache), {**scope_of(), "method": "POST"})
    call(CacheKit(app, cache=cache, options=HttpOptions(collapse=False)), scope_of())
    assert seen == [receive, receive]


def test_unreadable_headers_pass_untouched(cache):
    odd = {"type": "http.response.start", "status": 200, "headers": [(1, 2)]}
    body = {"type": "http.response.body", "body": b"a"}
    assert call(lambda inner: CacheKit(inner, cache=cache), scope_of(), [odd, body]) == [odd, body]


def test_an_unreadable_request_passes_by(cache):
    messages = [start(), {"type": "http.response.body", "body": b"a"}]
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [("text", "x")]}
    assert call(lambda inner: CacheKit(inner, cache=cache), scope, messages) == messages


def test_the_body_passes_as_it_is(cache):
    body = {"type": "http.response.body", "body": b"a", "more_body": False, "custom": 1}
    assert call(lambda inner: CacheKit(inner, cache=cache), scope_of(), [start(), body])[1] is body


def test_an_application_that_never_answers(cache):
    assert call(lambda inner: CacheKit(inner, cache=cache), scope_of(), []) == []
    assert call(lambda inner: CacheKit(inner, cache=cache), scope_of(), [start()])[0]["type"] == "http.response.start"
    sent = call(lambda inner: CacheKit(inner, cache=cache), scope_of(), [start(), {"type": "http.response.body"}])
    assert b"fwd=uri-miss" in dict(sent[0]["headers"])[b"cache-status"]


def test_a_client_that_leaves_stores_nothing(cache):
    async def app(scope, receive, send):
        await send(start())
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def send(message):
        if message.get("body") == b"a":
            raise OSError("client left")

    site = CacheKit(app, cache=cache)
    with pytest.raises(OSError, match="client left"):
        asyncio.run(site(scope_of(), receive, send))
    assert b"uri-miss" in dict(call(site, scope_of())[0]["headers"])[b"cache-status"]


PATHS = [
    ({"path": "/a", "raw_path": b"/a"}, "/a"),
    ({"path": "/a"}, "/a"),
    ({"path": "/a b"}, "/a%20b"),
    ({"path": "/a/b", "raw_path": b"/a%2Fb"}, "/a%2Fb"),
    ({"path": "/ä", "raw_path": b"/%C3%A4"}, "/%C3%A4"),
    ({"path": "/rewritten", "raw_path": b"/original"}, "/rewritten?/original"),
    ({"path": "/a", "raw_path": None, "query_string": b"b=c"}, "/a?b=c"),
]


@pytest.mark.parametrize(("scope", "target"), PATHS)
def test_what_the_key_is_made_of(scope, target):
    assert request_of({"type": "http", "method": "get", "headers": [], **scope}).target == target


def test_starlette(cache):
    import httpx
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    calls = []

    async def product(request):
        calls.append(request.path_params["id"])
        return PlainTextResponse(f"product {request.path_params['id']}")

    def stream(request):
        calls.append("stream")
        return StreamingResponse(iter([b"a", b"b"]), headers={"Cache-Control": "max-age=60"})

    inner = Starlette(routes=[Route("/product/{id}", product), Route("/stream", stream)])
    app = CacheKit(inner, cache=cache, rules=[Rule("/product/{id}", ttl="1h", tags=["product:{id}"])])

    async def job():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://example.org") as client:
            for _ in range(2):
                assert (await client.get("/product/42")).text == "product 42"
                assert (await client.get("/stream")).text == "ab"
            await cache.ainvalidate("product:42")
            assert (await client.get("/product/42")).text == "product 42"

    asyncio.run(job())
    assert calls == ["42", "stream", "42"]


def test_a_streaming_response_is_revalidated_behind(cache, clock):
    """Frameworks watch ``receive`` for a disconnect while they stream: from a background job nobody disconnects."""
    import httpx
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    calls = []

    async def chunks():
        yield b"a"
        await asyncio.sleep(0)
        yield str(len(calls)).encode()

    async def stream(request):
        calls.append(1)
        return StreamingResponse(chunks(), headers={"Cache-Control": "max-age=60, stale-while-revalidate=60"})

    app = CacheKit(Starlette(routes=[Route("/s", stream)]), cache=cache)

    async def job():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            await client.get("/s")
            clock.advance(61)
            assert (await client.get("/s")).text == "a1"
            await background_done()
            assert (await client.get("/s")).text == "a2"

    asyncio.run(job())


def test_the_default_cache_is_used_when_none_is_given(monkeypatch, cache):
    monkeypatch.setattr("cachekit.default.default_cache", lambda: cache)

    async def app(scope, receive, send):
        await send(start())
        await send({"type": "http.response.body", "body": b"a"})

    site = CacheKit(app)
    call(site, scope_of())
    assert site.http.hits == 0
    call(site, scope_of())
    assert site.http.hits == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_request_without_a_host_passes_by(cache, method, caplog):
    """HTTP/1.0 knows no Host."""
    scope = {**scope_of("/page"), "method": method, "headers": []}
    for _ in range(2):
        sent = call(
            lambda app: CacheKit(app, cache=cache), scope, [start(), {"type": "http.response.body", "body": b"a"}]
        )
        assert sent[-1]["body"] == b"a"
        assert b"age" not in dict(sent[0]["headers"])
    assert caplog.text == ""
