"""The session of one request whose id travels in a framework's own cookie: no cookie of ours is read or sent.

What becomes of a session is what becomes of any other; when it is read, kept and ended is up to the framework. Must not
know which framework that is.

``IO`` and ``both`` come along, so that an adapter too writes each operation once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from cachekit._io import BLOCKING, IO, both, drive
from cachekit.errors import StoreError
from cachekit.events import Event, Kind
from cachekit.sessions.cookie import Ticket
from cachekit.sessions.degraded import Pending
from cachekit.sessions.driver import Driver, Exchange
from cachekit.sessions.keeper import Held
from cachekit.sessions.keeping import Shared
from cachekit.sessions.payload import About
from cachekit.sessions.session import Session
from cachekit.sessions.store import Key, is_id

__all__ = ["IO", "KeyedExchange", "OwnedSession", "both", "end", "exists"]


class OwnedSession(Session):
    """A session that belongs to whoever the framework says."""

    __slots__ = ()

    def belong(self, user: str, agent: str | None = None) -> None:
        """Make it one of the sessions of *user*, with a new id; what it holds is kept."""
        about = self._about if agent is None else self._about.on(agent)
        if user != about.user:
            about = replace(about, user=user)
            self._rotate = self._bound = True
        self._about = about

    def stand_in(self, values: Mapping[str, bytes]) -> None:
        """Hold *values* in place of what cannot be read: they count as no change."""
        self._take_in(values, values)

    def last(self, life: float) -> None:
        """Let it live for *life* seconds after its last use, once it is kept; 0.0 for what the options say."""
        if life != self._about.life:
            self._about = replace(self._about, life=life)


class KeyedExchange(Exchange):
    """One request and its session, under an id that somebody else carries.

    Args:
        driver: what the requests of one application share.
        session_id: the id that the client sent; empty or anything that is no id for none.
    """

    __slots__ = ("_sliding", "gone", "left", "moved")

    session: OwnedSession

    def __init__(self, driver: Driver, session_id: str = "") -> None:
        super().__init__(driver, (), "GET", "", OwnedSession)
        self._known, self._cookies = _ticket_of(session_id), None
        self._sliding: tuple[float, bool] | None = None  # how long it lives, and whether that is to be said in any case
        self.gone = False  # it has ended, or has another id by now, while this request went on
        self.moved = False  # another request has given it a new id, before this one has read it
        self.left: Callable[[], Mapping[str, Any]] = dict  # what is found in its place then; it is never kept by itself

    @property
    def is_kept(self) -> bool:
        """Return whether there is a session, in the store or in this process."""
        return self._held is not None or self._local is not None

    @property
    def is_adrift(self) -> bool:
        """Return whether the client holds another id by now, so that nothing of this request can be kept for it.

        Who logs in is given a session of their own, whatever the client holds.
        """
        return self.moved and not self.is_kept and not self.session.about.user

    def discard(self) -> None:
        """Drop what this request has changed in a session that is adrift."""
        if (values := self.session.changes()) is not None:
            self._driver.emit(Event(Kind.SESSION_DISCARDED, detail="the id of this request was changed by another"))
            self.session.commit(values)

    @property
    def id(self) -> str:
        """Return the id that the client has to have after this request, as far as it is known; or an empty text."""
        if self.is_kept:
            return self._identity(self.session.about) if self.session.rotates else self._id
        return self._identity(self.session.about) if self._next else ""

    def fetch(self) -> None:
        """Read the session here and now."""
        drive(self.load(BLOCKING))

    def promise(self) -> None:
        """Choose the id of a session that is not kept yet."""
        self._identity(self.session.about)

    async def load(self, io: IO) -> None:
        """Read the session, unless that has happened. Never raises ``StoreError``."""
        if not self.session.loaded:
            await super().load(io)
            self.moved = self._mute
            if self.moved and (left := self.left()):
                codec = self._driver.payloads
                self.session.stand_in({key: codec.encode(value) for key, value in left.items()})
        self.session.accessed = True

    async def save(self, io: IO, *, life: float | None = None, in_any_case: bool = False, anew: bool = False) -> bool:
        """Keep what has changed; a new session also when it is empty.

        Args:
            io: the world.
            life: seconds that an unchanged one lives from now on, said once an interval of touches; None leaves that.
            in_any_case: whether that is said in any case.
            anew: whether to make a session of its own of this one.

        Returns False when the session has ended meanwhile, or has got another id, which this client must not learn.
        """
        await self.load(io)
        session = self.session
        if anew:
            self._held = self._local = None
            self._next = ""
            self._mute = self.moved = self.gone = False
        if self.gone:
            return False
        self._sliding = None if life is None else (life, in_any_case)
        if self.is_kept:
            await self.keep(io)
        else:
            values = session.changes()
            await self._begin(io, dict(session.base) if values is None else values, session.about)
        self.gone |= self._mute
        return not self.gone

    def is_due(self) -> bool:
        """Say whether the session was not noted as used within the interval of touches."""
        held, driver = self._held, self._driver
        return held is not None and 0 < held.record.seen <= driver.clock() - driver.slack

    async def drop(self, io: IO) -> None:
        """End the session, read or not: log out. What this request still changes is not kept."""
        if self.is_kept or not self.session.loaded:
            found, ticket = self._held, self._ticket
            session_id = self._id if self.is_kept else "" if ticket is None else ticket.id
            await end(io, self._driver, session_id, "" if found is None else found.record.owner)
            self.gone = True

    def _lost(self, values: Mapping[str, bytes]) -> None:
        super()._lost(values)
        self.gone = True

    def _say(self, values: Mapping[str, bytes], about: About) -> None:
        pass

    async def _use(self, io: IO) -> None:
        held, driver = self._held, self._driver
        if held is None or self._sliding is None:
            return
        life, in_any_case = self._sliding
        if in_any_case or (self.is_due() and driver.may_touch(held.key)):
            try:
                self.gone = not await driver.store.touch(io, held.key, life)
            except StoreError as exc:
                self.degrade(exc)


@lru_cache(maxsize=2048)
def _ticket_of(session_id: str) -> Ticket | None:
    return Ticket(session_id, 0.0) if is_id(session_id) else None  # its key is a digest: not once for each request


async def exists(io: IO, driver: Shared, session_id: str) -> bool:
    """Say whether there is a session under *session_id*; while the store is away, whether this process knows one."""
    if not is_id(session_id):
        return False
    key, keeper = Key.of(session_id), driver.keeper
    pending = keeper.local.find(key)
    if pending is not None:
        return not pending.is_dead
    try:
        return isinstance(await keeper.read(io, key, remembered=False), Held)
    except StoreError:
        return False


async def end(io: IO, driver: Shared, session_id: str, owner: str = "") -> None:
    """End the session under *session_id*, of *owner* as far as is known; the store is told when it is back, if need be."""
    if not is_id(session_id):
        return
    key, keeper = Key.of(session_id), driver.keeper
    pending = keeper.local.take(key)
    try:
        if pending is None or not pending.is_unheard_of:
            await keeper.end(io, key, owner)
    except StoreError:
        keeper.keep_here(key, Pending(ended=True, owner=owner))
