"""``SESSION_ENGINE = "cachekit_django.sessions"``: Django's sessions, kept by ``cachekit.sessions``.

Concurrent requests lose nothing, a session that was ended stays ended, and while the store is away sessions go on in this
process. Django's own middleware, which this module must not know, reads and sends the cookie.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.utils.functional import cached_property
from django.utils.module_loading import import_string

from cachekit.errors import SessionTooLarge
from cachekit.sessions.keyed import IO, KeyedExchange, OwnedSession, both, end, exists
from cachekit_django import adrift, keeping
from cachekit_django.claims import ClaimedExchange
from cachekit_django.pages import page

log = logging.getLogger("cachekit")

_USER: Final = "_auth_user_id"

if TYPE_CHECKING:

    class _Base(SessionBase):
        """What the stubs of Django leave out, or say too narrowly."""

        _validate_session_key: Any
        modified: Any
        serializer: Any
        session_key: Any
        load: Any
        aload: Any
        exists: Any
        aexists: Any
        save: Any
        asave: Any
        create: Any
        acreate: Any
        cycle_key: Any
        acycle_key: Any
        delete: Any
        adelete: Any
        flush: Any
        aflush: Any

else:
    _Base = SessionBase


class SessionStore(_Base):
    """A session, as Django's middleware and its users know it.

    What is beyond Django: changes deep inside are noticed, and ``handle``, ``user``, ``degraded``, ``revoke_others``.

    Args:
        session_key: what the cookie said. A key that no session of ours has is never taken over.
    """

    def __init__(self, session_key: str | None = None) -> None:
        # Django's own sets what stands here and in ``serializer``, and looks that up for each request.
        self._sessions = keeping.sessions()
        self._flag: bool | None = None
        self._begun: KeyedExchange | None = None
        self._claimed = self._shape = ""
        self._asked = False  # whether somebody is about to send its cookie: is_empty was called
        self._given = session_key if self._validate_session_key(session_key) else None
        self.accessed = False
        if self._given and not self._sessions.driver.claimed:
            self._foresee()

    @cached_property
    def serializer(self) -> Any:
        """Return what ``encode`` and ``decode`` of Django use, for those who call them; nothing here does."""
        return import_string(settings.SESSION_SERIALIZER)

    def __del__(self) -> None:
        begun = getattr(self, "_begun", None)
        if begun is not None:
            begun.let_go()  # it and its session hold each other: they need not wait for the garbage collector
        elif shape := getattr(self, "_shape", ""):
            self._sessions.driver.habits.learn(shape, looked=False)

    def _foresee(self) -> None:
        """Ask for it now where requests for this page look at theirs: the store works while Django finds the view."""
        driver, (method, path) = self._sessions.driver, page()
        if driver.foresees and path:
            self._shape = driver.habits.shape(method, path)
            if driver.eager or driver.habits.expects(self._shape):
                _ = self._exchange  # made, it asks

    @property
    def _exchange(self) -> KeyedExchange:
        found = self._begun
        if found is None:
            driver = self._sessions.driver
            kind = partial(ClaimedExchange, claimed=self._claimed) if driver.claimed else KeyedExchange
            found = self._begun = kind(driver, self._given or "")
            if settings.CSRF_USE_SESSIONS:
                found.left = partial(adrift.left, self._given or "")
            if self._shape:
                found.expect(self._shape)
        return found

    # -- claims

    def believe(self, claimed: str) -> None:
        """Take note of what the client *claimed*, before anything is read: it counts while the store is away (CLAIMS)."""
        self._claimed = claimed
        if self._given and self._sessions.driver.claimed and self._begun is None:
            self._foresee()

    def claims(self) -> str | None:
        """Return the claims that the client has to get; an empty text where it has to lose them, None where all is well."""
        exchange = self._begun
        if not isinstance(exchange, ClaimedExchange) or not exchange.session.loaded or exchange.is_adrift:
            return None  # where the key was changed by another request, the claims in the browser are newer too
        try:
            found = exchange.claims()
        except SessionTooLarge as exc:
            log.warning("an outage would log out a visitor: %s", exc)
            found = ""
        return found if found or self._claimed else None

    # -- the key

    @property
    def session_key(self) -> str | None:
        """Return the key, or None. A login gives it another one, at once."""
        exchange = self._begun
        if exchange is None or not exchange.session.loaded:
            return self._given
        self._own()
        return exchange.id or None

    @property
    def _session_key(self) -> str | None:
        return self.session_key

    @_session_key.setter
    def _session_key(self, value: str | None) -> None:
        self._given = value if self._validate_session_key(value) else None
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.let_go()

    def _own(self) -> None:
        """Let the session belong to whoever is logged in by now."""
        session = self._exchange.session
        user = session.get(_USER)
        if user is not None and str(user) != session.about.user:
            session.belong(str(user))

    def belong(self, user: str, agent: str) -> None:
        """Let it belong to *user*, who has logged in with a browser that calls itself *agent*."""
        self._get_session().belong(user, agent)

    # -- reading

    def _get_session(self, no_load: bool = False) -> OwnedSession:  # noqa: ARG002 - Django's signature
        self.accessed = True
        session = (self._begun or self._exchange).session
        if not session.loaded:
            self._exchange.fetch()
        return session

    async def _aget_session(self, no_load: bool = False) -> OwnedSession:  # noqa: ARG002 - Django's signature
        self.accessed = True
        exchange = self._exchange
        if not exchange.session.loaded:
            await exchange.afetch()
        return exchange.session

    _session = property(_get_session)

    @property
    def _session_cache(self) -> OwnedSession:
        if self._begun is None or not self._begun.session.loaded:
            raise AttributeError("_session_cache")
        return self._begun.session

    @_session_cache.setter
    def _session_cache(self, data: Any) -> None:
        session = self._get_session()
        if data is not session:
            for key in [key for key in session if key not in data]:
                del session[key]
            session.update(data)

    @_session_cache.deleter
    def _session_cache(self) -> None:
        self._session_key = self.session_key

    async def _load(self, io: IO) -> dict[str, Any]:
        """Read it anew, and return what it holds; nothing, and no key any more, where it has ended."""
        self._session_key = None if self._exchange.gone else self.session_key
        await self._exchange.load(io)
        return self._exchange.session.copy()

    load, aload = both(_load)

    async def _exists(self, io: IO, session_key: str | None) -> bool:
        """Say whether there is a session *session_key*."""
        return await exists(io, self._sessions.driver, session_key or "")

    exists, aexists = both(_exists)

    def is_empty(self) -> bool:
        """Say whether there is no key and no data, so that the cookie can go.

        It stays where another request has just changed the key: the browser holds the new one by now. Then nothing is
        saved either, and no cookie sent.
        """
        self._asked = True
        if self._given and (self._flag or settings.SESSION_SAVE_EVERY_REQUEST) and not self._exchange.session.loaded:
            self._exchange.fetch()  # it is about to be saved
        exchange = self._begun
        if exchange is None:
            return not self._given
        if not exchange.session.loaded:
            exchange.unask()  # the response is there: an exception may hold on to the request for long
            return not self._given
        if self._is_adrift():
            return adrift.Answer(exchange.discard)  # type: ignore[return-value]  # a truth value
        return not (exchange.is_kept or exchange.moved or dict.__len__(exchange.session) or self.session_key)

    @property
    def modified(self) -> bool:
        """Return whether it is to be saved: it was changed, deep inside too, or is due to be kept alive (SLIDING)."""
        if self._flag is not None:
            return self._flag
        exchange = self._begun
        if exchange is None or not exchange.session.loaded:
            return False
        return exchange.session.changes() is not None or (keeping.slides() and exchange.is_due())

    @modified.setter
    def modified(self, value: bool) -> None:
        if value or self._flag is not None:
            self._flag = value

    def _is_adrift(self) -> bool:
        """Say whether the browser holds another key by now, and nobody has logged in here: nothing can be kept for it."""
        exchange = self._exchange
        if exchange.moved:
            self._own()
        return exchange.is_adrift

    # -- writing

    async def _save(self, io: IO, must_create: bool = False) -> None:
        """Save what changed, together with what other requests changed meanwhile.

        What changed is dropped where the key was changed by another request before this one has read the session.

        Raises:
            CreateError: *must_create*, and there is one.
            UpdateError: it was ended meanwhile, or has another key, and the browser would be sent the one that it had.
            SessionTooLarge: it is larger than MAX_BYTES.
            CodecError: a value is of a type that is not kept.
        """
        exchange = self._exchange
        await exchange.load(io)
        if must_create and exchange.is_kept:
            raise CreateError
        if self._is_adrift() and not self._asked:
            exchange.discard()
            return
        self._own()
        age = self.get_expiry_age()
        if age <= 0:
            exchange.promise()
            await exchange.drop(io)
            return
        exchange.session.last(0.0 if age == self._sessions.options.ttl else float(age))
        if not await exchange.save(io, life=float(age), in_any_case=self._flag is True):
            raise UpdateError

    save, asave = both(_save)

    async def _create(self, io: IO) -> None:
        """Keep it as a new session with a key of its own."""
        await self._exchange.load(io)
        self._own()
        await self._exchange.save(io, anew=True)
        self.modified = True

    create, acreate = both(_create)

    async def _cycle_key(self, io: IO) -> None:
        """Give it another key, and keep what it holds; the old key opens nothing from now on.

        Raises:
            UpdateError: it was ended meanwhile.
        """
        self.accessed = self.modified = True
        exchange = self._exchange
        await exchange.load(io)
        if not exchange.is_kept:
            exchange.promise()
            return
        exchange.session.regenerate()
        self._own()
        if not await exchange.save(io):
            raise UpdateError

    cycle_key, acycle_key = both(_cycle_key)

    async def _delete(self, io: IO, session_key: str | None = None) -> None:
        """End the session *session_key*, or this one."""
        if session_key is None or session_key == self.session_key:
            await self._exchange.drop(io)
        else:
            await end(io, self._sessions.driver, session_key)

    delete, adelete = both(_delete)

    async def _flush(self, io: IO) -> None:
        """End it: log out. What is put in afterwards begins a new session."""
        await self._exchange.drop(io)
        self._session_key = None
        await self._exchange.load(io)
        self.accessed = self.modified = True

    flush, aflush = both(_flush)

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: sessions end by themselves."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """Do nothing: sessions end by themselves."""

    # -- beyond Django

    @property
    def degraded(self) -> bool:
        """Return whether it goes on in this process, because the store is away."""
        return self._get_session().degraded

    @property
    def user(self) -> str:
        """Return the primary key of the user it belongs to, as text, or an empty text."""
        self._get_session()
        self._own()
        return self._exchange.session.user

    @property
    def handle(self) -> str:
        """Return what names it in ``sessions.of(user)``, and opens nothing; empty for one that is not saved yet."""
        return self._get_session().handle

    def revoke_others(self) -> int:
        """End all sessions of its user but this one. Returns how many ended. Raises ``StoreError``."""
        return self._sessions.revoke_others(self._get_session())

    async def arevoke_others(self) -> int:
        """End all sessions of its user but this one. Returns how many ended. Raises ``StoreError``."""
        return await self._sessions.arevoke_others(await self._aget_session())
