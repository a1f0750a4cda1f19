"""The WSGI edge of the status page. Must not know who may see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias

from cachekit._io import BLOCKING, drive
from cachekit.dashboard.access import Dashboard, Desk
from cachekit.dashboard.figures import Subject

Environ: TypeAlias = dict[str, Any]


class DashboardApp:
    """A WSGI application that is a status page, whatever path it is mounted at.

    Args:
        dashboard: who may see it.
        cache: whose figures are shown.
    """

    def __init__(self, dashboard: Dashboard, cache: Subject) -> None:
        self.dashboard = dashboard
        self._desk = Desk(dashboard, cache)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        method = environ.get("REQUEST_METHOD", "GET")
        answer = drive(
            self._desk.answer(
                BLOCKING,
                environ,
                method,
                environ.get("PATH_INFO", ""),
                environ.get("QUERY_STRING", ""),
                environ.get("HTTP_AUTHORIZATION"),
            )
        )
        fields = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", fields)
        return [] if method == "HEAD" else [answer.body]
