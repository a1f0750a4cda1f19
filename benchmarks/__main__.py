"""``python -m benchmarks [NAME ...]``: all of them, or those named. Exits with 1 when a budget is exceeded."""

from __future__ import annotations

import importlib
import os
import platform
import sys

NAMES = (
    "hit_path", "hit_anatomy", "hit_ratio", "redis_roundtrip", "stampede", "propagation", "http_hit", "http_served",
    "compression", "sessions", "adapters", "django_cache", "django_requests",
    "imports",
)  # fmt: skip


def main() -> int:
    chosen = sys.argv[1:] or NAMES
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, medians of interleaved rounds")
    kept = [importlib.import_module(f"benchmarks.{name}").main() for name in chosen]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
