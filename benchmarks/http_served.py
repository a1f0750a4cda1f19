"""The HTTP cache as its users meet it: through uvicorn, in a stampede, and in memory.

Servers run in processes of their own; requests come over kept-alive sockets from a generator that does nothing else than
count. Peers are measured where they are installed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.http_hit import BareDict, receive
from benchmarks.http_peers import peers, proxies

CONNECTIONS, SLICES, SLICE_SECONDS = 32, 12, 0.5
STORED, SIZE, CROWD, SLOW = 100_000, 2_048, 100, 0.3
WITH_FIELDS = "bare application, fields of a hit"
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


async def with_fields(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the fields that a hit of cachekit has: what they cost is the server's."""
    if scope["type"] != "http":
        return
    more = [(b"age", b"3"), (b"cache-status", b"cachekit; hit; ttl=3597")]
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *more]})
    await send({"type": "http.response.body", "body": BODY})


def contestant(name: str) -> Any:
    """Return the application called *name*."""
    if name in (found := peers()):
        return found[name](app)
    if name == "cachekit":
        from cachekit import Cache
        from cachekit.asgi import CacheKit

        return CacheKit(app, cache=Cache())
    return {"bare dict": BareDict(app), WITH_FIELDS: with_fields}.get(name, app)


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
    """Compare requests a second, and the processor time of the server for each, which a busy machine disturbs less."""
    names = ["bare application", WITH_FIELDS, "bare dict", "cachekit", *peers()]
    others = proxies()
    ports = {name: _free_port() for name in (*names, *others)}
    commands = {
        name: [sys.executable, "-m", "benchmarks.http_served", "--serve", name, str(ports[name])] for name in names
    }
    commands |= {name: command(ports[name], ports[names[0]]) for name, command in others.items()}
    servers: dict[str, subprocess.Popen[bytes]] = {}
    rates: dict[str, list[float]] = {name: [] for name in commands}
    costs: dict[str, list[float]] = {name: [] for name in commands}
    try:
        for name, command in commands.items():
            servers[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _await_port(ports[name])
        for turn in range(SLICES + 1):  # the first warms up
            for name in commands:
                before, started = _busy(servers[name].pid), time.perf_counter()
                rate = asyncio.run(load(ports[name], SLICE_SECONDS))
                spent = _busy(servers[name].pid) - before
                if turn:
                    rates[name].append(rate)
                    costs[name].append(spent / max(1.0, rate * (time.perf_counter() - started)) * 1e6)
    finally:
        for server in servers.values():
            server.terminate()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    parts = [name for name in ("httptools", "uvloop") if importlib.util.find_spec(name)]
    print(
        f"\n### HTTP, hits, {CONNECTIONS} connections, 10 KB; uvicorn with {' and '.join(parts) or 'h11 and asyncio'}\n"
    )
    print(
        "| | requests a second | x bare application | us of the server's processor each | bare application's / this |"
    )
    print("|---|---:|---:|---:|---:|")
    for name in commands:
        ratio = statistics.median(a / b for a, b in zip(rates[name], rates[names[0]], strict=True))
        row = f"| {name} | {statistics.median(rates[name]):,.0f} | {ratio:.2f} |"
        if name in others or not all(costs[name]):
            print(f"{row} | |")  # several threads or processes
        else:
            capacity = statistics.median(a / b for a, b in zip(costs[names[0]], costs[name], strict=True))
            print(f"{row} {statistics.median(costs[name]):.1f} | {capacity:.2f} |")


def _busy(pid: int) -> float:
    """Return the seconds that the main thread of process *pid* has run, 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


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
