"""The drop-in for WSGI applications: ``app = CacheKit(app)``. Wiring only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from cachekit.arguments import check_app, check_arguments
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule, Rules
from cachekit.http.wsgi import App, HttpCache, StartResponse
from cachekit.http.wsgi_request import Environ

if TYPE_CHECKING:
    from cachekit.compress.options import Compression
    from cachekit.compress.wsgi import Compress
    from cachekit.dashboard.access import Dashboard
    from cachekit.dashboard.wsgi import DashboardApp
    from cachekit.degrade.gate import Route
    from cachekit.degrade.options import DegradeOptions
    from cachekit.degrade.wsgi import Degradation, Guards
    from cachekit.facade import Cache
    from cachekit.sessions.facade import Sessions
    from cachekit.webhook.receiver import Webhook
    from cachekit.webhook.wsgi import WebhookApp

_HOMES: Final = {
    "Compress": "compress.wsgi", "Compression": "compress.options", "Dashboard": "dashboard.access",
    "DashboardApp": "dashboard.wsgi", "Degradation": "degrade.wsgi", "DegradeOptions": "degrade.options",
    "Guards": "degrade.wsgi", "Route": "degrade.gate", "Webhook": "webhook.receiver", "WebhookApp": "webhook.wsgi",
}  # fmt: skip
"""What only some applications use; it is imported where it is first named, or given to ``CacheKit``."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"cachekit.{home}"), name)
    return value


class CacheKit:
    """Put cachekit in front of an WSGI application.

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
        >>> def app(environ, start_response): ...
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
        check_app(app, "a WSGI application")
        check_arguments(
            cache=cache, rules=None if isinstance(rules, Rules) else rules, options=options, webhook=webhook,
            degradation=degradation, routes=routes, compression=compression, dashboard=dashboard,
        )  # fmt: skip
        if cache is None:
            from cachekit.default import default_cache

            cache = default_cache()
        if sessions is not None:
            from cachekit.sessions.wsgi import SessionMiddleware

            app = SessionMiddleware(app, sessions)
        self.app = app
        clock, emit = cache.clock, cache.events
        self.guards: Guards | None = None
        if routes:
            from cachekit.degrade.wsgi import Guards

            self.guards = Guards(app, routes, clock=clock, emit=emit)
        self.http = HttpCache(self.guards or app, cache, rules=rules, options=options)
        self._outside: App = self.http.__call__  # a plain call is quicker than that of an object
        if compression:
            from cachekit.compress.wsgi import Compress

            self._outside = Compress(self.http.__call__, None if compression is True else compression, cached=True)
        if degradation is not None:
            from cachekit.degrade.wsgi import Degradation

            if sessions is not None:
                degradation = degradation.watching("sessions", lambda: not sessions.store_away())
            self._outside = Degradation(self._outside, cache=cache, options=degradation, emit=emit)
        self._webhook: tuple[str, WebhookApp] | None = None
        if webhook is not None:
            from cachekit.webhook.wsgi import WebhookApp

            self._webhook = webhook.path, WebhookApp(webhook, cache)
        self._dashboard: DashboardApp | None = None
        if dashboard is not None:
            from cachekit.dashboard.wsgi import DashboardApp

            self._dashboard = DashboardApp(dashboard, cache)
        self._alone = webhook is None and dashboard is None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._alone:
            return self._outside(environ, start_response)
        if self._webhook is not None and environ.get("PATH_INFO", "") == self._webhook[0]:
            return self._webhook[1](environ, start_response)
        if self._dashboard is not None and self._dashboard.dashboard.answers(environ.get("PATH_INFO", "")):
            return self._dashboard(environ, start_response)
        return self._outside(environ, start_response)


__all__ = [
    "CacheKit", "Compress", "Compression", "Dashboard", "DashboardApp", "Degradation", "DegradeOptions", "Guards",
    "HttpCache", "HttpOptions", "Route", "Rule", "Rules", "Webhook", "WebhookApp",
]  # fmt: skip
