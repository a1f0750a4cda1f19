"""What a middleware is put around: something else is named when it is made, not at the first request."""

from __future__ import annotations

import math
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


@pytest.mark.parametrize("url", ["redis://h", "sentinel://h?service=m", "tiered+redis+cluster://h"])
@pytest.mark.parametrize("timeout", [0, -1, "250ms", None, True, math.nan, math.inf])
def test_a_cache_names_a_time_out_that_is_none(url, timeout) -> None:
    with pytest.raises(ConfigError, match=f"timeout={timeout!r} must be a positive number of seconds"):
        Cache(url, timeout=timeout)


@pytest.mark.parametrize("ttl", [-1, "30s", None, False, math.nan])
def test_a_cache_names_an_isolated_ttl_that_is_none(ttl) -> None:
    with pytest.raises(ConfigError, match=f"isolated_ttl={ttl!r} must be a number of seconds, 0 for never"):
        Cache("tiered+redis://h", isolated_ttl=ttl)


@pytest.mark.parametrize(("kit", "words"), [(AsgiKit, "an ASGI application"), (WsgiKit, "a WSGI application")])
def test_so_does_the_whole(kit, words) -> None:
    with pytest.raises(ConfigError, match=words):
        kit(None, cache=Cache())
