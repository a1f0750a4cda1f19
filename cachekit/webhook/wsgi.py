"""The WSGI edge of a webhook. Owns reading a bounded body; must not know what it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias

from cachekit._io import BLOCKING, drive
from cachekit.webhook.receiver import Answer, CachePort, Webhook

Environ: TypeAlias = dict[str, Any]


class WebhookApp:
    """A WSGI application that is a webhook, whatever path it is mounted at.

    Args:
        webhook: what to receive.
        cache: what to invalidate in; its CDNs are purged with it.
    """

    def __init__(self, webhook: Webhook, cache: CachePort) -> None:
        self.webhook = webhook
        self._cache = cache

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        method = environ.get("REQUEST_METHOD", "GET")
        answer = self._answer(environ, method)
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers))
        return [] if method == "HEAD" else [answer.body]

    def _answer(self, environ: Environ, method: str) -> Answer:
        length: str | None = environ.get("CONTENT_LENGTH") or None
        if (refusal := self.webhook.refusal(method, length)) is not None:
            return refusal
        source = environ["wsgi.input"]
        if length is None:
            # A server that takes chunked bodies says so; without that the input may never end (PEP 3333).
            body = source.read(self.webhook.max_body + 1) if environ.get("wsgi.input_terminated") else b""
            if len(body) > self.webhook.max_body:
                return self.webhook.too_large()
        else:
            body = source.read(int(length))
            if len(body) != int(length):
                return self.webhook.truncated()
        headers = [
            (name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")
        ]  # fmt: skip
        return drive(self.webhook.receive(BLOCKING, self._cache, headers, body))
