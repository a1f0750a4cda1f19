"""Hits on a server, beside the same command sent by the client library alone, and the commands that each operation costs.

Run alone with ``python -m benchmarks.redis_roundtrip``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import redis
import redis.asyncio

from benchmarks.measure import awaited, blocking, concurrent, interleaved, show
from cachekit import Cache
from cachekit.stores.embedded import EmbeddedServer

CALLS, ROUNDS = 1_000, 11
VALUE = {"name": "a product", "price": 12.5, "stock": 7, "text": "x" * 900, "list": list(range(20))}


def main() -> bool:
    budget = json.loads(Path(__file__).with_name("budget.json").read_text())
    kept = True
    server = EmbeddedServer()
    try:
        raw = redis.Redis(unix_socket_path=str(server.socket), protocol=2)
        raw.set("raw", msgpack.packb(VALUE))
        with Cache(server.url, namespace="bench") as cache:
            ours = cache.cached(ttl="5m", tags=["item:{number}"])(lambda number: VALUE)
            ours(1)
            contestants: dict[str, Callable[[int], float]] = {
                "redis-py GET + msgpack": blocking(lambda: msgpack.unpackb(raw.get("raw"))),
                "cachekit, one tag": blocking(lambda: ours(1)),
                "cachekit get()": blocking(lambda: cache.get("direct")),
            }
            cache.set("direct", VALUE, ttl="5m")
            rows = interleaved(contestants, calls=CALLS, rounds=ROUNDS)
            kept &= show("Hit on a server, blocking", rows, "redis-py GET + msgpack", budget["redis_blocking"])

        with asyncio.Runner() as runner:
            araw = redis.asyncio.Redis(unix_socket_path=str(server.socket), protocol=2, max_connections=100)
            acache = Cache(server.url, namespace="bench")

            @acache.cached(ttl="5m", tags=["item:{number}"], key="async:{number}")
            async def item(number: int) -> Any:
                return VALUE

            async def floor() -> Any:
                return msgpack.unpackb(await araw.get("raw"))

            runner.run(floor())
            runner.run(item(1))
            calls: dict[str, Callable[[], Any]] = {
                "redis-py GET + msgpack": floor,
                "cachekit, one tag": lambda: item(1),
            }
            rows = interleaved({n: awaited(c, runner) for n, c in calls.items()}, calls=CALLS, rounds=ROUNDS)
            kept &= show(
                "Hit on a server, asyncio, one by one", rows, "redis-py GET + msgpack", budget["redis_asyncio"]
            )
            rows = interleaved({n: concurrent(c, runner, 64) for n, c in calls.items()}, calls=CALLS * 2, rounds=ROUNDS)
            kept &= show(
                "Hit on a server, asyncio, 64 tasks", rows, "redis-py GET + msgpack", budget["redis_asyncio_64"]
            )
            runner.run(acache.aclose())
            runner.run(araw.aclose())

        with Cache(server.url, namespace="count") as cache:
            tagged = cache.cached(ttl="5m", tags=["item:{number}", "all"])(lambda number: VALUE)
            for number in range(10_000):
                cache.set(f"k{number}", number, ttl="5m", tags=["all"])
            tagged(1)
            print("\n### Commands sent\n\n| | commands | with 10,000 entries under the tag, x PING |\n|---|---:|---:|")
            ping = blocking(raw.ping)
            drop = blocking(lambda: cache.invalidate("all"))
            rows = interleaved({"ping": ping, "drop": drop}, calls=200, rounds=ROUNDS)
            tagged(1)
            print(f"| hit with two tags | {_sent(raw, lambda: tagged(1))} | |")
            print(
                f"| keep a value with two tags | {_sent(raw, lambda: cache.set('k', 1, ttl=60, tags=['a', 'b']))} | |"
            )
            print(f"| drop a tag | {_sent(raw, lambda: cache.invalidate('all'))} | {_times(rows):.2f} |")
        raw.close()
    finally:
        server.close()
    return kept


def _times(rows: Any) -> float:
    from benchmarks.measure import ratio

    return ratio(rows["drop"], rows["ping"])


def _sent(client: Any, call: Callable[[], object]) -> int:
    """Return how many commands *call* sent, as MONITOR shows them; what a script calls on the server is not sent."""
    with client.monitor() as monitor:
        client.echo("start")
        call()
        client.echo("end")
        count = -1
        for command in monitor.listen():
            if command["command"] == "ECHO end":
                return count
            if command["command"] == "ECHO start":
                count = 0
            elif count >= 0 and command["client_type"] != "lua":
                count += 1
    raise AssertionError("the monitor ended early")


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
