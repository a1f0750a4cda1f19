"""What goes past the cache, in messages of ASGI: requests of other methods, and what is known to be uncacheable.

Owns the ``send`` that such an application gets, as short as it can be: no exchange, no task, no coroutine of its own. Must
not know what is stored; ``past.py`` says when a response may pass.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from cachekit._io import ASYNCIO
from cachekit.http.asgi_client import App, Message, Receive, Send
from cachekit.http.asgi_request import Reader, Scope, request_of
from cachekit.http.driver import Driver
from cachekit.http.dropping import MASK
from cachekit.http.headers import HeaderList, Headers
from cachekit.http.invalidation import invalidated
from cachekit.http.parts import part_key
from cachekit.http.past import CACHE_CONTROL
from cachekit.http.rules import Match
from cachekit.http.warm import Trait
from cachekit.tags import Groups, Tags, names_any

log = logging.getLogger("cachekit")

_NAMES: Final = 1024
_KEYED: Final = int(Trait.KEYED)
_REFERENCES: Final = (b"location", b"content-location")


class Bypass:
    """Makes the ``send`` of applications that are called past the cache.

    Args:
        driver: the cache.
        reader: reads keys.
    """

    __slots__ = ("_clean", "_driver", "_dropping", "_meanings", "_method", "_misses", "_plain", "_reader")

    def __init__(self, driver: Driver, reader: Reader) -> None:
        self._driver = driver
        self._dropping = driver.dropping
        self._clean = driver.dropping.clean
        self._reader = reader
        past = driver.past
        self._method = None if past.method is None else (b"cache-status", past.method.encode("latin-1"))
        self._misses = {why: (b"cache-status", told.encode("latin-1")) for why, told in past.misses.items()}
        self._meanings: dict[bytes, int] = {}
        self._plain: set[bytes] = set()

    def around(self, app: App, inside: App) -> App:
        """Return the application that calls *app* past the cache where that will do, and *inside* for GET and HEAD.

        Past it goes what is no HTTP, and other methods. All of it is one function: each call on the way of a POST counts.
        """
        past, methods, plain, told = self._driver.past, self._driver.past.methods, self._plain, self._method

        def way(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if scope["type"] != "http":
                return app(scope, receive, send)
            method = scope["method"]
            if method == "GET":
                return inside(scope, receive, send)
            try:
                unsafe = methods[method]
            except KeyError:
                unsafe = past.by_method(method)
            if unsafe is None:
                return inside(scope, receive, send)
            if not unsafe:
                return app(scope, receive, self._telling(send))
            path = scope["path"]  # some applications rewrite it in place
            try:
                raw = scope["raw_path"]
            except KeyError:
                raw = None

            def relay(message: Message) -> Awaitable[None]:
                # No coroutine function: what it returns is what *send* returns, unless a server has to be told first.
                if message["type"] == "http.response.start":
                    try:
                        if "headers" not in message or type(headers := message["headers"]) is not list:
                            headers, message = _fields_of(message)
                        if message["status"] < 400:
                            keys: Sequence[str] = ()
                            for name, _ in headers:
                                if name not in plain and self._names_another(name):
                                    keys = self._named(_as_asked(scope, path, raw), headers)
                                    break
                            else:
                                if (clean := self._clean) is None or clean[hash(path) & MASK]:
                                    keys = self._own(_as_asked(scope, path, raw))
                            if keys and not self._dropping.forget(keys):
                                return self._drop_first(keys, message, send)
                        if told is not None:
                            message = {**message}
                            message["headers"] = [*headers, told]
                    except Exception:
                        log.exception("the HTTP cache could not read a response; it passes by")
                return send(message)

            return app(scope, receive, relay)

        return way

    def _telling(self, send: Send) -> Send:
        """Return the ``send`` that tells no more than that the method keeps the cache out."""
        if self._method is None:
            return send

        def relay(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                try:
                    headers, message = _fields_of(message)
                    message = {**message, "headers": [*headers, self._method]}
                except Exception:
                    log.exception("the HTTP cache could not read a response; it passes by")
            return send(message)

        return relay

    def of_miss(self, scope: Scope, send: Send, why: str, used: Groups, declared: Sequence[Match]) -> Send:
        """Return the ``send`` of an application whose response is known to be uncacheable.

        *why* is what ``Driver.goes_past`` said. By the time of its head it has *used* this, and its route has *declared*
        this.
        """
        path, raw = scope["path"], scope.get("raw_path")

        def relay(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                try:
                    if type(headers := message.get("headers")) is not list:
                        headers, message = _fields_of(message)
                    control: list[str] = []
                    seen = 0
                    meanings = self._meanings
                    for name, value in headers:
                        meaning = meanings.get(name)
                        if meaning is None:
                            meaning = self._learn(name)
                        if meaning:
                            seen |= meaning
                            if meaning == CACHE_CONTROL:
                                control.append(str(value, "latin-1"))
                    expected = self._driver.past.passes(control, seen, ruled=bool(declared))
                    if not expected or (used and not control and names_any(used)):
                        asked = _as_asked(scope, path, raw)
                        return self._tell(asked, message, send, why, Tags(used), declared, expected=expected)
                    if (told := self._misses.get(why)) is not None:
                        message = {**message}
                        message["headers"] = [*headers, told]
                except Exception:
                    log.exception("the HTTP cache could not read a response; it passes by")
            return send(message)

        return relay

    # Parts of the above

    def _own(self, scope: Scope) -> Sequence[str]:
        """Return the keys of the URL of a request."""
        key, traits = self._reader.read(scope)
        if key is None or traits & _KEYED:
            return self._named(scope, [])
        return (key, part_key(key)) if self._driver.options.store_parts else (key,)

    def _named(self, scope: Scope, headers: Any) -> Sequence[str]:
        """Return the same, and those that the response with *headers* names."""
        return invalidated(request_of(scope), decode(headers), self._driver.options)

    async def _drop_first(self, keys: Sequence[str], message: Message, send: Send) -> None:
        await self._dropping.drop(ASYNCIO, keys)
        if self._method is not None:
            message = {**message, "headers": [*message.get("headers", ()), self._method]}
        await send(message)

    async def _tell(
        self,
        scope: Scope,
        message: Message,
        send: Send,
        why: str,
        tags: AbstractSet[str],
        declared: Sequence[Match],
        *,
        expected: bool,
    ) -> None:
        try:
            request, fields, status = request_of(scope), decode(message.get("headers", ())), message["status"]
            sent = await self._driver.went_past(
                ASYNCIO, request, status, fields, why, tags, declared=declared, expected=expected
            )
            message = {**message, "headers": encode(sent)}
        except Exception:
            log.exception("the HTTP cache could not read a response; it passes by")
        await send(message)

    def _names_another(self, name: bytes) -> bool:
        """Say whether the field *name* names another resource; what does not is remembered, to be asked no more."""
        if name.lower() in _REFERENCES:
            return True
        if len(self._plain) < _NAMES:
            self._plain.add(bytes(name))
        return False

    def _learn(self, name: bytes) -> int:
        meaning = self._driver.past.field(str(name, "latin-1").lower())
        if len(self._meanings) < _NAMES:
            self._meanings[bytes(name)] = meaning
        return meaning


def _as_asked(scope: Scope, path: str, raw: bytes | None) -> Scope:
    if scope["path"] is path and scope.get("raw_path") is raw:
        return scope
    return {**scope, "path": path, "raw_path": raw}


def _fields_of(message: Message) -> tuple[Any, Message]:
    """Return the fields of the head *message*, and *message* itself; fields that can be read only once are kept."""
    headers = message.get("headers", ())
    if not isinstance(headers, (list, tuple)):
        headers = list(headers)
        message = {**message, "headers": headers}
    return headers, message


def decode(headers: Any) -> HeaderList:
    """Return the fields of a message as text."""
    return [(str(name, "latin-1"), str(value, "latin-1")) for name, value in headers]


def encode(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return *headers* as a message has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


__all__ = ["Bypass", "decode", "encode"]
