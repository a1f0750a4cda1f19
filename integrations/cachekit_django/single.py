"""The part of the cache backend that deals with one value: its name, its lifetime, its form.

Values are kept encoded, on every store alike: what a caller does to a value that it got changes nothing in the cache.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from inspect import isawaitable
from typing import Any, ClassVar, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.utils.module_loading import import_string

from cachekit import Cache, ConfigError, Event, Kind
from cachekit.errors import CodecError
from cachekit.policy import Policy, seconds
from cachekit_django import conf, jobs
from cachekit_django.values import codec

log = logging.getLogger("cachekit")

_OPTIONS: Final = (*conf.CACHE_OPTIONS, "TYPES", "STRICT", "REVERSE_KEY_FUNCTION")
_SCALARS: Final = frozenset({int, float, str, bytes, bool, type(None)})
PREFIX: Final = "django:"
_SEVERAL: Final = re.compile(r"[,;]\s*[\w+]+://")
_LONGEST: Final = 250
_MISSING: Final = object()
NOT_KEPT: Final = object()
"""Stands for the form of a value that has none."""


@lru_cache(maxsize=256, typed=True)
def _policy_of(timeout: Any) -> Policy:
    return Policy.of(timeout)


class _Unkept(Exception):
    """Not an error: it brings a value past the cache, to all who wait for it."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def _last(made: str) -> str:
    return made.split(":", 2)[-1]


