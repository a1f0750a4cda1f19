"""The ASGI edge of sessions: ``scope["session"]``, which Starlette calls ``request.session``.

Owns the grammar of ASGI. The head of a response is held until the first of its body, as servers do, so that a session
that is changed in between still gets its cookie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from cachekit._io import ASYNCIO
from cachekit.sessions.driver import Exchange
from cachekit.sessions.facade import Sessions, check
from cachekit.sessions.habits import Habits
from cachekit.sessions.options import Load

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
        ConfigError: *sessions* is something else.
    """

    def __init__(self, app: App, sessions: Sessions) -> None:
        self.app = app
        self.sessions = check(sessions)
        self._habits = Habits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        method = scope["method"] if kind == "http" else "WEBSOCKET"
        cookies, agent = _asked(scope)
        exchange = self.sessions.driver.open(cookies, method=method, agent=agent)
        habits, shape, load = self._habits, "", self.sessions.options.load
        if exchange.has_cookie and load != Load.EXPLICIT:
            shape = habits.shape(method, scope["path"])
            if load == Load.EAGER or habits.expects(shape):
                await exchange.load(ASYNCIO)
        # A scope of its own: whoever stands before this may use theirs again, for somebody else.
        scope = {**scope, "session": exchange.session}
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
            await sender.release()
            await exchange.finish(ASYNCIO)
            over = True
        finally:
            if shape:
                habits.learn(shape, exchange.session.accessed)
            if over:
                exchange.let_go()


class _Sender:
    """The ``send`` that the application gets."""

    __slots__ = ("_exchange", "_held", "_send", "begun")

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self._held: Message | None = None
        self.begun = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind in _STARTS:
            if self.begun:  # the server says what is wrong with that
                await self._send(message)
            else:
                self._held = message
            return
        if kind not in _INFORMATIONAL:
            await self.release()
        await self._send(message)
        if kind == "http.response.body" and not message.get("more_body", False):
            self._exchange.body_sent()

    async def release(self) -> None:
        """Send the head that was held, with what it says about the session."""
        message, self._held = self._held, None
        if message is not None:
            headers = await self._head(message["status"], message.get("headers", ()))
            self.begun = True
            await self._send({**message, "headers": headers})

    async def _head(self, status: int, headers: Any) -> list[tuple[bytes, bytes]]:
        exchange = self._exchange
        if not exchange.session.loaded:  # nothing to say
            pairs = [(str(name, "latin-1"), str(value, "latin-1")) for name, value in headers]
            await exchange.head(ASYNCIO, status, pairs)
            return list(headers)
        pairs = [(str(name, "latin-1"), str(value, "latin-1")) for name, value in headers]
        fields = await exchange.head(ASYNCIO, status, pairs)
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]


class _SocketSender(_Sender):
    """The ``send`` of a websocket: the answer to its handshake is the only place for a cookie."""

    __slots__ = ()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "websocket.accept" and not self.begun:
            headers = await self._head(101, message.get("headers", ()))
            self.begun = True
            message = {**message, "headers": headers}
        await super().__call__(message)


def _asked(scope: Scope) -> tuple[list[str], str]:
    """Return the Cookie fields of a request, and what its client calls itself."""
    cookies, agent = [], ""
    for name, value in scope["headers"]:
        if name == b"cookie":
            cookies.append(str(value, "latin-1"))
        elif name == b"user-agent":
            agent = str(value, "latin-1")
    return cookies, agent
