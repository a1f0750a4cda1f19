"""From ``invalidate`` having returned to no other process serving the old value: three processes with a first level each.

Run alone with ``python -m benchmarks.propagation``. By client tracking and, for a user who may not track, by publishing.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import redis

READERS, ROUNDS = 3, 300


def read(url: str) -> None:
    """Be a reader: say when the first level no longer serves the value of each round."""
    from cachekit import Cache

    cache = Cache(url, timeout=5.0)
    while line := sys.stdin.readline():
        key = line.strip()
        cache.get_or_set(key, lambda: 1, tags=[f"t:{key}"])
        while cache.peek(key) is None:
            cache.get(key)
        print(cache.stats().channel_kind, flush=True)
        while cache.peek(key) is not None:
            time.sleep(0.00005)
        print(time.monotonic(), flush=True)


def measure(url: str, writing: str) -> tuple[str, list[float]]:
    """Return the kind of channel, and the seconds that the last reader was late in each round."""
    from cachekit import Cache

    readers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.propagation", url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        for _ in range(READERS)
    ]  # fmt: skip
    kind, late = "", []
    try:
        with Cache(writing) as cache:
            for number in range(ROUNDS):
                for reader in readers:
                    _ask(reader, f"k{number}")
                kinds = [_said(reader) for reader in readers]
                kind = kinds[0]
                cache.invalidate(f"t:k{number}")
                returned = time.monotonic()
                late.append(max(0.0, *(float(_said(reader)) - returned for reader in readers)))
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    return kind, sorted(late[ROUNDS // 10 :])


def _ask(process: Any, line: str) -> None:
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _said(process: Any) -> str:
    line: str = process.stdout.readline()
    return line.strip()


def main() -> bool:
    from cachekit.stores.embedded import EmbeddedServer

    server = EmbeddedServer()
    client = redis.Redis(unix_socket_path=str(server.socket), protocol=2)
    rules = ("on", ">word", "~*", "&*", "+@all", "-client|tracking")
    client.execute_command("ACL", "SETUSER", "limited", *rules)  # type: ignore[no-untyped-call]
    print("\n### From an invalidation to the last of three other processes\n")
    print("| channel | p50, ms | p99, ms | longest, ms |\n|---|---:|---:|---:|")
    try:
        for url in (server.url, server.url.replace("unix://", "unix://limited:word@")):
            kind, late = measure(f"tiered+{url}", server.url)
            p50, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
            print(f"| {kind} | {p50 * 1000:.2f} | {p99 * 1000:.2f} | {late[-1] * 1000:.2f} |")
    finally:
        client.close()
        server.close()
    return True


if __name__ == "__main__":
    if len(sys.argv) > 1:
        read(sys.argv[1])
    else:
        raise SystemExit(0 if main() else 1)
