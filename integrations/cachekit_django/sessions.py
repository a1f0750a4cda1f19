"""``SESSION_ENGINE = "cachekit_django.sessions"``: sessions where concurrent requests lose nothing.

A session is saved by comparing and setting: what another request saved meanwhile is merged in, key by key. A session that
was deleted meanwhile stays deleted. While the store is away its error is raised: an empty answer would have Django take
the visitor's cookie away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from cachekit import Cache
from cachekit.policy import Policy
from cachekit_django import conf
from cachekit_django.values import codec

_GONE: Final = object()
_codec = codec()


if TYPE_CHECKING:

    class _Base(SessionBase):
        """What the stubs of Django leave out."""

        _get_new_session_key: Any
        _aget_new_session_key: Any
        _get_session: Any
        _aget_session: Any

else:
    _Base = SessionBase


class SessionStore(_Base):
    """A session, as Django's middleware uses it."""

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._loaded: bytes | None = None  # as it was read, which is what changes are told by

    @property
    def _cache(self) -> Cache:
        return conf.sessions()

    @staticmethod
    def _name(session_key: str) -> str:
        """Return the key in the store, which does not tell the session's own."""
        return f"session:{hashlib.sha256(session_key.encode()).hexdigest()}"

    # -- reading

    def _take(self, found: Any) -> dict[str, Any]:
        if found is _GONE:
            self._session_key, self._loaded = None, None
            return {}
        self._loaded = found
        return dict(_codec.decode(found))

    def load(self) -> dict[str, Any]:
        """Return the data; none, and no key any more, where the session is gone. Raises ``StoreError``."""
        return self._take(self._cache.change(self._name(self._get_session_key()), _same, absent=_GONE))

    async def aload(self) -> dict[str, Any]:
        """Return the data; none, and no key any more, where the session is gone. Raises ``StoreError``."""
        return self._take(await self._cache.achange(self._name(self._get_session_key()), _same, absent=_GONE))

    def exists(self, session_key: str) -> bool:
        """Say whether there is a session *session_key*."""
        return bool(session_key) and self._cache.entry(self._name(session_key)) is not None

    async def aexists(self, session_key: str) -> bool:
        """Say whether there is a session *session_key*."""
        return bool(session_key) and await self._cache.aentry(self._name(session_key)) is not None

    # -- writing

    def create(self) -> None:
        """Give this session a new key that no other has, and save it."""
        while True:
            self._session_key = self._get_new_session_key()
            try:
                self.save(must_create=True)
            except CreateError:
                continue
            self.modified = True
            return

    async def acreate(self) -> None:
        """Give this session a new key that no other has, and save it."""
        while True:
            self._session_key = await self._aget_new_session_key()
            try:
                await self.asave(must_create=True)
            except CreateError:
                continue
            self.modified = True
            return

    def save(self, must_create: bool = False) -> None:
        """Save what changed. Raises ``CreateError``, ``UpdateError`` and ``StoreError``."""
        if self.session_key is None:
            self.create()
            return
        data, age = self._get_session(no_load=must_create), self.get_expiry_age()
        name, change = self._name(self._get_session_key()), self._saving(data, must_create=must_create)
        kept = self._cache.change(name, change, absent=_GONE, ttl=_policy(age), slide=True)
        if age <= 0:
            self._cache.delete(name)
        self._kept(kept)

    async def asave(self, must_create: bool = False) -> None:
        """Save what changed. Raises ``CreateError``, ``UpdateError`` and ``StoreError``."""
        if self.session_key is None:
            await self.acreate()
            return
        data, age = await self._aget_session(no_load=must_create), await self.aget_expiry_age()
        name, change = self._name(self._get_session_key()), self._saving(data, must_create=must_create)
        kept = await self._cache.achange(name, change, absent=_GONE, ttl=_policy(age), slide=True)
        if age <= 0:
            await self._cache.adelete(name)
        self._kept(kept)

    def _saving(self, mine: dict[str, Any], *, must_create: bool) -> Callable[[Any], Any]:
        def change(found: Any) -> bytes:
            if must_create:
                if found is not _GONE:
                    raise CreateError
                return _codec.encode(mine)
            if found is _GONE:
                raise UpdateError
            if found == self._loaded or self._loaded is None:
                return _codec.encode(mine)
            return _codec.encode(merged(_codec.decode(self._loaded), mine, _codec.decode(found)))

        return change

    def _kept(self, kept: bytes) -> None:
        self._loaded = kept
        self._session_cache = dict(_codec.decode(kept))

    def delete(self, session_key: str | None = None) -> None:
        """Drop the session *session_key*, or this one."""
        if (chosen := session_key or self.session_key) is not None:
            self._cache.delete(self._name(chosen))

    async def adelete(self, session_key: str | None = None) -> None:
        """Drop the session *session_key*, or this one."""
        if (chosen := session_key or self.session_key) is not None:
            await self._cache.adelete(self._name(chosen))

    def _get_session_key(self) -> str:
        return self.session_key or ""

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: sessions end by themselves."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """Do nothing: sessions end by themselves."""


def merged(base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return *theirs* with what *mine* changed of *base*, key by key; where both changed one, mine holds."""
    changed = {key: value for key, value in mine.items() if key not in base or base[key] != value}
    dropped = base.keys() - mine.keys()
    return {key: value for key, value in {**theirs, **changed}.items() if key not in dropped}


def _same(found: Any) -> Any:
    return found


def _policy(age: float) -> Policy:
    return Policy(ttl=max(age, 0.001))
