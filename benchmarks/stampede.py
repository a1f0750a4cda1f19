"""200 callers in 4 processes ask for a value that takes 300 ms and is not there: loads, commands, the slowest caller.

Run alone with ``python -m benchmarks.stampede``. Peers are measured when they are installed, each with the strongest
protection that it offers across processes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis

PROCESSES, CALLERS, SECONDS, ROUNDS = 4, 50, 0.3, 3
runs: list[int] = []


def load() -> str:
    runs.append(1)
    time.sleep(SECONDS)
    return "value"


async def aload() -> str:
    runs.append(1)
    await asyncio.sleep(SECONDS)
    return "value"


def _ours(url: str) -> Callable[[], Any]:
    from cachekit import Cache

    return Cache(url, timeout=5.0).cached(key="k", ttl=60)(load)


def _dogpile(url: str) -> Callable[[], Any]:
    from dogpile.cache import make_region

    options = {
        "url": url,
        "distributed_lock": True,
        "lock_timeout": 30,
        "thread_local_lock": False,
    }
    region = make_region().configure("dogpile.cache.redis", expiration_time=60, arguments=options)
    return lambda: region.get_or_create("k", load)


async def _ours_async(url: str) -> Callable[[], Awaitable[Any]]:
    from cachekit import Cache

    return Cache(url, timeout=5.0).cached(key="k", ttl=60)(aload)


async def _cashews(url: str) -> Callable[[], Awaitable[Any]]:
    from cashews import cache

    cache.setup(url, client_side=False)
    locked: Any = cache(ttl="60s", key="k", lock=True)(aload)
    return locked  # type: ignore[no-any-return]


BLOCKING: dict[str, Callable[[str], Callable[[], Any]]] = {
    "cachekit": _ours,
    "dogpile.cache, distributed lock": _dogpile,
}
ASYNCIO: dict[str, Callable[[str], Awaitable[Callable[[], Awaitable[Any]]]]] = {
    "cachekit, asyncio": _ours_async,
    "cashews, lock=True, asyncio": _cashews,
}


def work(name: str, url: str) -> None:
    """Be one of the processes."""
    took: list[float] = []
    if name in BLOCKING:
        call = BLOCKING[name](url)

        def one() -> None:
            started = time.perf_counter()
            call()
            took.append(time.perf_counter() - started)

        threads = [threading.Thread(target=one) for _ in range(CALLERS)]
        _wait()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        asyncio.run(_work(name, url, took))
    print(json.dumps({"runs": len(runs), "took": took}), flush=True)


async def _work(name: str, url: str, took: list[float]) -> None:
    call = await ASYNCIO[name](url)

    async def one() -> None:
        started = time.perf_counter()
        await call()
        took.append(time.perf_counter() - started)

    _wait()
    await asyncio.gather(*(one() for _ in range(CALLERS)))


def _wait() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def stampede(name: str, url: str, client: redis.Redis) -> tuple[int, float, int]:
    """Return loads, seconds of the slowest caller, and commands that reached the server."""
    client.flushall()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stampede", name, url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    try:
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise RuntimeError(f"{name} cannot run here")
        with client.monitor() as monitor:  # type: ignore[no-untyped-call]
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
            said = [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout is not None]
            client.echo("the end")
            commands = -1
            while (line := monitor.next_command())["command"] != "ECHO the end":
                commands += line["client_type"] != "lua" and line["command"].split()[0] not in (
                    "CLIENT",
                    "HELLO",
                    "PING",
                )
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return sum(one["runs"] for one in said), max(max(one["took"]) for one in said), commands + 1


def main() -> bool:
    from cachekit.stores.embedded import EmbeddedServer

    server = EmbeddedServer()
    client = redis.Redis(unix_socket_path=str(server.socket), protocol=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client.config_set("port", port)  # not every peer knows unix sockets
    url = f"redis://127.0.0.1:{port}/0"
    print(
        f"\n### {PROCESSES * CALLERS} callers in {PROCESSES} processes, a cold value that takes {SECONDS * 1000:.0f} ms\n"
    )
    print("| | loads | slowest caller, ms | commands |\n|---|---:|---:|---:|")
    try:
        contestants = [*BLOCKING, *ASYNCIO]
        rows: dict[str, list[tuple[int, float, int]]] = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name in contestants:
                try:
                    rows[name].append(stampede(name, url, client))
                except (RuntimeError, ValueError):
                    pass
        for name, found in rows.items():
            if found:
                loads, slowest, commands = sorted(found)[len(found) // 2]
                print(f"| {name} | {loads} | {slowest * 1000:,.0f} | {commands:,} |")
    finally:
        client.close()
        server.close()
    return all(loads == 1 and commands < 30 for name in rows if "cachekit" in name for loads, _, commands in rows[name])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1], sys.argv[2])
    else:
        raise SystemExit(0 if main() else 1)
