"""``pytest -p through_blog``: an application of Flask with our sessions, and behind cache and compression."""

from __future__ import annotations

import os
from weakref import WeakKeyDictionary

import flask
from cachekit_flask import CacheKitSessionInterface

from cachekit import Cache
from cachekit.wsgi import CacheKit, Rule

flask.Flask.session_interface = CacheKitSessionInterface(Cache())
wrapped = WeakKeyDictionary()
RULES = [Rule("/**", ttl="1h")] if os.environ["THROUGH"] == "rule" else []


def call(self, environ, start_response):
    app = wrapped.get(self)
    if app is None:
        app = CacheKit(self.wsgi_app, cache=Cache(), rules=RULES, compression=True)
        wrapped[self] = app
    return app(environ, start_response)


flask.Flask.__call__ = call
