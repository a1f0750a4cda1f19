"""The status page as HTML, and its JSON twin. Pure: figures in, text out.

Everything that is shown is escaped, nothing is loaded from elsewhere, and a policy that names the style and the script by
their hashes lets nothing else run. Must not know where figures come from, nor who may see them.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from html import escape
from importlib import resources
from typing import Any, Final

from cachekit.cdn.options import PurgeStatus
from cachekit.dashboard.figures import Shown
from cachekit.stats import Figures

OVERDUE: Final = 60.0
"""Seconds after which a purge that waits is shown as trouble."""


@cache
def _asset(name: str) -> str:
    return resources.files("cachekit.dashboard").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def policy() -> str:
    """Return the Content-Security-Policy of the page (https://www.w3.org/TR/CSP3/)."""
    return (
        f"default-src 'none'; style-src {_hash(_asset('page.css'))}; script-src {_hash(_asset('page.js'))}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


# -- the twin -------------------------------------------------------------------------------------------------------------


def document(shown: Shown) -> bytes:
    """Return the figures as JSON."""
    stats = shown.stats
    hot = shown.hot_keys
    made: dict[str, Any] = {
        "cache": shown.cache,
        "process": shown.process,
        "since": round(shown.since, 3),
        "store": stats.store,
        "channel": stats.channel,
        "channel_kind": stats.channel_kind,
        "pending_invalidations": stats.pending,
        "entries": stats.entries,
        "bytes": stats.bytes,
        "evictions": stats.evictions,
        "total": _figures(stats.total),
        "by_function": {name: _figures(figures) for name, figures in stats.by_function.items()},
        "by_class": {name: _figures(figures) for name, figures in stats.by_class.items()},
        "events": dict(stats.events),
        "purges": None if shown.purges is None else {name: asdict(status) for name, status in shown.purges.items()},
        "hot_keys": None if hot is None else {name: [asdict(key) for key in keys] for name, keys in hot.items()},
        "sessions": None if shown.sessions is None else asdict(shown.sessions),
    }
    return json.dumps(made, ensure_ascii=False).encode("utf-8", "replace")


def _figures(figures: Figures) -> dict[str, float]:
    return {**asdict(figures), "lookups": figures.lookups, "hit_rate": figures.hit_rate}


# -- the page -------------------------------------------------------------------------------------------------------------


def render(shown: Shown, *, title: str = "cachekit", refresh: float = 2.0) -> str:
    """Return the page.

    Args:
        shown: the figures.
        title: the heading.
        refresh: seconds between updates of an open page; 0 for none.
    """
    sections = [
        _live("head", _head(shown)),
        _live("total", _total(shown)),
        _live("functions", _table("By function", "function", shown.stats.by_function, "direct calls")),
        _live("classes", _table("By TTL class", "class", shown.stats.by_class, "no class")),
        _live("purges", _purges(shown.purges)),
        _live("keys", _hot_keys(shown)),
        _live("sessions", _sessions(shown)),
        _live("events", _events(shown.stats.events)),
    ]
    note = (
        f"These are the figures of process {shown.process} alone, followed for {_span(shown.since)} on this page. "
        "With several workers each answer may come from another one."
    )
    sections.append(_live("note", f"<p>{note}</p>", tag="footer"))
    name = escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
        f"<title>{name}</title><style>{_asset('page.css')}</style></head>"
        f'<body data-refresh="{refresh:g}"><header><h1>{name}</h1>'
        '<p id="lost" role="status">no answer; trying again</p></header>'
        f"<main>{''.join(sections)}</main><script>{_asset('page.js')}</script></body></html>\n"
    )


def _live(name: str, inside: str, tag: str = "section") -> str:
    """Return a part of the page that is updated by itself, under the *name* by which it is found."""
    return f'<{tag} id="{name}" data-live>{inside}</{tag}>'


def _head(shown: Shown) -> str:
    stats = shown.stats
    chips = [("store", stats.store, stats.store == "ok")]
    if stats.channel != "none":
        how = f" by {stats.channel_kind}" if stats.channel_kind != "none" else ""
        chips.append(("invalidations", stats.channel + how, stats.channel == "live"))
    if stats.pending:
        chips.append(("waiting for the store", f"{stats.pending:,} invalidations", False))
    if shown.purges is None:
        chips.append(("purges", "unknown while the store is away", False))
    elif shown.purges:
        pending = sum(status.pending + status.unsaved for status in shown.purges.values())
        dead = sum(status.dead for status in shown.purges.values())
        oldest = max(status.oldest_age for status in shown.purges.values())
        words = f"{pending:,} pending"
        words += f" for {_span(oldest)}" if oldest >= OVERDUE else ""
        words += f", {dead:,} given up" if dead else ""
        chips.append(("purges", words, not dead and oldest < OVERDUE))
    made = "".join(
        f'<li class="{"good" if good else "bad"}"><span>{escape(label)}</span> {escape(text)}</li>'
        for label, text, good in chips
    )
    return f"<p class=url>{escape(shown.cache)}</p><ul class=chips>{made}</ul>"


def _total(shown: Shown) -> str:
    stats, total = shown.stats, shown.stats.total
    tiles = [
        ("lookups", _count(total.lookups), f"{_count(total.misses)} missed"),
        ("served stale", _count(total.stale), "while refreshed, or in place of an error"),
        ("loads", _count(total.loads), f"{_mean(total)} on average"),
        ("failed loads", _count(total.load_errors), f"{_share(total.load_errors, total.loads)} of the loads"),
        ("entries here", _count(stats.entries), _bytes(stats.bytes)),
        ("evictions", _count(stats.evictions), "for lack of room"),
    ]
    made = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{number}<small>{escape(more)}</small></dd></div>"
        for label, number, more in tiles
    )
    return (
        f"<div class=rate><p><strong>{_rate(total)}</strong> hit rate</p>{_bar(total)}"
        "<p class=legend><i class=hit></i>fresh <i class=stale></i>stale <i class=miss></i>missed</p></div>"
        f"<dl class=tiles>{made}</dl>"
    )


