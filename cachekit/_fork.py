"""What a forked child must make anew: locks that a thread of the parent may hold, threads and connections it lacks.

Pre-fork servers load the application, and with it a cache, before they fork. Whoever owns such a thing says here how to
renew it; the child does so before it runs anything else. uWSGI forks without telling Python, so it is asked to tell us; and
where nobody tells, whoever is about to use a connection calls ``notice``: one that two processes share gives one visitor the
answer that was another's. Must not know what is renewed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_renewals: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
_told: Final = [os.getpid()]
"""The process for which everything was renewed."""
_noticing: Final = threading.Lock()
"""Taken in a child alone, so that no thread of the parent can hold it."""


def renew_in_child(owner: T, renew: Callable[[T], None]) -> None:
    """Have *renew* called with *owner* in every child forked while *owner* lives, in the order of registration."""
    _renewals[owner] = renew
    _ask_uwsgi()


def notice() -> None:
    """Renew everything now where this is a child that nobody told."""
    if os.getpid() != _told[0]:
        with _noticing:
            if os.getpid() != _told[0]:
                _in_child()


def _in_child() -> None:
    for owner, renew in list(_renewals.items()):
        renew(owner)
    _told[0] = os.getpid()


def _ask_uwsgi() -> None:
    """Have uWSGI tell its workers, after whoever else wants to be told."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or not hasattr(uwsgi, "worker_id"):
        return
    before = getattr(uwsgi, "post_fork_hook", None)
    if getattr(before, "is_of_cachekit", False):
        return

    def hook() -> None:
        notice()
        if callable(before):
            before()

    hook.is_of_cachekit = True  # type: ignore[attr-defined]
    uwsgi.post_fork_hook = hook


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=notice)  # the threads that it starts anew wait until all is renewed
