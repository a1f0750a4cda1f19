"""The drop-in for ASGI applications: ``app = CacheKit(app)``. Wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from cachekit.arguments import check_app, check_arguments
from cachekit.http.asgi import HttpCache
from cachekit.http.asgi_client import App, Receive, Send
from cachekit.http.asgi_request import Scope
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule, Rules

if TYPE_CHECKING:
    from cachekit.compress.asgi import Compress
    from cachekit.compress.options import Compression
    from cachekit.dashboard.access import Dashboard
    from cachekit.dashboard.asgi import DashboardApp
    from cachekit.degrade.asgi import Degradation, Guards
    from cachekit.degrade.gate import Route
    from cachekit.degrade.options import DegradeOptions
    from cachekit.facade import Cache
    from cachekit.sessions.facade import Sessions
    from cachekit.webhook.asgi import WebhookApp
    from cachekit.webhook.receiver import Webhook

_HOMES: Final = {
    "Compress": "compress.asgi", "Compression": "compress.options", "Dashboard": "dashboard.access",
    "DashboardApp": "dashboard.asgi", "Degradation": "degrade.asgi", "DegradeOptions": "degrade.options",
    "Guards": "degrade.asgi", "Route": "degrade.gate", "Webhook": "webhook.receiver", "WebhookApp": "webhook.asgi",
}  # fmt: skip
"""What only some applications use; it is imported where it is first named, or given to ``CacheKit``."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"cachekit.{home}"), name)
    return value


class CacheKit:
    """Put cachekit in front of an ASGI application.

    Args:
        app: the application.
        cache: where responses are kept; the default cache when left out.
        rules: header rules, the first that suits a response holds.
        options: settings of the HTTP cache.
        webhook: deliveries that it receives invalidate; answered at its path, before all else.
        degradation: what is refused while the store is away, and where that is told.
        routes: time-outs, bounds and breakers of the application, inside the HTTP cache, which serves stale first.
        compression: encodes responses as clients accept it; True for the usual settings. What the HTTP cache has stored is
            encoded once for each coding.
        sessions: gives each request its session, inside of the HTTP cache, so that what was made by looking at one is never
            stored. Its store counts as a part of *degradation* too.
        dashboard: a status page with the live figures of *cache*, answered at its path, before all else.

    Raises:
        ConfigError: an argument cannot be used; the message names it.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> from cachekit import Cache
        >>> app = CacheKit(app, cache=Cache(), rules=[Rule("/product/{id}", ttl="1h", tags=["product:{id}"])])
    """

    def __init__(
        self,
        app: App,
        *,
        cache: Cache | None = None,
        rules: Sequence[Rule] | Rules = (),
        options: HttpOptions | None = None,
        webhook: Webhook | None = None,
        degradation: DegradeOptions | None = None,
        routes: Sequence[Route] = (),
        compression: Compression | bool | None = None,
        sessions: Sessions | None = None,
        dashboard: Dashboard | None = None,
    ) -> None:
        check_app(app, "an ASGI application")
        check_arguments(
            cache=cache, rules=None if isinstance(rules, Rules) else rules, options=options, webhook=webhook,
            degradation=degradation, routes=routes, compression=compression, dashboard=dashboard,
        )  # fmt: skip
        if cache is None:
            from cachekit.default import default_cache

            cache = default_cache()
        if sessions is not None:
            from cachekit.sessions.asgi import SessionMiddleware

            app = SessionMiddleware(app, sessions)
        self.app = app
        clock, emit = cache.clock, cache.events
        self.guards: Guards | None = None
        if routes:
            from cachekit.degrade.asgi import Guards

            self.guards = Guards(app, routes, clock=clock, emit=emit)
        self.http = HttpCache(self.guards or app, cache, rules=rules, options=options)
        self._outside: App = self.http.way
        if compression:
            from cachekit.compress.asgi import Compress

            self._outside = Compress(self.http.way, None if compression is True else compression, cached=True)
        if degradation is not None:
            from cachekit.degrade.asgi import Degradation

            if sessions is not None:
                degradation = degradation.watching("sessions", lambda: not sessions.store_away())
            self._outside = Degradation(self._outside, cache=cache, options=degradation, emit=emit)
        self._webhook: tuple[str, WebhookApp] | None = None
        if webhook is not None:
            from cachekit.webhook.asgi import WebhookApp

            self._webhook = webhook.path, WebhookApp(webhook, cache)
        self._dashboard: DashboardApp | None = None
        if dashboard is not None:
            from cachekit.dashboard.asgi import DashboardApp

            self._dashboard = DashboardApp(dashboard, cache)
        self._way: App = self._outside if webhook is None and dashboard is None else self._choose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._way(scope, receive, send)

    async def _choose(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._webhook is not None and scope["type"] == "http" and scope["path"] == self._webhook[0]:
            await self._webhook[1](scope, receive, send)
        elif (
            self._dashboard is not None and scope["type"] == "http" and self._dashboard.dashboard.answers(scope["path"])
        ):
            await self._dashboard(scope, receive, send)
        else:
            await self._outside(scope, receive, send)


__all__ = [
    "CacheKit", "Compress", "Compression", "Dashboard", "DashboardApp", "Degradation", "DegradeOptions", "Guards",
    "HttpCache", "HttpOptions", "Route", "Rule", "Rules", "Webhook", "WebhookApp",
]  # fmt: skip
