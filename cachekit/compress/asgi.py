"""Compression at the ASGI edge: ``app = Compress(app)``.

Owns the order of messages: the head waits for the first piece of the body. Must not know when a response is encoded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from cachekit.arguments import check_app
from cachekit.compress.codings import Stream
from cachekit.compress.options import Compression
from cachekit.compress.response import (
    BYTES,
    REFUSAL,
    Asked,
    Verdict,
    asked,
    begin,
    conditions,
    encode,
    feed,
    is_event_stream,
    is_stored,
    judge,
    refusal,
)
from cachekit.compress.response import plain as plain_head
from cachekit.compress.stored import Encoded
from cachekit.http.asgi_client import Message, Receive, Send
from cachekit.http.asgi_request import Scope
from cachekit.http.asgi_scope import with_headers
from cachekit.http.headers import HeaderList, Headers

log = logging.getLogger("cachekit")

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_REMEMBERED: Final = 1024
_BESIDE: Final = frozenset({"http.response.early_hint", "http.response.debug", "http.response.push"})
"""Messages that are no part of the body; others say where the server takes it from, as pathsend does."""
_RELEVANT: Final = frozenset({b"accept-encoding", b"cache-control", b"if-none-match", b"if-match"})


class Compress:
    """Encode the responses of an ASGI application as its clients accept it.

    Args:
        app: the application.
        options: see ``Compression``.
        cached: whether *app* is an HTTP cache. It is then asked for responses without a coding, so that there is one
            stored response for all codings, and what it has stored is encoded once for each.

    Raises:
        ConfigError: *app* is no application.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> app = Compress(app, Compression(minimum=1000))
    """

    def __init__(self, app: App, options: Compression | None = None, *, cached: bool = False) -> None:
        check_app(app, "an ASGI application")
        self.app = app
        self.options = options or Compression()
        self._forms = Encoded(self.options) if cached else None
        self._known: dict[tuple[str, bytes | None], Asked] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope, sender = self.around(scope, send)
        if sender is None:
            await refuse(send, ())
            return
        await self.app(scope, receive, sender)
        await sender.finished()

    def around(self, scope: Scope, send: Send) -> tuple[Scope, Sender | None]:
        """Return the scope and the ``send`` for the application; None where no answer could be acceptable."""
        options = self.options
        method = scope.get("method", "GET")
        accept: bytes | None = None
        special = bool(options.padding)
        for name, value in scope["headers"]:
            if name in _RELEVANT:
                special = special or name != b"accept-encoding" or accept is not None
                accept = value
        wanted = None if special else self._known.get((method, accept))
        if wanted is None:
            fields = _decode(field for field in scope["headers"] if field[0] in _RELEVANT)
            wanted = asked(options, method, scope.get("path", ""), fields)
            if not special and len(self._known) < _REMEMBERED:
                self._known[method, accept] = wanted
            if (changed := conditions(options, fields)) is not None:
                kept = [field for field in scope["headers"] if field[0] not in _RELEVANT]
                scope = with_headers(scope, [*kept, *_encode(changed)])
        if wanted.hopeless:
            return scope, None
        if self._forms is not None and (accept is not None or special):
            scope = with_headers(scope, [field for field in scope["headers"] if field[0] != b"accept-encoding"])
        return scope, Sender(options, wanted, send, self._forms)


class Sender:
    """The ``send`` that the application gets."""

    __slots__ = ("_asked", "_done", "_flush", "_forms", "_head", "_options", "_send", "_stream")

    def __init__(self, options: Compression, asked: Asked, send: Send, forms: Encoded | None = None) -> None:
        self._options = options
        self._asked = asked
        self._send = send
        self._forms = forms
        self._head: Message | None = None
        self._stream: Stream | None = None
        self._flush = False
        self._done = False  # the response is complete, whatever else the application sends

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            await self._start(message)
        elif kind == "http.response.body":
            if (
                self._stream is not None and not self._done
            ):  # each piece of a stream: no coroutine of our own in between
                body, more = message.get("body", b""), message.get("more_body", False)
                if len(body) >= self._options.offload:
                    piece = await _beside(feed, self._stream, body, self._flush, not more)
                else:
                    piece = feed(self._stream, body, self._flush, not more)
                if piece or not more or not body:
                    await self._send({"type": "http.response.body", "body": piece, "more_body": more})
            elif self._done:
                return
            elif self._head is None:
                await self._send(message)
            else:
                head, self._head = self._head, None
                await self._first(head, message)
        elif self._done:
            if kind == "http.response.trailers":
                await self._send(message)
        else:
            if self._head is not None and kind not in _BESIDE:
                head, self._head = self._head, None
                await self._send(head)
            await self._send(message)

    async def _start(self, head: Message) -> None:
        """Hold the head until the body is there, unless that may be long after and changes nothing: clients wait for it."""
        headers = head.get("headers", ())
        if not isinstance(headers, list | tuple):
            headers = list(headers)  # an iterable that can be read once
            head = {**head, "headers": headers}
        self._head = head
        if self._asked.method == "HEAD" or any(name.lower() == b"content-length" for name, _ in headers):
            return
        try:
            verdict, fields, _, _ = judge(BYTES, self._options, self._asked, head["status"], headers, 0, last=False)
            streams = verdict is Verdict.ENCODE and is_event_stream(BYTES, headers)
        except Exception:  # noqa: BLE001 - it is reported when the body comes
            return
        if streams:
            name = self._asked.choice.coding or ""
            self._stream, self._flush = begin(self._options.coding(name), self._asked), True
            if self._stream is None:
                fields = plain_head(BYTES, headers)
        elif verdict is not Verdict.LEAVE and verdict is not Verdict.PLAIN:
            return
        self._head = None
        await self._send(head if fields is headers else {**head, "headers": fields})

    async def finished(self) -> None:
        """Send what is still held back, once the application has returned."""
        if self._head is not None:
            head, self._head = self._head, None
            await self._send(head)

    async def _first(self, head: Message, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        options, wanted, send = self._options, self._asked, self._send
        headers = head.get("headers", ())
        try:
            found = judge(BYTES, options, wanted, head["status"], headers, len(body), last=not more)
        except Exception:
            log.exception("compression could not read a response; it passes by")
            await send(head)
            await send(message)
            return
        verdict, fields, whole, flush = found
        name = wanted.choice.coding
        if verdict is not Verdict.ENCODE or name is None or wanted.method == "HEAD":
            if verdict is Verdict.REFUSE:
                self._done = True
                await refuse(send, _decode(headers))
                return
            await send(head if fields is headers else {**head, "headers": fields})
            await send(message)
            return
        if not whole:
            self._stream, self._flush = begin(options.coding(name), wanted), flush
            if self._stream is None:
                await send({**head, "headers": plain_head(BYTES, headers)})
                await send(message)
                return
            await send({**head, "headers": fields})
            if piece := await self._feed(self._stream, body, last=False):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            return
        if (forms := self._forms) is not None and is_stored(BYTES, fields):
            made = None if wanted.padded else forms.find(name, body)
            if made is None or (made is body and not wanted.choice.identity):
                made = await self._make(forms, body)
            made = None if made is body else made
        else:
            made = await self._whole(name, body)
        if made is None or (len(made) >= len(body) and wanted.choice.identity and not options.BY_SIZE_ALONE):
            await send({**head, "headers": plain_head(BYTES, headers)})
            await send(message)
            return
        if not head.get("trailers"):
            fields.append(BYTES.length(len(made)))
        self._done = True
        await send({**head, "headers": fields})
        await send({"type": "http.response.body", "body": made, "more_body": False})

    async def _whole(self, name: str, body: bytes) -> bytes | None:
        """Return *body* encoded, or None when that failed: it then travels as it is."""
        coding = self._options.coding(name)
        try:
            if len(body) >= self._options.offload:
                return await _beside(encode, coding, self._asked, body)
            return encode(coding, self._asked, body)
        except Exception:
            log.exception("compression failed; the response is sent without it")
            return None

    async def _make(self, forms: Encoded, body: bytes) -> bytes:
        """Return what ``forms`` makes of *body*: *body* itself where that failed, or grew no smaller."""
        if len(body) >= self._options.offload:
            return await _beside(forms.make, self._asked, body)
        return forms.make(self._asked, body)

    async def _feed(self, stream: Stream, chunk: bytes, *, last: bool) -> bytes:
        if len(chunk) >= self._options.offload:
            return await _beside(feed, stream, chunk, self._flush, last)
        return feed(stream, chunk, self._flush, last)


async def _beside(fn: Callable[..., bytes], *args: Any) -> bytes:
    """Call *fn* in a thread, where asyncio runs; else here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return fn(*args)
    return await asyncio.to_thread(fn, *args)


async def refuse(send: Send, headers: Headers) -> None:
    """Send 406."""
    await send({"type": "http.response.start", "status": 406, "headers": _encode(refusal(headers))})
    await send({"type": "http.response.body", "body": REFUSAL, "more_body": False})


def _decode(headers: object) -> HeaderList:
    return [(str(name, "latin-1"), str(value, "latin-1")) for name, value in headers]  # type: ignore[attr-defined]


def _encode(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
