"""How long ``import cachekit`` takes, beside starting Python alone. Run alone with ``python -m benchmarks.imports``."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.measure import interleaved, show

STATEMENTS = {
    "python alone": "pass",
    "import cachekit": "import cachekit",
    "from cachekit import Cache": "from cachekit import Cache; Cache()",
    "from cachekit.asgi import CacheKit": "from cachekit.asgi import CacheKit",
    "import redis": "import redis",
}


def main() -> bool:
    def start(statement: str) -> None:
        subprocess.run([sys.executable, "-c", statement], check=True)

    def contestant(statement: str) -> Callable[[int], float]:
        def run(calls: int) -> float:
            started = time.perf_counter()
            for _ in range(calls):
                start(statement)
            return time.perf_counter() - started

        return run

    rows = interleaved({name: contestant(text) for name, text in STATEMENTS.items()}, calls=1, rounds=11)
    return show("Starting a process", rows, "python alone")


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
