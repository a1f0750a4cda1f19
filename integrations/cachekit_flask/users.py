"""Whom Flask-Login has recognised, by whatever field a ``request_loader`` goes by: what they are given is theirs.

Must not know caches; Flask-Login need not be there.
"""

from __future__ import annotations

from flask import Flask, Response, g, request

from cachekit.http.credentials import KNOWN


def is_known() -> bool:
    """Say whether somebody has looked who is asking in this request, and it is a user."""
    return bool(getattr(g.get("_login_user"), "is_authenticated", False))


def install(app: Flask) -> None:
    """Have the cache around *app* told."""
    app.after_request(_tell)


def _tell(response: Response) -> Response:
    if is_known():
        request.environ[KNOWN] = True
    return response
