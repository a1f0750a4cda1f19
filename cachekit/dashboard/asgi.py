"""The ASGI edge of the status page. Must not know who may see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from cachekit._io import ASYNCIO
from cachekit.dashboard.access import Dashboard, Desk
from cachekit.dashboard.figures import Subject

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class DashboardApp:
    """An ASGI application that is a status page, whatever path it is mounted at.

    Args:
        dashboard: who may see it.
        cache: whose figures are shown.
    """

    def __init__(self, dashboard: Dashboard, cache: Subject) -> None:
        self.dashboard = dashboard
        self._desk = Desk(dashboard, cache)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            return
        given = [str(value, "latin-1") for name, value in scope["headers"] if name.lower() == b"authorization"]
        answer = await self._desk.answer(
            ASYNCIO,
            scope,
            scope["method"],
            scope["path"],
            str(scope.get("query_string", b""), "latin-1"),
            given[0] if len(given) == 1 else None,
        )
        fields = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        fields.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})
