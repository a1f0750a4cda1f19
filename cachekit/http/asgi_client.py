"""The client of a response that others wait for: when it leaves, the application does not hear of it.

Owns what the application is told about a client that left. Must not know about responses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from cachekit._io import ASYNCIO
from cachekit.http.collapse import Flight

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_PATIENCE: Final = 60.0


class Client:
    """The ``receive`` and ``send`` of a request whose response others may wait for."""

    __slots__ = ("_flight", "_gone", "_receive", "_send")

    def __init__(self, receive: Receive, send: Send, flight: Flight) -> None:
        self._receive = receive
        self._send = send
        self._flight = flight
        self._gone = False

    def leave(self) -> bool:
        """Note that the client left; says whether the application must go on for others."""
        self._gone = self._flight.followers > 0 and not self._flight.landed.done()
        return self._gone

    async def send(self, message: Message) -> None:
        """Send *message*, unless nobody is there to take it."""
        if self._gone:
            return
        try:
            await self._send(message)
        except OSError:
            if not self.leave():
                raise

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
