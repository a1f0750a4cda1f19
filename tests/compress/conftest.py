"""Both edges behind one interface: an application that answers as told, grammar checked, bodies decoded by other code."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from wsgiref.validate import validator

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from cachekit.compress import asgi, wsgi
from cachekit.compress.options import Compression
from cachekit.http.headers import first, values

TEXT = b'{"carrier": "UA", "delay": 12.5, "dest": "SFO"}\n' * 100


@dataclass
class Got:
    """A response as the client saw it."""

    status: int
    headers: list[tuple[str, str]]
    pieces: list[bytes] = field(default_factory=list)

    @property
    def raw(self) -> bytes:
        return b"".join(self.pieces)

    def get(self, name: str) -> str | None:
        return first(self.headers, name.lower())

    def all(self, name: str) -> list[str]:
        return values(self.headers, name.lower())

    @property
    def coding(self) -> str | None:
        return self.get("content-encoding")

    @property
    def body(self) -> bytes:
        return decode(self.raw, self.coding)


def decode(raw: bytes, coding: str | None) -> bytes:
    if coding == "gzip":
        return gzip.decompress(raw)
    if coding == "br":
        return bytes(brotli.decompress(raw))
    if coding == "zstd":
        return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(raw))
    assert coding is None
    return raw


class Edge:
    """An application behind compression."""

    kind = ""

    def __init__(self) -> None:
        self.options = Compression()
        self.status = 200
        self.headers: list[tuple[str, str]] = [("Content-Type", "application/json")]
        self.pieces: list[bytes] = [TEXT]
        self.calls = 0
        self.seen: dict[str, str] = {}

    def answers(self, *pieces: bytes, status: int = 200, **headers: str) -> None:
        self.status = status
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.pieces = list(pieces)

    def ask(self, accept: str | None = "gzip", method: str = "GET", path: str = "/", **headers: str) -> Got:
        fields = {"host": "shop.example"} | {name.replace("_", "-").lower(): value for name, value in headers.items()}
        if accept is not None:
            fields["accept-encoding"] = accept
        return self.call(method, path, fields)

    def call(self, method: str, path: str, fields: dict[str, str]) -> Got:
        raise NotImplementedError


class AsgiEdge(Edge):
    kind = "asgi"

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        self.seen = {name.decode(): value.decode() for name, value in scope["headers"]}
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        pieces = [b""] if scope["method"] == "HEAD" else self.pieces or [b""]
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": pieces[-1], "more_body": False})

    def call(self, method: str, path: str, fields: dict[str, str]) -> Got:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(asgi.Compress(self.app, self.options)(scope, receive, send))
        assert [message["type"] for message in sent] == [
            "http.response.start", *["http.response.body"] * (len(sent) - 1)
        ]  # fmt: skip
        assert [message.get("more_body", False) for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
        for name, value in sent[0]["headers"]:
            assert type(name) is bytes
            assert name == name.lower()
            assert type(value) is bytes
        decoded = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        return Got(sent[0]["status"], decoded, [message.get("body", b"") for message in sent[1:]])


class WsgiEdge(Edge):
    kind = "wsgi"

    def app(self, environ: Any, start_response: Any) -> Any:
        self.calls += 1
        self.seen = {
            name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name[:5] == "HTTP_"
        }
        start_response(f"{self.status} Some Reason", list(self.headers))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else iter(self.pieces) if len(self.pieces) > 1 else self.pieces

    def call(self, method: str, path: str, fields: dict[str, str]) -> Got:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_NAME": "x",
            "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.version": (1, 0), "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(), "wsgi.multithread": True,
            "wsgi.multiprocess": False, "wsgi.run_once": False,
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()},
        }  # fmt: skip
        got = Got(0, [])

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            del exc_info
            got.status, got.headers = int(status[:3]), headers
            return got.pieces.append

        # The validator hides that a list is a list, and with it the length of a body that comes in one piece.
        app: Any = self.app if len(self.pieces) == 1 else validator(self.app)
        wrapped = validator(wsgi.Compress(app, self.options))  # type: ignore[arg-type]
        body = wrapped(environ, start_response)
        try:
            got.pieces.extend(body)
        finally:
            body.close()  # type: ignore[attr-defined]
        return got


@pytest.fixture(params=[AsgiEdge, WsgiEdge], ids=lambda kind: kind.kind)
def edge(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield request.param()
