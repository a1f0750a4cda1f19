"""The HTTP cache in process: hits, responses that are not stored, POST, and a hundred thousand URLs.

The floor is what one would write by hand: a dictionary with Vary, 304, Age, an LRU and single flight.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from functools import partial
from typing import Any

from benchmarks.http_peers import peers
from benchmarks.measure import awaited, blocking, interleaved, show
from cachekit import Cache
from cachekit.asgi import CacheKit, Rule
from cachekit.wsgi import CacheKit as WsgiCacheKit

CALLS, ROUNDS = 3_000, 12
MANY = 100_000
BODY = b"x" * 10_240
SMALL = b"x" * 2_048
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"10240"),
    (b"cache-control", b"max-age=3600, public"),
]
LITTLE = [HEADERS[0], (b"content-length", b"2048"), HEADERS[2]]
REFUSED = [*HEADERS[:2], (b"cache-control", b"no-store")]
ASKED = [
    (b"host", b"bench"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip, deflate"), (b"user-agent", b"bench/1.0"),
    (b"connection", b"keep-alive"),
]  # fmt: skip
SCOPE: dict[str, Any] = {
    "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/kept",
    "raw_path": b"/kept", "query_string": b"", "root_path": "", "headers": ASKED, "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80), "extensions": {}, "state": {},
}  # fmt: skip


async def app(scope: Any, receive: Any, send: Any) -> None:
    refused, many = scope["path"] == "/refused", scope["path"].startswith("/many")
    headers = REFUSED if refused else LITTLE if many else HEADERS
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": SMALL if many else BODY})


def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    control = "no-store" if environ["PATH_INFO"] == "/refused" else "max-age=3600, public"
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", "10240"), ("Cache-Control", control)]
    )
    return [BODY]


class BareDict:
    """The floor of ASGI."""

    def __init__(self, app: Any, limit: int = 200_000) -> None:
        self.app = app
        self.limit = limit
        self.kept: OrderedDict[Any, Any] = OrderedDict()
        self.flights: dict[Any, asyncio.Future[None]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            self.kept.pop((scope["path"], scope["query_string"]), None)
            await self.app(scope, receive, send)
            return
        sent = dict(scope["headers"])
        base = (scope["path"], scope["query_string"])
        if (found := self._find(base, sent)) is not None:
            await self._serve(found, sent, method, send)
            return
        if (flight := self.flights.get(base)) is not None:
            await flight
            if (found := self._find(base, sent)) is not None:
                await self._serve(found, sent, method, send)
                return
        flight = self.flights[base] = asyncio.get_running_loop().create_future()
        head: Any = None
        chunks: list[bytes] = []

        async def record(message: Any) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = message
            elif message["type"] == "http.response.body":
                chunks.append(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, record)
            self._keep(base, sent, head, b"".join(chunks))
        finally:
            self.flights.pop(base, None)
            flight.set_result(None)

    def _find(self, base: Any, sent: Any) -> Any:
        variants = self.kept.get(base)
        if variants is None:
            return None
        names, by_values = variants
        found = by_values.get(tuple(sent.get(name) for name in names))
        if found is None or found[0] <= time.time():
            return None
        self.kept.move_to_end(base)
        return found

    async def _serve(self, found: Any, sent: Any, method: str, send: Any) -> None:
        _, made, status, headers, etag, body = found
        age = (b"age", b"%d" % (time.time() - made))
        if etag is not None and sent.get(b"if-none-match") == etag:
            await send({"type": "http.response.start", "status": 304, "headers": [*headers, age]})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": status, "headers": [*headers, age]})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    def _keep(self, base: Any, sent: Any, head: Any, body: bytes) -> None:
        fields = dict(head["headers"])
        control = fields.get(b"cache-control", b"")
        if b"no-store" in control or b"max-age=" not in control:
            return
        ttl = int(control.split(b"max-age=")[1].split(b",")[0])
        names = tuple(name.strip().lower() for name in fields.get(b"vary", b"").split(b",") if name.strip())
        now = time.time()
        values = tuple(sent.get(name) for name in names)
        entry = (now + ttl, now, head["status"], head["headers"], fields.get(b"etag"), body)
        self.kept.setdefault(base, (names, {}))[1][values] = entry
        while len(self.kept) > self.limit:
            self.kept.popitem(last=False)


class BareWsgiDict:
    """The floor of WSGI."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.kept: OrderedDict[Any, Any] = OrderedDict()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        method = environ["REQUEST_METHOD"]
        base = (environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        if method not in ("GET", "HEAD"):
            self.kept.pop(base, None)
            return self.app(environ, start_response)
        found = self.kept.get(base)
        if found is not None:
            names, by_values = found
            stored = by_values.get(tuple(environ.get(name) for name in names))
            if stored is not None and stored[0] > time.time():
                self.kept.move_to_end(base)
                _, made, status, headers, etag, body = stored
                sent = [*headers, ("Age", str(int(time.time() - made)))]
                if etag is not None and environ.get("HTTP_IF_NONE_MATCH") == etag:
                    start_response("304 Not Modified", sent)
                    return []
                start_response(status, sent)
                return [] if method == "HEAD" else [body]
        taken: list[Any] = []

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            taken[:] = [status, headers]
            return start_response(status, headers)

        body = b"".join(self.app(environ, start))
        fields = dict(taken[1])
        control = fields.get("Cache-Control", "")
        if "no-store" not in control and "max-age=" in control:
            now = time.time()
            ttl = int(control.split("max-age=")[1].split(",")[0])
            entry = (now + ttl, now, taken[0], taken[1], fields.get("ETag"), body)
            self.kept.setdefault(base, ((), {}))[1][()] = entry
        return [body]


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    return None


def asgi() -> None:
    # A miss that is remembered as uncacheable for as long as this runs, as a busy site would see it.
    wrapped, floor = CacheKit(app, cache=Cache(), rules=[Rule("/kept", ttl="1h")]), BareDict(app)
    others = {name: wrap(app) for name, wrap in peers().items()}
    contestants: dict[str, Any] = {}
    refused, post = {**SCOPE, "path": "/refused", "raw_path": b"/refused"}, {**SCOPE, "method": "POST"}
    with asyncio.Runner() as runner:
        for made in (wrapped, floor, *others.values()):
            runner.run(made(dict(SCOPE), receive, send))
        target: Any
        for what, scope in (("hit", SCOPE), ("no-store", refused), ("POST", {**post, "path": "/p", "raw_path": b"/p"})):
            ours = {"bare application": app, "bare dict": floor, "cachekit": wrapped}
            for name, target in {**ours, **others}.items():
                contestants[f"{name}, {what}"] = awaited(partial(_asked, target, scope), runner)
        show("HTTP, ASGI, 10 KB", interleaved(contestants, calls=CALLS, rounds=ROUNDS), "bare dict, hit")

        for made in others.values():
            if (storage := getattr(made, "storage", None)) is not None:
                runner.run(storage.close())

        # A hit among many: the request's strings are new each time, as from a server.
        wrapped, floor = CacheKit(app, cache=Cache(max_entries=2 * MANY, max_bytes=2**30)), BareDict(app)
        for made in (wrapped, floor):
            runner.run(_fill(made))
        order = itertools.cycle([(number * 7919) % MANY for number in range(MANY)])
        rows = interleaved(
            {
                name: awaited(partial(_asked_next, target, order), runner)
                for name, target in (("bare dict", floor), ("cachekit", wrapped))
            },
            calls=CALLS,
            rounds=ROUNDS,
        )
        show(f"HTTP, ASGI, a hit among {MANY:,} of 2 KB (the scope included)", rows, "bare dict")


def _asked(target: Any, scope: dict[str, Any]) -> Any:
    return target(dict(scope), receive, send)


def _asked_next(target: Any, order: Any) -> Any:
    return target({**SCOPE, **_many(next(order))}, receive, send)


async def _fill(target: Any) -> None:
    for number in range(MANY):
        await target({**SCOPE, **_many(number)}, receive, send)


def _many(number: int) -> dict[str, Any]:
    path = f"/many/{number}"
    return {"path": path, "raw_path": path.encode()}


def wsgi() -> None:
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/kept", "QUERY_STRING": "", "SERVER_NAME": "bench",
        "SERVER_PORT": "80", "HTTP_HOST": "bench", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
        "HTTP_ACCEPT": "*/*", "HTTP_ACCEPT_ENCODING": "gzip, deflate", "HTTP_USER_AGENT": "bench/1.0",
        "HTTP_CONNECTION": "keep-alive", "REMOTE_ADDR": "127.0.0.1", "wsgi.version": (1, 0), "wsgi.multithread": True,
    }  # fmt: skip
    wrapped, floor = WsgiCacheKit(wsgi_app, cache=Cache(), rules=[Rule("/kept", ttl="1h")]), BareWsgiDict(wsgi_app)

    def call(target: Any, asked: dict[str, Any]) -> None:
        body = target(dict(asked), lambda status, headers, exc_info=None: None)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    contestants: dict[str, Any] = {}
    for what, change in (("hit", {}), ("no-store", {"PATH_INFO": "/refused"}), ("POST", {"REQUEST_METHOD": "POST"})):
        asked = {**environ, **change} if what != "POST" else {**environ, **change, "PATH_INFO": "/p"}
        for name, target in (("bare application", wsgi_app), ("bare dict", floor), ("cachekit", wrapped)):
            call(target, asked)
            contestants[f"{name}, {what}"] = blocking(partial(call, target, asked))
    show("HTTP, WSGI, 10 KB", interleaved(contestants, calls=CALLS, rounds=ROUNDS), "bare dict, hit")


def main() -> bool:
    asgi()
    wsgi()
    return True


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
