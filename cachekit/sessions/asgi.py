"""The ASGI edge of sessions: ``scope["session"]``, which Starlette calls ``request.session``.

Owns the grammar of ASGI. The head of a response is held until the first of its body, as servers do, so that a session
that is changed in between still gets its cookie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar, Final, TypeAlias

from cachekit._io import ASYNCIO
from cachekit.arguments import check_app
from cachekit.http.personal import concerns
from cachekit.sessions.driver import Exchange
from cachekit.sessions.facade import Sessions, check
from cachekit.sessions.session import Session

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_STARTS: Final = ("http.response.start", "websocket.http.response.start")
_INFORMATIONAL: Final = ("http.response.debug", "http.response.early_hint", "http.response.push")


class SessionMiddleware:
    """Gives each request of *app* its session.

    Args:
        app: the application.
        sessions: where sessions are kept.

    Raises:
        ConfigError: *app* is no application, or *sessions* is something else.
    """

    kind: ClassVar[type[Session]] = Session
    """What an application gets, for frameworks that have names of their own."""

    def __init__(self, app: App, sessions: Sessions) -> None:
        check_app(app, "an ASGI application")
        self.app = app
        self.sessions = check(sessions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self._beside(scope, receive, send)
            return
        method = scope["method"] if kind == "http" else "WEBSOCKET"
        cookies, agent = _asked(scope)
        driver, shape = self.sessions.driver, ""
        exchange = Exchange(driver, cookies, method, agent, self.kind)
        if driver.foresees and exchange.has_cookie:
            shape = driver.habits.shape(method, scope["path"])
            if driver.eager or driver.habits.expects(shape):
                await exchange.load(ASYNCIO)
        scope["session"] = exchange.session  # in place: whoever stands before this sees which route answers
        sender: _Sender = _Sender(exchange, send) if kind == "http" else _SocketSender(exchange, send)
        over = False
        try:
            await self.app(scope, receive, sender)
        except asyncio.CancelledError:
            if sender.begun:
                ASYNCIO.spawn(exchange.finish(ASYNCIO))
            raise
        except Exception:
            if sender.begun:  # the client has been told of success
                await exchange.finish(ASYNCIO)
            raise
        else:
            if sender.held is not None:
                await sender.release()
            if exchange.ends():
                await exchange.keep(ASYNCIO)
            over = True
        finally:
            if shape:
                driver.habits.learn(shape, exchange.session.accessed)
            if over:
                exchange.let_go()

    async def _beside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what has no session."""
        await self.app(scope, receive, send)


class _Sender:
    """The ``send`` that the application gets."""

    __slots__ = ("_exchange", "_send", "begun", "held")

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self.held: Message | None = None
        self.begun = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind in _STARTS:
            if self.begun:  # the server says what is wrong with that
                await self._send(message)
            else:
                self.held = message
            return
        body = kind == "http.response.body"
        more = body and message.get("more_body", False)
        if self.held is not None and kind not in _INFORMATIONAL:
            await self.release(streamed=more)
        await self._send(message)
        if body and not more:
            self._exchange.body_sent()

    async def release(self, *, streamed: bool = False) -> None:
        """Send the head that was held, with what it says about the session. *streamed*: the body is not made yet."""
        message, self.held = self.held, None
        if message is not None:
            if self._exchange.begins(message["status"]):
                await self._exchange.keep(ASYNCIO)
            headers = self._fields(message.get("headers", ()), message["status"] if streamed else 0)
            self.begun = True
            await self._send({**message, "headers": headers})

    def _fields(self, headers: Any, streamed: int = 0) -> list[tuple[bytes, bytes]]:
        """Return *headers* with what is said about the session; *streamed* is the status of a stream."""
        fields, exchange = list(headers), self._exchange  # of a tuple, or what can be looked at once alone
        is_open = streamed != 0 and exchange.streams(streamed, _decoded(fields))
        for name, _ in fields:
            if concerns(name if type(name) is bytes else bytes(name)):
                break
        else:  # they stay as they are, whatever is added
            return [*fields, *[_SAID.get(field) or _encoded(*field) for field in exchange.fields([])]]
        dressed = exchange.fields(_decoded(fields))
        return [_encoded(name, value) for name, value in dressed] if exchange.session.loaded or is_open else fields


class _SocketSender(_Sender):
    """The ``send`` of a websocket: the answer to its handshake is the only place for a cookie."""

    __slots__ = ()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "websocket.accept" and not self.begun:
            if self._exchange.begins(101):
                await self._exchange.keep(ASYNCIO)
            headers = self._fields(message.get("headers", ()))
            self.begun = True
            message = {**message, "headers": headers}
        await super().__call__(message)


def _decoded(fields: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(str(name, "latin-1"), str(value, "latin-1")) for name, value in fields]


def _encoded(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")


_SAID: Final = {
    (name, value): _encoded(name, value) for name, value in (("Cache-Control", "private"), ("Vary", "Cookie"))
}
"""What nearly every response says whose session was looked at."""


def _asked(scope: Scope) -> tuple[list[str], str]:
    """Return the Cookie fields of a request, and what its client calls itself."""
    cookies, agent = [], ""
    for name, value in scope["headers"]:
        if name == b"cookie":
            cookies.append(str(value, "latin-1"))
        elif name == b"user-agent":
            agent = str(value, "latin-1")
    return cookies, agent
