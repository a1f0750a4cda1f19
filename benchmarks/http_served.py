"""The HTTP cache as its users meet it: through uvicorn, in a stampede, and in memory.

Servers run in processes of their own; requests come over kept-alive sockets from a generator that does nothing else than
count. Peers are measured where they are installed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.http_hit import BareDict, receive

CONNECTIONS, SLICES, SLICE_SECONDS = 32, 12, 0.5
STORED, SIZE, CROWD, SLOW = 100_000, 2_048, 100, 0.3
BODY = b"x" * 10_240
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"10240"),
    (b"cache-control", b"max-age=3600, public"),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def contestant(name: str) -> Any:
    """Return the application called *name*."""
    if name == "cachekit":
        from cachekit import Cache
        from cachekit.asgi import CacheKit

        return CacheKit(app, cache=Cache())
    return BareDict(app) if name == "bare dict" else app


def serve(name: str, port: int) -> None:
    import uvicorn

    uvicorn.run(contestant(name), host="127.0.0.1", port=port, log_level="critical", lifespan="off")


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answers = 0
        self.left = 0
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        while data:
            if self.left:
                taken = min(self.left, len(data))
                self.left -= taken
                data = data[taken:]
            else:
                self.head += data
                head, end, data = self.head.partition(b"\r\n\r\n")
                if not end:
                    return
                self.head = b""
                self.left = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            if not self.left:
                self.answers += 1
                self.transport.write(self.request)


async def load(port: int, seconds: float) -> float:
    """Return the requests a second that the server on *port* answers."""
    loop = asyncio.get_running_loop()
    request = f"GET /kept HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode()
    made = [(await loop.create_connection(lambda: Client(request), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)]
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = sum(client.answers for client in made) / (time.perf_counter() - started)
    for client in made:
        client.transport.abort()
    return rate


def through_uvicorn() -> None:
    names = ("bare application", "bare dict", "cachekit")
    ports: dict[str, int] = {}
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for name in names:
            with socket.create_server(("127.0.0.1", 0)) as free:
                ports[name] = free.getsockname()[1]
            servers.append(
                subprocess.Popen([sys.executable, "-m", "benchmarks.http_served", "--serve", name, str(ports[name])])
            )
        for port in ports.values():
            _await_port(port)
        rates: dict[str, list[float]] = {name: [] for name in names}
        for name in names:
            asyncio.run(load(ports[name], SLICE_SECONDS))
        for _ in range(SLICES):
            for name in names:
                rates[name].append(asyncio.run(load(ports[name], SLICE_SECONDS)))
    finally:
        for server in servers:
            server.kill()
            server.wait()
    print(f"\n### HTTP through uvicorn, hits, {CONNECTIONS} connections, 10 KB\n")
    print("| | requests a second | x bare application |\n|---|---:|---:|")
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(rates[name], rates[names[0]], strict=True))
        print(f"| {name} | {statistics.median(rates[name]):,.0f} | {ratio:.2f} |")


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


async def stampede(control: bytes) -> list[tuple[int, float]]:
    """Return executions and the seconds until the last answer of a crowd, the first time and once more."""
    from cachekit import Cache
    from cachekit.asgi import CacheKit

    calls = 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(SLOW)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", control)]})
        await send({"type": "http.response.body", "body": BODY})

    async def discard(message: Any) -> None:
        return None

    wrapped = CacheKit(slow, cache=Cache())
    scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"",
             "headers": [(b"host", b"bench")]}  # fmt: skip
    found = []
    for _ in range(2):
        calls, started = 0, time.perf_counter()
        await asyncio.gather(*(wrapped(dict(scope), receive, discard) for _ in range(CROWD)))
        found.append((calls, time.perf_counter() - started))
    return found


def stampedes() -> None:
    print(f"\n### {CROWD} concurrent requests to an application of {SLOW} s\n")
    print("| | executions | last answer |\n|---|---:|---:|")
    for name, control in (("cold", b"max-age=60"), ("no-store", b"no-store")):
        first, again = asyncio.run(stampede(control))
        print(f"| {name} | {first[0]} | {first[1]:.2f} s |")
        print(f"| {name}, once more | {again[0]} | {again[1]:.2f} s |")


def fill() -> None:
    """Store many responses, and print the bytes that each costs this process."""
    from cachekit import Cache
    from cachekit.asgi import CacheKit

    async def many(scope: Any, receive: Any, send: Any) -> None:
        body = scope["path"].encode().ljust(SIZE, b"x")
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(SIZE).encode()), HEADERS[2]]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def discard(message: Any) -> None:
        return None

    async def work() -> None:
        wrapped = CacheKit(many, cache=Cache(max_entries=2 * STORED, max_bytes=2**31))
        before = _resident()
        for number in range(STORED):
            path = f"/many/{number}"
            scope = {"type": "http", "method": "GET", "scheme": "http", "path": path, "raw_path": path.encode(),
                     "query_string": b"", "headers": [(b"host", b"bench")]}  # fmt: skip
            await wrapped(scope, receive, discard)
        assert wrapped.http._driver._cache.stats().entries == STORED  # type: ignore[attr-defined]
        print((_resident() - before) // STORED)

    asyncio.run(work())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory() -> None:
    if not Path("/proc/self/statm").exists():
        print("\nMemory is measured on Linux only.")
        return
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.http_served", "--fill"], check=True, capture_output=True, text=True
    )
    print(f"\n### {STORED:,} stored responses of {SIZE:,} bytes\n\n{int(made.stdout):,} bytes of RSS each")


def main() -> bool:
    through_uvicorn()
    stampedes()
    memory()
    return True


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["--fill"]:
        fill()
    else:
        raise SystemExit(0 if main() else 1)
