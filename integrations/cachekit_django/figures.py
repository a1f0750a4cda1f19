"""The live figures of the caches as tables of text: for the command and the admin page."""

from __future__ import annotations

from typing import Any

from cachekit import Cache
from cachekit_django import conf, keeping


def tables() -> list[dict[str, Any]]:
    """Return tables with ``title``, ``columns`` and ``rows``: of the caches, two for each of them, of sessions."""
    found = conf.caches()
    overview = {
        "title": "Caches of this process",
        "columns": ["cache", "store", "channel", "hits", "misses", "hit rate", "entries", "bytes", "pending"],
        "rows": [_overview(cache) for cache in found],
    }
    made = [overview]
    for cache in found:
        stats = cache.stats()
        rows = [
            [name or "direct use", f.hits, f.misses, f.stale, f.loads, f.load_errors, f"{f.hit_rate:.1%}"]
            for name, f in sorted(stats.by_function.items(), key=lambda item: -item[1].lookups)
        ]
        columns = ["function", "hits", "misses", "stale", "loads", "errors", "hit rate"]
        made.append({"title": f"{_name(cache)}: functions", "columns": columns, "rows": rows})
        events = [[name, count] for name, count in sorted(stats.events.items())]
        made.append({"title": f"{_name(cache)}: events", "columns": ["event", "count"], "rows": events})
    return [*made, *_of_sessions()]


def _of_sessions() -> list[dict[str, Any]]:
    if not keeping.in_use():
        return []
    stats = keeping.sessions().stats()
    events = sorted((name, count) for name, count in stats.events.items() if name.startswith("session."))
    rows = [["store", stats.store], ["waiting for the store", stats.waiting], *map(list, events)]
    return [{"title": "Sessions", "columns": ["figure", "value"], "rows": rows}]


def _overview(cache: Cache) -> list[Any]:
    stats = cache.stats()
    total = stats.total
    return [
        _name(cache), stats.store, stats.channel, total.hits, total.misses, f"{total.hit_rate:.1%}", stats.entries,
        stats.bytes, stats.pending,
    ]  # fmt: skip


def _name(cache: Cache) -> str:
    return repr(cache).removeprefix("Cache('").removesuffix("')")
