"""``pytest -p instead_flask``: Flask's own suite, with our session interface in the place of its own."""

from __future__ import annotations

import flask
from cachekit_flask import CacheKitSessionInterface

from cachekit import Cache

flask.Flask.session_interface = CacheKitSessionInterface(Cache())
