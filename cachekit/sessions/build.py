"""From a URL, a cache or a store to where sessions are kept.

Sessions are never kept in a first level in process: another process's logout must be seen at once. So ``tiered+`` and a
tiered cache give the server behind them.
"""

from __future__ import annotations

from typing import Any

from cachekit.breaker import Breaker
from cachekit.clock import Clock
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.errors import ConfigError
from cachekit.events import Events
from cachekit.facade import Cache
from cachekit.sessions.generic import StoredSessions
from cachekit.sessions.guard import GuardedSessions
from cachekit.sessions.memory import MemorySessions
from cachekit.sessions.options import SessionOptions
from cachekit.sessions.redis import RedisSessions
from cachekit.sessions.store import FullStore
from cachekit.stores.build import TIERED, Settings, build
from cachekit.stores.guarded import Guarded
from cachekit.stores.memory import Memory


def open_store(source: Any, options: SessionOptions, *, clock: Clock, events: Events) -> tuple[GuardedSessions, object]:
    """Return the store of sessions that *source* names, and what must live as long as it.

    Args:
        source: a URL, a ``Cache``, a ``Store`` of a cache, or a session store of your own.
        options: namespace and time-out where a URL is given; how far the indexes may be behind.
        clock: source of time.
        events: receives events.

    Raises:
        ConfigError: it is none of these, or the URL cannot be used.
    """
    breaker = Breaker()
    owner: object = source
    inner: FullStore
    if isinstance(source, str):
        if source.startswith("memory://"):
            return _guarded(MemorySessions(clock=clock), breaker, clock, events), None
        owner = store = build(source.removeprefix(TIERED), _settings(options, clock, events))[0]
    elif isinstance(source, Cache):
        store = source.store
    elif hasattr(source, "retire"):
        return _guarded(source, breaker, clock, events), None
    elif hasattr(source, "update"):
        store = source
    else:
        raise ConfigError(f"sessions are kept under a URL, in a Cache or in a store, not in {type(source).__name__}")
    if isinstance(store, Memory):
        return _guarded(MemorySessions(clock=clock), breaker, clock, events), owner
    behind: Any = getattr(store, "l2", store)
    if isinstance(behind, Guarded):
        breaker = behind.breaker
        behind = behind.inner
    link = getattr(behind, "link", None)
    if link is None:
        inner = StoredSessions(behind, slack=options.slack, clock=clock)
    else:
        namespace = options.namespace if isinstance(source, str) else getattr(behind, "namespace", options.namespace)
        inner = RedisSessions(link, namespace=namespace, slack=options.slack, clock=clock)
    return _guarded(inner, breaker, clock, events), owner


def _guarded(inner: FullStore, breaker: Breaker, clock: Clock, events: Events) -> GuardedSessions:
    return GuardedSessions(inner, breaker, clock=clock, emit=events)


def _settings(options: SessionOptions, clock: Clock, events: Events) -> Settings:
    return Settings(
        namespace=options.namespace, codec=MsgpackCodec(), clock=clock, emit=events, timeout=options.timeout,
        max_entries=1, max_bytes=1, compress_from=options.compress_from, max_value_bytes=options.max_bytes,
        isolated_ttl=0.0,
    )  # fmt: skip
