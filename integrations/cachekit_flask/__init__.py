"""cachekit for Flask: ``kit = CacheKit(app)``. Wiring only; everything it does is done by ``cachekit``."""

from __future__ import annotations

from cachekit.compress.options import Compression
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from cachekit.wsgi import DegradeOptions, Route, Webhook
from cachekit_flask.kit import CacheKit
from cachekit_flask.sessions import CacheKitSessionInterface, FlaskSession, session
from cachekit_flask.signals import (
    cache_hit,
    cache_invalidated,
    cache_miss,
    cache_stale,
    cache_store_error,
    cache_stored,
)

__all__ = [
    "CacheKit",
    "CacheKitSessionInterface",
    "Compression",
    "DegradeOptions",
    "FlaskSession",
    "HttpOptions",
    "Route",
    "Rule",
    "Webhook",
    "cache_hit",
    "cache_invalidated",
    "cache_miss",
    "cache_stale",
    "cache_store_error",
    "cache_stored",
    "session",
]
