"""Two requests changed one session at once: what becomes of it. A three-way merge by top-level key.

Pure. Must not know what a value is: whoever asks says how those of a declared key are combined.

Laws, held by tests: a side that changed nothing changes nothing; two equal changes are one (of a counter, two); a key
that one side alone touched ends as that side left it; the result holds no key that neither side holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias, TypeVar

V = TypeVar("V")


class _Absent(Enum):
    ABSENT = "absent"


ABSENT: Final = _Absent.ABSENT

Combine: TypeAlias = Callable[["V | _Absent", "V | _Absent", "V | _Absent"], "V | _Absent"]
"""Receives base, mine and theirs of one key that both sides changed, ``ABSENT`` for none, and returns what it becomes."""


def merge(
    base: Mapping[str, V],
    mine: Mapping[str, V],
    theirs: Mapping[str, V],
    combine: Mapping[str, Combine[V]] | None = None,
    *,
    yielding: bool = False,
) -> dict[str, V]:
    """Return *theirs* with the changes that led from *base* to *mine*.

    Args:
        base: what this side began with.
        mine: what this side has now.
        theirs: what the other side stored meanwhile.
        combine: how values of some keys are put together when both sides changed them.
        yielding: whether the other side wins where both changed a key in other ways.
    """
    merged = dict(theirs)
    for key in base.keys() | mine.keys():
        old, own = base.get(key, ABSENT), mine.get(key, ABSENT)
        if old == own:
            continue
        other = theirs.get(key, ABSENT)
        if other != old:
            how = None if combine is None else combine.get(key)
            if how is not None:
                own = how(old, own, other)
            elif yielding:
                continue
        if own is ABSENT:
            merged.pop(key, None)
        else:
            merged[key] = own
    return merged


def union(base: Any, mine: Any, theirs: Any) -> Any:
    """Return *theirs* and what *mine* has more than *base*: for lists, tuples and sets that only grow."""
    if mine is ABSENT or theirs is ABSENT:
        return mine
    kept = () if base is ABSENT else base
    if isinstance(theirs, (set, frozenset)):
        return theirs | (set(mine) - set(kept))
    return type(theirs)([*theirs, *(item for item in mine if item not in kept and item not in theirs)])


def total(base: Any, mine: Any, theirs: Any) -> Any:
    """Return *theirs* with what was added to *base* in *mine*: for counters."""
    if mine is ABSENT or theirs is ABSENT:
        return mine
    return theirs + (mine - (0 if base is ABSENT else base))


def queue(base: Any, mine: Any, theirs: Any) -> Any:
    """Return *theirs* without what *mine* took out, and with what it put in: for lists whose items are unique."""
    kept, own, other = (() if side is ABSENT else side for side in (base, mine, theirs))
    taken = [item for item in kept if item not in own]
    left = [item for item in other if item not in taken]
    return left + [item for item in own if item not in kept and item not in left] or ABSENT
