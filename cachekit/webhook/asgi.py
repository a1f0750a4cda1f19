"""The ASGI edge of a webhook. Owns reading a bounded body; must not know what it means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from cachekit._io import ASYNCIO
from cachekit.webhook.receiver import Answer, CachePort, Webhook

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class WebhookApp:
    """An ASGI application that is a webhook, whatever path it is mounted at.

    Args:
        webhook: what to receive.
        cache: what to invalidate in; its CDNs are purged with it.
    """

    def __init__(self, webhook: Webhook, cache: CachePort) -> None:
        self.webhook = webhook
        self._cache = cache

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            return
        headers = [(str(name, "latin-1"), str(value, "latin-1")) for name, value in scope["headers"]]
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        answer = self.webhook.refusal(scope["method"], lengths[0] if lengths else None)
        if answer is None:
            read = await self._read(receive)
            if read is None:
                return  # the sender has gone; whatever it sent was not the whole
            answer = read if isinstance(read, Answer) else None
            if not isinstance(read, Answer):
                whole = not lengths or len(read) == int(lengths[0])
                answer = (
                    await self.webhook.receive(ASYNCIO, self._cache, headers, read)
                    if whole
                    else self.webhook.truncated()
                )
        assert answer is not None
        fields = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def _read(self, receive: Receive) -> bytes | Answer | None:
        """Return the body, the answer to one that is too large, or None when the sender left."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > self.webhook.max_body:
                return self.webhook.too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
