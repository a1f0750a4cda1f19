"""cachekit for Django: its ASGI or WSGI application with the HTTP cache in front. Wiring only.

In ``asgi.py`` or ``wsgi.py``:

    from cachekit_django import get_asgi_application

    application = get_asgi_application()

The setting ``CACHEKIT`` is a dictionary: ``{"URL": "redis://localhost", "RULES": [Rule("/product/{id}", ttl="1h")]}``.
"""

from __future__ import annotations

from typing import Any

from cachekit import Cache, ConfigError, default_cache
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule

_SETTINGS = ("URL", "RULES", "OPTIONS", "PURGERS", "WEBHOOK", "DEGRADATION", "ROUTES")


def _settings() -> dict[str, Any]:
    from django.conf import settings

    given = getattr(settings, "CACHEKIT", {})
    unknown = sorted(str(name) for name in given if name not in _SETTINGS) if isinstance(given, dict) else [repr(given)]
    if unknown:
        wrong = f"; it has {', '.join(unknown)}"
        raise ConfigError(f"the setting CACHEKIT must be a dictionary with some of {', '.join(_SETTINGS)}{wrong}")
    url = given.get("URL")
    cache = Cache(url) if url else default_cache()
    if (purgers := given.get("PURGERS")) and cache.outbox is None:
        cache.attach(*purgers)
    return {
        "cache": cache,
        "webhook": given.get("WEBHOOK"),
        "degradation": given.get("DEGRADATION"),
        "routes": given.get("ROUTES", ()),
        "rules": given.get("RULES", ()),
        "options": given.get("OPTIONS"),
    }


def get_asgi_application() -> Any:
    """Return Django's ASGI application with the HTTP cache in front. Raises ``ConfigError``."""
    from django.core.asgi import get_asgi_application as inner

    from cachekit.asgi import CacheKit

    app: Any = inner()
    return CacheKit(app, **_settings())


def get_wsgi_application() -> Any:
    """Return Django's WSGI application with the HTTP cache in front. Raises ``ConfigError``."""
    from django.core.wsgi import get_wsgi_application as inner

    from cachekit.wsgi import CacheKit

    app: Any = inner()
    return CacheKit(app, **_settings())


__all__ = ["HttpOptions", "Rule", "get_asgi_application", "get_wsgi_application"]
