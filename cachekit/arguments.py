"""What the drop-ins are given, checked when they are made: a wrong argument is named, with what it may be.

Owns the messages. Must not know ASGI or WSGI.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from cachekit.compress.options import Compression
from cachekit.dashboard import Dashboard
from cachekit.degrade import DegradeOptions
from cachekit.errors import ConfigError
from cachekit.facade import Cache
from cachekit.http.options import HttpOptions
from cachekit.webhook import Webhook

_KINDS: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "cache": ((Cache,), "a Cache, such as Cache('redis://localhost')"),
    "options": ((HttpOptions,), "HttpOptions(...)"),
    "webhook": ((Webhook,), "Webhook(secret)"),
    "degradation": ((DegradeOptions,), "DegradeOptions(...)"),
    "compression": ((bool, Compression), "True, False or Compression(...)"),
    "dashboard": ((Dashboard,), "Dashboard(path, ...)"),
}


def check_arguments(**given: Any) -> None:
    """Raise ``ConfigError`` for the first of *given* that is of the wrong kind; None is nothing given."""
    for name, value in given.items():
        if value is None:
            continue
        if name in _KINDS:
            kinds, words = _KINDS[name]
            if not isinstance(value, kinds):
                raise ConfigError(f"{name}={value!r} must be {words}")
        elif isinstance(value, str) or not isinstance(value, Iterable):  # rules, routes
            raise ConfigError(f"{name}={value!r} must be a list of {name.removesuffix('s').capitalize()}(...)")
