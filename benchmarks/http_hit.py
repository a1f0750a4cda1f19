"""A hit of the HTTP cache in process, beside the bare application and a bare dictionary."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.measure import awaited, blocking, interleaved, show
from cachekit import Cache
from cachekit.asgi import CacheKit, Rule
from cachekit.wsgi import CacheKit as WsgiCacheKit

CALLS, ROUNDS = 3_000, 9
BODY = b"x" * 10_240
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"10240")]
SCOPE: dict[str, Any] = {
    "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/kept",
    "raw_path": b"/kept", "query_string": b"", "root_path": "", "headers": [(b"host", b"bench")],
    "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
}  # fmt: skip


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "10240")])
    return [BODY]


def bare_dict() -> Any:
    kept: dict[str, Any] = {"/kept": (HEADERS, BODY)}

    async def cached(scope: Any, receive: Any, send: Any) -> None:
        headers, body = kept[scope["path"]]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return cached


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    return None


def main() -> bool:
    wrapped = CacheKit(app, cache=Cache(), rules=[Rule("/kept", ttl="1h")])
    floor = bare_dict()
    with asyncio.Runner() as runner:
        runner.run(wrapped(dict(SCOPE), receive, send))
        rows = interleaved(
            {
                "bare dict cache": awaited(lambda: floor(dict(SCOPE), receive, send), runner),
                "bare application": awaited(lambda: app(dict(SCOPE), receive, send), runner),
                "cachekit hit": awaited(lambda: wrapped(dict(SCOPE), receive, send), runner),
                "cachekit, not stored": awaited(lambda: wrapped({**SCOPE, "path": "/x"}, receive, send), runner),
            },
            calls=CALLS,
            rounds=ROUNDS,
        )
    show("HTTP, ASGI, 10 KB", rows, "bare dict cache")

    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/kept", "QUERY_STRING": "", "SERVER_NAME": "bench",
        "SERVER_PORT": "80", "HTTP_HOST": "bench", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
    }  # fmt: skip
    wsgi = WsgiCacheKit(wsgi_app, cache=Cache(), rules=[Rule("/kept", ttl="1h")])

    def call(target: Any) -> None:
        body = target(dict(environ), lambda status, headers, exc_info=None: None)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    call(wsgi)
    rows = interleaved(
        {"bare application": blocking(lambda: call(wsgi_app)), "cachekit hit": blocking(lambda: call(wsgi))},
        calls=CALLS,
        rounds=ROUNDS,
    )
    show("HTTP, WSGI, 10 KB", rows, "bare application")
    return True


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
