"""The client of a response that others wait for: when it leaves, or reads slowly, the application does not hear of it.

Owns what the application is told about that client, and what is held for it while others are faster. Must not know about
responses.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from cachekit._io import ASYNCIO
from cachekit.http.asgi_request import Scope
from cachekit.http.collapse import Flight

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_PATIENCE: Final = 60.0


class Client:
    """The ``receive`` and ``send`` of a request whose response others may wait for."""

    __slots__ = ("_bound", "_error", "_flight", "_gone", "_held", "_receive", "_send", "_sender", "_size")

    def __init__(self, receive: Receive, send: Send, flight: Flight, bound: int) -> None:
        self._receive = receive
        self._send = send
        self._flight = flight
        self._gone = False
        self._bound = bound  # bytes that are held for a slow client, so that others need not wait for it
        self._held: deque[Message] = deque()
        self._size = 0
        self._sender: asyncio.Task[None] | None = None
        self._error: OSError | None = None

    def leave(self) -> bool:
        """Note that the client left; says whether the application must go on for others."""
        flight = self._flight
        over = flight.landed.done() and (flight.stream is None or not flight.stream.followed)
        self._gone = flight.followers > 0 and not over
        return self._gone

    async def send(self, message: Message) -> None:
        """Send *message*, unless nobody is there to take it. While others follow, it is not waited for."""
        if self._gone:
            return
        if self._sender is None and not self._flight.followers:
            await self._deliver(message)
            return
        if self._size > self._bound:
            await self.flush()
        self._held.append(message)
        self._size += len(message.get("body", b""))
        if self._sender is None:
            self._sender = asyncio.create_task(self._drain())
        await asyncio.sleep(0)  # who only ever sends must let others run

    async def _deliver(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:
            if not self.leave():
                raise

    async def _drain(self) -> None:
        try:
            while self._held and not self._gone:
                message = self._held.popleft()
                await self._deliver(message)
                self._size -= len(message.get("body", b""))
        except OSError as exc:
            self._error = exc
        finally:
            self._sender = None

    async def flush(self) -> None:
        """Wait until everything is sent. Raises what ``send`` raised."""
        while (sender := self._sender) is not None:
            await asyncio.wait((sender,))
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Send nothing more."""
        if self._sender is not None:
            self._sender.cancel()

    async def receive(self) -> Message:
        """Receive a message. That the client left is told only when the others have their response."""
        if not self._gone:
            message = await self._receive()
            if message["type"] != "http.disconnect" or not self.leave():
                return message
        try:
            await ASYNCIO.wait(self._flight.landed, _PATIENCE)
        except TimeoutError:
            pass
        return {"type": "http.disconnect"}
