"""What a middleware is put around: something else is named when it is made, not at the first request."""

from __future__ import annotations

from importlib import import_module

import pytest

from cachekit import Cache, ConfigError
from cachekit.asgi import CacheKit as AsgiKit
from cachekit.degrade import Route
from cachekit.sessions import SessionOptions, Sessions
from cachekit.wsgi import CacheKit as WsgiKit

MADE = {
    "http:HttpCache": lambda kind, app: kind(app, Cache()),
    "compress:Compress": lambda kind, app: kind(app),
    "sessions:SessionMiddleware": lambda kind, app: kind(app, Sessions("memory://", SessionOptions(secrets="s" * 32))),
    "degrade:Degradation": lambda kind, app: kind(app, cache=Cache()),
    "degrade:Guards": lambda kind, app: kind(app, [Route("/slow", timeout=1)]),
}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize(("world", "words"), [("asgi", "an ASGI application"), ("wsgi", "a WSGI application")])
def test_each_middleware_names_what_is_no_application(made, world, words) -> None:
    package, name = made.split(":")
    kind = getattr(import_module(f"cachekit.{package}.{world}"), name)
    for app in (None, "shop:app"):
        with pytest.raises(ConfigError, match=f"app={app!r} must be {words}"):
            MADE[made](kind, app)


@pytest.mark.parametrize(("kit", "words"), [(AsgiKit, "an ASGI application"), (WsgiKit, "a WSGI application")])
def test_so_does_the_whole(kit, words) -> None:
    with pytest.raises(ConfigError, match=words):
        kit(None, cache=Cache())
