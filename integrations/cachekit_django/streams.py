"""Responses whose body is made while it is sent: it may look at the session until its end, so it is for one visitor.

Django's middleware has told by then whether anybody looked. Where a project has other sessions, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import FileResponse, HttpRequest

from cachekit.http.headers import Headers
from cachekit.http.outside import private
from cachekit.http.personal import is_open
from cachekit_django import bridge
from cachekit_django.sessions import SessionStore


def may_look(request: HttpRequest, response: Any, fields: Headers) -> bool:
    """Say whether the body of *response*, which has *fields*, may look at a session that nobody has told of."""
    if not response.streaming or not isinstance(getattr(request, "session", None), SessionStore):
        return False
    return is_open(request.method or "", response.status_code, fields) and not _is_file(request, response)


def _is_file(request: HttpRequest, response: Any) -> bool:
    # Whoever encodes the body of a file takes its length away, and puts a generator in its place.
    if not isinstance(response, FileResponse):
        return False
    closed = [getattr(close, "__self__", None) for close in response._resource_closers]  # type: ignore[attr-defined]
    return any(one is not request and hasattr(one, "read") for one in closed)


def told(request: HttpRequest, response: Any) -> Any:
    """Return *response*, which says that it is for one visitor where its body may look at the session."""
    if response.streaming and may_look(request, response, fields := bridge.fields_of(response)):
        return bridge.with_fields(response, private(fields))
    return response


def watch(handler: Any) -> Any:
    """Return *handler*, Django's own, whose responses say so when all middlewares have seen them."""
    handler.get_response = _sync(handler.get_response)
    handler.get_response_async = _async(handler.get_response_async)
    return handler


def _sync(get_response: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(get_response)
    def way(request: HttpRequest) -> Any:
        return told(request, get_response(request))

    return way


def _async(get_response: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(get_response)
    async def way(request: HttpRequest) -> Any:
        return told(request, await get_response(request))

    return way
