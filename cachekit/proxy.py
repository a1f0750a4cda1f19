"""A reverse proxy as an ASGI application: what stands behind ``cachekit proxy``, so that the cache serves any language.

Owns what HTTP says of gateways: fields of one connection, ``Forwarded`` and its kin, ``Via``, time-outs, bodies that stream
both ways. HTTP itself is httpx's business. Must not know about caching.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote
from weakref import WeakKeyDictionary

import httpx

from cachekit.clock import Clock, system_clock
from cachekit.http.headers import HOP_BY_HOP, format_date
from cachekit.http.message import check_origin

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

_CONNECTION: Final = frozenset(name.encode() for name in HOP_BY_HOP)
_OURS: Final = frozenset({b"forwarded", b"x-real-ip", b"expect"})
_OURS_TOO: Final = b"x-forwarded-"
"""What this proxy says itself; what a client said of it is not passed on as if it were true."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of requests that may be sent once more."""
_COUNTED: Final = frozenset({"OPTIONS", "TRACE"})
"""Methods whose ``Max-Forwards`` counts (RFC 9110 section 7.6.2)."""
_LONGEST_COUNT: Final = 9
_VIA: Final = b"1.1 cachekit"


class BrokenBody(ConnectionError):
    """The server behind broke off a response whose head was sent on: all that is left is to break off too."""


class ReverseProxy:
    """Answers each request with what the server at *to* answers.

    The request's Host goes along, so that the server makes the right links; ``X-Forwarded-For``, ``-Host`` and ``-Proto``
    say who asked. A server that cannot be reached gives 502, one that is too slow 504.

    Args:
        to: the origin to ask, such as ``http://127.0.0.1:3000``.
        timeout: seconds to wait for the server, for its head and for each piece of a body.
        connect_timeout: seconds to wait for a connection.
        connections: bound on the connections to it.
        clock: source of time, for the Date of responses that have none.
        transport: what carries the requests, for tests.

    Raises:
        ConfigError: *to* is no origin.
    """

    def __init__(
        self,
        to: str,
        *,
        timeout: float = 60.0,
        connect_timeout: float = 5.0,
        connections: int = 200,
        clock: Clock = system_clock,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.to = check_origin(to)
        self._url = httpx.URL(self.to)
        self._limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._times = {"connect": connect_timeout, "read": timeout, "write": timeout, "pool": timeout}
        self._clock = clock
        self._given = transport
        self._transports: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncBaseTransport] = WeakKeyDictionary()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await _refuse_websocket(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "lifespan.startup.complete"})

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        transport = self._transports.pop(asyncio.get_running_loop(), None)
        if transport is not None:
            await transport.aclose()

    def _transport(self) -> httpx.AsyncBaseTransport:
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if loop not in self._transports:
            # A transport, not a client: a client keeps cookies, and follows redirects, in everybody's name.
            self._transports[loop] = httpx.AsyncHTTPTransport(limits=self._limits, trust_env=False)
        return self._transports[loop]

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["method"] == "CONNECT":
            await _fail(send, "CONNECT", 501, "This proxy makes no tunnels.")
            return
        if scope["method"] in _COUNTED and _forwards(scope["headers"]) == 0:
            await _last(send, scope["method"])
            return
        body = _Body(scope, receive)
        relay = asyncio.ensure_future(self._relay(scope, body, send))
        gone = asyncio.ensure_future(body.disconnected())
        try:
            await asyncio.wait({relay, gone}, return_when=asyncio.FIRST_COMPLETED)
            if relay.done():
                relay.result()
        finally:
            for task in (relay, gone):
                task.cancel()
            await asyncio.gather(relay, gone, return_exceptions=True)

    async def _relay(self, scope: MutableMapping[str, Any], body: _Body, send: Send) -> None:
        try:
            response = await self._answer(scope, body)
        except httpx.TimeoutException:
            await _fail(send, scope["method"], 504, "The server behind this proxy did not answer in time.")
            return
        except httpx.ConnectError:
            await _fail(send, scope["method"], 502, "The server behind this proxy cannot be reached.")
            return
        except (httpx.TransportError, httpx.InvalidURL, ValueError):
            await _fail(send, scope["method"], 502, "The server behind this proxy gave no valid answer.")
            return
        if not 100 <= response.status_code <= 599:  # no server can send it on (RFC 9110 section 15)
            await response.aclose()
            await _fail(send, scope["method"], 502, "The server behind this proxy answered with no valid status code.")
            return
        try:
            answered = response.headers.raw
            headers = [*_end_to_end(answered), *_confined(scope["headers"])]
            if _has(answered, b"transfer-encoding"):  # it alone says the length (RFC 9112 section 6.3)
                headers = _without_length(headers)
            if not any(name == b"date" for name, _ in headers):
                headers.append((b"date", format_date(self._clock()).encode()))
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for chunk in response.stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except httpx.TransportError as exc:
            asked, why = f"{scope['method']} {scope['path']}", str(exc) or type(exc).__name__
            raise BrokenBody(f"the server behind this proxy broke off its answer to {asked!r}: {why}") from exc
        finally:
            await response.aclose()

    async def _answer(self, scope: MutableMapping[str, Any], body: _Body) -> httpx.Response:
        """Return the head of the answer.

        A server may close an idle connection in the moment in which it is used again: what is safe to ask is then asked
        once more (RFC 9112 section 9.3.1).
        """
        connected = False

        async def trace(event: str, _: Any) -> None:
            nonlocal connected
            connected = connected or event == "connection.connect_tcp.complete"

        request = httpx.Request(
            scope["method"],
            self._url,
            headers=self._asked(scope),
            content=body.stream() if body.expected else None,
            extensions={"timeout": self._times, "target": _target(scope), "trace": trace},
        )
        try:
            return await self._transport().handle_async_request(request)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            if connected or body.expected or scope["method"] not in _SAFE:
                raise
            return await self._transport().handle_async_request(request)

    def _asked(self, scope: MutableMapping[str, Any]) -> RawHeaders:
        given: RawHeaders = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
        # Many applications cannot tell X_Forwarded_For from X-Forwarded-For.
        headers = [pair for pair in _end_to_end(given) if not _is_ours(pair[0].replace(b"_", b"-"))]
        if scope["method"] in _COUNTED and (left := _forwards(given)) is not None:
            headers = [(name, b"%d" % (left - 1) if name == b"max-forwards" else value) for name, value in headers]
        if _has(given, b"transfer-encoding"):
            headers = _without_length(headers)
        host = next((value for name, value in given if name == b"host"), self._url.netloc)
        client = scope.get("client")
        if client is not None:
            headers.append((b"x-forwarded-for", str(client[0]).encode("latin-1", "replace")))
        headers.append((b"x-forwarded-host", host))
        headers.append((b"x-forwarded-proto", str(scope.get("scheme", "http")).encode("latin-1", "replace")))
        return [*headers, (b"via", _VIA)]


