"""What becomes of the session of one request: it ends, begins, changes, gets another id, or is noted as used.

Owns which of these it is, what this process knows of the session afterwards, and whether its cookie must be said. Must not
know when that happens, nor how a session is read; ``Exchange`` does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from cachekit._io import IO
from cachekit.clock import Clock
from cachekit.errors import CodecError, StoreError
from cachekit.events import Emit, Event, Kind
from cachekit.policy import FOREVER
from cachekit.sessions.cookie import Cookies, Ticket
from cachekit.sessions.degraded import Pending
from cachekit.sessions.delivering import Deliveries
from cachekit.sessions.guard import GuardedSessions
from cachekit.sessions.habits import Habits
from cachekit.sessions.keeper import Held, left_of
from cachekit.sessions.options import SessionOptions
from cachekit.sessions.payload import About, Payloads
from cachekit.sessions.session import Session
from cachekit.sessions.store import Key, owner_of


class Shared(Protocol):
    """What the requests of one application share: a ``Driver``."""

    options: SessionOptions
    store: GuardedSessions
    clock: Clock
    emit: Emit
    cookies: Cookies
    payloads: Payloads
    keeper: Deliveries
    slack: float
    slides: bool
    no_store: bool
    explicit: bool
    claimed: tuple[str, ...]
    habits: Habits
    foresees: bool
    eager: bool

    def may_touch(self, key: Key) -> bool:
        """Say whether *key* was not touched within the interval, and note that it is now."""
        ...

    def wants_return(self, io: IO) -> None:
        """Bring what waits to the store, behind the request."""
        ...


class Keeping:
    """One request and its session, once the session is there."""

    __slots__ = (
        "_born", "_claims", "_driver", "_failed", "_held", "_id", "_line", "_loaded_about", "_local", "_mute", "_next",
        "_previous", "_used", "session",
    )  # fmt: skip

    _driver: Shared
    _held: Held | None  # what the store has of it
    _local: Pending | None  # what this process has of it
    _id: str  # the id that the client has
    _next: str  # the id that it will get
    _failed: bool
    _born: bool
    _previous: Key | None
    _mute: bool  # no cookie may be sent: the client's is newer than this request
    _line: str | None
    _claims: Mapping[str, bytes]
    _loaded_about: About
    _used: bool  # this response has noted already that it is used
    session: Session

    @property
    def _ticket(self) -> Ticket | None:
        """Return what the cookie says."""
        raise NotImplementedError

    @_ticket.setter
    def _ticket(self, ticket: Ticket | None) -> None:
        raise NotImplementedError

    def degrade(self, error: StoreError) -> None:
        """Note that this request goes on without the store."""
        raise NotImplementedError

    def _identity(self, about: About) -> str:
        """Return the new id of this session."""
        raise NotImplementedError

    def keep_now(self) -> bool:
        """Do what ``keep`` does, where nothing is to be waited for; False where ``keep`` is to be awaited."""
        session = self.session
        if not session.loaded:
            return not self._driver.options.keep_alive
        if not session.settled:
            if self._driver.store.instant is None or self._held is None:
                return False
            if self._failed or session.ended or session.rotates:
                return False
            if (values := session.changes()) is not None:
                return self._write_now(values, session.about)
        return self._used or self._failed or not self._is_due()

    async def keep(self, io: IO) -> None:
        """Bring the store up to what the session holds. A response that failed only ends sessions."""
        session = self.session
        if not session.loaded:
            await self._keep_alive(io)
            return
        if session.ended:
            await self._end(io)
        if self._failed:
            return
        values = session.changes()
        about = session.about
        known = self._held is not None or self._local is not None
        if not known:
            if values or (about.user and session.bound):
                await self._begin(io, values or {}, about)
        elif session.rotates:
            await self._rotate(io, values if values is not None else dict(session.base), about)
        elif values is not None:
            if not self._write_now(values, about):
                await self._write(io, values, about)
        elif not self._used:
            await self._use(io)

    def _write_now(self, values: Mapping[str, bytes], about: About) -> bool:
        """Do what ``_write`` does, where nobody waits for the store and nobody else wrote; False where nothing was done."""
        keeper, held = self._driver.keeper, self._held
        if (instant := keeper.store.instant) is None or held is None or about is not self._loaded_about:
            return False
        if held.base is not self.session.base or (kept := keeper.write_now(instant, held, values, about)) is None:
            return False
        self._held = kept
        self._kept(held.key, values, about, say=False)
        return True

    async def _end(self, io: IO) -> None:
        keeper, key = self._driver.keeper, Key.of(self._id) if self._id else None
        owner = ""
        if self._held is not None:
            key, owner = self._held.key, self._held.record.owner
        if key is not None and (self._held is not None or self._local is not None):
            if self._local is not None and self._local.about.user:
                owner = owner_of(self._local.about.user)
            try:
                if self._local is not None:
                    keeper.local.take(key)
                if self._local is None or not self._local.is_unheard_of:
                    await keeper.end(io, key, owner)
            except StoreError as exc:
                self.degrade(exc)
                keeper.keep_here(key, Pending(ended=True, owner=owner))
                keeper.emit(Event(Kind.SESSION_ENDED, str(key), detail="here; the store is told when it is back"))
        if self._ticket is not None:
            self._line = self._driver.cookies.removal()
        self._ticket = None
        self._held, self._local, self._id, self._born, self._previous = None, None, "", False, None
        self._mute = False
        self.session.restart()

    async def _begin(self, io: IO, values: Mapping[str, bytes], about: About) -> None:
        if self._mute and not about.user:
            # The client holds a newer cookie by now: another one would log it out.
            self._driver.emit(Event(Kind.SESSION_DISCARDED, detail="the id of this request was changed by another"))
            self.session.commit(values)
            return
        self._id, self._next, self._mute = self._identity(about), "", False
        key, keeper = Key.of(self._id), self._driver.keeper
        tried: list[str] = []
        try:
            self._held = await keeper.make(io, key, values, about, tried=tried)
            self._born = False
        except StoreError as exc:
            self.degrade(exc)
            self._keep_here(key, Pending(values=values, about=about, born=True).after(tried))
        self._kept(key, values, about, say=True)

    async def _rotate(self, io: IO, values: Mapping[str, bytes], about: About) -> None:
        keeper, held = self._driver.keeper, self._held
        fresh, own = self.session.bound, values
        values = self._onto(values)
        identity, self._next = self._identity(about), ""
        key = Key.of(identity)
        tried: list[str] = []
        try:
            if held is None:
                raise _NoStore("the session of this request is held here")
            made = await keeper.rotate(io, held, key, values, about, fresh=fresh, tried=tried)
        except StoreError as exc:
            old = held.key if held is not None else Key.of(self._id)
            self.degrade(exc)
            born = self._local is not None and self._local.born
            base = held.base if held is not None else self._local.base if self._local is not None else {}
            previous = self._previous if born else old
            pending = Pending(
                base=base, values=values, about=about, born=True, previous=previous,
                owner=held.record.owner if held is not None else "",
                sent={} if self._local is None else self._local.sent,
            )  # fmt: skip
            unheard_of = self._local is not None and self._local.is_unheard_of
            self._keep_here(key, pending.after(tried))
            if unheard_of:
                keeper.local.take(old)
            elif born:  # it may have arrived all the same
                keeper.keep_here(old, Pending(ended=True))
            else:
                keeper.keep_here(old, Pending(replaced=True))
            self._held = None
        else:
            if made is None:
                self._lost(own)
                return
            self._held, values = made, made.base
        self._id, self._mute = identity, False
        self._kept(key, own, about, say=True, there=values)

    async def _write(self, io: IO, values: Mapping[str, bytes], about: About) -> None:
        keeper, held = self._driver.keeper, self._held
        say = about.remembered != self._loaded_about.remembered
        whole = self._onto(values)
        if held is None:
            assert self._local is not None
            key = Key.of(self._id)
            pending = replace(self._local, values=whole, about=about)
            if not self._add_here(key, pending, self._local.values):
                self._lost(values)
                return
        else:
            key = held.key
            tried: list[str] = []
            try:
                kept = await keeper.write(io, held, whole, about, tried=tried)
            except StoreError as exc:
                self.degrade(exc)
                self._held = None
                if not self._add_here(key, Pending(base=held.base, values=whole, about=about).after(tried), held.base):
                    self._lost(values)
                    return
            else:
                if kept is None:
                    self._lost(values)
                    return
                if kept.key != key:
                    self._mute = True  # it went on under an id that this request does not know
                self._held, key = kept, kept.key
        self._kept(key, values, about, say=say)

    def _onto(self, values: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return *values* with what others have changed: an earlier write of this request may have met theirs."""
        held, local, base = self._held, self._local, self.session.base
        there = held.base if held is not None else local.values if local is not None else base
        return values if there is base else self._driver.payloads.merge(base, values, there)

    def _lost(self, values: Mapping[str, bytes]) -> None:
        """Its session has ended meanwhile: what this request changed goes nowhere, and no cookie brings it back."""
        self._mute = True
        self.session.commit(values)

    def _keep_here(self, key: Key, pending: Pending) -> None:
        self._local = pending
        self._born = pending.born
        self._driver.keeper.keep_here(key, pending)

    def _add_here(self, key: Key, pending: Pending, base: Mapping[str, bytes]) -> bool:
        """Hold *pending*, made of *base*, together with what others changed here. False: the session has ended here."""
        changed = pending.about != self._loaded_about
        kept = self._driver.keeper.add_here(key, pending, base, self._local, own_about=changed)
        if kept is None:
            return False
        self._local, self._born = kept, kept.born
        return True

    def _kept(
        self,
        key: Key,
        values: Mapping[str, bytes],
        about: About,
        *,
        say: bool,
        there: Mapping[str, bytes] | None = None,
    ) -> None:
        """Take in that what the session holds, *values*, is kept; *there* with what others changed, where that is known."""
        session = self.session
        self._loaded_about = about
        session.commit(values)
        session.place(key)
        there = values if there is None else there
        if say or ((self._claims or self._driver.claimed) and self._claimed(there) != self._claims):
            self._say(there, about)

    def _claimed(self, values: Mapping[str, bytes]) -> Mapping[str, bytes]:
        found = {}
        for key in self._driver.claimed:
            if key in values:
                with contextlib.suppress(CodecError):
                    found[key] = self._driver.payloads.opened(values[key])
        return found

    def _say(self, values: Mapping[str, bytes], about: About) -> None:
        """Have the cookie sent."""
        if self._mute or not self._id:
            return
        driver = self._driver
        self._claims = self._claimed(values)
        user = about.user if driver.claimed else ""
        now, cookies, sent = driver.clock(), driver.cookies, self._ticket
        said = (self._id, about.remembered, self._born, self._claims, user)
        if sent is not None and sent.tells(*said) and not cookies.is_due(sent, now, claimed=bool(self._claims)):
            value = sent.text  # signed well enough
        else:
            value = cookies.issue(Ticket(self._id, 0.0, *said[1:]), now)
        left = FOREVER if self._held is None else left_of(self._held.record, now)
        self._line = cookies.line(value, remembered=about.remembered, left=left)

    def _is_due(self) -> bool:
        """Say whether the use of the session is to be noted, or its cookie renewed; both happen once an interval."""
        held = self._held
        if held is None or not self.session.accessed or not self._driver.slides:
            return False
        now = self._driver.clock()
        return now - held.record.seen >= self._driver.slack or self._cookie_is_due(now)

    def _cookie_is_due(self, now: float) -> bool:
        ticket = self._ticket
        if ticket is None:
            return False
        return ticket.detached or self._driver.cookies.is_due(ticket, now, claimed=bool(self._claims))

    async def _use(self, io: IO) -> None:
        """Note that the session is used, and renew its cookie where that is due."""
        driver, held, ticket = self._driver, self._held, self._ticket
        if held is None or not self._is_due():
            return
        now = driver.clock()
        due = self._cookie_is_due(now) and not self.session.committed
        if not due and not driver.may_touch(held.key):
            return
        try:
            alive = await driver.store.touch(io, held.key, driver.keeper.life(held.about))
        except StoreError:
            return
        if due and alive:  # proved just now: a cookie of an id that was changed meanwhile would undo a login
            self._born = False
            self._ticket = None if ticket is None else replace(ticket, issued=now, detached=False, text="")
            self._say(held.base, held.about)

    async def _keep_alive(self, io: IO) -> None:
        driver, ticket = self._driver, self._ticket
        if ticket is None or not driver.options.keep_alive or driver.store.is_away():
            return
        key = ticket.key
        if driver.may_touch(key):
            try:
                await driver.store.touch(io, key, driver.keeper.life(About(remembered=ticket.remembered)))
            except StoreError:
                pass


class _NoStore(StoreError):
    """Stands for a store that is away, where the session was never read from it."""
