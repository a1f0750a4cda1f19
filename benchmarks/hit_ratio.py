"""Hit ratios: which entries stay when there is room for few, beside the peers that are installed and the optimum.

Run alone with ``python -m benchmarks.hit_ratio``. Two traces, each made from a seed and the same in every run:

* ``scans``: requests follow Zipf's law with exponent 0.9 over 50,000 keys; three requests in ten belong to scans, runs of
  a thousand keys that nobody asks for again.
* ``shifting``: Zipf's law with exponent 0.9 over 10,000 keys, whose order of popularity moves on by 500 places after every
  10,000 requests.

The optimum is Belady's, who knows the future: each eviction takes the key whose next use is farthest away (L. A. Belady, IBM
Systems Journal 5(2), 1966). Nothing is timed; a figure is a count of hits and does not depend on the machine.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

CAPACITY, REQUESTS, SEEDS = 1_000, 300_000, (1, 2)


def zipf(chooser: random.Random, keys: int, exponent: float) -> Callable[[], int]:
    """Return what draws ranks from 0 to *keys*, the first most often."""
    weights = list(itertools.accumulate((rank + 1) ** -exponent for rank in range(keys)))

    def draw() -> int:
        return bisect.bisect(weights, chooser.random() * weights[-1])

    return draw


def scans(seed: int, requests: int = REQUESTS, *, keys: int = 50_000, length: int = 1_000) -> list[int]:
    """Return the trace with scans."""
    chooser = random.Random(seed)
    draw, fresh, left = zipf(chooser, keys, 0.9), itertools.count(10**9), 0
    trace: list[int] = []
    while len(trace) < requests:
        if left == 0 and chooser.random() < 0.3 / (0.3 + 0.7 * length):
            left = length
        if left:
            trace.append(next(fresh))
            left -= 1
        else:
            trace.append(draw())
    return trace


def shifting(
    seed: int, requests: int = REQUESTS, *, keys: int = 10_000, every: int = 10_000, by: int = 500
) -> list[int]:
    """Return the trace whose popularity shifts."""
    chooser = random.Random(seed)
    draw = zipf(chooser, keys, 0.9)
    return [(draw() + number // every * by) % keys for number in range(requests)]


TRACES: dict[str, Callable[[int], list[int]]] = {"scans": scans, "shifting": shifting}


def optimum(trace: list[int], capacity: int) -> float:
    """Return the hit ratio of Belady's choice."""
    following = [0] * len(trace)
    seen: dict[int, int] = {}
    for at in range(len(trace) - 1, -1, -1):
        following[at] = seen.get(trace[at], len(trace))
        seen[trace[at]] = at
    held: dict[int, int] = {}
    farthest: list[tuple[int, int]] = []
    hits = 0
    for at, key in enumerate(trace):
        if key in held:
            hits += 1
        elif len(held) >= capacity:
            while True:
                use, victim = heapq.heappop(farthest)
                if held.get(victim) == -use:
                    break
            if -use <= following[at]:  # what is asked for now is needed later than anything held
                heapq.heappush(farthest, (use, victim))
                continue
            del held[victim]
        held[key] = following[at]
        heapq.heappush(farthest, (-following[at], key))
    return hits / len(trace)


def ours(trace: list[int], capacity: int) -> float:
    """Return the hit ratio of a function that cachekit caches in process."""
    from cachekit import Cache

    cache = Cache(max_entries=capacity)

    @cache.cached
    def load(key: int) -> int:
        return key

    for key in trace:
        load(key)
    return cache.stats().total.hits / len(trace)


def peers() -> Iterator[tuple[str, Callable[[list[int], int], float]]]:
    """Yield the peers that are installed, each with what measures it."""
    try:
        import cachetools

        def lru(trace: list[int], capacity: int) -> float:
            return _mapping(cachetools.LRUCache(capacity), trace)

        def lfu(trace: list[int], capacity: int) -> float:
            return _mapping(cachetools.LFUCache(capacity), trace)

        yield "cachetools LRU", lru
        yield "cachetools LFU", lfu
    except ImportError:
        pass
    try:
        import cachebox

        yield "cachebox LRU", lambda trace, capacity: _mapping(cachebox.LRUCache(capacity), trace)
        yield "cachebox LFU", lambda trace, capacity: _mapping(cachebox.LFUCache(capacity), trace)
    except ImportError:
        pass
    try:
        import theine

        def tinylfu(trace: list[int], capacity: int) -> float:
            cache, hits = theine.Cache(capacity), 0
            for key in trace:
                if cache.get(key)[1]:
                    hits += 1
                else:
                    cache.set(key, key)
            return hits / len(trace)

        yield "theine W-TinyLFU", tinylfu
    except ImportError:
        pass


def _mapping(cache: object, trace: list[int]) -> float:
    kept: dict[int, int] = cache  # type: ignore[assignment]
    hits = 0
    for key in trace:
        if kept.get(key) is None:
            kept[key] = key + 1
        else:
            hits += 1
    return hits / len(trace)


def main() -> bool:
    budget = json.loads(Path(__file__).with_name("budget.json").read_text())["hit_ratio"]
    held = True
    for name, make in TRACES.items():
        traces = [make(seed) for seed in SEEDS]
        print(f"\n### Hit ratio, {name}, room for {CAPACITY:,}\n\n| | hits | at least |\n|---|---:|---:|")
        for who, measure in (("cachekit", ours), *peers(), ("the optimum", optimum)):
            ratio = sum(measure(trace, CAPACITY) for trace in traces) / len(traces)
            least = budget[name] if who == "cachekit" else None
            short = least is not None and ratio < least
            held &= not short
            mark = "" if least is None else f"**{least:.1%} missed**" if short else f"{least:.1%}"
            print(f"| {who} | {ratio:.1%} | {mark} |")
    return held


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
