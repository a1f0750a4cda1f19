"""Which page the request in this thread is for: Django makes a session without saying, and that decides what is foreseen.

Known under WSGI alone; in asyncio nobody reads ahead this way. Must not know sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from django.core.signals import request_finished, request_started

_NOWHERE: Final = ("", "")
_page: Final[ContextVar[tuple[str, str]]] = ContextVar("cachekit_django_page", default=_NOWHERE)


def page() -> tuple[str, str]:
    """Return the method and the path of the request that goes on here, or two empty texts."""
    return _page.get()


def _noted(environ: Mapping[str, Any] | None = None, **_: Any) -> None:
    """Take in what begins, or ends: asyncio's requests bring no *environ*."""
    _page.set(_NOWHERE if environ is None else (environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", "")))


for _signal in (request_started, request_finished):
    _signal.connect(_noted, dispatch_uid="cachekit_django.pages")
