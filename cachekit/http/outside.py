"""Sessions that stand outside of the HTTP cache: what was made by looking at one is for one visitor all the same.

Owns what saves a wrong order of middleware, whoever made the sessions: their middleware says too far out that a response is
somebody's own. Must not know how sessions are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final, TypeAlias

from cachekit.http.personal import dressed, is_open

Scope: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[..., Awaitable[None]]
WsgiApp: TypeAlias = Callable[..., Iterable[bytes]]

_IN_SCOPE: Final = "session"
_IN_ENVIRON: Final = "cachekit.session"


def private_asgi(app: AsgiApp) -> AsgiApp:
    """Return *app*, whose responses say ``private`` where it looked at a ``scope["session"]`` that was there before."""

    def way(scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        session = scope.get(_IN_SCOPE)
        if session is None or scope["type"] != "http":
            return app(scope, receive, send)
        return _around(app, session, scope, receive, send)

    return way


async def _around(app: AsgiApp, session: object, scope: Scope, receive: Any, send: Send) -> None:
    held: MutableMapping[str, Any] | None = None

    async def relay(message: MutableMapping[str, Any]) -> None:
        nonlocal held
        if message["type"] == "http.response.start":  # with the first of the body the application may still look
            held = message
            return
        if held is not None:
            head, held = held, None
            own = _looked_at(session) or (message.get("more_body", False) and _may_look(session, scope["method"], head))
            await send(_private(head) if own else head)
        await send(message)

    await app(scope, receive, relay)
    if held is not None:
        await send(held)


def _may_look(session: object, method: str, head: MutableMapping[str, Any]) -> bool:
    # Ours raises when somebody looks in the middle of what caches may share; others say nothing.
    if getattr(session, "refuses_late_looks", False) is not True:
        return True
    return is_open(method, head["status"], _said(head))


def _said(head: MutableMapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name, "latin-1"), str(value, "latin-1")) for name, value in head.get("headers", ())]


def _private(head: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    fields = private(_said(head))
    return {**head, "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]}


def private_wsgi(app: WsgiApp) -> WsgiApp:
    """Return *app*, whose responses say ``private`` where it looked at a session that was there before."""

    def way(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = environ.get(_IN_ENVIRON)
        if session is None:
            return app(environ, start_response)
        head = _Head(session, environ["REQUEST_METHOD"], start_response)
        body = app(environ, head.take)
        if isinstance(body, (list, tuple)):  # made already: nothing of the application runs any more
            head.release()
            return body
        return _Body(body, head)

    return way


MADE: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))
"""Iterators that run nothing of an application: what they give was there before."""


class _Head:
    """What the application said to ``start_response``, held until the first of the body: until then it may look."""

    __slots__ = ("_held", "_method", "_session", "_start", "_write")

    def __init__(self, session: object, method: str, start_response: Callable[..., Any]) -> None:
        self._session, self._method = session, method
        self._start = start_response
        self._held: tuple[str, list[tuple[str, str]]] | None = None
        self._write: Callable[[bytes], object] | None = None

    def take(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        if exc_info is not None and self._write is not None:  # too late to hold: the server decides
            self._write = self._start(status, private(headers), exc_info)
        else:
            self._held = status, headers
        return self._pass

    def _pass(self, data: bytes) -> object:
        if data:
            self.release(goes_on=True)
        return None if self._write is None else self._write(data)

    def release(self, *, goes_on: bool = False) -> None:
        if self._held is not None:
            (status, headers), self._held = self._held, None
            own = _looked_at(self._session) or (goes_on and is_open(self._method, int(status[:3]), headers))
            self._write = self._start(status, private(headers) if own else headers)


class _Body:
    """The body of a response, whose head goes out with the first of it."""

    __slots__ = ("_body", "_goes_on", "_head", "_pieces")

    def __init__(self, body: Iterable[bytes], head: _Head) -> None:
        self._body, self._pieces, self._head = body, iter(body), head
        self._goes_on = type(self._pieces) not in MADE

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = next(self._pieces)
        except StopIteration:
            self._head.release()
            raise
        if piece:
            self._head.release(goes_on=self._goes_on)
        return piece

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


def _looked_at(session: object) -> bool:
    # A dictionary that does not say whether anybody looked: what is empty had nothing to tell.
    return bool(getattr(session, "accessed", session))


def private(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the fields of a response that was made with a session that stands outside: for its visitor alone."""
    return dressed(headers, accessed=True, cookies=())
