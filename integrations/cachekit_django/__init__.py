"""cachekit for Django. Wiring only; everything it does is done by ``cachekit``.

Names are loaded when they are first used: settings name this package before Django is ready.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cachekit.compress.options import Compression
    from cachekit.http.options import HttpOptions
    from cachekit.http.rules import Rule
    from cachekit_django.applications import get_asgi_application, get_wsgi_application
    from cachekit_django.backend import CacheBackend
    from cachekit_django.conf import cache
    from cachekit_django.queries import Invalidating
    from cachekit_django.signals import invalidates

_HOMES: Final = {
    "CacheBackend": "cachekit_django.backend",
    "Compression": "cachekit.compress.options",
    "HttpOptions": "cachekit.http.options",
    "Invalidating": "cachekit_django.queries",
    "Rule": "cachekit.http.rules",
    "cache": "cachekit_django.conf",
    "get_asgi_application": "cachekit_django.applications",
    "get_wsgi_application": "cachekit_django.applications",
    "invalidates": "cachekit_django.signals",
}

__all__ = [
    "CacheBackend", "Compression", "HttpOptions", "Invalidating", "Rule", "cache", "get_asgi_application",
    "get_wsgi_application", "invalidates",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
