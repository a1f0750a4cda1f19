"""The session of one request: read when it is looked at, kept when the response begins, its cookie said.

Written once for both worlds. Must not know ASGI or WSGI.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cachekit._fork import renew_in_child
from cachekit._io import ASYNCIO, BLOCKING, IO, drive
from cachekit.clock import Clock
from cachekit.errors import CodecError, SessionError, StoreError
from cachekit.events import Emit, Event, Kind
from cachekit.http.personal import dressed, is_open, may_be_shared
from cachekit.sessions.cookie import Cookies, Ticket
from cachekit.sessions.degraded import Pending
from cachekit.sessions.delivering import Deliveries
from cachekit.sessions.guard import GuardedSessions
from cachekit.sessions.habits import Habits
from cachekit.sessions.keeper import Held
from cachekit.sessions.keeping import Keeping
from cachekit.sessions.options import Load, SessionOptions
from cachekit.sessions.payload import NOBODYS, About, Payloads
from cachekit.sessions.session import Session
from cachekit.sessions.store import Asked, Instant, Key, Moved, new_id, owner_of, shard_of

_REMEMBERED_TOUCHES: Final = 10_000
_NOTHING: Final[Mapping[str, bytes]] = {}


class Driver:
    """What the requests of one application share.

    Args:
        store: keeps the sessions, behind a breaker.
        options: see ``SessionOptions``.
        clock: source of time.
        emit: receives events.
        cookies: reads and writes the cookie; by default as *options* say.
        claims: the keys whose values ride in the cookie; by default as *options* say.
    """

    def __init__(
        self,
        store: GuardedSessions,
        options: SessionOptions,
        *,
        clock: Clock,
        emit: Emit,
        cookies: Cookies | None = None,
        claims: Sequence[str] | None = None,
    ) -> None:
        self.options = options
        self.store = store
        self.clock = clock
        self.emit = emit
        self.cookies = cookies if cookies is not None else Cookies(options)
        self.payloads = Payloads(options)
        self.keeper = Deliveries(store, options, self.payloads, clock=clock, emit=emit)
        self.slack = options.slack
        self.slides = options.sliding
        self.no_store = options.no_store
        self.claimed = tuple(options.claims if claims is None else claims)
        self.habits = Habits()
        self.eager = options.load == Load.EAGER
        # Where nobody waits for the store, there is nothing to read ahead.
        self.explicit = options.load == Load.EXPLICIT
        self.foresees = self.eager or (not self.explicit and not store.in_process)
        self._touched: OrderedDict[Key, float] = OrderedDict()
        self._returning = False
        self._renew()
        renew_in_child(self, Driver._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._returning = False

    def open(
        self, cookies: Iterable[str], *, method: str = "GET", agent: str = "", kind: type[Session] = Session
    ) -> Exchange:
        """Begin the exchange of a request with the Cookie fields *cookies*; its session is a *kind*."""
        return Exchange(self, cookies, method, agent, kind)

    def may_touch(self, key: Key) -> bool:
        """Say whether this process has not touched *key* within the interval, and note that it does now."""
        now = self.clock()
        with self._lock:
            last = self._touched.get(key)
            if last is not None and 0 <= now - last < self.slack:
                return False
            self._touched[key] = now
            self._touched.move_to_end(key)
            if len(self._touched) > _REMEMBERED_TOUCHES:
                self._touched.popitem(last=False)
            return True

    def wants_return(self, io: IO) -> None:
        """Bring what waits to the store, behind the request, once it answers again."""
        if not len(self.keeper.local) or self._returning or self.store.breaker.is_open:
            return
        with self._lock:
            if self._returning:
                return
            self._returning = True
        io.spawn(self._return(io))

    async def _return(self, io: IO) -> None:
        try:
            await self.keeper.deliver_all(io)
        finally:
            self._returning = False


class Exchange(Keeping):
    """One request and its session. What ``Session`` knows as its source."""

    __slots__ = (
        "_agent", "_asked", "_cookies", "_degraded", "_known", "_method", "_open", "_renewed", "_shape", "_whole",
    )  # fmt: skip

    def __init__(
        self, driver: Driver, cookies: Iterable[str], method: str, agent: str, kind: type[Session] = Session
    ) -> None:
        self._driver = driver
        self._cookies: Iterable[str] | None = cookies
        self._known: Ticket | None = None
        self._method = method
        self._agent = agent
        self._held: Held | None = None  # what the store has of it
        self._local: Pending | None = None  # what this process has of it
        self._id = ""  # the id that the client has
        self._next = ""  # the id that it will get
        self._failed = False
        self._born = False
        self._previous: Key | None = None
        self._mute = False  # no cookie may be sent: the client's is newer than this request
        self._degraded = False
        self._asked: Asked | None = None  # a read that is under way
        self._shape = ""  # what kind of request it is, where that is learned from
        self._renewed = self._used = self._whole = self._open = False
        self._line: str | None = None
        self._claims = _NOTHING
        self._loaded_about = NOBODYS
        self.session = kind(self, driver.payloads)

    @property
    def _ticket(self) -> Ticket | None:
        """Return what the cookie says: its signature is checked when somebody wants to know, and once."""
        if self._cookies is not None:
            self._known, self._cookies = self._driver.cookies.read(self._cookies), None
        return self._known

    @_ticket.setter
    def _ticket(self, ticket: Ticket | None) -> None:
        self._known, self._cookies = ticket, None

    @property
    def has_cookie(self) -> bool:
        """Return whether the request may have a cookie of ours."""
        if self._cookies is None:
            return self._known is not None
        name = self._driver.options.cookie
        return True in [name in line for line in self._cookies]

    @property
    def remembered(self) -> bool:
        """Return whether the cookie says that the session outlives the browser."""
        return self._ticket is not None and self._ticket.remembered

    def renew(self) -> None:
        """Have the cookie sent with this response, if there is a session then."""
        self._renewed = True

    # -- reading --------------------------------------------------------------------------------------------------

    def foresee(self, path: str) -> None:
        """Ask for the session here and now where requests for pages like *path* look at theirs, without waiting for it.

        For the blocking world: until somebody looks, what comes first in the application runs beside the store.
        """
        driver = self._driver
        if not driver.foresees or not self.has_cookie:
            return
        self.expect(driver.habits.shape(self._method, path))

    def expect(self, shape: str) -> None:
        """Do what ``foresee`` does, for a request of *shape* with a session."""
        driver, self._shape = self._driver, shape
        if driver.eager or driver.habits.expects(shape):
            ticket = self._ticket
            if ticket is not None and driver.keeper.is_idle:
                self._asked = driver.keeper.ahead(ticket.key, remembered=ticket.remembered)

    def fetch(self) -> None:
        """Read the session here and now."""
        driver = self._driver
        if driver.explicit and self._ticket is not None and _on_a_loop():
            raise SessionError(
                "this session is not read yet, and load='explicit': write `await request.scope['session'].load()` first"
            )
        if (instant := driver.store.instant) is not None:
            self._load_now(instant)
        else:
            drive(self.load(BLOCKING))

    async def afetch(self) -> None:
        """Read the session."""
        await self.load(ASYNCIO)

    async def load(self, io: IO) -> None:
        """Read the session, unless that has happened. Never raises ``StoreError``."""
        session = self.session
        if session.loaded:
            return
        if (instant := self._driver.store.instant) is not None:
            self._load_now(instant)
            return
        ticket = self._ticket
        if ticket is None:
            session.fill({}, {}, self._as_new(), new=True)
            return
        keeper, key = self._driver.keeper, ticket.key
        try:
            asked, self._asked = self._asked, None
            if not keeper.is_idle:
                if asked is not None:
                    asked.drop()
                    asked = None
                if keeper.concerns(key):
                    await keeper.deliver(io, key)
                pending = keeper.local.find(key)
                if pending is not None and pending.replaced:
                    session.fill({}, {}, self._as_new(), new=True)
                    return
            if asked is not None:
                held = keeper.take(key, asked)
            else:
                held = await keeper.read(io, key, remembered=ticket.remembered)
        except StoreError as exc:
            self._load_here(ticket, key, exc)
            return
        if not keeper.is_idle:
            self._driver.wants_return(io)
        if not session.loaded:  # else another task of this request was faster
            self._take(ticket, held)

    def _load_now(self, instant: Instant) -> None:
        """Do what ``load`` does, of a store that nobody waits for."""
        ticket = self._ticket
        if ticket is None:
            self.session.fill({}, {}, self._as_new(), new=True)
        else:
            self._take(ticket, self._driver.keeper.read_now(instant, ticket.key, remembered=ticket.remembered))

    def _take(self, ticket: Ticket, held: Held | Moved | None) -> None:
        """Fill the session of *ticket* with what was found."""
        session = self.session
        if not isinstance(held, Held):
            self._mute = isinstance(held, Moved)
            session.fill({}, {}, self._as_new(), new=True)
            return
        self._held, self._id = held, ticket.id
        self._loaded_about = held.about
        self._claims = ticket.claims
        session.fill(held.base, held.base, held.about, new=False)
        session.place(held.key, held.record.created, held.record.seen)

    def _as_new(self) -> About:
        about = About().on(self._agent)
        self._loaded_about = about
        return about

    def _load_here(self, ticket: Ticket, key: Key, error: StoreError) -> None:
        """Go on with what this process holds, and what the cookie claims."""
        session, driver = self.session, self._driver
        if session.loaded:
            return
        pending = driver.keeper.local.find(key)
        if pending is not None and pending.is_dead:
            session.fill({}, {}, self._as_new(), new=True)
            self.degrade(error)
            return
        if pending is None:
            believed = driver.cookies.believes(ticket, driver.clock())
            values = ticket.claims if believed else {}
            about = About(ticket.user if believed else "", "", ticket.remembered).on(self._agent)
            pending = Pending(base=values, values=values, about=about, born=ticket.detached)
        self._local, self._id = pending, ticket.id
        self._born, self._previous = pending.born, pending.previous
        self._loaded_about = pending.about
        self._claims = dict(ticket.claims)
        session.fill(pending.values, pending.values, pending.about, new=False)
        session.place(key)
        self.degrade(error)

    def degrade(self, error: StoreError) -> None:
        """Note that this request goes on without the store."""
        self.session.degrade()
        if not self._degraded:
            self._degraded = True
            self._driver.emit(Event(Kind.SESSION_DEGRADED, name="sessions", detail=str(error), error=error))

    def unreadable(self, key: str, error: CodecError) -> None:
        """Note that the value of one key could not be read; it stays in the store as it is."""
        self._driver.emit(
            Event(Kind.UNREADABLE, self._key_text(), name="sessions", detail=f"[{key!r}]: {error}", error=error)
        )

    def _key_text(self) -> str:
        return str(Key.of(self._id)) if self._id else ""

    # -- forms ----------------------------------------------------------------------------------------------------

    def csrf(self) -> str:
        """Return a token against forged requests, for the id that the client will have after this response."""
        stays = (self._held is not None or self._local is not None) and not (self.session.rotates or self.session.ended)
        return self._driver.cookies.csrf(self._id if stays else self._identity(self.session.about))

    def _identity(self, about: About) -> str:
        """Return the new id of this session: in the shard of its user, where it has one."""
        shard = shard_of(owner_of(about.user)) if about.user else None
        if not self._next or (shard is not None and self._next[:2] != shard):
            self._next = new_id(shard)
        return self._next

    def is_csrf(self, token: str) -> bool:
        """Say whether *token* is one."""
        return bool(self._id) and self._driver.cookies.is_csrf(self._id, token)

    # -- keeping --------------------------------------------------------------------------------------------------

    def store(self) -> None:
        """Keep what has changed now, in the blocking world."""
        drive(self.keep(BLOCKING))

    async def astore(self) -> None:
        """Keep what has changed now."""
        await self.keep(ASYNCIO)

    async def head(self, io: IO, status: int, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Keep what has changed, and return the fields with which the response begins.

        Raises:
            CodecError: a value cannot be encoded.
            SessionTooLarge: the session is larger than its bound.
        """
        if self.begins(status):
            await self.keep(io)
        return self.fields(headers)

    def begins(self, status: int) -> bool:
        """Take in how the response begins, and return whether ``keep`` is to be awaited before ``fields`` are asked for.

        Raises what ``head`` raises.
        """
        self._failed = status >= 500 and not self._driver.options.save_on_server_error
        return not self.keep_now()

    def streams(self, status: int, headers: Sequence[tuple[str, str]]) -> bool:
        """Take in, before ``fields`` are asked for, that the body is made while it is sent, and may look at the session.

        Returns whether the response is for one visitor therefore.
        """
        self._open = is_open(self._method, status, headers)
        return self._open

    def fields(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the fields with which a response begins that was to begin with *headers*: everything is kept."""
        session, line = self.session, self._line
        self._used = session.accessed  # the end of the response need not note it again
        if line is None and self._renewed and not self._failed and self._held is not None:
            self._say(self._held.base, self._held.about)
            line = self._line
        self._line = None
        accessed = self._used or self._open
        cookies = (line,) if line is not None else ()
        fields = dressed(headers, accessed=accessed, cookies=cookies, no_store=self._driver.no_store)
        session.close(shareable=not accessed and may_be_shared(self._method, fields))
        return fields

    def begin_response(self, status: int, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Do what ``head`` does, in the blocking world."""
        return drive(self.head(BLOCKING, status, headers))

    def end_response(self) -> None:
        """Do what ``finish`` does, in the blocking world."""
        drive(self.finish(BLOCKING))

    def whole(self) -> None:
        """Note that the response is complete, though the application may clean up after it.

        From now on what changed deep inside is noticed where somebody looks at the session again: to compare it once more
        would double the price of reading a large one.
        """
        session = self.session
        if session.loaded and session.accessed:
            self._whole, session.accessed = True, False

    def body_sent(self) -> None:
        """Note that the client has the whole response: looking at the session can change nothing of it any more."""
        self.session.close()

    async def finish(self, io: IO) -> None:
        """Keep what has changed since the response began."""
        if self.ends():
            await self.keep(io)

    def ends(self) -> bool:
        """Take in that the response is over, and return whether ``keep`` is to be awaited."""
        session = self.session
        session.close()
        if self._whole:
            looked, session.accessed = session.accessed, True
            if not looked:
                return False
        noted = self._used or not session.accessed
        return (self._held is not None or self._local is not None) and not (noted and session.settled)

    def let_go(self) -> None:
        """End this request's hold on its session: the last to be called.

        The two hold each other, so that only the garbage collector would find what the session held, a large one's worth
        for each request. Whoever still has the session may go on using it: the session says that it is the one who asks.
        """
        if self._shape:
            self._driver.habits.learn(self._shape, self.session.loaded)
        if self._asked is not None:
            self.unask()
        del self.session

    def unask(self) -> None:
        """Take back what ``foresee`` asked for, where nobody has looked: its connection is free for others."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.drop()


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
