"""The ASGI edge of the HTTP cache: messages to and from an exchange.

Owns the grammar of ASGI. What is no HTTP request, and what is sent by an extension, passes through untouched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any, Final, TypeAlias

from cachekit._io import ASYNCIO
from cachekit.http.asgi_client import Client, Message, Receive, Send
from cachekit.http.asgi_request import Reader, Scope, is_plain, request_of, values_of
from cachekit.http.driver import Driver, Passage
from cachekit.http.exchange import Exchange, Serve, invalidated
from cachekit.http.following import Following
from cachekit.http.headers import HeaderList, Headers
from cachekit.http.options import HttpOptions
from cachekit.http.parts import part_key
from cachekit.http.past import CACHE_CONTROL
from cachekit.http.port import CachePort
from cachekit.http.rules import Rule, Rules
from cachekit.http.warm import Trait, Warm
from cachekit.tags import collecting

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("cachekit")

_CREDENTIALS: Final = int(Trait.CREDENTIALS)
_ODD: Final = int(Trait.ODD)
_NAMES: Final = 1024
_REFERENCES: Final = (b"location", b"content-location")
_LENGTHS: Final = frozenset(map(len, _REFERENCES))


class HttpCache:
    """A shared HTTP cache in front of an ASGI application.

    Args:
        app: the application.
        cache: where responses are kept.
        rules: header rules, the first that suits a response holds.
        options: see ``HttpOptions``.
    """

    def __init__(
        self, app: App, cache: CachePort, *, rules: Sequence[Rule] | Rules = (), options: HttpOptions | None = None
    ) -> None:
        self.app = app
        self._driver = driver = Driver(cache, rules, options)
        self._reader = Reader(driver.options)
        self._warm: Warm[Scope, tuple[bytes, bytes]] = Warm(cache, driver.options, _field, values_of)
        self._peek = cache.peek
        past = driver.past
        self._method = None if past.method is None else (b"cache-status", past.method.encode("latin-1"))
        self._miss = None if past.miss is None else (b"cache-status", past.miss.encode("latin-1"))
        self._meanings: dict[bytes, int] = {}

    @property
    def hits(self) -> int:
        """Return how many requests were answered from the cache."""
        return self._driver.hits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.way(scope, receive, send)

    def way(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return what ``__call__`` awaits: for a caller that awaits it at once, and saves a coroutine."""
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        driver = self._driver
        method = scope["method"]
        if method != "GET" and (unsafe := driver.past.by_method(method)) is not None:
            return self.app(scope, receive, self._beside(scope, send, unsafe))
        short = self._short(scope)
        if short is None:
            return self._exchange(scope, receive, send)
        if isinstance(short, str):
            if driver.past.tells:
                return self._telling(scope, receive, send)
            return self.app(scope, receive, self._past(scope, send, frozenset()))
        driver.hits += 1
        status, _, fields, body = short
        return _answer(send, status, fields, b"" if method == "HEAD" else body)

    async def _telling(self, scope: Scope, receive: Receive, send: Send) -> None:
        with collecting() as tags:
            await self.app(scope, receive, self._past(scope, send, tags))

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        driver = self._driver
        try:
            exchange = driver.open(request_of(scope))
        except Exception:
            log.exception("the HTTP cache could not read a request; it passes by")
            await self.app(scope, receive, send)
            return
        answer: Serve | Passage | Following | None = driver.at_once(exchange)
        if answer is None:
            answer = await driver.enter(ASYNCIO, exchange)
        if isinstance(answer, Passage):
            await self._forward(scope, receive, send, answer)
            return
        if isinstance(answer, Following):
            await _follow(send, answer)
            return
        if answer.refresh:
            self._refresh(scope, exchange)
        await _serve(send, answer)

    def _short(self, scope: Scope) -> tuple[int, str, list[tuple[bytes, bytes]], bytes] | str | None:
        """Return the ready answer, or the key of what goes past the cache; None when an exchange is needed."""
        try:
            method = scope["method"]
            key, traits = self._reader.read(scope)
            if key is None or traits & _ODD or method not in ("GET", "HEAD"):
                return None
            entry = self._peek(key)
            if entry is not None:
                return self._warm.answer(key, entry, traits, scope)
            return key if method == "GET" and self._driver.goes_past(key, traits & _CREDENTIALS != 0) else None
        except Exception:  # noqa: BLE001 - the long way meets the same fault, and reports it
            return None

    def _beside(self, scope: Scope, send: Send, unsafe: bool) -> Send:
        """Return the ``send`` of an application that is called with another method than GET and HEAD.

        It is no coroutine function: what it returns is what *send* returns, unless a server has to be told first.
        """

        def relay(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                try:
                    if type(headers := message.get("headers")) is not list:
                        headers, message = _fields_of(message)
                    if unsafe and message["status"] < 400:
                        keys = self._invalid(scope, headers)
                        if keys and not self._driver.forget(keys):
                            return self._drop_first(keys, message, send)
                    if (told := self._method) is not None:
                        message = {**message, "headers": [*headers, told]}
                except Exception:
                    log.exception("the HTTP cache could not read a response; it passes by")
            return send(message)

        return relay

    async def _drop_first(self, keys: Sequence[str], message: Message, send: Send) -> None:
        await self._driver.drop(ASYNCIO, keys)
        if self._method is not None:
            message = {**message, "headers": [*message.get("headers", ()), self._method]}
        await send(message)

    def _invalid(self, scope: Scope, headers: Any) -> Sequence[str]:
        """Return the keys that a successful request makes invalid, answered with *headers*."""
        driver = self._driver
        options = driver.options
        for name, _ in headers:
            if len(name) in _LENGTHS and name.lower() in _REFERENCES:
                break
        else:
            if driver.untrodden(raw := scope.get("raw_path")) and is_plain(raw, scope["path"]):
                return ()
            key, _ = self._reader.read(scope)
            if key is not None:
                return (key, part_key(key)) if options.store_parts else (key,)
        return invalidated(request_of(scope), _decode(headers), options)

    def _past(self, scope: Scope, send: Send, tags: AbstractSet[str]) -> Send:
        """Return the ``send`` of an application whose response goes past the cache, known to be uncacheable."""

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
                    expected = self._driver.past.passes(control, seen)
                    if not expected or (not control and tags):
                        return self._tell(scope, message, send, tags, expected=expected)
                    if (told := self._miss) is not None:
                        message = {**message, "headers": [*headers, told]}
                except Exception:
                    log.exception("the HTTP cache could not read a response; it passes by")
            return send(message)

        return relay

    async def _tell(
        self, scope: Scope, message: Message, send: Send, tags: AbstractSet[str], *, expected: bool
    ) -> None:
        try:
            request, fields, status = request_of(scope), _decode(message.get("headers", ())), message["status"]
            sent = await self._driver.went_past(ASYNCIO, request, status, fields, tags, expected=expected)
            message = {**message, "headers": _encode(sent)}
        except Exception:
            log.exception("the HTTP cache could not read a response; it passes by")
        await send(message)

    def _learn(self, name: bytes) -> int:
        meaning = self._driver.past.field(str(name, "latin-1").lower())
        if len(self._meanings) < _NAMES:
            self._meanings[bytes(name)] = meaning
        return meaning

    async def _forward(self, scope: Scope, receive: Receive, send: Send, passage: Passage) -> None:
        if passage.headers is not None:
            scope = {**scope, "headers": _encode(passage.headers)}
        if passage.flight is None:
            await self._call(scope, receive, send, passage)
            return
        # Others may wait for this response: it must not end with the client that happened to be first.
        client = Client(receive, send, passage.flight, self._driver.options.max_body)
        call = asyncio.create_task(self._lead(scope, client, passage))
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            if call.done():
                raise
            if client.leave():
                ASYNCIO.spawn(_outlive(call))
            else:
                call.cancel()
                await asyncio.wait((call,))
            raise

    async def _lead(self, scope: Scope, client: Client, passage: Passage) -> None:
        try:
            await self._call(scope, client.receive, client.send, passage)
            await client.flush()
        finally:
            client.stop()

    async def _call(self, scope: Scope, receive: Receive, send: Send, passage: Passage) -> None:
        relay = _Relay(self._driver, passage, send)
        try:
            with collecting() as passage.tags:
                await self.app(scope, receive, relay)
        except Exception as exc:
            if relay.begun:
                raise
            instead = await self._driver.failed(ASYNCIO, passage, exc)
            if instead is None:
                raise
            log.warning("the application failed; a stale response is served", exc_info=exc)
            await _serve(send, instead)
        finally:
            await self._driver.leave(ASYNCIO, passage)

    def _refresh(self, scope: Scope, exchange: Exchange) -> None:
        passage = self._driver.refreshing(ASYNCIO, exchange)
        if passage is not None:
            ASYNCIO.spawn(self._revalidate(scope, passage))

    async def _revalidate(self, scope: Scope, passage: Passage) -> None:
        assert passage.headers is not None
        scope = {**scope, "method": "GET", "headers": _encode(passage.headers), "extensions": {}}
        if "state" in scope:
            scope["state"] = scope["state"].copy()
        try:
            if await self._driver.take_off(ASYNCIO, passage):
                with collecting() as passage.tags:
                    await self.app(scope, _Nobody(), _Relay(self._driver, passage, _discard))
        finally:
            await self._driver.leave(ASYNCIO, passage)


class _Relay:
    """The ``send`` that the application gets: passes its messages on as they come, and records."""

    __slots__ = ("_driver", "_held", "_passage", "_send", "_swallowed", "begun")

    def __init__(self, driver: Driver, passage: Passage, send: Send) -> None:
        self._driver = driver
        self._passage = passage
        self._send = send
        self._swallowed = False
        self._held: Message | None = None  # the head of a 304, until what it stands for is stored
        self.begun = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            await self._body(message)
        elif kind == "http.response.start":
            await self._start(message)
        elif not self.begun:
            await self._send(message)
        else:
            self._passage.exchange.recording.spoil("extension")
            self._passage.over(False)
            await self._driver.ended(ASYNCIO, self._passage)
            if self._held is not None:
                await self._let_go()
            elif not self._swallowed:
                await self._send(message)

    async def _start(self, message: Message) -> None:
        passage = self._passage
        try:
            headers = _decode(message.get("headers", ()))
        except Exception:
            log.exception("the HTTP cache could not read a response; it passes by")
            passage.exchange.recording.spoil("malformed")
            self.begun = True
            await self._send(message)
            return
        if message.get("trailers"):
            passage.exchange.recording.spoil("trailers")
        answer = await self._driver.started(ASYNCIO, passage, message["status"], "", headers)
        self.begun = True
        if isinstance(answer, Serve):
            self._swallowed = True
            await _serve(self._send, answer)
        elif answer.silent:
            self._swallowed = True
            self._held = {
                "type": "http.response.start", "status": answer.status, "headers": _encode(answer.headers)
            }  # fmt: skip
            if not passage.open:
                await self._let_go()
        elif answer.headers is headers:
            await self._send(message)
        else:
            await self._send({**message, "status": answer.status, "headers": _encode(answer.headers)})

    async def _body(self, message: Message) -> None:
        passage = self._passage
        body = message.get("body", b"")
        last = not message.get("more_body", False)
        if passage.open:
            complete = passage.feed(body) or last
            if complete or not passage.exchange.recording.active:
                await self._driver.ended(ASYNCIO, passage)
                if complete:
                    passage.over(True)
        elif passage.committed and body:
            await self._driver.overrun(ASYNCIO, passage)
        elif passage.stream is not None:
            passage.stream.feed(body)
            await asyncio.sleep(0)  # only so much is kept for them: let them take it
            if last:
                passage.over(True)
        if self._held is not None and not passage.open:
            await self._let_go()
        elif not self._swallowed:
            await self._send(message)

    async def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await self._send(held)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class _Nobody:
    """The ``receive`` of a request that no client waits for."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked = False

    async def __call__(self) -> Message:
        if self._asked:
            await asyncio.get_running_loop().create_future()
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}


async def _outlive(call: asyncio.Task[None]) -> None:
    await call


async def _discard(message: Message) -> None:
    del message


def _fields_of(message: Message) -> tuple[Any, Message]:
    """Return the fields of the head *message*, and *message* itself; fields that can be read only once are kept."""
    headers = message.get("headers", ())
    if not isinstance(headers, (list, tuple)):
        headers = list(headers)
        message = {**message, "headers": headers}
    return headers, message


def _decode(headers: Any) -> HeaderList:
    return [(str(name, "latin-1"), str(value, "latin-1")) for name, value in headers]


@lru_cache(maxsize=512)
def _field(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")


def _encode(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _answer(send: Send, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _follow(send: Send, answer: Following) -> None:
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": _encode(answer.headers)})
        while (piece := await answer.next(ASYNCIO)) is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        answer.close()


async def _serve(send: Send, answer: Serve) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": _encode(answer.headers)})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
