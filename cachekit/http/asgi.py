"""The ASGI edge of the HTTP cache: messages to and from an exchange.

Owns the grammar of ASGI. What is no HTTP request, and what is sent by an extension, passes through untouched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Final

from cachekit._io import ASYNCIO
from cachekit.arguments import check_app
from cachekit.http.asgi_client import App, Client, Message, Receive, Send
from cachekit.http.asgi_past import Bypass, decode, encode
from cachekit.http.asgi_request import Reader, Scope, request_of, values_of
from cachekit.http.asgi_scope import with_headers
from cachekit.http.credentials import USER, knows
from cachekit.http.decisions import Serve
from cachekit.http.driver import Driver
from cachekit.http.exchange import Exchange
from cachekit.http.following import Following
from cachekit.http.options import HttpOptions
from cachekit.http.outside import private_asgi
from cachekit.http.passage import Passage
from cachekit.http.port import CachePort
from cachekit.http.rules import Rule, Rules
from cachekit.http.warm import Trait, Warm
from cachekit.tags import Groups, collect, collecting, leave

log = logging.getLogger("cachekit")

_CREDENTIALS: Final = int(Trait.CREDENTIALS)
_ODD: Final = int(Trait.ODD)
_READS: Final = ("GET", "HEAD")


class HttpCache:
    """A shared HTTP cache in front of an ASGI application.

    Args:
        app: the application.
        cache: where responses are kept.
        rules: header rules, the first that suits a response holds.
        options: see ``HttpOptions``.

    Raises:
        ConfigError: *app* is no application.
    """

    def __init__(
        self, app: App, cache: CachePort, *, rules: Sequence[Rule] | Rules = (), options: HttpOptions | None = None
    ) -> None:
        check_app(app, "an ASGI application")
        self.app: App = private_asgi(app)  # for what may be kept: other methods go past it
        self._driver = driver = Driver(cache, rules, options)
        reader = Reader(driver.options)
        self._read = reader.read
        self._warm: Warm[Scope, tuple[bytes, bytes]] = Warm(cache, driver.options, _field, values_of)
        self._peek = cache.peek
        self._goes_past = driver.goes_past
        self._past = driver.past
        self._listen = driver.listen
        self._tally = driver.tally
        bypass = Bypass(driver, reader)
        self._of_miss = bypass.of_miss
        self.way: App = bypass.around(app, self._inside)
        """What ``__call__`` awaits: for a caller that awaits it at once, and saves a coroutine."""

    @property
    def hits(self) -> int:
        """Return how many requests were answered from the cache."""
        return self._tally.hits + self._driver.counters.stale

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.way(scope, receive, send)

    def _inside(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        method = scope["method"]
        passes = ""
        try:
            key, traits = self._read(scope)
            if key is not None and not traits & _ODD and method in _READS:
                entry = self._peek(key)
                if entry is not None:
                    short = self._warm.answer(key, entry, traits, scope)
                    if short is not None:
                        self._tally.hits += 1
                        return _answer(send, short[0], short[2], b"" if method == "HEAD" else short[3])
                else:
                    passes = self._goes_past(key, traits & _CREDENTIALS != 0) if method == "GET" else ""
        except Exception:  # noqa: BLE001 - the long way meets the same fault, and reports it
            passes = ""
        if not passes:
            return self._exchange(scope, receive, send)
        if self._past.tells:
            return self._telling(scope, receive, send, passes)
        return self.app(scope, receive, self._of_miss(scope, send, passes, set(), self._listen()))

    async def _telling(self, scope: Scope, receive: Receive, send: Send, why: str) -> None:
        used: Groups = set()
        token = collect(used)
        try:
            await self.app(scope, receive, self._of_miss(scope, send, why, used, self._listen()))
        finally:
            leave(token)

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

    async def _forward(self, scope: Scope, receive: Receive, send: Send, passage: Passage) -> None:
        if passage.headers is not None:
            scope = with_headers(scope, encode(passage.headers))
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
        relay = _Relay(self._driver, passage, scope, send)
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
        scope = {**scope, "method": "GET", "headers": encode(passage.headers), "extensions": {}}
        if "state" in scope:
            scope["state"] = scope["state"].copy()
        try:
            if await self._driver.take_off(ASYNCIO, passage):
                with collecting() as passage.tags:
                    await self.app(scope, _Nobody(), _Relay(self._driver, passage, scope, _discard))
        finally:
            await self._driver.leave(ASYNCIO, passage)


class _Relay:
    """The ``send`` that the application gets: passes its messages on as they come, and records."""

    __slots__ = ("_driver", "_held", "_passage", "_scope", "_send", "_swallowed", "begun")

    def __init__(self, driver: Driver, passage: Passage, scope: Scope, send: Send) -> None:
        self._driver = driver
        self._passage = passage
        self._scope = scope
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
            headers = decode(message.get("headers", ()))
        except Exception:
            log.exception("the HTTP cache could not read a response; it passes by")
            passage.exchange.recording.spoil("malformed")
            self.begun = True
            await self._send(message)
            return
        if message.get("trailers"):
            passage.exchange.recording.spoil("trailers")
        if knows(self._scope, self._scope.get(USER)):
            passage.exchange.recording.recognise()
        answer = await self._driver.started(ASYNCIO, passage, message["status"], "", headers)
        self.begun = True
        if isinstance(answer, Serve):
            self._swallowed = True
            await _serve(self._send, answer)
        elif answer.silent:
            self._swallowed = True
            self._held = {
                "type": "http.response.start", "status": answer.status, "headers": encode(answer.headers)
            }  # fmt: skip
            if not passage.open:
                await self._let_go()
        elif answer.headers is headers:
            await self._send(message)
        else:
            await self._send({**message, "status": answer.status, "headers": encode(answer.headers)})

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


@lru_cache(maxsize=512)
def _field(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")


async def _answer(send: Send, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _follow(send: Send, answer: Following) -> None:
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": encode(answer.headers)})
        while (piece := await answer.next(ASYNCIO)) is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        answer.close()


async def _serve(send: Send, answer: Serve) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": encode(answer.headers)})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
