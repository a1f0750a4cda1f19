"""What becomes invalid is dropped: in this cache, and where the options want it at the CDNs (RFC 9111 section 4.4).

Owns how it is known that there is nothing to drop, so that a request that changes something elsewhere costs next to
nothing. Must not know which requests make what invalid.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from cachekit._io import IO
from cachekit.http.message import url_of
from cachekit.http.port import CachePort
from cachekit.stores.memory import TRAIL

log = logging.getLogger("cachekit")

MASK: Final = TRAIL - 1
"""What is left of the hash of a path."""


class Dropping:
    """Drops what lies in one cache.

    Every exchange leaves its trail in the memory of the cache before it stores: the path of its request, percent-decoded,
    of which the path of its key is made. So a path without a trail has nothing stored and nothing under way, whatever
    its query. Where a server is asked, somebody else may have stored, and there is no trail to go by.

    Args:
        cache: where responses are kept.
        purges: whether URLs are purged at the CDNs too.

    Attributes:
        clean: what ``untrodden`` goes by, None where nothing can be known: for who has no time to ask.
    """

    __slots__ = ("_cache", "_purges", "_trail", "clean")

    def __init__(self, cache: CachePort, purges: bool) -> None:
        self._cache = cache
        self._purges = purges
        self._trail: bytearray | None = getattr(cache, "trail", None)
        self.clean = None if purges else self._trail  # a CDN may have what this memory has not

    def tread(self, path: str) -> None:
        """Note that something of *path* may be stored from now on."""
        if (trail := self._trail) is not None:
            trail[hash(path) & MASK] = 1

    def untrodden(self, path: str) -> bool:
        """Say whether nothing of *path* is stored or being made; False says only that something may be."""
        return (clean := self.clean) is not None and not clean[hash(path) & MASK]

    def forget(self, keys: Sequence[str]) -> bool:
        """Drop *keys* at once, where that takes no more than this process."""
        if self._purges and self._outbox is not None:
            return False
        return self._cache.forget(keys)  # by the store's own fault it raises nothing: it is this process's memory

    async def drop(self, io: IO, keys: Sequence[str]) -> None:
        """Drop *keys*, here and, where the options want it, at the CDNs."""
        try:
            await self._cache.drop(io, *keys)
            await self.purge(io, keys)
        except Exception:  # a broken cache never breaks a response
            log.exception("the HTTP cache failed; the response goes on without it")

    async def purge(self, io: IO, keys: Sequence[str]) -> None:
        """Purge the URLs of *keys* at the CDNs, after they were dropped here."""
        if (outbox := self._outbox) is not None:
            await outbox.put(io, (), [url for key in keys if (url := url_of(key)) is not None])

    @property
    def _outbox(self) -> Any:
        """Return where URLs of CDNs are put that are to be purged, or None."""
        return getattr(self._cache, "outbox", None) if self._purges else None


__all__ = ["MASK", "Dropping"]
