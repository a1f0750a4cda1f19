"""The adapters in process: what a request costs over the bare framework, beside Flask-Caching and fastapi-cache2.

The bare framework, with a view that costs nothing, is the floor: below 1 the adapter answers before the framework is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from typing import Any

from benchmarks.measure import awaited, blocking, interleaved, show
from cachekit import Cache

CALLS, ROUNDS = 1_000, 10
PAYLOAD = {"rows": [{"number": number, "name": f"product {number}"} for number in range(40)]}
ENVIRON = {
    "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/page", "QUERY_STRING": "", "SERVER_NAME": "bench",
    "SERVER_PORT": "80", "HTTP_HOST": "bench", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http", "wsgi.input": None, "wsgi.errors": None, "wsgi.multithread": True,
    "wsgi.multiprocess": False, "wsgi.run_once": False, "HTTP_ACCEPT": "*/*",
}  # fmt: skip
SCOPE: dict[str, Any] = {
    "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/page",
    "raw_path": b"/page", "query_string": b"", "root_path": "", "headers": [(b"host", b"bench"), (b"accept", b"*/*")],
    "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "extensions": {},
}  # fmt: skip


def main() -> bool:
    kept = True
    if importlib.util.find_spec("flask") is not None:
        rows = interleaved({name: blocking(call) for name, call in flask_calls().items()}, calls=CALLS, rounds=ROUNDS)
        kept = show("Flask, a JSON page of 1.7 KB", rows, "bare Flask") and kept
    if importlib.util.find_spec("starlette") is not None:
        with asyncio.Runner() as runner:
            calls = {name: awaited(call, runner) for name, call in starlette_calls().items()}
            kept = (
                show("Starlette, the same", interleaved(calls, calls=CALLS, rounds=ROUNDS), "bare Starlette") and kept
            )
    if importlib.util.find_spec("fastapi") is not None:
        with asyncio.Runner() as runner:
            calls = {name: awaited(call, runner) for name, call in fastapi_calls().items()}
            kept = show("FastAPI, the same", interleaved(calls, calls=CALLS, rounds=ROUNDS), "bare FastAPI") and kept
    return kept


def _ask_wsgi(app: Any) -> Any:
    def start(status: str, headers: Any, exc_info: Any = None) -> Any:
        assert status.startswith("200")

    def call() -> None:
        body = app(dict(ENVIRON), start)
        size = sum(map(len, body))
        close = getattr(body, "close", None)
        if close is not None:
            close()
        assert size > 1000

    call()
    return call


def _ask_asgi(app: Any) -> Any:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200

    async def call() -> None:
        await app(dict(SCOPE), receive, send)

    return call


def flask_calls() -> dict[str, Any]:
    import flask
    from cachekit_flask import CacheKit, Rule

    def page() -> Any:
        return PAYLOAD

    def build(decorate: Any = lambda view: view, prepare: Any = lambda app: None) -> Any:
        app = flask.Flask("bench")
        decorator = prepare(app)
        app.add_url_rule("/page", "page", (decorator or decorate)(page))
        return app

    calls = {"bare Flask": _ask_wsgi(build())}

    def passing(app: Any) -> None:
        CacheKit(app, cache=Cache())

    def ruled(app: Any) -> None:
        CacheKit(app, cache=Cache(), rules=[Rule("/page", ttl="1h")])

    calls["cachekit, a page that is not stored"] = _ask_wsgi(build(prepare=passing))
    calls["cachekit, a hit by rule"] = _ask_wsgi(build(prepare=ruled))
    calls["cachekit, a hit of cached()"] = _ask_wsgi(
        build(prepare=lambda app: CacheKit(app, cache=Cache()).cached(ttl="1h"))
    )
    if importlib.util.find_spec("flask_caching") is not None:
        from flask_caching import Cache as Peer

        def peer(app: Any) -> Any:
            return Peer(app, config={"CACHE_TYPE": "SimpleCache"}).cached(timeout=3600)

        calls["Flask-Caching, a hit of cached()"] = _ask_wsgi(build(prepare=peer))
    return calls


def starlette_calls() -> dict[str, Any]:
    from cachekit_starlette import CacheKit, cached_route
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def page(request: Any) -> Any:
        return JSONResponse(PAYLOAD)

    @cached_route(ttl="1h")
    async def kept(request: Any) -> Any:
        return JSONResponse(PAYLOAD)

    def middleware() -> Any:
        return [Middleware(CacheKit, cache=Cache())]

    return {
        "bare Starlette": _ask_asgi(Starlette(routes=[Route("/page", page)])),
        "cachekit, a page that is not stored": _ask_asgi(
            Starlette(routes=[Route("/page", page)], middleware=middleware())
        ),
        "cachekit, a hit of cached_route()": _ask_asgi(
            Starlette(routes=[Route("/page", kept)], middleware=middleware())
        ),
    }


def fastapi_calls() -> dict[str, Any]:
    from cachekit_starlette import CacheKit, cached_route
    from fastapi import FastAPI

    def build(decorate: Any = lambda endpoint: endpoint, *, kit: bool = True) -> Any:
        app = FastAPI()
        if kit:
            app.add_middleware(CacheKit, cache=Cache())

        async def page() -> dict[str, Any]:
            return PAYLOAD

        app.get("/page")(decorate(page))
        return app

    calls = {
        "bare FastAPI": _ask_asgi(build(kit=False)),
        "cachekit, a page that is not stored": _ask_asgi(build()),
        "cachekit, a hit of cached_route()": _ask_asgi(build(cached_route(ttl="1h"))),
    }
    with contextlib.suppress(ImportError):
        from fastapi_cache import FastAPICache
        from fastapi_cache.backends.inmemory import InMemoryBackend
        from fastapi_cache.decorator import cache

        FastAPICache.init(InMemoryBackend())
        calls["fastapi-cache2, a hit of cache()"] = _ask_asgi(build(cache(expire=3600), kit=False))
    return calls


if __name__ == "__main__":
    main()
