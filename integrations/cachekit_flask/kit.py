"""``CacheKit``: the extension. Sets applications up, and says which cache belongs to the one that runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from flask import Flask, has_app_context

from cachekit import Cache, ConfigError, default_cache
from cachekit.arguments import check_arguments
from cachekit.compress.options import Compression
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from cachekit.jinja import CacheExtension
from cachekit.sessions import SessionOptions, Sessions
from cachekit.warm import Warmer
from cachekit.wsgi import CacheKit as HttpKit
from cachekit.wsgi import DegradeOptions, Route, Webhook
from cachekit_flask import jobs, leftovers, users
from cachekit_flask.commands import commands
from cachekit_flask.decorators import Decorators
from cachekit_flask.sessions import install
from cachekit_flask.settings import State, read, variables
from cachekit_flask.signals import forward
from cachekit_flask.views import application

log = logging.getLogger("cachekit")

_on_default: Final[WeakSet[Any]] = WeakSet()
"""The applications that use the default cache."""


class CacheKit(Decorators):
    """Put cachekit in front of a Flask application, and into its views and functions.

    Args:
        app: the application, or None to call ``init_app`` later, for one or several.
        cache: where everything is kept; else what the ``CACHEKIT_...`` of ``app.config`` say, else the default cache.
        rules: header rules, the first that suits a response holds; before those of ``CACHEKIT_RULES``.
        options: settings of the HTTP cache; else ``CACHEKIT_HTTP``.
        compression: True, or settings: responses travel compressed; else ``CACHEKIT_COMPRESSION``.
        sessions: True, ``SessionOptions`` or ``Sessions``: ``flask.session`` is kept here; else ``CACHEKIT_SESSIONS``.
        webhook: deliveries that it receives invalidate; else ``CACHEKIT_WEBHOOK``.
        degradation: what is refused while the store is away; else ``CACHEKIT_DEGRADATION``.
        routes: time-outs, bounds and breakers of the application; before those of ``CACHEKIT_ROUTES``.
        warmer: what ``flask cachekit warm`` runs.

    Raises:
        ConfigError: an option or a setting cannot be used, or the application has a cache already.

    Example:
        >>> from flask import Flask
        >>> app = Flask("shop")
        >>> kit = CacheKit(app, cache=Cache(), rules=[Rule("/product/{id}", ttl="1h")])
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
        compression: bool | Compression | None = None,
        sessions: bool | SessionOptions | Sessions | None = None,
        webhook: Webhook | None = None,
        degradation: DegradeOptions | None = None,
        routes: Sequence[Route] = (),
        warmer: Warmer | None = None,
    ) -> None:
        check_arguments(
            cache=cache, rules=rules, options=options, compression=compression, webhook=webhook, degradation=degradation,
            routes=routes,
        )  # fmt: skip
        if warmer is not None and not isinstance(warmer, Warmer):
            raise ConfigError(f"warmer={warmer!r} must be a cachekit.warm.Warmer")
        super().__init__()
        jobs.register()
        self.warmer = warmer
        self._cache = cache
        self._given: dict[str, Any] = {
            "rules": rules,
            "options": options,
            "compression": compression,
            "webhook": webhook,
        }
        self._given |= {"sessions": sessions, "degradation": degradation, "routes": routes}
        self._states: WeakKeyDictionary[Any, State] = WeakKeyDictionary()
        self._only: State | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set *app* up. Raises ``ConfigError`` for a wrong setting, by its name, and when it is set up already."""
        if not isinstance(app, Flask):
            raise ConfigError(f"app={app!r} must be a Flask application")
        if "cachekit" in app.extensions:
            raise ConfigError(f"the Flask application {app.name!r} has a CacheKit already: call init_app once")
        settings = read(app.config)
        leftovers.report(app.name, app.config)
        cache = self._cache if self._cache is not None else settings.make_cache() or _default(app)
        given = self._given
        options = given["options"] or settings.http
        compression = given["compression"]
        if compression is None:
            compression = settings.compression
        if settings.purgers:
            _purge_at(cache, settings.purgers)
        kept = given["sessions"] or settings.sessions
        if kept:
            app.extensions["cachekit.sessions"] = install(app, kept, cache)
        wrapped: Any = HttpKit(
            app.wsgi_app,
            cache=cache,
            rules=(*given["rules"], *settings.rules),
            options=options,
            webhook=given["webhook"] or settings.webhook,
            degradation=given["degradation"] or settings.degradation,
            routes=(*given["routes"], *settings.routes),
            compression=compression,
        )
        self._check(cache)
        state = State(cache, settings.enabled, variables((options or HttpOptions()).credentials))
        if settings.enabled:
            app.wsgi_app = wrapped  # type: ignore[method-assign]
        app.extensions["cachekit"] = self
        app.cli.add_command(commands(self))
        forward(app, cache)
        users.install(app)
        app.jinja_env.add_extension(CacheExtension)
        app.jinja_env.cachekit_cache = cache  # type: ignore[attr-defined]
        self._states[app] = state
        self._only = state if len(self._states) == 1 else None

    @property
    def state(self) -> State:
        """Return what the running application has. Raises ``ConfigError`` where none is, or before ``init_app``."""
        if self._only is not None:
            return self._only
        if has_app_context() and (found := self._states.get(application())) is not None:
            return found
        if not self._states:
            if self._cache is not None:
                return State(self._cache, credentials=frozenset())
            raise ConfigError("this CacheKit has no cache yet: call init_app(app) first")
        names = ", ".join(sorted(repr(app.name) for app in self._states))
        raise ConfigError(f"this CacheKit serves {names}: use it within `with app.app_context():` of one of them")

    @property
    def cache(self) -> Cache:
        """Return the cache of the running application. Raises ``ConfigError`` as ``state`` does."""
        return self.state.cache


def _purge_at(cache: Cache, purgers: Sequence[Any]) -> None:
    """Have *cache* tell *purgers*; several applications with one cache may name the same. Raises ``ConfigError``."""
    if cache.outbox is None:
        cache.attach(*purgers)
    elif unknown := [purger.name for purger in purgers if cache.outbox.purgers.get(purger.name) is not purger]:
        raise ConfigError(
            f"CACHEKIT_PURGERS={unknown!r}: this cache has purgers of its own, {', '.join(cache.outbox.purgers)}: name "
            "all of them in Cache(purgers=...), or in CACHEKIT_PURGERS"
        )


def _default(app: Flask) -> Cache:
    others = sorted(repr(other.name) for other in _on_default if other is not app)
    if others:
        log.warning(
            "the Flask application %r shares the default cache with %s: set CACHEKIT_URL in app.config",
            app.name,
            ", ".join(others),
        )
    _on_default.add(app)
    return default_cache()
