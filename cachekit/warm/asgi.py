"""The warm-up in front of an ASGI application. Owns the moment when it runs; must not know what it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from cachekit._io import ASYNCIO
from cachekit.warm.port import Warming
from cachekit.warm.refusal import BODY, STATUS, Refusal

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class WarmedAsgi:
    """An application whose startup is complete when the warm-up is. ``Warmer.asgi`` makes it."""

    def __init__(self, warmer: Warming, app: App, *, retry_after: int = 2, allow: Iterable[str] = ()) -> None:
        self.app = app
        self._warmer = warmer
        self._refusal = Refusal(retry_after, allow)
        self._under_way = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
        elif self._warmer.ready or kind not in ("http", "websocket") or scope["path"] in self._refusal.allow:
            await self.app(scope, receive, send)
        else:
            if not self._under_way:  # a server without lifespan: the first request is what starts it
                self._under_way = True
                ASYNCIO.spawn(self._warm())
            await self._refuse(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def relay(message: Message) -> None:
            nonlocal answered
            if not answered and message["type"] == "lifespan.startup.complete":
                await self._warm()
            answered = True
            await send(message)

        try:
            await self.app(scope, receive, relay)
        except Exception:
            if not answered:  # how an application without lifespan says so; the server then goes on without
                await self._warm()
            raise
        if not answered:
            await self._warm()

    async def _warm(self) -> None:
        self._under_way = True
        try:
            if not self._warmer.ready:
                await self._warmer.arun()
        finally:
            self._under_way = False

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1013, "reason": "the application is starting"})
            return
        headers = [(name.lower().encode(), value.encode()) for name, value in self._refusal.headers()]
        await send({"type": "http.response.start", "status": STATUS, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else BODY})
