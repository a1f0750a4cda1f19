"""Django's cache API over ``cachekit.Cache``: ``"BACKEND": "cachekit_django.CacheBackend"``.

This part deals with numbers, with many values at once and with tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cachekit.errors import StoreError
from cachekit_django.patterns import Patterns
from cachekit_django.single import NOT_KEPT

_MISSING: Final = object()


class NotCounted(StoreError, ValueError):
    """The store is away, or did not say what it made of a count.

    A ``ValueError`` too, as Django has for a number that is not there: packages that count are ready for it.
    """


class CacheBackend(Patterns):
    """A cache of the setting ``CACHES``: Django's API, sync and async, with tags and patterns.

    Example:
        >>> from django.conf import settings
        >>> if not settings.configured:
        ...     settings.configure()
        >>> cache = CacheBackend("memory://shelf", {"KEY_PREFIX": "shop"})
        >>> cache.set("price", 9.5, timeout=60, tags=["product:42"])
        >>> cache.get("price")
        9.5
        >>> cache.invalidate_tags("product:42")
        >>> cache.get("price") is None
        True
    """

    # -- numbers

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> Any:
        """Add *delta* atomically; the lifetime stays.

        Raises:
            ValueError: *key* is absent.
            NotCounted: the store is away; it is a ``ValueError`` and a ``StoreError``.
        """
        name = self._key(key, version)
        try:
            return self._unpack(
                self.cache.change(name, self._adding(key, name, delta), absent=_MISSING, adds=delta), name
            )
        except StoreError as exc:
            raise NotCounted(f"incr({key!r}): {exc}") from exc

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> Any:
        """Do the same without blocking."""
        name = self._key(key, version)
        try:
            kept = await self.cache.achange(name, self._adding(key, name, delta), absent=_MISSING, adds=delta)
        except StoreError as exc:
            raise NotCounted(f"incr({key!r}): {exc}") from exc
        return self._unpack(kept, name)

    def _adding(self, key: Any, name: str, delta: int) -> Callable[[Any], Any]:
        def change(kept: Any) -> Any:
            if kept is _MISSING:
                raise ValueError(f"Key '{key}' not found")
            value = self._unpack(kept, name, kept)
            if not isinstance(value, (int, float, Decimal)) or isinstance(value, bool):
                raise TypeError(f"the value of '{key}' is of type {type(value).__name__}, not a number")
            return self._pack(value + delta)

        return change

    async def adecr(self, key: Any, delta: int = 1, version: int | None = None) -> Any:
        """Subtract *delta* atomically; the lifetime stays. Raises what ``incr`` raises."""
        return await self.aincr(key, -delta, version=version)

    # -- many values

    def _names(self, keys: Iterable[Any], version: int | None) -> dict[str, Any]:
        return {self._key(key, version): key for key in keys}

    def _found(self, names: dict[str, Any], kept: dict[str, Any]) -> dict[Any, Any]:
        values = {names[name]: self._unpack(one, name, _MISSING) for name, one in kept.items()}
        return {key: value for key, value in values.items() if value is not _MISSING}

    def _forms(self, names: dict[str, Any], data: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the forms of *data* by name, and the names of those that have none."""
        forms = {name: self._form(name, data[key]) for name, key in names.items()}
        left = [name for name, form in forms.items() if form is NOT_KEPT]
        for name in left:
            del forms[name]
        return forms, left

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return the values of those *keys* that are present, in one round trip."""
        names = self._names(keys, version)
        return self._found(names, self.cache.get_many(names))

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return the values of those *keys* that are present, in one round trip."""
        names = self._names(keys, version)
        return self._found(names, await self.cache.aget_many(names))

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        tags: Iterable[str] = (),
    ) -> list[Any]:
        """Keep each of *data*. Returns the keys whose values could not be kept, because of their types."""
        names, policy = self._names(data, version), self._policy(timeout)
        if policy is None:
            self.cache.delete_many(names)
            return []
        forms, left = self._forms(names, data)
        self.cache.set_many(forms, ttl=policy, tags=tags)
        if left:
            self.cache.delete_many(left)
        return [names[name] for name in left]

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        tags: Iterable[str] = (),
    ) -> list[Any]:
        """Keep each of *data*. Returns the keys whose values could not be kept, because of their types."""
        names, policy = self._names(data, version), self._policy(timeout)
        if policy is None:
            await self.cache.adelete_many(names)
            return []
        forms, left = self._forms(names, data)
        await self.cache.aset_many(forms, ttl=policy, tags=tags)
        if left:
            await self.cache.adelete_many(left)
        return [names[name] for name in left]

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Drop *keys*."""
        self.cache.delete_many(self._names(keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Drop *keys*."""
        await self.cache.adelete_many(self._names(keys, version))

    def clear(self) -> None:
        """Drop everything in the namespace of this cache: what functions and the HTTP cache keep there, too."""
        self.cache.clear()

    async def aclear(self) -> None:
        """Do the same without blocking."""
        await self.cache.aclear()

    def close(self, **kwargs: Any) -> None:
        """Do nothing: connections outlive requests."""

    async def aclose(self, **kwargs: Any) -> None:
        """Do nothing: connections outlive requests."""

    # -- versions

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Move the value of *key* to another version, with its lifetime and tags. Raises ``ValueError`` when absent."""
        version = self.version if version is None else version
        entry = self.cache.entry(self._key(key, version))
        if entry is None:
            raise ValueError(f"Key '{key}' not found")
        left = self._left(entry)
        self.cache.set(self._key(key, version + delta), entry.value, ttl=left, tags=entry.tags)
        self.cache.delete(self._key(key, version))
        return version + delta

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Move the value of *key* to another version, with its lifetime and tags. Raises ``ValueError`` when absent."""
        version = self.version if version is None else version
        entry = await self.cache.aentry(self._key(key, version))
        if entry is None:
            raise ValueError(f"Key '{key}' not found")
        left = self._left(entry)
        await self.cache.aset(self._key(key, version + delta), entry.value, ttl=left, tags=entry.tags)
        await self.cache.adelete(self._key(key, version))
        return version + delta

    # -- tags

    def invalidate_tags(self, *tags: str) -> None:
        """Drop whatever carries one of *tags*: values, results of functions, responses, fragments."""
        self.cache.invalidate(*tags)

    async def ainvalidate_tags(self, *tags: str) -> None:
        """Do the same without blocking."""
        await self.cache.ainvalidate(*tags)
