"""``pytest -p through_starlette``: every application in Starlette's own suite stands behind the middleware."""

from __future__ import annotations

import os

from cachekit_starlette import CacheKit
from starlette import testclient

from cachekit import Cache

_init = testclient.TestClient.__init__


def init(self, app, *args, **kwargs):
    if testclient._is_asgi3(app):
        app = CacheKit(app, cache=Cache(), compression=os.environ["THROUGH"] == "compression")
    _init(self, app, *args, **kwargs)


testclient.TestClient.__init__ = init
