"""Middlewares for the setting ``MIDDLEWARE``, sync and async: the HTTP cache, compression, degradation; and sessions.

The first three stand first, in the order compression, degradation, cache: what stands after them is what they leave out,
refuse or encode. The last stands where Django's own does. ``cachekit`` does the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware as _SessionMiddleware
from django.http import HttpRequest

from cachekit.asgi import HttpCache as AsgiCache
from cachekit.compress.stored import Encoded
from cachekit.degrade.asgi import Degradation as AsgiDegradation
from cachekit.degrade.options import DegradeOptions
from cachekit.degrade.wsgi import Degradation as WsgiDegradation
from cachekit.wsgi import HttpCache as WsgiCache
from cachekit_django import conf
from cachekit_django.edges import Edge, Middleware
from cachekit_django.encoding import Encoding
from cachekit_django.sessions import SessionStore


class HttpCacheMiddleware(Edge):
    """The HTTP cache, with RULES and OPTIONS of the setting ``CACHEKIT``.

    It stores responses whose body is whole; those that stream pass by. Raises ``ConfigError`` at start.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        given, cache = conf.read(), conf.cache()
        options = conf.http_options()
        self._wsgi = WsgiCache(self.inside, cache, rules=given.rules, options=options)
        self._asgi = AsgiCache(self.ainside, cache, rules=given.rules, options=options)


class DegradationMiddleware(Edge):
    """Answers protected paths with 503 while the store is away, and tells how it is at ``/-/health``.

    DEGRADATION of the setting ``CACHEKIT`` says which paths. Raises ``ConfigError`` at start.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        options, cache = conf.read().degradation or DegradeOptions(), conf.cache()
        self._wsgi = WsgiDegradation(self.inside, cache=cache, options=options)
        self._asgi = AsgiDegradation(self.ainside, cache=cache, options=options)


class CompressionMiddleware(Middleware):
    """Compression, with COMPRESSION of the setting ``CACHEKIT``. Stands before everything. Raises ``ConfigError`` at start.

    Replaces ``django.middleware.gzip.GZipMiddleware``.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        self._options = conf.read().compression
        self._forms = Encoded(self._options)

    def synchronous(self, request: HttpRequest) -> Any:
        encoding = Encoding(self._options, request, self._forms)
        return encoding.refused() if encoding.hopeless else encoding.apply(self.get_response(request))

    async def asynchronous(self, request: HttpRequest) -> Any:
        encoding = Encoding(self._options, request, self._forms)
        if encoding.hopeless:
            return encoding.refused()
        response = await self.get_response(request)
        if not response.streaming and len(response.content) >= self._options.offload:
            return await asyncio.to_thread(encoding.apply, response)
        return encoding.apply(response)


class SessionMiddleware(_SessionMiddleware):
    """Django's own, and the cookie with the claims of a session beside its cookie: CLAIMS of ``CACHEKIT["SESSIONS"]``.

    Stands where Django's own stands. With another engine, or without CLAIMS, it is Django's own.
    """

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        if isinstance(request.session, SessionStore):
            request.session.believe(request.COOKIES.get(_claims(), ""))

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        response = super().process_response(request, response)
        session = getattr(request, "session", None)
        if not isinstance(session, SessionStore) or (made := session.claims()) is None:
            return response
        where: dict[str, Any] = {"path": settings.SESSION_COOKIE_PATH, "domain": settings.SESSION_COOKIE_DOMAIN}
        where["samesite"] = settings.SESSION_COOKIE_SAMESITE
        if made:
            age = None if session.get_expire_at_browser_close() else session.get_expiry_age()
            secure = bool(settings.SESSION_COOKIE_SECURE)
            response.set_cookie(_claims(), made, max_age=age, secure=secure, httponly=True, **where)
        else:
            response.delete_cookie(_claims(), **where)
        return response


def _claims() -> str:
    return f"{settings.SESSION_COOKIE_NAME}_claims"
