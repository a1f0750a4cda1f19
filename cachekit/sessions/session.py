"""The session that an application gets: a dictionary (``lazy``) that is read when it is first looked at, with an end, an
owner, messages and tokens.

Owns what an application may do with it, and what it did. Must not know stores, cookies or requests: it is given a
``Source``, which reads it, and is asked afterwards what has changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import ClassVar, Protocol

from cachekit.clock import random_token
from cachekit.errors import CodecError, SessionError
from cachekit.sessions.lazy import LazyDict
from cachekit.sessions.payload import CSRF, FLASH, NOBODYS, About, Payloads, checked_user


class Source(Protocol):
    """Where a session comes from, and where it goes.

    Attributes:
        session: the session that asks.
    """

    session: Session

    def fetch(self) -> None:
        """Read the session here and now, and ``fill`` it."""
        ...

    def afetch(self) -> Awaitable[None]:
        """Read the session, and ``fill`` it."""
        ...

    def store(self) -> None:
        """Keep what has changed now."""
        ...

    def astore(self) -> Awaitable[None]:
        """Keep what has changed now."""
        ...

    def csrf(self) -> str:
        """Return a token against forged requests."""
        ...

    def is_csrf(self, token: str) -> bool:
        """Say whether *token* is one."""
        ...

    def unreadable(self, key: str, error: CodecError) -> None:
        """Note that one value could not be read."""
        ...


class Session(LazyDict):
    """What one visitor's requests share.

    Attributes:
        refuses_late_looks: True says that looking raises once the response has gone out as one that caches may share.
    """

    refuses_late_looks: ClassVar = True

    __slots__ = (
        "_about", "_bound", "_committed", "_created_at", "_degraded", "_ended", "_handle", "_last_activity", "_new",
        "_rotate", "_shareable", "_source",
    )  # fmt: skip

    def __init__(self, source: Source, codec: Payloads) -> None:
        super().__init__(codec)
        self._source = source
        self._about = NOBODYS
        self._ended = self._rotate = self._bound = self._committed = self._shareable = False
        self._degraded = False
        self._new = True
        self._created_at = self._last_activity = 0.0
        self._handle: object = ""

    # -- what the source does with it -----------------------------------------------------------------------------

    def fill(self, values: Mapping[str, bytes], base: Mapping[str, bytes], about: About, *, new: bool) -> None:
        """Take in what was read. *base* is what the store is known to hold of *values*."""
        if self.loaded:
            return
        self._take_in(values, base)
        self._about, self._new = about, new

    def place(self, handle: object, created_at: float = 0.0, last_activity: float = 0.0) -> None:
        """Take in where it is kept, and since when. What *handle* is as a text names it in lists."""
        self._handle, self._new = handle, False
        if created_at:
            self._created_at, self._last_activity = created_at, last_activity

    def degrade(self) -> None:
        """Note that it goes on in this process."""
        self._degraded = True

    def commit(self, base: Mapping[str, bytes]) -> None:
        """Take *base* for what the store holds from now on."""
        LazyDict.commit(self, base)
        self._rotate = self._bound = False

    def restart(self) -> None:
        """Note that the session has ended; what it holds now is a new one."""
        self._ended = False
        self._new, self._handle = True, ""
        self._created_at = self._last_activity = 0.0

    def close(self, *, shareable: bool = False) -> None:
        """From now on no header can reach the client any more.

        While *shareable*, nobody may begin to look: the response has gone out as one that caches may give to others.
        """
        self._committed = True
        self._shareable = shareable

    @property
    def committed(self) -> bool:
        """Return whether no header can reach the client any more."""
        return self._committed

    @property
    def settled(self) -> bool:
        """Return whether there surely is nothing to keep."""
        return self.is_as_stored() and not self._ended and not self._rotate and not self._bound

    @property
    def about(self) -> About:
        """Return whose it is."""
        return self._about

    @property
    def ended(self) -> bool:
        """Return whether it was to end."""
        return self._ended

    @property
    def bound(self) -> bool:
        """Return whether somebody has logged in during this request."""
        return self._bound

    @property
    def rotates(self) -> bool:
        """Return whether it is to get a new id."""
        return self._rotate

    # -- what is known of it --------------------------------------------------------------------------------------

    @property
    def new(self) -> bool:
        """Return whether nothing of it is stored."""
        self._look()
        return self._new

    @property
    def degraded(self) -> bool:
        """Return whether it goes on in this process, because the store is away."""
        self._look()
        return self._degraded

    @property
    def created_at(self) -> float:
        """Return when it was made, seconds since the epoch; 0.0 for a new one."""
        self._look()
        return self._created_at

    @property
    def last_activity(self) -> float:
        """Return when it was last noted as used, exact to a touch interval; 0.0 for a new one."""
        self._look()
        return self._last_activity

    @property
    def handle(self) -> str:
        """Return what names it in lists and logs, and opens nothing; empty for a new one."""
        self._look()
        return str(self._handle)

    # -- reading --------------------------------------------------------------------------------------------------

    def _asked(self) -> Source:
        """Return the source, which does not hold the session any more once its request is over."""
        source = self._source
        source.session = self
        return source

    def _look(self) -> None:
        if not self.accessed or not self.loaded:  # Flask notes by itself that somebody looks, before anything is read
            if self._shareable:
                self._refuse_to_share()
            if not self.loaded:
                self._asked().fetch()
            self.accessed = True

    def _refuse_to_share(self) -> None:
        raise SessionError(
            "the response has begun as one that caches may give to others: look at the session before the first of "
            "the body, or send Cache-Control: private"
        )

    async def load(self) -> Session:
        """Read it now, where an asyncio application wants to be sure that nothing blocks later."""
        if not self.accessed or not self.loaded:
            if self._shareable:
                self._refuse_to_share()
            if not self.loaded:
                await self._asked().afetch()
            self.accessed = True
        return self

    def mark_accessed(self) -> None:
        """Read it: what Starlette calls when an application asks for ``request.session``."""
        self._look()

    def mark_modified(self) -> None:
        """Have it stored, changed or not."""
        self._touch_key(None)
        self._forced = True

    @property
    def modified(self) -> bool:
        """Return whether something has changed; True may be assigned to have it stored in any case."""
        return self.loaded and (self._ended or self._rotate or self.changes() is not None)

    @modified.setter
    def modified(self, value: bool) -> None:
        if value:
            self.mark_modified()

    def _unreadable(self, key: str, error: CodecError) -> None:
        self._asked().unreadable(key, error)

    def __repr__(self) -> str:
        # Names only: reprs end up in logs.
        return f"<Session {sorted(dict.keys(self))}>" if self.loaded else "<Session, not read yet>"

    # -- changing -------------------------------------------------------------------------------------------------

    def _touch_key(self, key: object) -> None:
        if key is not None and not isinstance(key, str):
            raise SessionError(f"the keys of a session are strings, not {key!r}")
        if not self.accessed or not self.loaded:
            self._look()
        if self._committed and (self._new or self._ended):
            raise SessionError(
                "the response has begun, and the client has no id for this session: change it before the first of the body, "
                "or before a websocket is accepted"
            )

    def clear(self) -> None:
        """End this session: log out. What is put in afterwards begins a new one, with another id."""
        self._look()
        self._ended = True
        self._rotate = self._bound = False
        self._about = About(agent=self._about.agent)
        self._forget()

    destroy = clear
    invalidate = clear

    # -- ids and users --------------------------------------------------------------------------------------------

    def regenerate(self) -> None:
        """Give it a new id; the old one opens nothing any more. Call it whenever somebody logs in (see ``bind``).

        Raises:
            SessionError: the response has begun, so that the new id cannot reach the client.
        """
        self._look()
        if self._committed:
            raise SessionError("the response has begun: a new id cannot reach the client any more")
        self._rotate = True

    def bind(self, user: str | int) -> None:
        """Make it one of the sessions of *user*, with a new id: call it when somebody has logged in.

        What it holds is kept, unless it belonged to another user: then it ends, and a new one begins.

        Raises:
            ConfigError: *user* is no text or number, or too long.
            SessionError: the response has begun.
        """
        name = checked_user(user)
        self._look()
        if self._about.user not in ("", name):
            if self._committed:
                raise SessionError("the response has begun: a new id cannot reach the client any more")
            self.clear()
        self.regenerate()
        self._bound = True
        self._about = replace(self._about, user=name)

    @property
    def user(self) -> str:
        """Return the user it is bound to, or an empty text."""
        self._look()
        return self._about.user

    def remember(self, remembered: bool = True) -> None:
        """Let it outlive the browser, for the longer lifetime of the options.

        Raises:
            SessionError: the response has begun, so that the cookie cannot be changed.
        """
        self._look()
        if self._about.remembered == remembered:
            return
        if self._committed:
            raise SessionError("the response has begun: the cookie cannot be changed any more")
        self._about = replace(self._about, remembered=remembered)
        self._forced = True

    @property
    def remembered(self) -> bool:
        """Return whether it outlives the browser."""
        self._look()
        return self._about.remembered

    @property
    def permanent(self) -> bool:
        """Return whether it outlives the browser: Flask's name for it."""
        return self.remembered

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self.remember(value)

    # -- messages and forms ---------------------------------------------------------------------------------------

    def flash(self, message: str, category: str = "message") -> None:
        """Leave *message* for the next page that shows ``flashed()``."""
        self[FLASH] = [*self.get(FLASH, ()), [random_token(6).hex(), category, message]]

    def flashed(self) -> list[tuple[str, str]]:
        """Return the messages left so far, as (category, message), each of them once."""
        found = self.pop(FLASH, None)
        return [(category, message) for _, category, message in found] if found else []

    def csrf_token(self) -> str:
        """Return a token for a form, which ``is_csrf_token`` takes back; another text each time it is asked for."""
        self._look()
        if CSRF not in self:
            self[CSRF] = 1  # a session that holds something is kept, and so is its id
        return self._asked().csrf()

    def is_csrf_token(self, token: str | None) -> bool:
        """Say whether *token* was made for this session. A new id makes older tokens invalid."""
        self._look()
        return token is not None and not self._new and self._asked().is_csrf(token)

    # -- storing --------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Keep what has changed now, not only when the response begins: for long streams.

        Raises:
            SessionError: the client has no id for it yet.
            StoreError: never: while the store is away, changes are kept in this process.
        """
        self._asked().store()

    async def asave(self) -> None:
        """Keep what has changed now, not only when the response begins: for websockets and long streams."""
        await self._asked().astore()
