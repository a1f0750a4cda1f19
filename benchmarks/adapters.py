"""The adapters in process: what a request costs over the bare framework, beside the peers that are installed.

The bare framework, with a view that costs nothing, is the floor: below 1 the adapter answers before the framework is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import time
from typing import Any

import redis

from benchmarks.measure import awaited, blocking, interleaved, show
from benchmarks.sessions import SMALL, act, data
from cachekit import Cache
from cachekit.stores.embedded import EmbeddedServer

CALLS, ROUNDS, VISITORS = 1_000, 10, 16
COUNTER, SHOP = "one number", f"a shop's of {SMALL}"
VISITOR = data(SMALL)
PAYLOAD = {"rows": [{"number": number, "name": f"product {number}"} for number in range(40)]}
ENVIRON = {
    "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/page", "QUERY_STRING": "", "SERVER_NAME": "bench",
    "SERVER_PORT": "80", "HTTP_HOST": "bench", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http", "wsgi.input": None, "wsgi.errors": None, "wsgi.multithread": True,
    "wsgi.multiprocess": False, "wsgi.run_once": False, "HTTP_ACCEPT": "*/*",
}  # fmt: skip
SCOPE: dict[str, Any] = {
    "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET",
    "scheme": "http", "path": "/page",
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
    kept = sessions() and kept
    server = EmbeddedServer()
    try:
        kept = sessions(server.url) and kept
    finally:
        server.close()
    return compression() and kept


def sessions(url: str = "") -> bool:
    """Print what sessions cost: in the memory of the process, or on the server at *url*."""
    kept, where = True, "on a server" if url else "in memory"
    for what, kind in itertools.product(("reads", "changes"), (COUNTER, SHOP)):
        if importlib.util.find_spec("flask") is not None:
            found = {name: blocking(call) for name, call in flask_sessions(what, kind, url).items()}
            rows = interleaved(found, calls=CALLS // 2, rounds=ROUNDS)
            kept = show(f"Flask, a view that {what} its session, {kind}, {where}", rows, "bare Flask") and kept
        if importlib.util.find_spec("starlette") is not None:
            with asyncio.Runner() as runner:
                made = starlette_sessions(what, kind, runner, url)
                calls = {name: awaited(call, runner) for name, call in made.items()}
                rows = interleaved(calls, calls=CALLS // 2, rounds=ROUNDS)
                title = f"Starlette, an endpoint that {what} its session, {kind}, {where}"
                kept = show(title, rows, "bare Starlette") and kept
            if url:
                with asyncio.Runner() as runner:
                    crowds = starlette_crowds(what, kind, runner, url)
                    rows = interleaved(crowds, calls=CALLS // 2, rounds=ROUNDS)
                    kept = show(f"{title}, {VISITORS} visitors at once", rows, "bare Starlette") and kept
    return kept


def use(session: Any, what: str, kind: str) -> None:
    """Do with *session* what a request does: begin it, read it, or change it."""
    if kind == COUNTER:
        if what == "changes" or "user" not in session:
            session["user"] = session.get("user", 0) + 1
        assert session["user"]
    else:
        if "user_id" not in session:
            session.update(VISITOR)
        act(session, "read" if what == "reads" else "modify")


def compression() -> bool:
    """Print what compression costs."""
    kept = True
    if importlib.util.find_spec("starlette") is not None:
        with asyncio.Runner() as runner:
            for kind in ("a JSON page of 1.7 KB", "a stream of 20 such pieces"):
                calls = {name: awaited(call, runner) for name, call in starlette_compression(kind).items()}
                rows = interleaved(calls, calls=CALLS // 2, rounds=ROUNDS)
                kept = show(f"Starlette, {kind}, gzip of level 4", rows, "GZipMiddleware of Starlette") and kept
    return kept


def _ask_wsgi(app: Any, cookie: str = "", heads: list[Any] | None = None) -> Any:
    environ = {**ENVIRON, "HTTP_COOKIE": cookie} if cookie else ENVIRON

    def start(status: str, headers: Any, exc_info: Any = None) -> Any:
        assert status.startswith("200")
        if heads is not None:
            heads[:] = headers

    def call() -> None:
        body = app(dict(environ), start)
        size = sum(map(len, body))
        close = getattr(body, "close", None)
        if close is not None:
            close()
        assert size > 1000

    call()
    return call


def _ask_asgi(app: Any, *fields: tuple[bytes, bytes], heads: list[Any] | None = None) -> Any:
    scope = {**SCOPE, "headers": [*SCOPE["headers"], *fields]}

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            if heads is not None:
                heads[:] = message["headers"]

    async def call() -> None:
        await app(dict(scope), receive, send)

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


def flask_sessions(what: str, kind: str, url: str) -> dict[str, Any]:
    import flask
    from cachekit_flask import CacheKitSessionInterface

    def build(prepare: Any = lambda app: None, *, uses: bool = True) -> Any:
        app = flask.Flask("bench")
        app.secret_key = "a secret for benchmarks alone"
        prepare(app)

        def page() -> Any:
            if uses:
                use(flask.session, what, kind)
            return PAYLOAD

        app.add_url_rule("/page", "page", page)
        heads: list[Any] = []
        _ask_wsgi(app, heads=heads)
        cookie = next((value.partition(";")[0] for name, value in heads if name == "Set-Cookie"), "")
        return _ask_wsgi(app, cookie)

    def ours(app: Any) -> None:
        app.session_interface = CacheKitSessionInterface(Cache(url) if url else Cache())

    calls = {"bare Flask": build(uses=False), "Flask's own (in the cookie)": build(), "cachekit": build(ours)}
    with contextlib.suppress(ImportError):
        from cachelib import SimpleCache
        from flask_session import Session

        def peer(app: Any) -> None:
            if url:
                app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(url))
            else:
                app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache())
            Session(app)

        calls["Flask-Session"] = build(peer)
    return calls


def starlette_sessions(what: str, kind: str, runner: asyncio.Runner, url: str) -> dict[str, Any]:
    return {name: visitor() for name, visitor in starlette_visitors(what, kind, runner, url).items()}


def starlette_crowds(what: str, kind: str, runner: asyncio.Runner, url: str) -> dict[str, Any]:
    """Return contestants that many visitors ask at once: no processor waits for the server then."""

    def crowd(visitor: Any) -> Any:
        calls = [visitor() for _ in range(VISITORS)]

        async def work(number: int) -> float:
            async def one(call: Any) -> None:
                for _ in range(number // VISITORS):
                    await call()

            started = time.perf_counter()
            await asyncio.gather(*map(one, calls))
            return time.perf_counter() - started

        return lambda number: runner.run(work(number))

    return {name: crowd(visitor) for name, visitor in starlette_visitors(what, kind, runner, url).items()}


def starlette_visitors(what: str, kind: str, runner: asyncio.Runner, url: str) -> dict[str, Any]:
    """Return, for each contestant, what makes a visitor with a session of their own."""
    import cachekit_starlette
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def build(*middleware: Any, uses: bool = True, load: bool = False) -> Any:
        async def page(request: Any) -> Any:
            if uses:
                if load:
                    from starsessions import load_session

                    await load_session(request)
                use(request.session, what, kind)
            return JSONResponse(PAYLOAD)

        app = Starlette(routes=[Route("/page", page)], middleware=middleware)

        def visitor() -> Any:
            heads: list[Any] = []
            runner.run(_ask_asgi(app, heads=heads)())
            cookie = next((value.partition(b";")[0] for name, value in heads if name.lower() == b"set-cookie"), None)
            return _ask_asgi(app, *([] if cookie is None else [(b"cookie", cookie)]))

        return visitor

    secret = "a secret for benchmarks alone"
    ours: Any = cachekit_starlette.SessionMiddleware
    visitors = {
        "bare Starlette": build(uses=False),
        "Starlette's own (in the cookie)": build(Middleware(SessionMiddleware, secret_key=secret)),
        "cachekit": build(Middleware(ours, secret_key=secret, store=Cache(url) if url else Cache())),
    }
    with contextlib.suppress(ImportError):
        from starsessions import InMemoryStore
        from starsessions import SessionMiddleware as Peer
        from starsessions.stores.redis import RedisStore

        kept_in: Any = RedisStore(url) if url else InMemoryStore()
        peer = Middleware(Peer, store=kept_in, rolling=True, lifetime=3600, cookie_https_only=False)
        visitors["starsessions"] = build(peer, load=True)
    return visitors


def starlette_compression(kind: str) -> dict[str, Any]:
    import json

    import cachekit_starlette
    from cachekit_starlette import CacheKit, Compression
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    piece = json.dumps(PAYLOAD).encode()

    async def page(request: Any) -> Any:
        return JSONResponse(PAYLOAD)

    async def stream(request: Any) -> Any:
        async def body() -> Any:
            for _ in range(20):
                yield piece

        return StreamingResponse(body(), media_type="application/json")

    def build(*middleware: Any) -> Any:
        endpoint = stream if "stream" in kind else page
        heads: list[Any] = []
        app = Starlette(routes=[Route("/page", endpoint)], middleware=middleware)
        return _ask_asgi(app, (b"accept-encoding", b"gzip"), heads=heads)

    calls = {
        "GZipMiddleware of Starlette": build(Middleware(GZipMiddleware, compresslevel=4)),
        "GZipMiddleware of cachekit": build(Middleware(cachekit_starlette.GZipMiddleware, compresslevel=4)),
        "cachekit, compression=": build(
            Middleware(CacheKit, cache=Cache(), compression=Compression(codings=["gzip"], levels={"gzip": 4}))
        ),
    }
    with contextlib.suppress(ImportError):
        from starlette_compress import CompressMiddleware

        # It flushes no piece: ten bytes of a stream go out at once, all the others when it ends.
        name = "starlette-compress" + (", which sends no piece before the end" if "stream" in kind else "")
        calls[name] = build(Middleware(CompressMiddleware, gzip_level=4))
    return calls


if __name__ == "__main__":
    main()