def _table(title: str, kind: str, rows: Mapping[str, Figures], nameless: str) -> str:
    used = sorted(rows.items(), key=lambda row: (-row[1].lookups, row[0]))
    used = [(name, figures) for name, figures in used if figures.lookups or figures.loads or name]
    if not any(name for name, _ in used):
        return ""
    head = (kind, "hit rate", "", "hits", "stale", "misses", "loads", "errors", "mean load")
    body = []
    for name, figures in used:
        cells = (
            ("hits", _count(figures.hits)), ("stale", _count(figures.stale)), ("misses", _count(figures.misses)),
            ("loads", _count(figures.loads)), ("errors", _count(figures.load_errors)), ("mean load", _mean(figures)),
        )  # fmt: skip
        shown = f"<code>{_breakable(name)}</code>" if name else f"<em>{nameless}</em>"
        body.append(
            f'<tr><th scope=row>{shown}</th><td class=percent data-label="hit rate">{_rate(figures)}</td>'
            f"<td class=graph>{_bar(figures)}</td>{_cells(cells)}</tr>"
        )
    return f"<h2>{escape(title)}</h2>{_grid(head, body)}"


def _purges(purges: Mapping[str, PurgeStatus] | None) -> str:
    if not purges:
        return ""
    head = ("CDN", "pending", "oldest", "once more", "delivered", "failed", "given up")
    body = []
    for name, status in purges.items():
        cells = (
            ("pending", _count(status.pending + status.unsaved)),
            ("oldest", _span(status.oldest_age) if status.pending else "-"),
            ("once more", _count(status.rebounding)),
            ("delivered", _count(status.delivered)),
            ("failed", _count(status.failed)),
            ("given up", _count(status.dead)),
        )
        said = ""
        if status.last_error:
            ago = f", {_span(status.last_error_age)} ago" if status.last_error_age is not None else ""
            said = f"<small>last error{ago}: {escape(status.last_error)}</small>"
        body.append(f"<tr><th scope=row><code>{escape(name)}</code>{said}</th>{_cells(cells)}</tr>")
    return f"<h2>Purges</h2>{_grid(head, body)}"


def _hot_keys(shown: Shown) -> str:
    hot = {name: keys for name, keys in (shown.hot_keys or {}).items() if keys}
    if not hot:
        return ""
    lists = []
    for name, keys in sorted(hot.items(), key=lambda row: -row[1][0].lookups):
        title = f"<code>{_breakable(name)}</code>" if name else "<em>direct calls</em>"
        items = "".join(
            f"<li><code>{_breakable(key.key)}</code><b>{_count(key.lookups)}</b>{_line(key.lookups / keys[0].lookups)}</li>"
            for key in keys
        )
        lists.append(f"<div><h3>{title}</h3><ol>{items}</ol></div>")
    return f"<h2>Hottest keys</h2><p class=about>lookups, a sample</p><div class=hot>{''.join(lists)}</div>"


def _sessions(shown: Shown) -> str:
    if shown.sessions is None:
        return ""
    state = f"store {shown.sessions.store}, {_count(shown.sessions.waiting)} waiting for it"
    told = {name: count for name, count in shown.sessions.events.items() if name.startswith("session.")}
    return f"<h2>Sessions</h2><p class=about>{escape(state)}</p>{_counts(told)}"  # a cache may share the rest


def _events(events: Mapping[str, int]) -> str:
    return f"<h2>Events</h2>{_counts(events)}" if events else ""


def _counts(counts: Mapping[str, int]) -> str:
    made = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_count(count)}</dd></div>" for name, count in sorted(counts.items())
    )
    return f"<dl class=counts>{made}</dl>" if made else ""


def _grid(head: Iterable[str], body: Sequence[str]) -> str:
    titles = "".join(f"<th scope=col>{escape(title)}</th>" if title else "<td></td>" for title in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cells(cells: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f'<td data-label="{label}"{" class=zero" if text == "0" else ""}>{text}</td>' for label, text in cells
    )


def _bar(figures: Figures) -> str:
    """Return what became of the lookups, as a picture; sizes are attributes, because the policy forbids styles."""
    lookups = figures.lookups
    hits, stale = (100 * count / lookups if lookups else 0.0 for count in (figures.hits, figures.stale))
    return (
        '<svg class=bar viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class=miss width="100" '
        f'height="8"/><rect class=stale width="{hits + stale:.2f}" height="8"/>'
        f'<rect class=hit width="{hits:.2f}" height="8"/></svg>'
    )


def _line(part: float) -> str:
    return (
        '<svg class=line viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class=hit width="{100 * part:.2f}" height="4"/></svg>'
    )


def _breakable(name: str) -> str:
    """Return *name* escaped, with places where a narrow window may break it."""
    made = escape(name)
    for mark in (".", ":", "/"):
        made = made.replace(mark, mark + "<wbr>")
    return made


def _rate(figures: Figures) -> str:
    return f"{100 * figures.hit_rate:.1f}&#8239;%" if figures.lookups else "-"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


def _mean(figures: Figures) -> str:
    done = figures.loads - figures.load_errors  # the time of those that raised is not counted
    return _span(figures.load_seconds / done) if done > 0 else "-"


def _count(number: int) -> str:
    return f"{number:,}"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} \N{MICRO SIGN}s" if seconds else "0 s"


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} GiB"
