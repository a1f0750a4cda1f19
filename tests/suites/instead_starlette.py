"""``pytest -p instead_starlette``: Starlette's own suite, with our classes under the names of its own."""

from __future__ import annotations

import cachekit_starlette.gzip
import cachekit_starlette.sessions
import starlette.middleware.gzip
import starlette.middleware.sessions

for name in ("Session", "SessionMiddleware"):
    setattr(starlette.middleware.sessions, name, getattr(cachekit_starlette.sessions, name))
for name in ("GZipMiddleware", "GZipResponder"):
    setattr(starlette.middleware.gzip, name, getattr(cachekit_starlette.gzip, name))
