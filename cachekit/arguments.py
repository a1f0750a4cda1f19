"""What the drop-ins are given, checked when they are made: a wrong argument is named, with what it may be.

Owns the messages. Imports what an argument may be only where it is given. Must not know ASGI or WSGI.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

from cachekit.errors import ConfigError

_KINDS: Final[dict[str, tuple[str, str, str]]] = {
    "cache": ("cachekit.facade", "Cache", "a Cache, such as Cache('redis://localhost')"),
    "options": ("cachekit.http.options", "HttpOptions", "HttpOptions(...)"),
    "webhook": ("cachekit.webhook", "Webhook", "Webhook(secret)"),
    "degradation": ("cachekit.degrade.options", "DegradeOptions", "DegradeOptions(...)"),
    "compression": ("cachekit.compress.options", "Compression", "True, False or Compression(...)"),
    "dashboard": ("cachekit.dashboard", "Dashboard", "Dashboard(path, ...)"),
}


def check_app(app: object, kind: str) -> None:
    """Raise ``ConfigError`` where *app* is no application of *kind*, such as ``an ASGI application``."""
    if not callable(app):
        raise ConfigError(f"app={app!r} must be {kind}")


def check_arguments(**given: Any) -> None:
    """Raise ``ConfigError`` for the first of *given* that is of the wrong kind; None is nothing given."""
    for name, value in given.items():
        if value is None or (name == "compression" and isinstance(value, bool)):
            continue
        if name in _KINDS:
            module, kind, words = _KINDS[name]
            if not isinstance(value, getattr(import_module(module), kind)):
                raise ConfigError(f"{name}={value!r} must be {words}")
        elif isinstance(value, str) or not isinstance(value, Iterable):  # rules, routes
            raise ConfigError(f"{name}={value!r} must be a list of {name.removesuffix('s').capitalize()}(...)")
