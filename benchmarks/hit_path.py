"""Hits in process: cachekit with everything on, beside its floors and the peers that are installed.

Run alone with ``python -m benchmarks.hit_path``. Everything on means TTL, a stale window, tags, the admission policy,
counters and dependency tracking.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, awaited, blocking, interleaved, show
from cachekit import Cache, collecting

CALLS, ROUNDS = 50_000, 15
OPTIONS: dict[str, Any] = {"ttl": "5m", "stale_while_revalidate": 30, "tags": ["item:{number}"]}


def product(number: int) -> dict[str, int]:
    return {"number": number}


async def aproduct(number: int) -> dict[str, int]:
    return {"number": number}


def blocking_contestants(tiered: Cache) -> dict[str, Callable[[int], float]]:
    floor = functools.lru_cache(maxsize=1024)(product)
    ours = Cache().cached(**OPTIONS)(product)
    both = tiered.cached(**OPTIONS)(product)
    made: dict[str, Callable[[], object]] = {
        "lru_cache": lambda: floor(1),
        "cachekit": lambda: ours(1),
        "cachekit, tiered": lambda: both(1),
    }
    ours(1)
    for _ in range(3):
        both(1)
    made.update(peers())
    return {name: blocking(call) for name, call in made.items()}


def peers() -> dict[str, Callable[[], object]]:
    made: dict[str, Callable[[], object]] = {}
    try:
        import cachetools

        kept = cachetools.cached(cachetools.TTLCache(1024, 300))(product)
        made["cachetools TTLCache, no lock, no tags"] = lambda: kept(1)
    except ImportError:
        pass
    try:
        import cachebox

        boxed = cachebox.cached(cachebox.TTLCache(1024, global_ttl=300))(product)
        made["cachebox TTLCache, no tags"] = lambda: boxed(1)
    except (ImportError, TypeError):
        pass
    try:
        from datetime import timedelta

        import theine

        memo = theine.Memoize(1024, timedelta(seconds=300))(product)
        made["theine, no tags"] = lambda: memo(1)
    except (ImportError, TypeError, AttributeError):
        pass
    try:
        from dogpile.cache import make_region

        region = make_region().configure("dogpile.cache.memory", expiration_time=300)
        piled = region.cache_on_arguments()(product)
        made["dogpile.cache, no tags"] = lambda: piled(1)
    except ImportError:
        pass
    for call in made.values():
        call()
    return made


def async_peers(runner: asyncio.Runner) -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {}
    try:
        import cachebox

        boxed: Any = cachebox.cached(cachebox.TTLCache(1024, global_ttl=300))(aproduct)
        made["cachebox TTLCache, no tags"] = lambda: boxed(1)
    except (ImportError, TypeError):
        pass
    try:
        from aiocache import cached as aiocached

        kept: Any = aiocached(ttl=300)(aproduct)
        made["aiocache, no tags"] = lambda: kept(1)
    except ImportError:
        pass
    try:
        from cashews import cache as cashews

        cashews.setup("mem://")
        cashed: Any = cashews(ttl="5m", key="item:{number}", tags=["item:{number}"])(aproduct)
        made["cashews"] = lambda: cashed(1)
    except ImportError:
        pass

    async def warm() -> None:
        for call in made.values():
            await call()

    runner.run(warm())
    return made


def main() -> bool:
    budget = json.loads(Path(__file__).with_name("budget.json").read_text())
    kept = True
    with Cache("tiered+embedded://", namespace="bench") as tiered, collecting():
        rows: dict[str, Row] = interleaved(blocking_contestants(tiered), calls=CALLS, rounds=ROUNDS)
        kept &= show("Hit in process, blocking", rows, "lru_cache", budget["hit_path"])

        class Floor:
            @functools.lru_cache(maxsize=1024)  # noqa: B019 - the floor to compare with
            def product(self, number: int) -> int:
                return number

        class Ours:
            @Cache().cached(**OPTIONS)
            def product(self, number: int) -> int:
                return number

        floor, ours = Floor(), Ours()
        ours.product(1)
        methods = {
            "lru_cache": blocking(lambda: floor.product(1)),
            "cachekit": blocking(lambda: ours.product(1)),
        }
        rows = interleaved(methods, calls=CALLS, rounds=ROUNDS)
        kept &= show("Hit in process, method", rows, "lru_cache", budget["hit_path_method"])

    with asyncio.Runner() as runner, Cache("tiered+embedded://", namespace="bench") as tiered:
        plain = Cache().cached(**OPTIONS)(aproduct)
        both = tiered.cached(**OPTIONS)(aproduct)

        async def warm() -> None:
            await plain(1)
            for _ in range(3):
                await both(1)

        runner.run(warm())
        calls: dict[str, Callable[[], Any]] = {
            "bare coroutine": lambda: aproduct(1),
            "cachekit": lambda: plain(1),
            "cachekit, tiered": lambda: both(1),
            **async_peers(runner),
        }
        with collecting():
            awaited_calls = {name: awaited(call, runner) for name, call in calls.items()}
            rows = interleaved(awaited_calls, calls=CALLS // 5, rounds=ROUNDS)
        kept &= show("Hit in process, asyncio", rows, "bare coroutine", budget["hit_path_async"])
        runner.run(tiered.aclose())
    return kept


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
