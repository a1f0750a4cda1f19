"""A response while it is made, for those who wait for it: they get its pieces as they come.

Owns the pieces and who has taken which. While others may still join, all of them are kept, by reference to what is being
recorded anyway; afterwards only what somebody has not taken yet, within a bound. Must not know ASGI, WSGI or stores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from cachekit._io import IO
from cachekit.http.headers import Headers
from cachekit.http.message import StoredResponse


class BrokenOff(Exception):
    """The response broke off, or this follower was too slow: there is nothing more to come."""


class Stream:
    """The response of one flight.

    Args:
        head: what it will be stored as, without its body.
        ticket: the right to store it, by which it is known whether it still holds.
        tags: gives the tags used so far, and the stamps that they came with.
        bound: bytes that are kept for slow followers when nobody may join any more.
    """

    __slots__ = (
        "_bound",
        "_cursors",
        "_lock",
        "_more",
        "_open",
        "_pieces",
        "_trimmed",
        "ended",
        "head",
        "tags",
        "ticket",
    )

    def __init__(
        self,
        head: StoredResponse,
        ticket: Any,
        tags: Callable[[], tuple[tuple[str, ...], tuple[tuple[str, bytes], ...]]],
        bound: int,
    ) -> None:
        self.head = head
        self.ticket = ticket
        self.tags = tags
        self.ended: bool | None = None  # None while it goes on; then whether it is whole
        self._bound = bound
        self._pieces: list[bytes] = []
        self._trimmed = 0  # pieces that were given up
        self._open = True
        self._cursors: dict[object, int] = {}
        self._more = _signal()
        self._lock = threading.Lock()

    @property
    def followed(self) -> bool:
        """Say whether somebody still takes pieces of it."""
        return bool(self._cursors)

    def feed(self, piece: bytes) -> None:
        """Take in a piece."""
        if not piece or self.ended is not None or not (self._open or self._cursors):
            return
        with self._lock:
            self._pieces.append(bytes(piece))
            if not self._open:
                self._trim()
        self._wake()

    def end(self, whole: bool) -> None:
        """Say that nothing more comes, and whether that is all of it."""
        if self.ended is None:
            self.ended = whole
            self.close()
            self._wake()

    def close(self) -> None:
        """Let nobody else join."""
        with self._lock:
            self._open = False
            self._trim()

    def join(self) -> object | None:
        """Return the cursor of a new follower, None when it is too late."""
        with self._lock:
            if not self._open:
                return None
            cursor = object()
            self._cursors[cursor] = 0
            return cursor

    def part(self, cursor: object) -> None:
        """Let a follower go."""
        with self._lock:
            self._cursors.pop(cursor, None)
            if not self._open:
                self._trim()

    async def take(self, io: IO, cursor: object, patience: float) -> bytes | None:
        """Return what has come since the last time, None at the end.

        Raises:
            BrokenOff: it broke off.
            TimeoutError: nothing came for *patience* seconds.
        """
        while True:
            with self._lock:
                more = self._more
                at = self._cursors.get(cursor)
                if at is None:
                    raise BrokenOff
                found = b"".join(self._pieces[at - self._trimmed :])
                self._cursors[cursor] = self._trimmed + len(self._pieces)
                if not self._open:
                    self._trim()
                ended = self.ended
            if found:
                return found
            if ended is not None:
                if ended:
                    return None
                raise BrokenOff
            await io.wait(more, patience)

    def _trim(self) -> None:
        """Give up what everybody has taken, and the slowest where they hold up too much."""
        while self._pieces:
            slowest = min(self._cursors.values(), default=self._trimmed + len(self._pieces))
            if slowest > self._trimmed:
                del self._pieces[: slowest - self._trimmed]
                self._trimmed = slowest
            if not self._pieces or sum(map(len, self._pieces)) <= self._bound:
                return
            self._cursors = {cursor: at for cursor, at in self._cursors.items() if at > slowest}

    def _wake(self) -> None:
        with self._lock:
            more, self._more = self._more, _signal()
        more.set_result(None)


def _signal() -> Future[None]:
    made: Future[None] = Future()
    made.set_running_or_notify_cancel()  # so that who waits cannot cancel it for the others
    return made


class Following:
    """The answer to a follower: a head, and pieces until there are no more."""

    __slots__ = ("_cursor", "_done", "_first", "_patience", "_stream", "headers", "reason", "status")

    def __init__(
        self,
        headers: Headers,
        stream: Stream,
        cursor: object,
        first: bytes | None,
        patience: float,
        done: Callable[[], None],
    ) -> None:
        self.status = stream.head.status
        self.reason = stream.head.reason
        self.headers = headers
        self._stream = stream
        self._cursor = cursor
        self._first: bytes | None = first
        self._patience = patience
        self._done: Callable[[], None] | None = done

    async def next(self, io: IO) -> bytes | None:
        """Return the next piece, None at the end. Raises ``BrokenOff`` or ``TimeoutError`` when there is no end."""
        first, self._first = self._first, b""
        return first if first != b"" else await self._stream.take(io, self._cursor, self._patience)

    def close(self) -> None:
        """Stop following."""
        self._stream.part(self._cursor)
        done, self._done = self._done, None
        if done is not None:
            done()
