"""An estimate of the memory that a live value takes, for the byte bound of the in-process store.

Exact accounting would cost more than the cache saves: containers are walked up to a number of members, and what is
beyond is extrapolated from their mean.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

_WALK: Final = 512
_ATOMS: Final = frozenset({int, float, bool, str, bytes, type(None), complex})


def estimate(value: Any) -> int:
    """Return about how many bytes *value* and what it contains take."""
    if type(value) in _ATOMS:
        return sys.getsizeof(value)
    return _walk(value, set(), [_WALK])


def _walk(value: Any, seen: set[int], budget: list[int]) -> int:
    size = sys.getsizeof(value, 64)
    if type(value) in _ATOMS or id(value) in seen:
        return size
    seen.add(id(value))
    members = _members(value)
    if members is None:
        return size
    walked = total = 0
    for member in members[0]:
        if budget[0] <= 0:
            break
        budget[0] -= 1
        walked += 1
        total += _walk(member, seen, budget)
    count = members[1]
    return size + (total if walked >= count or not walked else int(total / walked * count))


def _members(value: Any) -> tuple[Any, int] | None:
    if isinstance(value, Mapping):
        return (part for pair in value.items() for part in pair), 2 * len(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return value, len(value)
    state = getattr(value, "__dict__", None)
    if isinstance(state, dict):
        return state.values(), len(state)
    slots = getattr(type(value), "__slots__", ())
    if slots and not isinstance(slots, str):
        parts = [getattr(value, name) for name in slots if hasattr(value, name)]
        return parts, len(parts)
    return None
