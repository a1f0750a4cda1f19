"""``with cache.transaction():``: changes that are applied together at the end, or not at all.

Owns when that happens and for whom: a transaction belongs to the code that runs inside of its block, in this task or
thread and those it starts. Within, the cache works through an engine of its own over a ``Staged`` store. Must not know
what functions or callers do with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import Any, Final, Self

from cachekit._io import ASYNCIO, BLOCKING, IO, both, drive
from cachekit.engine import Engine, within
from cachekit.errors import CodecError, ConfigError
from cachekit.events import Event, Kind
from cachekit.jobs import Job
from cachekit.keeping import Kept
from cachekit.stores.base import AnyEntry, Ticket
from cachekit.stores.staged import Staged
from cachekit.tags import UNCOMMITTED, Refusing, enter, leave, note

log = logging.getLogger("cachekit")

_STAGED: Final = object()
"""In force inside of a transaction: hits that look at no transaction are refused."""

OnCommit = Callable[[Callable[[], None]], object]
"""Receives the callable that applies the changes, and calls it when a database has committed."""


class _Within(Engine):
    """The engine of a transaction: its flights are its own, and nothing that it loads is for others."""

    def __init__(self, outer: Engine) -> None:
        self.staged = Staged(outer.store, outer.clock)
        super().__init__(self.staged, clock=outer.clock, chance=outer.chance, events=outer.events, l1=None)
        self.outer = outer
        self.open = True
        self.names: dict[str, None] = {}

    async def invalidate(self, io: IO, tags: Sequence[str], *, name: str = "") -> bool:
        if name:
            self.names[name] = None
        self.flights.void(tags=tags)
        await self.store.invalidate(io, tags)
        self.flights.void(tags=tags)
        return True  # caches further out are told at the end

    async def keep(self, io: IO, ticket: Ticket, entry: AnyEntry) -> Kept:
        kept = await self.store.commit(io, ticket, entry)
        self.events(Event(Kind.NOT_STORED, ticket.key, detail="loaded inside of a transaction"))
        return Kept.REFUSED if kept is None else Kept.KEPT

    def is_uncommitted(self, tags: Collection[str]) -> bool:  # noqa: ARG002 - nothing goes further than here anyway
        return False

    def _refresh_behind(self, io: IO, job: Job, seen: AnyEntry) -> None:
        """Leave refreshing to callers outside, whose results can be kept."""


class Transaction:
    """One transaction; ``Cache.transaction`` makes it. A context manager in both worlds, to be entered once.

    Args:
        engine: the engine of the cache.
        on_commit: where the changes are handed at the end of the block, instead of being applied there.
    """

    def __init__(self, engine: Engine, on_commit: OnCommit | None = None) -> None:
        self._root = engine
        self._on_commit = on_commit
        self._within: _Within | None = None
        self._tokens: tuple[Token[Any], Token[Any]] | None = None

    def __repr__(self) -> str:
        state = "not begun" if self._within is None else "open" if self._within.open else "ended"
        return f"<Transaction, {state}>"

    # -- the block ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._within is not None:
            raise ConfigError("this transaction was begun already: call cache.transaction() once for each block")
        self._within = _Within(self._root.here())
        mode = Refusing.mode_here()
        self._tokens = within.set((*within.get(), (self._root, self._within))), enter(mode or _STAGED)

    def _leave(self) -> None:
        assert self._within is not None
        assert self._tokens is not None
        within.reset(self._tokens[0])
        leave(self._tokens[1])
        self._within.open = False

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._leave()
        if kind is not None:
            self.rollback()
        elif self._on_commit is not None:
            self._taint()  # nobody tells when the database rolls back
            self._on_commit(self.commit)
        else:
            self.commit()

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._leave()
        if kind is not None:
            self.rollback()
        elif self._on_commit is not None:
            self._taint()
            self._on_commit(self._soon)
        else:
            await self.acommit()

    def _soon(self) -> None:
        """Apply the changes behind, where a loop is running: databases call their hooks without awaiting them."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            drive(self._commit(BLOCKING))
        else:
            ASYNCIO.spawn(self._commit(ASYNCIO))

    # -- what was changed -----------------------------------------------------------------------------------------

    async def _commit(self, io: IO) -> None:
        """Apply what was changed so far. What is dropped goes first, so that nobody sees new values next to old ones.

        Never fails: a server that is away gets the invalidations on its return, and a value that cannot be encoded is
        reported and not kept. In the block more changes may follow; they are applied at its end.

        Raises:
            ConfigError: the transaction was not begun.
        """
        own = self._own()
        target = own.outer
        while isinstance(target, _Within) and not target.open:
            target = target.outer
        if isinstance(target, _Within) and own.staged.given:
            target.staged.given = True  # what was given out depends on that one now
        changes, names, own.names = own.staged.take(), ", ".join(own.names), {}
        if changes.cleared:
            await target.clear(io)
        if changes.tags:
            await target.invalidate(io, changes.tags, name=names)
        if changes.keys:
            await target.delete(io, changes.keys)
        if changes.entries:
            await _write(io, target, changes.entries)

    commit, acommit = both(_commit)

    def rollback(self) -> None:
        """Forget what was changed so far. Raises ``ConfigError`` when the transaction was not begun."""
        own = self._own()
        self._taint()
        own.staged.take()
        own.names = {}

    def _taint(self) -> None:
        """Let nobody keep what is made, around the block too, of what only the transaction has seen."""
        if self._own().staged.given:
            note((UNCOMMITTED,))

    def _own(self) -> _Within:
        if self._within is None:
            raise ConfigError("this transaction was not begun: write `with cache.transaction() as tx:`")
        return self._within


async def _write(io: IO, target: Engine, entries: Mapping[str, AnyEntry]) -> None:
    try:
        await target.write(io, entries)
    except CodecError:
        for key, entry in entries.items():
            try:
                await target.write(io, {key: entry})
            except CodecError as exc:  # the database has committed: the old value must go at least
                log.warning("%s is not cached: %s", key, exc)
                target.events(Event(Kind.UNENCODABLE, key, detail=str(exc), error=exc))
                await target.delete(io, [key])
