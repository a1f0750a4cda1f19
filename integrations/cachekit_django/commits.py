"""When a database commits: what carries the tags of changed rows is dropped then, and until then nothing is kept of them.

Owns the tags that wait for the commit of a connection. Django's own list of what is to be done on commit is the truth about
them: it loses what a savepoint rolls back, and is empty after a commit and a rollback. Must not know rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from django.db import connections, transaction

from cachekit import uncommitted
from cachekit_django import conf

_WAITING: Final = "_cachekit_waiting"
"""Attribute of a connection that holds what waits for its commit."""


class _Drop:
    """Drops *tags*, when the connection calls it. Until then it says by being there that they are not committed."""

    def __init__(self, tags: tuple[str, ...], waiting: _Waiting, then: Callable[[], object] | None) -> None:
        self.__qualname__ = "cachekit_django.invalidates"  # Django names by it what fails on commit
        self.tags = tags
        self.done = False
        self._waiting = waiting
        self._then = then

    def __call__(self) -> None:
        self.done = True
        self._waiting.look_again()
        if self._then is not None:
            self._then()
        if self.tags:
            conf.invalidate(*self.tags)


class _Waiting:
    """The tags that wait for the commit of *connection*."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.look_again()

    def look_again(self) -> None:
        """Read the list of the connection from its beginning the next time."""
        self._seen: tuple[list[Any] | None, int, set[str]] = None, 0, set()

    def tags(self) -> set[str]:
        """Return them as of now. Of a list that has only grown, the new part is read.

        Threads that a request has started ask, too: what belongs together is taken at once, and put back at once.
        """
        known, read, tags = self._seen
        found: list[Any] = self._connection.run_on_commit
        if found is not known or len(found) < read:
            read, tags = 0, set()
        new = found[read:]
        for _, what, *_ in new:
            if type(what) is _Drop and not what.done:  # a test may run them, and leave them in the list
                tags.update(what.tags)
        self._seen = found, read + len(new), tags
        return tags


def on_commit(tags: Iterable[str], using: str | None = None, then: Callable[[], object] | None = None) -> None:
    """Drop *tags*, and call *then*, once the transaction of the database *using* commits; at once where there is none.

    What is loaded in the transaction and carries one of them is not kept.
    """
    names = tuple(dict.fromkeys(tags))
    if not names and then is None:
        return
    connection: Any = transaction.get_connection(using)
    waiting = vars(connection).setdefault(_WAITING, _Waiting(connection))
    transaction.on_commit(_Drop(names, waiting, then), using=using, robust=True)
    if names and connection.in_atomic_block:
        uncommitted.note(waiting)
        uncommitted.look_at("django", _of_this_thread)


def _of_this_thread() -> list[_Waiting]:
    """Return what waits in the thread that asks, whichever context has changed the rows: a task of its own, for one."""
    found: Any = connections.all(initialized_only=True)
    return [vars(one)[_WAITING] for one in found if one.in_atomic_block and _WAITING in vars(one)]
