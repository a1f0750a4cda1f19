"""Django's ASGI and WSGI applications with the HTTP cache in front, which is the short way past all of Django."""

from __future__ import annotations

from typing import Any

from cachekit_django import conf, jobs


def _settings() -> dict[str, Any]:
    jobs.register()  # where the application is not installed
    given = conf.read()
    return {
        "cache": conf.cache(), "rules": given.rules, "options": conf.http_options(), "degradation": given.degradation,
        **given.edge,
    }  # fmt: skip


def get_asgi_application() -> Any:
    """Return Django's ASGI application with the HTTP cache in front. Raises ``ConfigError``."""
    from django.core.asgi import get_asgi_application as inner

    from cachekit.asgi import CacheKit
    from cachekit_django.streams import watch

    app: Any = watch(inner())
    return CacheKit(app, **_settings())


def get_wsgi_application() -> Any:
    """Return Django's WSGI application with the HTTP cache in front. Raises ``ConfigError``."""
    from django.core.wsgi import get_wsgi_application as inner

    from cachekit.wsgi import CacheKit
    from cachekit_django.streams import watch

    app: Any = watch(inner())
    return CacheKit(app, **_settings())
