"""Keeping a session: writes that lose nothing, changes of id that hand nothing to strangers, what waited for the store.

Owns what follows from each outcome of a store. Must not know requests, responses or cookies.

Who may follow a session whose id has changed: a request that was under way brings its changes to the new place, if the
session belonged to the same user when it was read, or to nobody (then what the login wrote stays). It never learns the
new id, and reads nothing there. A request that wanted to change the id itself, and came second, gets a session of its own,
made of what it had read before and what it changed: an id that was planted on somebody opens nothing of theirs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from cachekit._io import IO
from cachekit.clock import Clock
from cachekit.errors import CodecError, SessionError, StoreError
from cachekit.events import Emit, Event, Kind
from cachekit.policy import FOREVER, seconds
from cachekit.sessions.degraded import LocalSessions, Pending
from cachekit.sessions.guard import GuardedSessions
from cachekit.sessions.options import SessionOptions
from cachekit.sessions.payload import About, Content, Extent, Payloads, Unpacked
from cachekit.sessions.store import Asked, Instant, Key, Moved, Record, Verdict, new_version, owner_of

_TRIES: Final = 1000
_CHAIN: Final = 8
_LARGE: Final = 4096
_new: Final = tuple.__new__  # what a NamedTuple's own __new__ calls, without the frame that this takes
_versions: Final = itertools.count()
"""Of sessions in this process: nobody else writes them."""


class Held(NamedTuple):
    """A session as one request holds it.

    Attributes:
        key: where it is kept.
        record: what is known to be there.
        about: whose it is.
        base: its values there.
        extent: how it was written, where it can be added to.
    """

    key: Key
    record: Record
    about: About
    base: Mapping[str, bytes]
    extent: Extent | None = None


class Keeper:
    """Keeps sessions in a store, and what waits for it in this process.

    Args:
        store: keeps them, behind a breaker.
        options: lifetimes, policies.
        payloads: their bytes.
        clock: source of time.
        emit: receives events.
    """

    def __init__(
        self, store: GuardedSessions, options: SessionOptions, payloads: Payloads, *, clock: Clock, emit: Emit
    ) -> None:
        self.store = store
        self.payloads = payloads
        self._appends = store.appends
        self._in_parcels = store.takes_parcels and not payloads.protects
        self.local = LocalSessions(options.max_local, options.life(remembered=False), clock, payloads)
        self.emit = emit
        self._slides = options.sliding
        self._lives = {remembered: options.life(remembered=remembered) for remembered in (False, True)}
        self._absolute = options.absolute
        self._grace = seconds(options.grace)

    def life(self, about: About) -> float:
        """Return the seconds that a session lives after it was last used."""
        return about.life or self._lives[about.remembered]

    # -- reading --------------------------------------------------------------------------------------------------

    async def read(self, io: IO, key: Key, *, remembered: bool) -> Held | Moved | None:
        """Return what is kept under *key*. What cannot be read is set aside where it is, and counts as absent."""
        found = await self.store.read(io, key, self._lives[remembered] if self._slides else 0.0)
        return self.held(key, found) if isinstance(found, Record) else found

    def read_now(self, instant: Instant, key: Key, *, remembered: bool) -> Held | Moved | None:
        """Do what ``read`` does, of a store that nobody waits for."""
        found = instant.read_now(key, self._lives[remembered] if self._slides else 0.0)
        return self.held(key, found) if isinstance(found, Record) else found

    def ahead(self, key: Key, *, remembered: bool) -> Asked | None:
        """Begin to read what is kept under *key*, where the store can."""
        return self.store.ahead(key, self._lives[remembered] if self._slides else 0.0)

    def take(self, key: Key, asked: Asked) -> Held | Moved | None:
        """Return what ``read`` does, of *key*, for which was *asked* before. Raises ``StoreError``."""
        found = asked.take()
        return self.held(key, found) if isinstance(found, Record) else found

    def held(self, key: Key, record: Record) -> Held | None:
        """Return what is in *record*; None for what cannot be read, which is told."""
        body: Any = record.body
        try:
            if type(body) is Unpacked and self._in_parcels:
                about, cells, extent = body.about, body.cells, None
            else:
                about, cells, extent = self.payloads.content(record.version, body, self._context(key))
            if about.user and owner_of(about.user) != record.owner:
                raise CodecError("the user of this session and the index it is in contradict each other")
        except CodecError as exc:
            self.emit(Event(Kind.UNREADABLE, str(key), name="sessions", detail=str(exc), error=exc))
            return None
        if type(body) is bytes and len(body) > _LARGE:  # they would take up room until the request ends
            record = record._replace(body=b"")
        return _new(Held, (key, record, about, cells, extent))

    def _context(self, key: Key) -> bytes:
        """Return what a body under *key* is bound to, where it is protected."""
        return str(key).encode() if self.payloads.protects else b""

    # -- writing --------------------------------------------------------------------------------------------------

    def _addition(self, held: Held, values: Mapping[str, bytes], about: About) -> tuple[bytes, Extent] | None:
        """Return what to add to the session as it is, None where it is to be written as a whole."""
        if not self._appends or held.extent is None or held.record.ttl != self.life(about):
            return None
        if about is not held.about and about != held.about:
            return None
        return self.payloads.addition(held.base, values, held.extent)

    def _body(self, key: Key, values: Mapping[str, bytes], about: About) -> Any:
        if self._in_parcels:
            return self.payloads.parcel(about, values)
        return self.payloads.pack(about, values, self._context(key))

    def _record(
        self, key: Key, values: Mapping[str, bytes], about: About, owner: str | None = None, version: str = ""
    ) -> Record:
        if owner is None:
            owner = owner_of(about.user) if about.user else ""
        body = self._body(key, values, about)
        return Record(body, version or new_version(), self.life(about), deadline=self._absolute, owner=owner)

    async def make(
        self,
        io: IO,
        key: Key,
        values: Mapping[str, bytes],
        about: About,
        *,
        like: Record | None = None,
        tried: list[str] | None = None,
    ) -> Held:
        """Keep a new session; its absolute time-out is that of the session *like*, or begins now.

        *tried* is as in ``write``.
        """
        record = self._record(key, values, about)
        if tried is not None:
            tried.append(record.version)
        if like is not None and like.created:
            record = record._replace(created=like.created, deadline=like.deadline)
        outcome = await self.store.write(io, key, record, None)
        ours = isinstance(outcome.found, Record) and outcome.found.version == record.version  # its answer was lost
        if not ours and isinstance(outcome.found, Record):
            raise Exists(outcome.found)
        if not ours and outcome.verdict is not Verdict.DONE:
            raise TimedOut("this session has reached its absolute time-out")
        self.emit(Event(Kind.SESSION_CREATED, str(key)))
        return self._there(key, record, about, values, self.payloads.extent(record.body))

    def _there(
        self, key: Key, record: Record, about: About, values: Mapping[str, bytes], extent: Extent | None
    ) -> Held:
        """Return what is held now that *record* is kept under *key*."""
        if extent is not None:
            self.payloads.remember(record.version, Content(about, values, extent))
        return Held(key, record, about, values, extent)

    async def write(
        self,
        io: IO,
        held: Held,
        values: Mapping[str, bytes],
        about: About,
        *,
        yielding: bool = False,
        tried: list[str] | None = None,
        pending: Pending | None = None,
    ) -> Held | None:
        """Keep the changes that led from ``held.base`` to *values*, together with what others changed meanwhile.

        Returns what is kept now; None when the session has ended, or now belongs to somebody else. *tried* receives the
        versions that were sent: one whose answer was lost may be there all the same, and must not be merged with itself;
        neither may those of *pending*, of which *values* were made.
        """
        for again in range(_TRIES):
            version, was = new_version(), held.record
            extent: Extent | None
            if tried is not None:
                tried.append(version)
            # Where others were faster, they may be so again: the script says at once what is there.
            if not again and (swapped := await self._swap(io, held, values, about, version)) is not None:
                return swapped
            if (addition := self._addition(held, values, about)) is not None:
                added, extent = addition
                outcome = await self.store.append(io, held.key, added, version, was.version)
            else:
                record = self._record(held.key, values, about, was.owner, version)
                extent = self.payloads.extent(record.body)
                outcome = await self.store.write(io, held.key, record, was.version)
            there = isinstance(outcome.found, Record) and outcome.found.version == version
            if there or outcome.verdict is Verdict.DONE:
                kept = Record(b"", version, self.life(about), was.created, was.seen, was.deadline, was.owner)
                return self._there(held.key, kept, about, values, extent)
            if isinstance(outcome.found, Moved):
                return await self._follow(io, outcome.found, held, values)
            theirs = None if outcome.found is None else self.held(held.key, outcome.found)
            if theirs is None:
                self.discarded(held.key)
                return None
            self.emit(Event(Kind.SESSION_MERGED, str(held.key)))
            if pending is not None and theirs.record.version in pending.sent:  # it arrived in this moment
                values = self.payloads.merge(pending.base_of(theirs.record.version), pending.values, theirs.base)
            else:
                values = self.payloads.merge(held.base, values, theirs.base, yielding=yielding)
            about = theirs.about if about == held.about else theirs.about.lasting_as(about)
            held, about = (theirs, about) if pending is None else bound(theirs, about, pending)
        raise SessionError(f"a session was changed by others {_TRIES} times in a row: give up")

    async def _swap(self, io: IO, held: Held, values: Mapping[str, bytes], about: About, version: str) -> Held | None:
        """Put *values* in place of what was read, where the store sees by itself whether that is there; else None."""
        was = held.record
        if not self.store.swaps(was) or was.ttl != self.life(about):
            return None
        body = self._body(held.key, values, about)
        if not await self.store.swap(io, held.key, was, body, version):
            return None
        record = was._replace(body=body, version=version)
        return self._there(held.key, record, about, values, self.payloads.extent(body))

    def write_now(self, instant: Instant, held: Held, values: Mapping[str, bytes], about: About) -> Held | None:
        """Do what ``write`` does, to a store that nobody waits for; None where others came first, for ``write`` to see."""
        key, life = held.key, about.life or self._lives[about.remembered]
        body: Any = self.payloads.parcel(about, values) if self._in_parcels else self._body(key, values, about)
        kept = instant.replace_now(key, body, f"{next(_versions):x}", life, held.record.version)
        return _new(Held, (key, kept, about, values, None)) if type(kept) is Record else None

    async def _follow(self, io: IO, moved: Moved, held: Held, values: Mapping[str, bytes]) -> Held | None:
        """Bring changes to where a session is now, if they may go there."""
        for _ in range(_CHAIN):
            if held.record.owner and moved.owner != held.record.owner:
                break
            found = await self.read(io, moved.key, remembered=held.about.remembered)
            if isinstance(found, Moved):
                moved = found
                continue
            if found is None:
                break
            yielding = found.record.owner != held.record.owner
            merged = self.payloads.merge(held.base, values, found.base, yielding=yielding)
            if merged == found.base:
                return found
            self.emit(Event(Kind.SESSION_MERGED, str(found.key)))
            return await self.write(io, found, merged, found.about, yielding=yielding)
        self.discarded(held.key)
        return None

    async def rotate(
        self,
        io: IO,
        held: Held,
        key: Key,
        values: Mapping[str, bytes],
        about: About,
        *,
        fresh: bool,
        tried: list[str] | None = None,
    ) -> Held | None:
        """Keep the session under the new *key*, and end it under the old one. None when it had ended.

        The new one is made first: whatever fails in between, nothing is lost, and the old id opens no more than before.
        *fresh* says that somebody has logged in: then the absolute time-out begins anew.
        """
        try:
            made = await self.make(io, key, values, about, like=None if fresh else held.record, tried=tried)
        except TimedOut:
            self.discarded(held.key)
            return None
        note = Moved(key, made.record.owner)
        try:
            for _ in range(_TRIES):
                outcome = await self.store.retire(io, held.key, held.record, note, self._grace)
                if outcome.verdict is Verdict.DONE:
                    return made
                if isinstance(outcome.found, Moved):
                    if outcome.found.key == key:
                        return made  # this request's own doing, whose answer was lost
                    if fresh or await self._still_there(io, outcome.found):
                        return made  # another request has changed the id too: each has a session of its own
                    break
                theirs = None if outcome.found is None else self.held(held.key, outcome.found)
                if theirs is None:
                    break
                self.emit(Event(Kind.SESSION_MERGED, str(key)))
                values = self.payloads.merge(held.base, values, theirs.base)
                again = await self.write(io, made, values, made.about)
                if again is None:
                    return None
                made, held = again, theirs
            await self.store.destroy(io, key, made.record.owner)
        except StoreError:
            self.keep_here(held.key, Pending(ended=True, owner=held.record.owner))  # the old id dies as soon as it can
            return made
        self.discarded(held.key)
        return None

    async def _still_there(self, io: IO, moved: Moved) -> bool:
        for _ in range(_CHAIN):
            found = await self.store.read(io, moved.key, 0.0)
            if not isinstance(found, Moved):
                return found is not None
            moved = found
        return False

    async def end(self, io: IO, key: Key, owner: str) -> None:
        """End a session, wherever it is now: a logout wins."""
        for _ in range(_CHAIN):
            outcome = await self.store.destroy(io, key, owner)
            if not isinstance(outcome.found, Moved) or (owner and outcome.found.owner != owner):
                break
            key, owner = outcome.found.key, outcome.found.owner
        self.emit(Event(Kind.SESSION_ENDED, str(key)))

    # -- while the store is away ----------------------------------------------------------------------------------

    def keep_here(self, key: Key, pending: Pending) -> None:
        """Hold a session in this process until the store is back."""
        self._tell_left(key, self.local.put(key, pending))

    def add_here(
        self, key: Key, pending: Pending, base: Mapping[str, bytes], known: Pending | None, *, own_about: bool
    ) -> Pending | None:
        """Do the same, together with what other requests have changed here: see ``LocalSessions.add``."""
        kept, left = self.local.add(key, pending, base, known, own_about=own_about)
        self._tell_left(key, left)
        if kept is None:
            self.discarded(key)
        return kept

    def _tell_left(self, key: Key, left: int) -> None:
        for _ in range(left):
            self.discarded(key, "there was no room to hold it any longer")

    def discarded(self, key: Key, why: str = "its session had ended") -> None:
        """Tell that changes of *key* go nowhere, and *why*."""
        self.emit(Event(Kind.SESSION_DISCARDED, str(key), detail=why))


def bound(held: Held, about: About, pending: Pending) -> tuple[Held, About]:
    """Return *held* and *about* with the user of a login that waited here, where the session there is nobody's yet.

    A process that only had its cookie knows nothing of the login, and may have brought what it changed there first.
    """
    if not pending.born or not pending.about.user or held.record.owner:
        return held, about
    user = pending.about.user
    return held._replace(record=held.record._replace(owner=owner_of(user))), replace(about, user=user)


class TimedOut(SessionError):
    """A session has reached its absolute time-out."""


class Exists(Exception):
    """There is a session where a new one was to be."""

    def __init__(self, record: Record) -> None:
        super().__init__("there is a session under this key already")
        self.record = record


def left_of(record: Record, now: float) -> float:
    """Return the seconds until the absolute end of a session, for its cookie."""
    if record.deadline == FOREVER:
        return FOREVER
    return max(0.0, record.deadline - now) if record.created else record.deadline
