"""``Sessions``: what an application makes once: where its sessions are kept, and all sessions of a user.

Each operation is written once over ``IO``; ``both`` makes the blocking method and, with an ``a`` in front, the awaitable
one. Must not know ASGI or WSGI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cachekit._io import IO, both
from cachekit.clock import Clock, system_clock
from cachekit.errors import CodecError, ConfigError
from cachekit.events import Events, Kind, Observer
from cachekit.facade import Cache
from cachekit.sessions.build import open_store
from cachekit.sessions.cookie import Cookies
from cachekit.sessions.driver import Driver
from cachekit.sessions.guard import GuardedSessions
from cachekit.sessions.options import SessionOptions
from cachekit.sessions.payload import checked_user
from cachekit.sessions.session import Session
from cachekit.sessions.store import Key, owner_of, shard_of
from cachekit.stores.base import Store


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One live session of a user.

    Attributes:
        handle: names it for ``revoke``; opens nothing.
        created_at: when it was made, seconds since the epoch.
        last_seen: when it was last noted as used, exact to a touch interval.
        agent: what the browser called itself, shortened.
        remembered: whether it outlives the browser.
    """

    handle: str
    created_at: float
    last_seen: float
    agent: str
    remembered: bool


@dataclass(frozen=True, slots=True)
class SessionStats:
    """What happened to sessions in this process so far.

    Attributes:
        events: how often each kind of event happened, such as ``session.degraded_mode``.
        waiting: sessions held in this process until the store is back.
        store: ``"ok"`` or ``"away"``.
    """

    events: dict[str, int]
    waiting: int
    store: str

    @property
    def degraded_mode(self) -> int:
        """Return how many requests went on with a session of this process."""
        return self.events.get(Kind.SESSION_DEGRADED.value, 0)


class Sessions:
    """Keeps what the requests of one visitor share.

    Args:
        source: a URL as for ``Cache``, a ``Cache`` (its server is used, never its first level), a store, or other
            ``Sessions``, whose store is shared.
        options: see ``SessionOptions``.
        observers: callables that receive each ``Event``; those of the cache, where one is given, receive them too.
        clock: source of time, for tests.
        cookies: reads and writes the cookie, for adapters whose framework spells it another way.
        claims: the keys whose values ride in the cookie, for adapters whose framework has names of its own that
            ``SessionOptions`` refuses.

    Raises:
        ConfigError: an option cannot be used. A server that cannot be reached is no error.

    Example:
        >>> sessions = Sessions("memory://", SessionOptions(secrets="not-a-real-secret-but-long"))
        >>> sessions.count(), sessions.of("ann")
        (0, [])
    """

    def __init__(
        self,
        source: str | Cache | Store | Sessions | Any,
        options: SessionOptions,
        *,
        observers: Sequence[Observer] = (),
        clock: Clock = system_clock,
        cookies: Cookies | None = None,
        claims: Sequence[str] | None = None,
    ) -> None:
        if not isinstance(options, SessionOptions):
            raise ConfigError(f"Sessions: options must be SessionOptions(secrets=...), not {type(options).__name__}")
        self.options = options
        self.events: Events
        self.store: GuardedSessions
        self._owner: object
        if isinstance(source, Cache | Sessions):
            self.events = source.events
            for observer in observers:
                self.events.subscribe(observer)
        else:
            self.events = Events(tuple(observers))
        if isinstance(source, Sessions):
            self.store, self._owner = source.store, source
        else:
            self.store, self._owner = open_store(source, options, clock=clock, events=self.events)
        self._is_borrowed = not isinstance(source, str)
        self.driver = Driver(self.store, options, clock=clock, emit=self.events, cookies=cookies, claims=claims)

    # -- the sessions of a user -----------------------------------------------------------------------------------

    async def _of(self, io: IO, user: str | int) -> list[SessionInfo]:
        """Return the live sessions of *user*, the one used last first. Raises ``StoreError``."""
        found = []
        for key, record in await self.store.sessions(io, owner_of(checked_user(user))):
            try:
                about = self.driver.payloads.about(record.body, str(key).encode())
                agent, remembered = about.agent, about.remembered
            except CodecError:
                agent, remembered = "", False  # it can be revoked all the same
            found.append(SessionInfo(str(key), record.created, record.seen, agent, remembered))
        return sorted(found, key=lambda info: -info.last_seen)

    of, aof = both(_of)

    async def _revoke(self, io: IO, user: str | int, handle: str) -> bool:
        """End one session of *user*; False when they have none of that *handle*. Raises ``StoreError``."""
        key, owner = Key.parse(handle), owner_of(checked_user(user))
        if key is None or key.shard != shard_of(owner):
            return False
        return await self.store.revoke(io, owner, only=key) > 0

    revoke, arevoke = both(_revoke)

    async def _revoke_others(self, io: IO, session: Session) -> int:
        """End all sessions of the user of *session* but this one. Returns how many ended.

        Raises:
            ConfigError: it is bound to no user, or was not stored yet.
            StoreError: the store is away.
        """
        key, user = Key.parse(session.handle), session.about.user
        if not user or key is None:
            raise ConfigError("this session is bound to no user, or not stored yet: call bind() in an earlier request")
        return await self.store.revoke(io, owner_of(user), keep=key)

    revoke_others, arevoke_others = both(_revoke_others)

    async def _revoke_all(self, io: IO, user: str | int) -> int:
        """End all sessions of *user*, whoever uses them. Returns how many ended. Raises ``StoreError``."""
        return await self.store.revoke(io, owner_of(checked_user(user)))

    revoke_all, arevoke_all = both(_revoke_all)

    async def _count(self, io: IO) -> int:
        """Return the number of live sessions, without looking at them. Raises ``StoreError``."""
        return await self.store.count(io)

    count, acount = both(_count)

    async def _end_all(self, io: IO) -> int:
        """End the sessions of everybody: all have to log in again. Returns how many ended. Raises ``StoreError``."""
        self.driver.keeper.local.clear()
        return await self.store.clear(io)

    end_all, aend_all = both(_end_all)

    # -- the state of the store -----------------------------------------------------------------------------------

    def store_away(self) -> bool:
        """Say whether the store is away and no try is due: for whoever answers protected paths with 503.

        It is False for the request that may find the store back, so that a site whose paths are all protected recovers.
        """
        return self.store.is_away()

    def retry_after(self) -> float:
        """Return the seconds until the next try, 0.0 while the store answers."""
        return self.store.breaker.retry_after(self.driver.clock())

    def stats(self) -> SessionStats:
        """Return what happened so far in this process."""
        return SessionStats(
            events={str(kind): count for kind, count in self.events.counts.items() if count},
            waiting=self.driver.keeper.waiting,
            store="away" if self.store.breaker.is_open else "ok",
        )

    async def _deliver(self, io: IO) -> int:
        """Bring what was changed while the store was away to it now. Returns how many sessions still wait."""
        return await self.driver.keeper.deliver_all(io)

    deliver, adeliver = both(_deliver)

    async def _close(self, io: IO) -> None:
        """Deliver what waits, if that can be, and give up connections that are not a cache's."""
        await self.driver.keeper.deliver_all(io)
        if not self._is_borrowed:
            await self.store.close(io)

    close, aclose = both(_close)


def check(sessions: Any) -> Sessions:
    """Return *sessions*. Raises ``ConfigError`` for anything else."""
    if not isinstance(sessions, Sessions):
        raise ConfigError(f"sessions must be a cachekit.sessions.Sessions, not {type(sessions).__name__}")
    return sessions
