"""The part of a cache that speaks of CDNs: what is purged besides invalidated tags, and how it stands.

Must not know where entries lie, nor when purges are delivered.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cachekit._io import IO, both
from cachekit.clock import Chance, Clock
from cachekit.errors import ConfigError
from cachekit.events import Emit
from cachekit.keys import check_tags
from cachekit.stores.base import Store

if TYPE_CHECKING:
    from cachekit.cdn.base import Purger
    from cachekit.cdn.options import PurgeOptions, PurgeStatus
    from cachekit.cdn.outbox import Outbox


class Purging:
    """What a cache with purgers can do; ``Cache`` brings the rest."""

    outbox: Outbox | None = None

    async def _purges(self, io: IO) -> dict[str, PurgeStatus]:
        """Return how it stands with each purger, by its name; nothing where there is none.

        Raises:
            StoreError: the store, which keeps the outbox, is away.
        """
        return {} if self.outbox is None else await self.outbox.status(io)

    purges, apurges = both(_purges)

    async def _purge(
        self, io: IO, *, tags: Iterable[str] = (), urls: Iterable[str] = (), everything: bool = False
    ) -> bool:
        """Purge the CDNs alone; entries here stay. Returns False when the store that keeps the outbox is away.

        ``invalidate`` purges by itself; this is for absolute *urls*, and for *everything*, which ``clear`` does not imply.

        Raises:
            ConfigError: there are no purgers, or a tag or URL cannot be used.
        """
        if self.outbox is None:
            raise ConfigError("this cache has no purgers: give it some, Cache(purgers=[Cloudflare(...)])")
        wanted = [check_url(url) for url in urls]
        return await self.outbox.put(io, check_tags(tags), wanted, everything=everything)

    purge, apurge = both(_purge)

    async def _retry_purges(self, io: IO) -> int:
        """Try the purges anew that were given up. Returns how many there were."""
        return 0 if self.outbox is None else await self.outbox.retry_dead(io)

    retry_purges, aretry_purges = both(_retry_purges)

    async def _flush_purges(self, io: IO, timeout: float = 10.0) -> bool:
        """Wait until the CDNs have confirmed what was put, at most *timeout* seconds. Says whether they have."""
        return True if self.outbox is None else await self.outbox.flush(io, timeout)

    flush_purges, aflush_purges = both(_flush_purges)


def open_outbox(
    owner: object,
    purgers: Sequence[Purger],
    options: PurgeOptions | None,
    store: Store,
    *,
    clock: Clock,
    chance: Chance,
    emit: Emit,
) -> Outbox:
    """Return the running outbox of *purgers*: on the server of *store* if it has one, else in this process."""
    from cachekit.cdn.box import ServerBox
    from cachekit.cdn.outbox import Outbox

    guarded = getattr(store, "l2", store)
    remote = getattr(guarded, "inner", guarded)
    link, namespace = getattr(remote, "link", None), getattr(remote, "namespace", None)
    box = None if link is None or namespace is None else ServerBox(link, namespace)
    outbox = Outbox(
        purgers, box=box, is_away=_watch(guarded, clock), options=options, clock=clock, chance=chance, emit=emit
    )
    weakref.finalize(owner, outbox.stop).atexit = False
    if outbox.is_durable:
        outbox.start()  # what an earlier process left behind
    return outbox


def _watch(guarded: object, clock: Clock) -> Callable[[], bool]:
    """Return what says whether invalidations wait for the server, or it is known to be away."""
    breaker = getattr(guarded, "breaker", None)
    if breaker is None:
        return lambda: False

    def is_away() -> bool:
        return getattr(guarded, "pending", 0) > 0 or (breaker.is_open and breaker.retry_after(clock()) > 0)

    return is_away


def check_url(url: object) -> str:
    """Return *url* as given. Raises ``ConfigError`` unless it is an absolute http(s) URL that can be sent."""
    parts = urlsplit(url) if isinstance(url, str) and url.isascii() and url.isprintable() and " " not in url else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"url {url!r} must be absolute and percent-encoded, such as https://shop.example/products/42")
    return str(url)
