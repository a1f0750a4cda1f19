"""What the middlewares stand on: Django's ``get_response`` as the application behind an edge of ``cachekit``."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest

from cachekit.http.credentials import KNOWN
from cachekit.http.headers import HeaderList
from cachekit.http.outside import private
from cachekit_django import bridge, jobs
from cachekit_django.streams import may_look

_REQUEST: Final = "cachekit.django"


class Middleware:
    """What both have in common: they are async where the rest is."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        jobs.register()  # where the application is not installed
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self.asynchronous(request) if self.is_async else self.synchronous(request)

    def synchronous(self, request: HttpRequest) -> Any:
        """Answer *request*."""
        raise NotImplementedError

    async def asynchronous(self, request: HttpRequest) -> Any:
        """Answer *request*."""
        raise NotImplementedError


class _Exchange:
    """One request and what came of it; travels in the environ or scope, so that the application finds its way back."""

    __slots__ = ("body", "context", "fields", "reason", "request", "response", "status")

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.response: Any = None  # what Django made
        self.context: Context | None = None  # where it was made
        self.status, self.reason, self.body = 0, "", b""
        self.fields: list[tuple[str, str]] = []

    @staticmethod
    def ignore(data: bytes) -> None:
        """Stand for ``write``, which nobody calls."""

    def result(self) -> Any:
        """Return the response: Django's own where it is what is sent."""
        made = self.response
        bridge.carry_over(self.context)
        if made is not None and made.status_code == self.status and (made.streaming or made.content == self.body):
            return bridge.with_fields(made, self.fields)
        if made is not None:
            made.close()
        return bridge.response_of(self.status, self.reason, self.fields, self.body)


class _Streamed:
    """Stands for a body that comes in pieces: it passes by the cache, as a file does."""

    def __init__(self, *_: object) -> None:
        return None

    def __iter__(self) -> Any:
        return iter(())


class Edge(Middleware):
    """A middleware whose work an edge of ``cachekit`` does: WSGI and ASGI applications around the rest of Django."""

    _wsgi: Callable[..., Any]
    _asgi: Callable[..., Any]

    def synchronous(self, request: HttpRequest) -> Any:
        """Answer *request*."""
        environ = bridge.environ_of(request)
        if environ is None:
            return self.get_response(request)
        exchange = _Exchange(request)
        environ.update({_REQUEST: exchange, "wsgi.file_wrapper": _Streamed})

        def start(status: str, headers: Any, _: Any = None, /) -> Callable[[bytes], object]:
            exchange.status, exchange.reason, exchange.fields = int(status[:3]), status[4:], headers
            return exchange.ignore

        exchange.body = b"".join(self._wsgi(environ, start))
        return exchange.result()

    def inside(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Be the WSGI application: the rest of Django."""
        exchange: _Exchange = environ[_REQUEST]
        request = exchange.request
        if exchange.fields or exchange.response is not None:  # answered by now: this is a refresh behind
            bare = {**environ, "wsgi.input": io.BytesIO(b"")}
            exchange = _Exchange(request := WSGIRequest(bare))
        bridge.with_conditions(request, environ)
        outside = getattr(request, "session", None)
        response = exchange.response = self.get_response(request)
        exchange.context = copy_context()
        fields = _fields(request, response, outside)
        environ[KNOWN] = bridge.knows(request)
        start_response(f"{response.status_code} {response.reason_phrase}", fields)
        return _Streamed() if response.streaming else [response.content]

    async def asynchronous(self, request: HttpRequest) -> Any:
        """Answer *request*."""
        scope = bridge.scope_of(request)
        if scope is None:
            return await self.get_response(request)
        exchange = _Exchange(request)
        scope[_REQUEST] = exchange

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.fields = [(_title(name), str(value, "latin-1")) for name, value in message["headers"]]
            else:
                exchange.body += message.get("body", b"")

        await self._asgi(scope, _nothing, send)
        return exchange.result()

    async def ainside(
        self, scope: Any, _: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Be the ASGI application: the rest of Django."""
        exchange: _Exchange = scope[_REQUEST]
        request = exchange.request
        if exchange.fields or exchange.response is not None:
            exchange = _Exchange(request := ASGIRequest(scope, io.BytesIO(b"")))
        fields = {
            f"HTTP_{_title(name).upper().replace('-', '_')}": str(value, "latin-1") for name, value in scope["headers"]
        }
        bridge.with_conditions(request, fields)
        outside = getattr(request, "session", None)
        response = exchange.response = await self.get_response(request)
        exchange.context = copy_context()
        made = _fields(request, response, outside)
        scope[KNOWN] = bridge.knows(request)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in made]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if response.streaming:
            await send({"type": _REQUEST})  # an extension that the cache does not know: it steps aside
        else:
            await send({"type": "http.response.body", "body": response.content, "more_body": False})


def _fields(request: HttpRequest, response: Any, outside: Any) -> HeaderList:
    fields = bridge.fields_for(request, response, outside)
    return private(fields) if response.streaming and may_look(request, response, fields) else fields


async def _nothing() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def _title(name: bytes) -> str:
    return str(name, "latin-1").title()
