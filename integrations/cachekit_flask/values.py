"""Values by key, under the names that users of Flask-Caching know. Each calls the method of ``Cache`` that does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cachekit import Cache, ConfigError, Policy
from cachekit.policy import Duration

_ABSENT: Final = object()


def lifetime(timeout: Duration | None, ttl: Duration | Policy | None) -> Duration | Policy | None:
    """Return the ttl that *timeout* (seconds; 0 for ever) or *ttl* means. Raises ``ConfigError`` when both are given."""
    if timeout is None:
        return ttl
    if ttl is not None:
        raise ConfigError(f"timeout={timeout!r} and ttl={ttl!r} mean the same: give one of them")
    return Policy() if timeout == 0 else timeout


class Values:
    """The part of ``CacheKit`` that keeps values by key."""

    @property
    def cache(self) -> Cache:
        """Return the cache."""
        raise NotImplementedError

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of *key*, or *default*."""
        return self.cache.get(key, default)

    def has(self, key: str) -> bool:
        """Say whether *key* is there."""
        return self.cache.get(key, _ABSENT) is not _ABSENT

    def set(
        self,
        key: str,
        value: Any,
        timeout: Duration | None = None,
        *,
        ttl: Duration | Policy | None = None,
        tags: Iterable[str] = (),
    ) -> bool:
        """Keep *value* under *key*; *timeout* is in seconds, 0 for ever. Returns True."""
        self.cache.set(key, value, ttl=lifetime(timeout, ttl), tags=tags)
        return True

    def add(
        self,
        key: str,
        value: Any,
        timeout: Duration | None = None,
        *,
        ttl: Duration | Policy | None = None,
        tags: Iterable[str] = (),
    ) -> bool:
        """Keep *value* only if *key* is absent. Returns whether it was kept."""
        return self.cache.add(key, value, ttl=lifetime(timeout, ttl), tags=tags)

    def delete(self, key: str) -> bool:
        """Drop *key*. Returns whether it was there."""
        return self.cache.delete(key)

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values of *keys* in their order, None for those that are absent."""
        found = self.cache.get_many(keys)
        return [found.get(key) for key in keys]

    def get_dict(self, *keys: str) -> dict[str, Any]:
        """Return the values of *keys* by key, None for those that are absent."""
        return dict(zip(keys, self.get_many(*keys), strict=True))

    def set_many(
        self,
        values: Mapping[str, Any],
        timeout: Duration | None = None,
        *,
        ttl: Duration | Policy | None = None,
        tags: Iterable[str] = (),
    ) -> list[str]:
        """Keep each of *values* under its key. Returns the keys."""
        self.cache.set_many(values, ttl=lifetime(timeout, ttl), tags=tags)
        return list(values)

    def delete_many(self, *keys: str) -> int:
        """Drop *keys*. Returns how many were there."""
        return self.cache.delete_many(keys)

    def clear(self) -> bool:
        """Drop everything in the cache's namespace. Returns True."""
        self.cache.clear()
        return True

    def invalidate(self, *tags: str) -> None:
        """Drop everything that carries one of *tags*: values, functions, views, responses, in every process."""
        self.cache.invalidate(*tags)