class SingleValues(BaseCache):
    """A cache of the setting ``CACHES``.

    Args:
        location: URL of the store; empty for the cache of the setting ``CACHEKIT``.
        params: the settings of this cache; OPTIONS are those of ``Cache`` in upper case, TYPES (see ``values.Allowed``),
            STRICT and REVERSE_KEY_FUNCTION, which may also stand beside OPTIONS, as for django-redis.

    Attributes:
        of_cachekit: says, without an instance, that it is one of ours.
        wrong: the error that every use raises, a ``ConfigError`` that names the setting; None where all is well. Making it
            raises nothing, because a system check of Django's own makes every cache, and would stop with a traceback
            before ours has said what is wrong. Outside of management commands ours runs when Django starts.
    """

    of_cachekit: ClassVar = True

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self.wrong: Exception | None = None
        jobs.register()  # where the application is not installed
        try:
            self._set_up(location, params)
        except (ConfigError, ImportError) as exc:
            self.wrong = exc

    def _set_up(self, location: str, params: dict[str, Any]) -> None:
        one: Any = location
        if not isinstance(one, str) or _SEVERAL.search(one):
            raise ConfigError(
                f"CACHES LOCATION={location!r} must be one URL such as 'redis://localhost': replicas are not read"
            )
        options = conf.known(params.get("OPTIONS", {}), _OPTIONS, "CACHES OPTIONS")
        timeout = params.get("TIMEOUT", 300)
        if isinstance(timeout, str) and timeout.isdecimal():  # which Django takes, too
            timeout = int(timeout)
        if isinstance(timeout, str):
            timeout = seconds(timeout, "CACHES TIMEOUT")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
            raise ConfigError(f'CACHES TIMEOUT={timeout!r} must be seconds, a duration such as "5m", or None for ever')
        self.default_timeout: float | None = timeout
        given = {conf.CACHE_OPTIONS[name]: value for name, value in options.items() if name in conf.CACHE_OPTIONS}
        if not location and given:
            raise ConfigError(f"CACHES: OPTIONS {', '.join(options)} need a LOCATION such as 'redis://localhost'")
        types = options.get("TYPES", ())
        self._strict = options.get("STRICT", False)
        if not isinstance(self._strict, bool):
            raise ConfigError(f"CACHES OPTIONS: STRICT={self._strict!r} must be True or False")
        self._told: set[str] = set()
        reverse = options.get("REVERSE_KEY_FUNCTION") or params.get("REVERSE_KEY_FUNCTION")
        self._reverse: Callable[[str], str] = import_string(reverse) if isinstance(reverse, str) else reverse or _last
        found = conf.build(location, given, "CACHES") if location else conf.cache()
        conf.allow(found, types)
        self._codec = codec(types if location else (*types, *conf.read().types))
        # Last, because every use begins with it.
        self.cache: Cache = found

    def __getattr__(self, name: str) -> Any:
        """Say what is wrong: what the settings describe is not there."""
        if (wrong := vars(self).get("wrong")) is not None:
            raise wrong.with_traceback(None)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # -- values, keys and lifetimes

    def _pack(self, value: Any) -> Any:
        if type(value) not in _SCALARS:
            return [self._codec.encode(value)]
        if type(value) is str and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:  # a lone surrogate: the error names it, and what to do
                self._codec.encode(value)
        return value

    def _form(self, name: str, value: Any) -> Any:
        """Return the form of *value*; NOT_KEPT where it has none. Raises ``CodecError`` instead where STRICT says so.

        Applications fill caches in the middle of other work, written for a cache that pickles: they go on without.
        """
        try:
            return self._pack(value)
        except CodecError as exc:
            if self._strict:
                raise
            self.cache.events(Event(Kind.UNENCODABLE, name, detail=str(exc), error=exc))
            kind = exc.type_name or type(value).__qualname__
            if kind not in self._told:
                self._told.add(kind)
                log.warning(
                    '%s is not cached, nor is any value with a %s: %s. Name classes from outside INSTALLED_APPS in '
                    'OPTIONS["TYPES"] of this cache; OPTIONS["STRICT"] = True raises this error. It is logged once',
                    name, kind, exc,
                )  # fmt: skip
            return NOT_KEPT

    def _made(self, name: str, value: Any) -> Any:
        form = self._form(name, value)
        if form is NOT_KEPT:
            raise _Unkept(value)
        return form

    def _unpack(self, kept: Any, name: str, default: Any = None) -> Any:
        """Return the value; *default* where it cannot be read any more, because a class has changed since."""
        if type(kept) is not list:
            return kept
        try:
            return self._codec.decode(kept[0])
        except CodecError as exc:
            self.cache.events(Event(Kind.UNREADABLE, name, detail=str(exc), error=exc))
            return default

    def validate_key(self, key: str) -> None:
        """Warn of keys that memcached would refuse, as Django does; most are seen at a glance not to be."""
        if len(key) > _LONGEST or " " in key or not key.isprintable():
            super().validate_key(key)

    def _key(self, key: Any, version: int | None) -> str:
        return f"{PREFIX}{self.make_and_validate_key(key, version=version)}"

    def _policy(self, timeout: Any) -> Policy | None:
        """Return the policy that *timeout* means; None where nothing is to be kept."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if isinstance(timeout, (int, float)) and timeout <= 0:
            return None
        return _policy_of(timeout)

    def _left(self, entry: Any) -> Policy:
        """Return the policy that gives an entry the lifetime that *entry* has left."""
        return Policy(ttl=max(entry.fresh_until - self.cache.clock(), 0.001))

    def _ttl(self, entry: Any) -> float | None:
        if entry is None:
            return 0
        return None if entry.fresh_until == math.inf else max(0.0, entry.fresh_until - self.cache.clock())

    # -- one value

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        kept = self.cache.get(name := self._key(key, version), _MISSING)
        return default if kept is _MISSING else self._unpack(kept, name, default)

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        kept = await self.cache.aget(name := self._key(key, version), _MISSING)
        return default if kept is _MISSING else self._unpack(kept, name, default)

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, tags: Iterable[str] = ()
    ) -> None:
        name, policy = self._key(key, version), self._policy(timeout)
        if policy is None or (form := self._form(name, value)) is NOT_KEPT:
            self.cache.delete(name)  # what was there before is not what was set
        else:
            self.cache.set(name, form, ttl=policy, tags=tags)

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, tags: Iterable[str] = ()
    ) -> None:
        name, policy = self._key(key, version), self._policy(timeout)
        if policy is None or (form := self._form(name, value)) is NOT_KEPT:
            await self.cache.adelete(name)  # what was there before is not what was set
        else:
            await self.cache.aset(name, form, ttl=policy, tags=tags)

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, tags: Iterable[str] = ()
    ) -> bool:
        name, policy = self._key(key, version), self._policy(timeout)
        if policy is None:
            return self.cache.entry(name) is None
        form = self._form(name, value)
        return form is not NOT_KEPT and self.cache.add(name, form, ttl=policy, tags=tags)

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, tags: Iterable[str] = ()
    ) -> bool:
        name, policy = self._key(key, version), self._policy(timeout)
        if policy is None:
            return await self.cache.aentry(name) is None
        form = self._form(name, value)
        return form is not NOT_KEPT and await self.cache.aadd(name, form, ttl=policy, tags=tags)

    def get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        tags: Iterable[str] = (),
    ) -> Any:
        name, policy = self._key(key, version), self._policy(timeout)

        def load() -> Any:
            return self._made(name, default() if callable(default) else default)

        try:
            if policy is None:
                kept = self.cache.get(name, _MISSING)
                return self._unpack(load() if kept is _MISSING else kept, name)
            value = self._unpack(self.cache.get_or_set(name, load, ttl=policy, tags=tags), name, _MISSING)
            if value is _MISSING:
                self.cache.delete(name)
                value = self._unpack(self.cache.get_or_set(name, load, ttl=policy, tags=tags), name)
        except _Unkept as found:
            return found.value
        return value

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        tags: Iterable[str] = (),
    ) -> Any:
        name, policy = self._key(key, version), self._policy(timeout)

        async def load() -> Any:
            made = default() if callable(default) else default
            return self._made(name, await made if isawaitable(made) else made)

        try:
            if policy is None:
                kept = await self.cache.aget(name, _MISSING)
                return self._unpack(await load() if kept is _MISSING else kept, name)
            value = self._unpack(await self.cache.aget_or_set(name, load, ttl=policy, tags=tags), name, _MISSING)
            if value is _MISSING:
                await self.cache.adelete(name)
                value = self._unpack(await self.cache.aget_or_set(name, load, ttl=policy, tags=tags), name)
        except _Unkept as found:
            return found.value
        return value

    def delete(self, key: Any, version: int | None = None) -> bool:
        return self.cache.delete(self._key(key, version))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return await self.cache.adelete(self._key(key, version))
