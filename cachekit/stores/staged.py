"""What a transaction sees and has changed: a store in front of another that keeps every change to itself.

Reads see the changes; the store behind sees none of them until whoever owns this takes them out and applies them. What
is loaded through here is remembered here and goes no further: it may have been made of data that nobody else can see
yet. Must not know how changes are applied, nor whether they ever are.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cachekit._io import IO
from cachekit.clock import Clock
from cachekit.errors import StoreError
from cachekit.stores.base import AnyEntry, Change, Store, Ticket


class _Unknown(Enum):
    """What this store says of a key that it knows nothing of."""

    UNKNOWN = "unknown"


_KEY: Final = "\0"
_EVERYTHING: Final = "\0\0"


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be done to the store behind, in this order.

    Attributes:
        cleared: whether everything is dropped.
        tags: the tags to invalidate.
        keys: the keys to drop.
        entries: what to keep.
    """

    cleared: bool = False
    tags: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    entries: Mapping[str, AnyEntry] = field(default_factory=dict)


class Staged:
    """Keeps changes in front of *inner*.

    Args:
        inner: what is read where nothing was changed.
        clock: source of time.

    Attributes:
        given: whether somebody was given what is the transaction's own.
    """

    def __init__(self, inner: Store, clock: Clock) -> None:
        self.inner = inner
        self._clock = clock
        self._lock = threading.Lock()  # a transaction may be used by the threads and tasks that its owner starts
        self._number = 0
        self._forget()

    def _forget(self) -> None:
        self.given = False
        self._cleared = False
        self._tags: dict[str, None] = {}
        self._dropped: dict[str, None] = {}
        self._written: dict[str, AnyEntry] = {}
        self._loaded: dict[str, AnyEntry] = {}
        self._marks: dict[str, int] = {}

    def take(self) -> Changes:
        """Return the changes, and begin anew without any."""
        with self._lock:
            changes = Changes(self._cleared, tuple(self._tags), tuple(self._dropped), dict(self._written))
            self._mark(_EVERYTHING)
            marks = self._marks
            self._forget()
            self._marks = {_EVERYTHING: marks[_EVERYTHING]}  # a load that is running belongs to what was before
            return changes

    def _mark(self, *names: str) -> None:
        self._number += 1
        self._marks.update(dict.fromkeys(names, self._number))

    def _own(self, key: str) -> AnyEntry | _Unknown | None:
        entry = self._written.get(key) or self._loaded.get(key)
        if entry is not None:
            self.given = True
            return entry if self._clock() < entry.dead_at else None
        return None if self._cleared or key in self._dropped else _Unknown.UNKNOWN

    def _is_hidden(self, entry: AnyEntry) -> bool:
        return not self._tags.keys().isdisjoint(entry.tags)

    def _drop(self, key: str) -> None:
        self._written.pop(key, None)
        self._loaded.pop(key, None)
        self._dropped[key] = None

    # -- the Store port -------------------------------------------------------------------------------------------

    async def get(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:
        if (own := self._own(key)) is not _Unknown.UNKNOWN:
            return own
        found = await self.inner.get(io, key, tags)
        if (own := self._own(key)) is not _Unknown.UNKNOWN:  # another task of the transaction was faster
            return own
        return None if found is None or self._is_hidden(found) else found

    async def get_many(self, io: IO, keys: Sequence[str]) -> dict[str, AnyEntry]:
        unknown = [key for key in keys if self._own(key) is _Unknown.UNKNOWN]
        found = await self.inner.get_many(io, unknown) if unknown else {}
        made = {}
        for key in keys:
            own = self._own(key)
            if own is not _Unknown.UNKNOWN:
                entry = own
            else:
                entry = found.get(key)
                if entry is not None and self._is_hidden(entry):
                    continue
            if entry is not None:
                made[key] = entry
        return made

    async def set_many(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:  # noqa: ARG002 - no I/O here
        with self._lock:
            self._mark(*(_KEY + key for key in entries))
            for key, entry in entries.items():
                self._loaded.pop(key, None)
                self._dropped.pop(key, None)
                self._written[key] = entry

    async def delete(self, io: IO, keys: Sequence[str]) -> int:
        try:
            there = len(await self.get_many(io, keys))
        except StoreError:
            there = 0
        with self._lock:
            self._mark(*(_KEY + key for key in keys))
            for key in keys:
                self._drop(key)
        return there

    async def update(self, io: IO, key: str, change: Change) -> AnyEntry | None:
        """Change an entry of the transaction's own here, any other at once where it lies: its answer is about others."""
        with self._lock:
            own = self._written.get(key)
            if own is not None or key in self._dropped or self._cleared:
                new = change(own if own is not None and self._clock() < own.dead_at else None)
                if new is not own:
                    self._mark(_KEY + key)
                    self._drop(key)
                    if new is not None:
                        del self._dropped[key]
                        self._written[key] = new
                return new
            self._loaded.pop(key, None)
        return await self.inner.update(io, key, change)

    async def begin(self, io: IO, key: str, tags: Sequence[str], lease: float, *, exclusive: bool = True) -> Ticket:  # noqa: ARG002 - others are none of its business
        with self._lock:
            if not exclusive:  # a refresh: what others have is old, and what comes is not for them
                self._mark(_KEY + key)
                if key not in self._written:
                    self._drop(key)
            own = self._own(key)
            return Ticket(key, leads=True, found=None if own is _Unknown.UNKNOWN else own, proof=self._number)

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> AnyEntry | None:  # noqa: ARG002 - no I/O here
        with self._lock:
            names = (_EVERYTHING, _KEY + ticket.key, *entry.tags)
            if any(self._marks.get(name, 0) > ticket.proof for name in names):
                return None
            self._loaded[ticket.key] = entry
            self.given = True
            return entry

    async def release(self, io: IO, ticket: Ticket) -> None:
        pass

    async def invalidate(self, io: IO, tags: Sequence[str]) -> None:  # noqa: ARG002 - no I/O here
        with self._lock:
            self._mark(*tags)
            self._tags.update(dict.fromkeys(tags))
            for key, entry in list(self._written.items()):
                if not set(tags).isdisjoint(entry.tags):
                    self._drop(key)
            for key, entry in list(self._loaded.items()):
                if not set(tags).isdisjoint(entry.tags):
                    del self._loaded[key]

    async def clear(self, io: IO) -> None:  # noqa: ARG002 - no I/O here
        with self._lock:
            self._mark(_EVERYTHING)
            marks = self._marks
            self._forget()
            self._marks, self._cleared = marks, True

    async def close(self, io: IO) -> None:
        pass
