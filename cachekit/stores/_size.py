"""An estimate of the memory that a live value takes, for the byte bound of the in-process store.

Exact accounting would cost more than the cache saves: containers are walked up to a number of members, and what is
beyond is extrapolated from their mean.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from types import MappingProxyType, MemberDescriptorType
from typing import Any, Final

_WALK: Final = 512
_SHARED: Final = 8
"""References from which on an object is not the value's own, and would stay without it, as the mapper of a database does."""
_LEAST: Final = 64
"""Bytes of what does not say."""
_ATOMS: Final = frozenset({int, float, bool, str, bytes, type(None), complex})


def estimate(value: Any) -> int:
    """Return about how many bytes *value* and what it contains take."""
    if type(value) in _ATOMS:
        return sys.getsizeof(value)
    return _walk(value, set(), [_WALK])


def _walk(value: Any, seen: set[int], budget: list[int]) -> int:
    size = _LEAST
    try:
        size = sys.getsizeof(value, _LEAST)
        if type(value) in _ATOMS or id(value) in seen or (seen and sys.getrefcount(value) > _SHARED):
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
    except Exception:  # noqa: BLE001 - proxies and the like answer what they please, and the caller wants a value
        return size
    count = members[1]
    return size + (total if walked >= count or not walked else int(total / walked * count))


def _members(value: Any) -> tuple[Any, int] | None:
    """Return what *value* holds, and how much that is. None of its own code is asked: it might ask a database."""
    kind: Any = type(value)
    if issubclass(kind, dict):
        return (part for pair in dict.items(value) for part in pair), 2 * dict.__len__(value)
    if issubclass(kind, MappingProxyType):
        return (part for pair in value.items() for part in pair), 2 * len(value)
    for plain in (list, tuple, set, frozenset):
        if issubclass(kind, plain):
            return plain.__iter__(value), plain.__len__(value)
    parts = [member.__get__(value) for member in _slots(kind) if _is_set(member, value)]
    try:
        state = object.__getattribute__(value, "__dict__")
    except AttributeError:
        state = None
    if isinstance(state, dict):
        parts += state.values()
    return (parts, len(parts)) if parts else None


@lru_cache(maxsize=256)
def _slots(kind: type[Any]) -> tuple[Any, ...]:
    found = (member for base in kind.__mro__ for member in vars(base).values())
    return tuple(member for member in found if isinstance(member, MemberDescriptorType))


def _is_set(member: Any, value: Any) -> bool:
    try:
        member.__get__(value)
    except AttributeError:
        return False
    return True
