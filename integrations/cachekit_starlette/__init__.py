"""cachekit for Starlette and FastAPI: ``Middleware(CacheKit, cache=cache)``. Wiring only; ``cachekit`` does the work.

app = Starlette(routes=..., middleware=[Middleware(CacheKit, cache=cache, rules=[Rule("/product/{id}", ttl="1h")])])
"""

from __future__ import annotations

from cachekit.asgi import DegradeOptions, Route, Webhook
from cachekit.compress.options import Compression
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from cachekit_starlette.gzip import GZipMiddleware
from cachekit_starlette.lifespan import cachekit_lifespan
from cachekit_starlette.middleware import CacheKit
from cachekit_starlette.requests import get_cache, tag
from cachekit_starlette.routes import cached_route
from cachekit_starlette.sessions import Session, SessionMiddleware
from cachekit_starlette.templates import fragments

__all__ = [
    "CacheKit",
    "Compression",
    "DegradeOptions",
    "GZipMiddleware",
    "HttpOptions",
    "Route",
    "Rule",
    "Session",
    "SessionMiddleware",
    "Webhook",
    "cached_route",
    "cachekit_lifespan",
    "fragments",
    "get_cache",
    "tag",
]
