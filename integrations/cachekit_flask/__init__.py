"""cachekit for Flask: ``CacheKit(app)``. Wiring only; everything it does is done by ``cachekit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cachekit import Cache, ConfigError, default_cache
from cachekit.wsgi import CacheKit as _CacheKit
from cachekit.wsgi import DegradeOptions, HttpOptions, Route, Rule, Webhook

if TYPE_CHECKING:
    from flask import Flask


class CacheKit:
    """Put the HTTP cache in front of a Flask application.

    Args:
        app: the application, or None to call ``init_app`` later.
        cache: where responses are kept; else ``app.config["CACHEKIT_URL"]``, else the default cache.
        rules: header rules, the first that suits a response holds.
        options: settings of the HTTP cache.
        webhook: deliveries that it receives invalidate.
        degradation: what is refused while the store is away.
        routes: time-outs, bounds and breakers of the application.

    Raises:
        ConfigError: an option cannot be used, or the application has a cache already.

    Example:
        >>> from flask import Flask
        >>> app = Flask("shop")
        >>> kit = CacheKit(app, cache=Cache(), rules=[Rule("/product/<id>".replace("<id>", "{id}"), ttl="1h")])
        >>> app.extensions["cachekit"] is kit
        True
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        cache: Cache | None = None,
        rules: Sequence[Rule] = (),
        options: HttpOptions | None = None,
        webhook: Webhook | None = None,
        degradation: DegradeOptions | None = None,
        routes: Sequence[Route] = (),
    ) -> None:
        self._edge: dict[str, Any] = {"webhook": webhook, "degradation": degradation, "routes": routes}
        self._cache = cache
        self._rules = rules
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Wrap *app*. Raises ``ConfigError`` when it is wrapped already."""
        if "cachekit" in app.extensions:
            raise ConfigError(f"the Flask application {app.name!r} has a CacheKit already: call init_app once")
        if self._cache is None:
            url = app.config.get("CACHEKIT_URL")
            self._cache = Cache(url) if url else default_cache()
        parts = {"rules": self._rules, "options": self._options, **self._edge}
        wrapped: Any = _CacheKit(app.wsgi_app, cache=self._cache, **parts)
        app.wsgi_app = wrapped  # type: ignore[method-assign]
        app.extensions["cachekit"] = self

    @property
    def cache(self) -> Cache:
        """Return the cache. Raises ``ConfigError`` before ``init_app``."""
        if self._cache is None:
            raise ConfigError("this CacheKit has no cache yet: call init_app(app) first")
        return self._cache


__all__ = ["CacheKit", "DegradeOptions", "HttpOptions", "Route", "Rule", "Webhook"]
