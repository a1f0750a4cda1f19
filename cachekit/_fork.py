"""What a forked child must make anew: locks that a thread of the parent may hold, threads and connections it lacks.

Pre-fork servers load the application, and with it a cache, before they fork. Whoever owns such a thing says here how to
renew it; the child does so before it runs anything else. Must not know what is renewed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_renewals: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def renew_in_child(owner: T, renew: Callable[[T], None]) -> None:
    """Have *renew* called with *owner* in every child forked while *owner* lives, in the order of registration."""
    _renewals[owner] = renew


def _in_child() -> None:
    for owner, renew in list(_renewals.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
