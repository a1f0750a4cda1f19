"""From a URL to a store: the one place that knows which class serves which scheme.

Other packages add schemes through the entry point group ``cachekit.stores``: a callable ``from_url(url) -> Store``.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from cachekit.breaker import Breaker
from cachekit.clock import Clock
from cachekit.codecs.base import Codec
from cachekit.codecs.protection import Protection
from cachekit.errors import ConfigError
from cachekit.events import Emit
from cachekit.stores.base import Store
from cachekit.stores.memory import Memory

TIERED: Final = "tiered+"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a store may need besides its URL."""

    namespace: str
    codec: Codec
    clock: Clock
    emit: Emit
    timeout: float
    max_entries: int
    max_bytes: int
    compress_from: int
    max_value_bytes: int
    isolated_ttl: float
    protection: Protection | None = None


def is_private(url: str) -> bool:
    """Return whether no other process reaches what *url* names: its memory, or a server of its own."""
    parts = urlsplit(url.removeprefix(TIERED))
    return parts.scheme == "memory" or (parts.scheme == "embedded" and not parts.netloc + parts.path)


def build(url: str, settings: Settings) -> tuple[Store, Memory | None]:
    """Return the store that *url* names, and its in-process level if it has one. Connects to nothing.

    Raises:
        ConfigError: the scheme is unknown, or the URL cannot be used.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise ConfigError(f"the store URL cannot be used: {exc}") from exc
    scheme = parts.scheme
    if scheme == "memory":
        memory = _memory(settings)
        return memory, memory
    tiered = scheme.startswith(TIERED)
    inner = url[len(TIERED) :] if tiered else url
    if urlsplit(inner).scheme == "embedded":
        return _redis(inner, settings, tiered=tiered)
    from cachekit.stores.address import SCHEMES

    if urlsplit(inner).scheme in SCHEMES:
        return _redis(inner, settings, tiered=tiered)
    for plugin in entry_points(group="cachekit.stores", name=scheme):
        if settings.protection is not None:
            raise ConfigError(f"protection= does not reach the store behind {scheme}://: protect values there")
        store: Store = plugin.load()(url)
        return store, None
    known = ["memory", "embedded", *SCHEMES]
    shown = urlunsplit((scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))  # without credentials
    raise ConfigError(
        f"unknown URL scheme {scheme!r} in {shown!r}: use one of {', '.join(f'{name}://' for name in known)}, "
        f"or {TIERED}redis:// for an in-process level in front of a server"
    )


def _memory(settings: Settings) -> Memory:
    return Memory(max_entries=settings.max_entries, max_bytes=settings.max_bytes, clock=settings.clock)


def _redis(url: str, settings: Settings, *, tiered: bool) -> tuple[Store, Memory | None]:
    from cachekit.stores.guarded import Guarded
    from cachekit.stores.links import connect
    from cachekit.stores.redis import RedisStore

    server = None
    if urlsplit(url).scheme == "embedded":
        from cachekit.stores.embedded import EmbeddedServer

        parts = urlsplit(url)
        server = EmbeddedServer(parts.netloc + parts.path or None)
        url = server.url
    link = connect(url, timeout=settings.timeout)
    remote = RedisStore(
        link,
        settings.codec,
        namespace=settings.namespace,
        emit=settings.emit,
        clock=settings.clock,
        compress_from=settings.compress_from,
        max_value_bytes=settings.max_value_bytes,
        protection=settings.protection,
    )
    if server is not None:
        weakref.finalize(remote, server.close)
    guarded = Guarded(remote, Breaker(), clock=settings.clock, emit=settings.emit)
    if not tiered:
        return guarded, None
    from cachekit.stores.tiered import Tiered

    memory = _memory(settings)
    store = Tiered(
        memory,
        guarded,
        open_bus=remote.channel.subscribe,
        origin=lambda: remote.origin,
        clock=settings.clock,
        emit=settings.emit,
        timeout=settings.timeout,
        isolated_ttl=settings.isolated_ttl,
    )
    return store, memory
