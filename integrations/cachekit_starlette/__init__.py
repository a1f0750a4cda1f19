"""cachekit for Starlette and FastAPI: ``Middleware(CacheKit, cache=cache)``. Wiring only.

The middleware is plain ASGI, so that what Starlette needs is its name here.

    app = Starlette(routes=..., middleware=[Middleware(CacheKit, cache=cache, rules=[Rule("/product/{id}", ttl="1h")])])
"""

from __future__ import annotations

from cachekit.asgi import CacheKit, DegradeOptions, HttpOptions, Route, Rule, Webhook

__all__ = ["CacheKit", "DegradeOptions", "HttpOptions", "Route", "Rule", "Webhook"]
