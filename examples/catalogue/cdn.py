"""A stand-in for a CDN, small enough to read: keeps pages by their Cache-Control, drops them by their Cache-Tag.

It obeys the purge API of Cloudflare. Like a real one it keeps what it was fetching while a purge passed by.

``python -m examples.catalogue.cdn PORT ORIGIN...`` with the token in ``CATALOGUE_CDN_TOKEN``.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PURGE = "/client/v4/zones/catalogue/purge_cache"
LIFETIME = re.compile(r"(?:s-maxage|max-age)=([1-9]\d*)")
HOST = "shop.example"


@dataclass(frozen=True)
class Kept:
    """A page at the CDN."""

    headers: list[tuple[str, str]]
    body: bytes
    tags: frozenset[str]


class Cdn(ThreadingHTTPServer):
    """Serves pages of *origins* in turn."""

    daemon_threads = True

    def __init__(self, port: int, origins: list[str], token: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.origins = itertools.cycle(origins)
        self.token = token
        self.kept: dict[str, Kept] = {}
        self.lock = threading.Lock()

    def fetch(self, path: str) -> tuple[int, list[tuple[str, str]], bytes]:
        """Ask an origin."""
        connection = http.client.HTTPConnection(next(self.origins), timeout=10)
        try:
            connection.request("GET", path, headers={"Host": HOST})
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def keep(self, path: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """Keep a page if it may be."""
        fields = {name.lower(): value for name, value in headers}
        if LIFETIME.search(fields.get("surrogate-control", fields.get("cache-control", ""))):
            tags = frozenset(tag.strip() for tag in fields.get("cache-tag", "").split(","))
            with self.lock:
                self.kept[path] = Kept([h for h in headers if h[0].lower() != "cache-tag"], body, tags)

    def purge(self, order: dict[str, Any]) -> int:
        """Drop what *order* names; returns how many pages that were."""
        tags, files = order.get("tags", ()), order.get("files", ())
        with self.lock:
            gone = [
                path
                for path, page in self.kept.items()
                if order.get("purge_everything") or page.tags & set(tags) or f"https://{HOST}{path}" in files
            ]
            for path in gone:
                del self.kept[path]
        return len(gone)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Cdn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer from what is kept, else from an origin."""
        page = self.server.kept.get(self.path)
        if page is not None:
            self.answer(200, [*page.headers, ("X-Cdn", "HIT")], page.body)
            return
        status, headers, body = self.server.fetch(self.path)
        if status == 200:
            self.server.keep(self.path, headers, body)
        headers = [header for header in headers if header[0].lower() != "cache-tag"]
        self.answer(status, [*headers, ("X-Cdn", "MISS")], body)

    def do_POST(self) -> None:
        """Obey a purge."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != PURGE or self.headers.get("authorization") != f"Bearer {self.server.token}":
            refused = {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]}
            self.answer(403, [], json.dumps(refused).encode())
            return
        gone = self.server.purge(json.loads(body))
        done = {"success": True, "errors": [], "messages": [], "result": {"id": "catalogue", "pages": gone}}
        self.answer(200, [], json.dumps(done).encode())

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a response."""
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


if __name__ == "__main__":
    Cdn(int(sys.argv[1]), sys.argv[2:], os.environ["CATALOGUE_CDN_TOKEN"]).serve_forever()
