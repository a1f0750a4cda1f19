"""The live figures of the caches as tables of text: for the command and the admin page."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from django.conf import settings
from django.core.cache import caches

from cachekit import Cache, StoreError
from cachekit_django import conf, keeping
from cachekit_django.single import SingleValues

SESSIONS: Final = "Sessions"


def unreached() -> list[str]:
    """Ask each store that other processes share, and return what those that do not answer belong to."""
    names = _names()
    found = [names[id(cache)] for cache in conf.caches() if not cache.private and not cache.available(max_age=0)]
    if keeping.in_use():
        try:
            keeping.sessions().count()
        except StoreError:
            found.append(SESSIONS)
    return found


def tables(away: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return tables with ``title``, ``columns`` and ``rows``: of the caches, two for each of them, of sessions.

    *away* is what ``unreached`` returned, where that was asked: the rest is what this process has met so far.
    """
    found, names = conf.caches(), _names()
    overview = {
        "title": "Caches of this process",
        "columns": ["cache", "store", "channel", "hits", "misses", "hit rate", "entries", "bytes", "pending"],
        "rows": [_overview(cache, names[id(cache)], away) for cache in found],
    }
    made = [overview]
    for cache in found:
        stats = cache.stats()
        rows = [
            [name or "direct use", f.hits, f.misses, f.stale, f.loads, f.load_errors, _rate(f)]
            for name, f in sorted(stats.by_function.items(), key=lambda item: -item[1].lookups)
        ]
        columns = ["function", "hits", "misses", "stale", "loads", "errors", "hit rate"]
        made.append({"title": f"{names[id(cache)]}: functions", "columns": columns, "rows": rows})
        events = [[name, count] for name, count in sorted(stats.events.items())]
        made.append({"title": f"{names[id(cache)]}: events", "columns": ["event", "count"], "rows": events})
    return [*made, *_of_sessions(away)]


def shown(table: dict[str, Any]) -> dict[str, Any]:
    """Return *table* with numbers as people read them."""
    rows = [[f"{cell:,}" if type(cell) is int else str(cell) for cell in row] for row in table["rows"]]
    return {**table, "rows": rows}


def _rate(figures: Any) -> str:
    return f"{figures.hit_rate:.1%}" if figures.lookups else "–"  # nobody has asked: that is no bad rate


def _of_sessions(away: Collection[str]) -> list[dict[str, Any]]:
    if not keeping.in_use():
        return []
    stats = keeping.sessions().stats()
    events = sorted((name, count) for name, count in stats.events.items() if name.startswith("session."))
    rows = [
        ["store", "away" if SESSIONS in away else stats.store],
        ["waiting for the store", stats.waiting],
        *map(list, events),
    ]
    return [{"title": SESSIONS, "columns": ["figure", "value"], "rows": rows}]


def _overview(cache: Cache, name: str, away: Collection[str]) -> list[Any]:
    stats = cache.stats()
    total = stats.total
    return [
        name, "away" if name in away else stats.store, stats.channel, total.hits, total.misses, _rate(total), stats.entries,
        stats.bytes, stats.pending,
    ]  # fmt: skip


def _names() -> dict[int, str]:
    """Return what each cache is called: its URL, and which settings mean it."""
    meant: dict[int, list[str]] = {id(conf.cache()): ["CACHEKIT"]}
    for alias in settings.CACHES:
        if isinstance(backend := caches[alias], SingleValues):
            meant.setdefault(id(backend.cache), []).append(f"CACHES[{alias!r}]")
    names = {}
    for cache in conf.caches():
        url = repr(cache).removeprefix("Cache('").removesuffix("')")
        where = ", ".join(meant.get(id(cache), ()))
        names[id(cache)] = f"{url} ({where})" if where else url
    return names
