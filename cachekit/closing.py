"""The end of a worker: its sessions and its cache are closed when the server says goodbye, so that what only it holds
(purges, changes of sessions) is still delivered.

Owns the moment, which is after the application's own shutdown: that may still invalidate. Must not know what closing does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("cachekit")

_LAST: Final = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


class Closable(Protocol):
    """What is closed: a ``Cache``, or ``Sessions``."""

    def aclose(self) -> Awaitable[None]:
        """Deliver what would be lost, for a bounded time, and give up connections and threads."""
        ...


class Closing:
    """An ASGI application at whose shutdown *closed* are closed, whether *app* knows of lifespans or not.

    Args:
        app: the application.
        closed: what is closed, in this order.
    """

    def __init__(self, app: App, *closed: Closable) -> None:
        self.app = app
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard: list[str] = []
        answered: list[str] = []

        async def listen() -> Message:
            message = await receive()
            heard.append(message["type"])
            return message

        async def relay(message: Message) -> None:
            if message["type"] in _LAST:
                await self._close()
            answered.append(message["type"])
            await send(message)

        try:
            await self.app(scope, listen, relay)
        except Exception:
            if answered:
                if answered[-1] not in _LAST:
                    await self._close()
                raise
            log.debug("the application has no lifespan", exc_info=True)  # this is how it says so
        if answered and (answered[-1] in _LAST or answered[-1] == "lifespan.startup.failed"):
            return
        if not heard:
            await receive()
        if not answered:
            await send({"type": "lifespan.startup.complete"})
        if "lifespan.shutdown" not in heard:
            await receive()
        await self._close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _close(self) -> None:
        for each in self._closed:
            try:
                await each.aclose()
            except Exception:
                log.exception("closing the cache failed")
