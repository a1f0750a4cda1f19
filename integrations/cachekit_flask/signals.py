"""Signals (blinker): what a cache does, told to whoever connects. The sender is the application.

A signal carries ``event``, a ``cachekit.Event``. Hits are counted and emit no event, for they are to cost nothing; a view
that ``CacheKit.cached`` answers sends ``cache_hit`` all the same.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from blinker import NamedSignal, Namespace

from cachekit import Cache, Event, Kind

if TYPE_CHECKING:
    from flask import Flask

_signals: Final = Namespace()

BY_KIND: Final[dict[Kind, NamedSignal]] = {
    kind: _signals.signal(f"cachekit-{kind}", f"A cachekit event of the kind {kind}.") for kind in Kind
}
cache_hit: Final = _signals.signal("cachekit-hit", "A view was answered from the cache; `key` says which.")
cache_miss: Final = BY_KIND[Kind.MISS]
cache_stale: Final = BY_KIND[Kind.STALE]
cache_stored: Final = BY_KIND[Kind.STORED]
cache_invalidated: Final = BY_KIND[Kind.INVALIDATED]
cache_store_error: Final = BY_KIND[Kind.STORE_ERROR]


def forward(app: Flask, cache: Cache) -> None:
    """Send a signal for each event of *cache* in the name of *app*, as long as that lives."""
    sender = weakref.ref(app)

    def observe(event: Event) -> None:
        signal = BY_KIND[event.kind]
        if signal.receivers and (alive := sender()) is not None:
            signal.send(alive, event=event)

    cache.events.subscribe(observe)


def hit(app: Any, key: str) -> None:
    """Say that a view was answered from the cache."""
    if cache_hit.receivers:
        cache_hit.send(app, key=key)
