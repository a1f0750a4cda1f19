"""The ASGI edges: ``Degradation`` outside of everything, ``Guards`` next to the application.

Own the grammar of ASGI, and the end of an application that does not end by itself. Must not know what is cached.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, TypeAlias

from cachekit._io import ASYNCIO
from cachekit.arguments import check_app
from cachekit.around import asurrounded
from cachekit.clock import Clock, stopwatch, system_clock
from cachekit.degrade.gate import BAD, Counts, Gate, Gates, Route
from cachekit.degrade.health import StorePort
from cachekit.degrade.options import DegradeCounts, DegradeOptions, Degrading
from cachekit.degrade.refusal import PROBLEM, Body, Refusal, Refused, check_body
from cachekit.errors import AppTimeout
from cachekit.events import Emit

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("cachekit")

_GRACE: Final = 1.0
"""Seconds for which a request whose client left waits for the application to end."""


class Degradation:
    """Refuses protected paths while the store, or another part, is away, and tells how it is.

    Args:
        app: an ASGI application.
        cache: the cache whose store is watched; None watches only the sources.
        options: the settings; instead of them, those of ``DegradeOptions`` may be given by name.
        emit: receives events; those of *cache* when left out.
        **settings: see ``DegradeOptions``.

    Raises:
        ConfigError: a setting cannot be used.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> from cachekit import Cache
        >>> app = Degradation(app, cache=Cache(), protected=["/api/protected"])
    """

    def __init__(
        self,
        app: App,
        *,
        cache: StorePort | None = None,
        options: DegradeOptions | None = None,
        emit: Emit | None = None,
        **settings: Any,
    ) -> None:
        check_app(app, "an ASGI application")
        self.app = app
        chosen = emit if emit is not None else getattr(cache, "events", _nowhere)
        self._degrading = Degrading(options or DegradeOptions(**settings), cache, chosen)

    @property
    def counts(self) -> DegradeCounts:
        """Return what happened so far."""
        return self._degrading.counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        degrading, path = self._degrading, scope["path"]
        if kind == "http" and degrading.is_health(path) and scope["method"] in ("GET", "HEAD"):
            status, headers, body = await degrading.tell(ASYNCIO)
            await _respond(send, status, headers, b"" if scope["method"] == "HEAD" else body)
            return
        if degrading.is_protected(path):
            refusal = await degrading.admit(ASYNCIO, path)
            if refusal is not None:
                await self._refuse(scope, receive, send, refusal)
            else:
                await self.app(scope, receive, send)
            return
        away = degrading.glance()
        await self.app(scope, receive, self._marking(send, away) if away and kind == "http" else send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1013, "reason": refusal.detail[:100]})
            return
        headers, body = refusal.render(self._degrading.options.body, scope["method"])
        marked = self._degrading.mark(headers, self._degrading.health.glance().away or ("store",))
        await _respond(send, refusal.status, marked, body)

    def _marking(self, send: Send, away: Sequence[str]) -> Send:
        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(str(n, "latin-1"), str(v, "latin-1")) for n, v in message.get("headers", ())]
                message = {**message, "headers": _encode(self._degrading.mark(headers, away))}
            await send(message)

        return mark


class Guards:
    """Gives each route of an application a time-out, a bound on concurrency and a breaker. Stands inside the HTTP cache.

    What is refused is answered with 503, what is given up with 504, an application that returns without an answer with 502:
    the HTTP cache outside then serves what is stale, where that is allowed. A response that falls silent after its head
    was sent cannot be answered otherwise any more: ``AppTimeout`` cuts it, and it is not stored.

    Args:
        app: an ASGI application.
        routes: what is granted; the first that is for a path holds. Other paths are let through as they are.
        body: ``"problem"`` for application/problem+json, or an object that is sent as application/json.
        clock: source of time for the breakers.
        emit: receives events.

    Raises:
        ConfigError: *app* is no application, or a route or the body cannot be used.
    """

    def __init__(
        self,
        app: App,
        routes: Sequence[Route],
        *,
        body: Body = PROBLEM,
        clock: Clock = system_clock,
        emit: Emit | None = None,
    ) -> None:
        check_app(app, "an ASGI application")
        self.app = app
        self._body = check_body(body)
        self._gates = Gates(routes, clock=clock, emit=emit or _nowhere)

    @property
    def counts(self) -> dict[str, Counts]:
        """Return what happened so far, by the path of the route."""
        return self._gates.counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate = self._gates.find(scope["path"]) if scope["type"] == "http" else None
        if gate is None:
            await self.app(scope, receive, send)
            return
        try:
            await gate.enter(ASYNCIO)
            call = _Call(receive, send)
            if math.isinf(gate.route.span("timeout")):
                await self._plain(scope, call, gate)
            else:
                await self._timed(scope, call, gate)
        except Refused as exc:
            headers, body = exc.refusal.render(self._body, scope["method"])
            await _respond(send, exc.refusal.status, headers, body)

    async def _plain(self, scope: Scope, call: _Call, gate: Gate) -> None:
        ok: bool | None = None
        try:
            await self.app(scope, call.receive, call.send)
            ok = call.well
        except Exception:
            ok = None if call.client_gone else False
            raise
        finally:
            gate.leave(ok)
        call.demand_answer()

    async def _timed(self, scope: Scope, call: _Call, gate: Gate) -> None:
        timeout = gate.route.span("timeout")
        task = asyncio.ensure_future(asurrounded(self.app(scope, call.receive, call.send)))  # it may outlive its caller

        def ended(task: asyncio.Future[None]) -> None:
            # The place is held until the application has really ended, whoever still waits for it.
            if task.cancelled() or task.exception() is not None:
                gate.leave(None if call.client_gone or call.given_up else False)
            else:
                gate.leave(None if call.given_up else call.well)

        task.add_done_callback(ended)
        try:
            while not task.done():
                left = timeout - (stopwatch() - call.since) if not call.waits_for_client else timeout
                if left <= 0:
                    break
                await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:
            call.client_gone = True
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE)
            raise
        if task.done():
            task.result()
            call.demand_answer()
            return
        call.given_up = True
        task.cancel()
        gate.record(False)
        refused = gate.timed_out()
        if not call.begun:
            raise refused
        raise AppTimeout(f"the application fell silent for {timeout:g} s in the middle of its response")


class _Call:
    """What the application is given: it is noted what it does, and whom it waits for."""

    __slots__ = (
        "_receive", "_send", "_waiting", "begun", "client_gone", "ended", "given_up", "received", "since", "status"
    )  # fmt: skip

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._waiting = 0
        self.begun = self.ended = self.received = self.given_up = self.client_gone = False
        self.status = 0
        self.since = stopwatch()

    @property
    def waits_for_client(self) -> bool:
        """Say whether the application waits for the client: to take what was sent, or to send the rest of its body."""
        return self._waiting > 0

    @property
    def well(self) -> bool | None:
        """Say whether the application did well; None when its client left, which says nothing of it."""
        if self.begun and self.ended:
            return self.status not in BAD
        return None if self.client_gone else False

    def demand_answer(self) -> None:
        """Raise ``Refused`` when the application returned without an answer to a client that is there."""
        if not self.begun and not self.client_gone:
            raise Refused(Refusal(502, "the application gave no answer"))

    async def receive(self) -> Message:
        waits = not self.received
        self._waiting += waits
        try:
            message = await self._receive()
        finally:
            self._waiting -= waits
            self.since = stopwatch()
        if message["type"] == "http.disconnect":
            self.client_gone = self.received = True
        elif not message.get("more_body", False):
            self.received = True
        return message

    async def send(self, message: Message) -> None:
        if self.given_up:
            return
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.ended = True
        self._waiting += 1
        try:
            await self._send(message)
        except OSError:
            self.client_gone = True
            raise
        finally:
            self._waiting -= 1
            self.since = stopwatch()


def _nowhere(_: object) -> None:
    pass


def _encode(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _respond(send: Send, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": _encode(headers)})
    await send({"type": "http.response.body", "body": body})


__all__ = ["Degradation", "Guards"]
