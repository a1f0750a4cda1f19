"""What stands for ``self`` in the key of a method: a token that dies with the instance, never the instance itself.

An instance whose class defines ``__cache_key__`` is told apart by that, so that its results are shared by processes.
Any other is told apart by a token that nothing else has, in no other process either. Must not know about stores.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from itertools import count
from typing import Any

from cachekit._fork import notice, renew_in_child
from cachekit.clock import random_token
from cachekit.errors import KeyArgumentError


class _Process:
    """Whose instances they are."""

    def __init__(self) -> None:
        self.name = random_token(6).hex()

    def renew(self) -> None:
        """In a forked child instances go their own ways: their tokens must differ from the parent's."""
        self.name = random_token(6).hex()
        for number, memos in list(_memos.items()):
            for memo in memos:
                memo.pop(number, None)
        _memos.clear()
        _tokens.clear()


_here = _Process()
renew_in_child(_here, _Process.renew)
_numbers = count()
_tokens: dict[int, tuple[weakref.ref[Any], str]] = {}
_memos: dict[int, list[dict[Hashable, Any]]] = {}


def token_of(instance: object, function: str) -> str:
    """Return the token of *instance*. Raises ``KeyArgumentError`` when it cannot be referred to weakly."""
    number = id(instance)
    known = _tokens.get(number)
    if known is not None and known[0]() is instance:
        return known[1]

    notice()

    def gone(_: object) -> None:
        _tokens.pop(number, None)
        for memo in _memos.pop(number, ()):
            memo.pop(number, None)

    try:
        ref = weakref.ref(instance, gone)
    except TypeError:
        name = type(instance).__name__
        raise KeyArgumentError(
            f"{function}: self of type {name} cannot be told apart from other instances: give {name} a __cache_key__ "
            f'method that returns plain values, add "__weakref__" to its __slots__, or use ignore=("self",)',
            argument="self",
        ) from None
    made = (ref, f"{_here.name}.{next(_numbers)}")
    if known is not None:
        _tokens[number] = made
    return _tokens.setdefault(number, made)[1]  # another thread may have been faster


def memo_of(instance: object, memo: dict[Hashable, Any]) -> dict[Hashable, Any]:
    """Return the part of *memo* that belongs to *instance* and goes when it dies. Its token must have been taken."""
    own: dict[Hashable, Any] | None = memo.get(id(instance))
    if own is None:
        own = memo[id(instance)] = {}
        _memos.setdefault(id(instance), []).append(memo)
    return own


def has_own_key(instance: object) -> bool:
    """Say whether the class of *instance* defines ``__cache_key__``."""
    return hasattr(type(instance), "__cache_key__")
