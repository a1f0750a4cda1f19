"""The part of the cache backend that deals with lifetimes, and with keys by pattern."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cachekit_django.single import PREFIX, SingleValues

_MAGIC: Final = re.compile(r"([*?\[\]\\^])")


class Patterns(SingleValues):
    """Adds lifetimes and presence; ``ttl``, ``keys``, ``iter_keys`` and ``delete_pattern`` are not Django's.

    ``itersize``, which django-redis has, is of no account: a page is as large as the store makes it.
    """

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name, policy = self._key(key, version), self._policy(timeout)
        return self.cache.delete(name) if policy is None else self.cache.touch(name, ttl=policy)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name, policy = self._key(key, version), self._policy(timeout)
        return await self.cache.adelete(name) if policy is None else await self.cache.atouch(name, ttl=policy)

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self.cache.entry(self._key(key, version)) is not None

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return await self.cache.aentry(self._key(key, version)) is not None

    def ttl(self, key: Any, version: int | None = None) -> float | None:
        """Return the seconds that *key* has left: 0 when it is absent, None when it has no end."""
        return self._ttl(self.cache.entry(self._key(key, version)))

    async def attl(self, key: Any, version: int | None = None) -> float | None:
        """Return the seconds that *key* has left: 0 when it is absent, None when it has no end."""
        return self._ttl(await self.cache.aentry(self._key(key, version)))

    def _pattern(self, pattern: str, version: int | None) -> str:
        made = self.make_key("\0", version=version)
        before, _, after = made.partition("\0")
        return f"{PREFIX}{_literal(before)}{pattern}{_literal(after)}"

    def iter_keys(
        self, pattern: str = "*", version: int | None = None, itersize: int | None = None  # noqa: ARG002 - see above
    ) -> Iterator[str]:  # fmt: skip
        """Yield the keys that match *pattern*, which may hold ``*``, ``?`` and ``[abc]``."""
        pattern, cursor = self._pattern(pattern, version), None
        while True:
            cursor, names = self.cache.scan(pattern, cursor)
            yield from (self._reverse(name[len(PREFIX) :]) for name in names)
            if cursor is None:
                return

    async def aiter_keys(
        self, pattern: str = "*", version: int | None = None, itersize: int | None = None  # noqa: ARG002
    ) -> AsyncIterator[str]:  # fmt: skip
        """Yield the keys that match *pattern*, which may hold ``*``, ``?`` and ``[abc]``."""
        pattern, cursor = self._pattern(pattern, version), None
        while True:
            cursor, names = await self.cache.ascan(pattern, cursor)
            for name in names:
                yield self._reverse(name[len(PREFIX) :])
            if cursor is None:
                return

    def keys(self, pattern: str = "*", version: int | None = None) -> list[str]:
        """Return the keys that match *pattern*, each once."""
        return list(dict.fromkeys(self.iter_keys(pattern, version)))

    async def akeys(self, pattern: str = "*", version: int | None = None) -> list[str]:
        """Return the keys that match *pattern*, each once."""
        return list(dict.fromkeys([key async for key in self.aiter_keys(pattern, version)]))

    def delete_pattern(
        self, pattern: str, version: int | None = None, itersize: int | None = None  # noqa: ARG002
    ) -> int:  # fmt: skip
        """Drop the keys that match *pattern*, a page at a time. Returns how many there were. Tags are the quick way."""
        pattern, cursor, found = self._pattern(pattern, version), None, 0
        while True:
            cursor, names = self.cache.scan(pattern, cursor, fresh=False)
            found += self.cache.delete_many(names)
            if cursor is None:
                return found

    async def adelete_pattern(
        self, pattern: str, version: int | None = None, itersize: int | None = None  # noqa: ARG002
    ) -> int:  # fmt: skip
        """Drop the keys that match *pattern*, a page at a time. Returns how many there were. Tags are the quick way."""
        pattern, cursor, found = self._pattern(pattern, version), None, 0
        while True:
            cursor, names = await self.cache.ascan(pattern, cursor, fresh=False)
            found += await self.cache.adelete_many(names)
            if cursor is None:
                return found


def _literal(text: str) -> str:
    return _MAGIC.sub(r"\\\1", text)
