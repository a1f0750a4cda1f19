"""Real servers in one process: a scripted origin on a raw socket, and both edges of the cache in front of it under uvicorn.

The origin says exactly the bytes that it is told to say, so that what no framework would send can be tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from a2wsgi import WSGIMiddleware

from cachekit import Cache
from cachekit.http import asgi, wsgi
from cachekit.http.headers import HOP_BY_HOP
from cachekit.http.options import HttpOptions
from cachekit.proxy import ReverseProxy
from cachekit.testing import ManualClock


@dataclass
class Say:
    """What the origin sends. *cut* bytes of the body are sent before it hangs up; *hangs_up* says nothing at all."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    status: int = 200
    body: bytes = b"body"
    reason: str = "Word"
    cut: int | None = None
    hangs_up: bool = False
    interim: bytes = b""
    raw: bool = False


@dataclass
class Heard:
    method: str
    target: str
    headers: httpx.Headers
    body: bytes


class Origin:
    """The server behind, on a loop of its own thread."""

    def __init__(self) -> None:
        self.script: list[Say] = [Say()]
        self.heard: list[Heard] = []
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()
            server.close()

        self.loop.run_until_complete(main())
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def says(self, *script: Say) -> None:
        self.script = list(script)
        self.heard = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = httpx.Headers(
            [line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in head[1:-2]]
        )
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.heard.append(Heard(method, target, headers, body))
        say = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if say.hangs_up:
            return False
        lines = list(say.headers)
        names = {name.lower() for name, _ in lines}
        bodiless = method == "HEAD" or say.status in (204, 304)
        if not say.raw and not bodiless and not names & {"content-length", "transfer-encoding"}:
            lines.append(("Content-Length", str(len(say.body))))
        text = "".join(f"{name}: {value}\r\n" for name, value in lines)
        writer.write(say.interim + f"HTTP/1.1 {say.status} {say.reason}\r\n{text}\r\n".encode("latin-1"))
        if not bodiless:
            writer.write(say.body if say.cut is None else say.body[: say.cut])
        await writer.drain()
        return say.cut is None and not say.raw and "close" not in dict(lines).get("Connection", "")


def plain_wsgi_proxy(to: str, transport: httpx.HTTPTransport) -> Any:
    """Return the plainest reverse proxy there is: every line of the answer goes on as it came."""

    def app(environ: Any, start_response: Any) -> Any:
        headers = [(n[5:].replace("_", "-"), v) for n, v in environ.items() if n.startswith("HTTP_")]
        length = int(environ.get("CONTENT_LENGTH") or 0)
        request = httpx.Request(
            environ["REQUEST_METHOD"], to, headers=headers, content=environ["wsgi.input"].read(length) if length else None,
            extensions={"target": (environ["PATH_INFO"] + "?" + environ["QUERY_STRING"]).rstrip("?").encode("latin-1")},
        )  # fmt: skip
        response = transport.handle_request(request)
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
        kept = [pair for pair in lines if pair[0].lower() not in HOP_BY_HOP - {"connection"}]
        start_response(f"{response.status_code} Word", kept)
        try:
            yield from response.stream
        finally:
            response.close()

    return app


class Through:
    """Both edges before one origin. ``client`` asks the chosen one."""

    def __init__(self) -> None:
        self.origin = Origin()
        self.clock = ManualClock()
        to = f"http://127.0.0.1:{self.origin.port}"
        self.transport = httpx.HTTPTransport(trust_env=False)
        self.proxies = {
            "asgi": ReverseProxy(to, clock=self.clock, timeout=10),
            "wsgi": plain_wsgi_proxy(to, self.transport),
        }
        self.apps: dict[str, Any] = {}
        self.servers = {}
        self.threads = []
        self.clients = {}
        for edge in self.proxies:
            config = uvicorn.Config(
                self._entry(edge), port=0, lifespan="on", log_level="critical", date_header=False, server_header=False
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            self.servers[edge], self.threads = server, [*self.threads, thread]
        deadline = threading.Event()
        for edge, server in self.servers.items():
            while not server.started:
                deadline.wait(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            self.clients[edge] = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20)
        self.reset()

    def _entry(self, edge: str) -> Any:
        async def entry(scope: Any, receive: Any, send: Any) -> None:
            app = self.apps[edge] if scope["type"] == "http" else self.proxies["asgi"]
            await app(scope, receive, send)

        return entry

    def reset(self, **options: Any) -> None:
        """Begin with an empty cache, and *options* for both edges."""
        self.cache = Cache("memory://", clock=self.clock)
        made = HttpOptions(**options)
        self.apps = {
            "asgi": asgi.HttpCache(self.proxies["asgi"], self.cache, options=made),
            "wsgi": WSGIMiddleware(wsgi.HttpCache(self.proxies["wsgi"], self.cache, options=made)),
        }

    def close(self) -> None:
        for client in self.clients.values():
            client.close()
        for server in self.servers.values():
            server.should_exit = True
        for thread in self.threads:
            thread.join(10)
        self.transport.close()
        self.origin.close()
