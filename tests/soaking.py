"""One process of the soak: caches over one server, readers in both worlds, a writer, and a ledger that all processes share.

The truth of a key is a number in the ledger. A writer raises it, invalidates, and notes in the ledger when that was
complete. A reader notes which number was complete before it began; it must not get an older one.

Run by ``tests/contract/test_channel_soak.py``.
"""

from __future__ import annotations

import asyncio
import mmap
import random
import sys
import threading
import time
from collections import deque
from pathlib import Path

KEYS = 12
HISTORY = 512
WORKERS = 8
COUNTS = ("reads", "loads", "invalidations", "late", "shared", "stale")

_KEY = 16 + 8 * HISTORY
_WORKER = 8 * (len(COUNTS) + 1)
SIZE = KEYS * _KEY + WORKERS * _WORKER

BOUND = 2.5
"""Seconds: a first level in another process may serve until it has heard, at the latest until two heartbeats were missed."""


class Ledger:
    """Numbers in a file that all processes map. Each is read and written in one step, so that nobody sees half of one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), SIZE)
        self._numbers = memoryview(self._map).cast("Q")
        self._times = memoryview(self._map).cast("d")

    def _u64(self, at: int) -> int:
        return self._numbers[at // 8]

    def _put(self, at: int, value: int) -> None:
        self._numbers[at // 8] = value

    def truth(self, key: int) -> int:
        return self._u64(key * _KEY)

    def raise_truth(self, key: int) -> int:
        value = self.truth(key) + 1
        self._put(key * _KEY, value)
        return value

    def complete(self, key: int) -> int:
        return self._u64(key * _KEY + 8)

    def note(self, key: int, value: int) -> None:
        """Note that every invalidation up to *value* is complete."""
        now = time.monotonic()
        for number in range(self.complete(key) + 1, value + 1):
            self._times[key * _KEY // 8 + 2 + number % HISTORY] = now
        self._put(key * _KEY + 8, value)

    def completed_at(self, key: int, value: int) -> float:
        if self.complete(key) - value >= HISTORY:
            return 0.0
        return self._times[key * _KEY // 8 + 2 + value % HISTORY]

    def add(self, worker: int, count: str, by: int = 1) -> None:
        at = KEYS * _KEY + worker * _WORKER + 8 * COUNTS.index(count)
        self._put(at, self._u64(at) + by)

    def latest(self, worker: int, seconds: float) -> None:
        at = (KEYS * _KEY + worker * _WORKER) // 8 + len(COUNTS)
        self._times[at] = max(seconds, self._times[at])

    def totals(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for number, count in enumerate(COUNTS):
            found[count] = sum(self._u64(KEYS * _KEY + w * _WORKER + 8 * number) for w in range(WORKERS))
        at = KEYS * _KEY // 8 + len(COUNTS)
        found["latest"] = max(self._times[at + w * _WORKER // 8] for w in range(WORKERS))
        return found

    def close(self) -> None:
        self._numbers.release()
        self._times.release()
        self._map.close()
        self._file.close()


class Worker:
    """Reads every key, and writes those that are its own."""

    def __init__(self, number: int, url: str, path: Path) -> None:
        from cachekit import Cache

        self.number = number
        self.tiered = url.startswith("tiered+")
        self.ledger = Ledger(path)
        self.log = path.with_suffix(".log")
        # What a first level serves when nothing answers is a promise of its own, and switched off here.
        self.cache = Cache(url, isolated_ttl=0, timeout=0.25, observers=[self.observe])
        self.failed_at = 0.0
        self.lock = threading.Lock()
        self.pending: dict[int, int] = {}
        self.loaded: dict[int, deque[tuple[int, float]]] = {key: deque(maxlen=16) for key in range(KEYS)}
        self.random = random.Random(number)

    def count(self, what: str) -> None:
        with self.lock:
            self.ledger.add(self.number, what)

    def observe(self, event) -> None:
        if event.kind in ("store-error", "breaker-closed"):  # until then it was away, and nothing asked it
            self.failed_at = time.monotonic()

    def away(self, began: float) -> bool:
        """Say whether the server did not answer this process around the time of a read that began at *began*."""
        return self.failed_at > began - 1.0 or self.cache.stats().store == "away"

    def under_way(self, key: int, value: int, began: float) -> bool:
        """Say whether *value* was still being loaded when a read began at *began*: it may then have been shared.

        However long that took: the load may have been stopped in the middle with its process.
        """
        return any(loaded == value and ended >= began for loaded, ended in tuple(self.loaded[key]))

    def check(self, key: int, before: int, began: float, value: int) -> None:
        self.count("reads")
        if value >= before:
            return
        late = began - self.ledger.completed_at(key, value + 1)
        with self.lock:
            self.ledger.latest(self.number, late)
        own = key % WORKERS == self.number
        allowed = BOUND if self.tiered and not own else 0.0
        if late > allowed and self.under_way(key, value, began) and self.away(began):
            self.count("shared")
        elif late > allowed:
            self.count("stale")
            with self.log.open("a") as log:
                log.write(
                    f"worker {self.number} tiered={self.tiered} own={own} key {key}: {value} < {before}, {late:.3f} s, "
                    f"failed {began - self.failed_at:.3f} s before, loads {list(self.loaded[key])}, began {began:.3f}\n"
                )
        else:
            self.count("late")

    def read(self) -> None:
        chance = random.Random()
        while True:
            key = chance.randrange(KEYS)
            before, began = self.ledger.complete(key), time.monotonic()

            def load(key=key) -> int:
                value = self.ledger.truth(key)
                self.count("loads")
                time.sleep(chance.random() * 0.003)
                self.loaded[key].append((value, time.monotonic()))
                return value

            self.check(key, before, began, self.cache.get_or_set(f"k{key}", load, ttl=30, tags=[f"t{key}", "all"]))
            time.sleep(0.0005)

    async def aread(self) -> None:
        chance = random.Random()

        async def one() -> None:
            while True:
                key = chance.randrange(KEYS)
                before, began = self.ledger.complete(key), time.monotonic()

                async def load(key=key) -> int:
                    value = self.ledger.truth(key)
                    self.count("loads")
                    await asyncio.sleep(chance.random() * 0.003)
                    self.loaded[key].append((value, time.monotonic()))
                    return value

                value = await self.cache.aget_or_set(f"k{key}", load, ttl=30, tags=[f"t{key}", "all"])
                self.check(key, before, began, value)
                await asyncio.sleep(0.0005)

        await asyncio.gather(*(one() for _ in range(4)))

    def write(self) -> None:
        own = [key for key in range(KEYS) if key % WORKERS == self.number]
        while own:
            key = self.random.choice(own)
            value = self.ledger.raise_truth(key)
            way = (key // WORKERS + key) % 3  # each key always in the same way: no other makes up for it
            if way == 0:
                self.cache.delete(f"k{key}")
            elif way == 1:
                self.cache.invalidate(f"t{key}")
            else:
                self.cache.invalidate(f"t{key}", "unused")
            self.pending[key] = value
            if self.cache.stats().pending == 0:  # else the server has not heard of it yet: it is not complete
                for done, number in self.pending.items():
                    self.ledger.note(done, number)
                self.pending.clear()
            self.count("invalidations")
            time.sleep(self.random.random() * 0.02)

    def run(self) -> None:
        jobs = [self.read, self.read, lambda: asyncio.run(self.aread()), self.write]
        threads = [threading.Thread(target=self._forever, args=(job,), daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()  # until the parent goes

    def _forever(self, job) -> None:
        try:
            job()
        except BaseException as exc:
            with self.log.open("a") as log:
                log.write(f"worker {self.number} failed: {exc!r}\n")
            raise


if __name__ == "__main__":
    Worker(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])).run()
