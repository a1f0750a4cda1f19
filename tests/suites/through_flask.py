"""``pytest -p through_flask``: every application of Flask's own suite answers through the middleware."""

from __future__ import annotations

import os
from weakref import WeakKeyDictionary

import flask

from cachekit import Cache
from cachekit.compress.wsgi import Compress
from cachekit.wsgi import CacheKit

wrapped = WeakKeyDictionary()


def call(self, environ, start_response):
    """Look `wsgi_app` up late: the suite replaces it."""
    app = wrapped.get(self)
    if app is None:
        app = CacheKit(lambda environ, start: self.wsgi_app(environ, start), cache=Cache())
        if os.environ["THROUGH"] == "compression":
            app = Compress(app)
        wrapped[self] = app
    return app(environ, start_response)


flask.Flask.__call__ = call
