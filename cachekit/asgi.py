"""The drop-in for ASGI applications: ``app = CacheKit(app)``. Wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachekit.http.asgi import App, HttpCache
from cachekit.http.asgi_client import Receive, Send
from cachekit.http.asgi_request import Scope
from cachekit.http.options import HttpOptions
from cachekit.http.port import CachePort
from cachekit.http.rules import Rule, Rules

if TYPE_CHECKING:
    from cachekit.sessions.facade import Sessions


class CacheKit:
    """Put cachekit in front of an ASGI application.

    Args:
        app: the application.
        cache: where responses are kept; the default cache when left out.
        rules: header rules, the first that suits a response holds.
        options: settings of the HTTP cache.
        sessions: gives each request its session, inside of the HTTP cache, so that what was made by looking at one is never
            stored.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> from cachekit import Cache
        >>> app = CacheKit(app, cache=Cache(), rules=[Rule("/product/{id}", ttl="1h", tags=["product:{id}"])])
    """

    def __init__(
        self,
        app: App,
        *,
        cache: CachePort | None = None,
        rules: Sequence[Rule] | Rules = (),
        options: HttpOptions | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        if cache is None:
            from cachekit.default import default_cache

            cache = default_cache()
        if sessions is not None:
            from cachekit.sessions.asgi import SessionMiddleware

            app = SessionMiddleware(app, sessions)
        self.app = app
        self.http = HttpCache(app, cache, rules=rules, options=options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.http(scope, receive, send)


__all__ = ["CacheKit", "HttpCache", "HttpOptions", "Rule", "Rules"]