class _Body:
    """The content of a request, and the word that its client left."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self._receive = receive
        lengths = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
        self.expected = _has(scope["headers"], b"transfer-encoding") or any(value.strip() != b"0" for value in lengths)
        self._taken = asyncio.Event()
        if not self.expected:
            self._taken.set()

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the content as it comes."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise httpx.ReadError("the client left")
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                self._taken.set()
                return

    async def disconnected(self) -> None:
        """Return when the client has left."""
        await self._taken.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _listed(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    return {
        part.strip().lower() for name, value in headers if name.lower() == b"connection" for part in value.split(b",")
    }


def _end_to_end(headers: RawHeaders) -> RawHeaders:
    """Return the fields that are not of one connection, their names in lower case, as ASGI has them."""
    listed = _listed(headers)
    named = [(name.lower(), value) for name, value in headers]
    return [pair for pair in named if pair[0] not in _CONNECTION and pair[0] not in listed]


def _confined(asked: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Return what keeps a response out of every cache whose request went on without a field that its Connection lists.

    A cache in front of this proxy saw the field, such as the Host by which the server chooses its site.
    """
    taken = _listed(asked) - _CONNECTION
    return [(b"vary", b"*")] if any(name.lower() in taken for name, _ in asked) else []


def _is_ours(name: bytes) -> bool:
    return name in _OURS or name.startswith(_OURS_TOO)


def _forwards(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return through how many servers a request may still go, None where it does not say."""
    said = next((value.strip() for name, value in headers if name.lower() == b"max-forwards"), b"")
    return int(said) if said.isdigit() and len(said) <= _LONGEST_COUNT else None


def _has(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bool:
    return any(name.lower() == wanted for name, _ in headers)


def _without_length(headers: RawHeaders) -> RawHeaders:
    return [pair for pair in headers if pair[0] != b"content-length"]


def _target(scope: MutableMapping[str, Any]) -> bytes:
    raw = scope.get("raw_path") or quote(scope["path"], safe="/:@!$&'()*+,;=~").encode()
    query = scope.get("query_string", b"")
    return raw.partition(b"?")[0] + (b"?" + query if query else b"")


async def _fail(send: Send, method: str, status: int, reason: str) -> None:
    body = f"{reason}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


async def _last(send: Send, method: str) -> None:
    """Answer a request that may go no further, as its final recipient."""
    if method == "OPTIONS":
        await send({"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]})
        await send({"type": "http.response.body", "body": b""})
    else:
        await _fail(send, method, 501, "This proxy does not repeat what it is asked.")


async def _refuse_websocket(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    reason = "This proxy carries no websockets: connect to the server behind it."
    if "websocket.http.response" in scope.get("extensions", {}):
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "websocket.http.response.start", "status": 501, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": f"{reason}\n".encode()})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": reason})


__all__ = ["BrokenBody", "ReverseProxy"]
