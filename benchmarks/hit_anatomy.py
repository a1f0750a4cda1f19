"""Where the time of a hit goes: the generated function with one piece left out, beside the whole.

Run alone with ``python -m benchmarks.hit_anatomy``. The source is the one that ``cachekit.shell`` generates for
``def product(number)``; each variant lacks some of its lines. All take turns, and a piece costs the median of what the
whole took more than its variant in the same round. Pieces do not add up exactly: processors do several things at once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.measure import Row, blocking, interleaved
from cachekit import Cache, collecting
from cachekit import shell as shells
from cachekit.tags import Refused, current

CALLS, ROUNDS = 3_000, 300  # short turns: what interrupts one hardly touches its neighbour

LOOKUP = """    try:
        _ck_node = _ck_memo[number]
    except (KeyError, TypeError):
        _ck_node = _ck_none
"""
CONTEXT = """        _ck_used = _ck_tags()
        try:
            if _ck_used is not None:
                _ck_used.add(_ck_node.tags)
        except _ck_refused:
            pass
        else:
            _ck_node.hits += 1
            return _ck_node.value
"""
TYPE, EPOCH, CLOCK = (
    "_ck_type(number) is _ck_node.k0",
    "_ck_node.epoch == _ck_l1.epoch",
    "_ck_clock() < _ck_node.quiet_until",
)

PIECES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "key: the type of the argument": (TYPE, [(f"{TYPE} and ", "")]),
    "lookup: arguments to node": ("dictionary, try", [(LOOKUP, "    _ck_node = _ck_found\n")]),
    "invalidation: the epoch": (EPOCH, [(f"{EPOCH} and ", "")]),
    "clock and policy: until when": (CLOCK, [(f" and {CLOCK}", "")]),
    "clock alone": ("_ck_clock()", [("_ck_clock() <", "0.0 <")]),
    "counter, which eviction follows": ("hits += 1", [("            _ck_node.hits += 1\n", "")]),
    "context: tags and modes": (
        "context variable, set.add, try",
        [(CONTEXT, "        _ck_node.hits += 1\n        return _ck_node.value\n")],
    ),
}


def product(number: int) -> dict[str, int]:
    return {"number": number}


def contestants(cache: Cache) -> dict[str, Callable[[], object]]:
    """Return the whole, the whole without each piece, and a function that only returns."""
    assert cache.l1 is not None
    kept = cache.cached(ttl="5m", stale_while_revalidate=30, tags=["item:{number}"])(product)
    kept(1)
    kept(1)
    node = cache.l1.peek(kept.key_for(1))
    assert node is not None
    source = shells._source(shells.shape_of(product, ()), [], is_async=False, fast=True, finishes=False)
    namespace: dict[str, Any] = {
        "_ck_memo": {1: node}, "_ck_l1": cache.l1, "_ck_clock": cache.clock, "_ck_tags": current, "_ck_slow": None,
        "_ck_type": type, "_ck_id": id, "_ck_none": None, "_ck_refused": Refused, "_ck_found": node,
    }  # fmt: skip

    def made(text: str) -> Callable[[], object]:
        own = dict(namespace)
        exec(text, own)
        call = own["_ck_made"]
        return lambda: call(1)

    variants = {"whole": made(source)}
    for name, (_, changes) in PIECES.items():
        text = source
        for old, new in changes:
            if old not in text:
                raise AssertionError(f"the shell has changed: {name} is not found in\n{source}")
            text = text.replace(old, new)
        variants[name] = made(text)
    variants["a call that only returns"] = made("def _ck_made(number):\n    return _ck_found\n")
    return variants


def main() -> bool:
    with collecting():  # as inside of a request: tags are added to a set
        rows = interleaved(
            {name: blocking(call) for name, call in contestants(Cache()).items()}, calls=CALLS, rounds=ROUNDS
        )
    whole = rows["whole"]
    print("\n### Anatomy of a hit\n\n| piece | ns | of the whole |\n|---|---:|---:|")
    for name in PIECES:
        _line(name, _difference(whole, rows[name]), whole)
    _line("the call and the benchmark's loop", rows["a call that only returns"].median, whole)
    _line("**whole**", whole.median, whole)
    return True


def _difference(whole: Row, part: Row) -> float:
    return statistics.median(a - b for a, b in zip(whole.rounds, part.rounds, strict=True))


def _line(name: str, nanoseconds: float, whole: Row) -> None:
    print(f"| {name} | {nanoseconds:.0f} | {nanoseconds / whole.median:.0%} |")


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
