"""A request on its way through the application: what belongs to it from its departure until its response is whole.

Owns who has to be told of each piece of the response. Must not know stores, ASGI or WSGI.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from cachekit.http.collapse import Flight
from cachekit.http.exchange import Exchange
from cachekit.http.following import Stream
from cachekit.http.headers import Headers
from cachekit.stores.base import Ticket


class Passage:
    """A request on its way through the application.

    Attributes:
        exchange: what decides.
        headers: the request fields to call the application with, or None for those that came.
        tags: the tags that were used so far.
    """

    __slots__ = ("committed", "exchange", "flight", "headers", "led", "open", "stream", "tags", "ticket")

    def __init__(self, exchange: Exchange, flight: Flight | None = None) -> None:
        self.exchange = exchange
        self.headers: Headers | None = None
        self.tags: AbstractSet[str] = frozenset()
        self.ticket: Ticket | None = None
        self.flight = flight
        self.led = flight is not None
        self.open = True
        self.committed = False
        self.stream: Stream | None = None

    def feed(self, chunk: bytes) -> bool:
        """Take in a piece of the body; says whether it is complete by now."""
        recording = self.exchange.recording
        recording.feed(chunk)
        if (stream := self.stream) is not None:
            if recording.active or recording.terms.refused == "size":
                stream.feed(chunk)
            else:
                stream.end(False)
        return recording.complete

    def over(self, whole: bool) -> None:
        """Tell those who follow that nothing more comes."""
        if self.stream is not None:
            self.stream.end(whole and self.exchange.recording.terms.refused in ("", "size"))

    def evidence(self) -> tuple[tuple[str, ...], tuple[tuple[str, bytes], ...]]:
        """Return the tags used so far, and the stamps that they came with."""
        return self.exchange.recording.tags(every(self.tags)), getattr(self.tags, "stamps", ())


def every(tags: AbstractSet[str]) -> AbstractSet[str]:
    """Return *tags*, with those that users did not give."""
    return getattr(tags, "every", tags)


__all__ = ["Passage", "every"]
