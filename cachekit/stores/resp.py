"""A reader of RESP3, the protocol of Redis and Valkey, for connections that mostly receive what nobody asked for.

Pure: bytes in, values out. The client library's readers call themselves once for each message that is queued in front of
a reply, and fail at the thousandth; this one gives up each message as it comes. Nesting is the only depth.
"""

from __future__ import annotations

from typing import Any, Final

from cachekit.errors import StoreUnavailable


class Push(list[Any]):
    """A message that is no reply."""


class ReplyError(Exception):
    """An error reply, as a value."""


class _Incomplete(Exception):
    """The bytes so far end in the middle of a value."""


NOTHING: Final = object()
"""What ``Reader.next`` returns when no whole value is there yet."""

_SIMPLE: Final = frozenset(b"+(,#")
_BULK: Final = frozenset(b"$=!")
_ARRAYS: Final = frozenset(b"*~>%|")


class Reader:
    """Takes bytes as they come, and gives values as soon as they are whole."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Take *data*."""
        if self._at:
            del self._data[: self._at]
            self._at = 0
        self._data += data

    def next(self) -> Any:
        """Return the next value, or ``NOTHING``. Raises ``StoreUnavailable`` for bytes that are not RESP."""
        start = self._at
        try:
            return self._value()
        except _Incomplete:
            self._at = start
            return NOTHING
        except ValueError as exc:
            raise StoreUnavailable(f"the server sent what is not RESP: {exc}") from exc

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._at)
        if end < 0:
            raise _Incomplete
        line = bytes(self._data[self._at : end])
        self._at = end + 2
        return line

    def _value(self) -> Any:
        line = self._line()
        kind, rest = line[0] if line else 0, line[1:]
        if kind == ord(":"):
            return int(rest)
        if kind in _SIMPLE:
            return rest
        if kind == ord("-"):
            return ReplyError(rest.decode(errors="replace"))
        if kind == ord("_"):
            return None
        if kind in _BULK:
            size = int(rest)
            if size < 0:
                return None
            if len(self._data) < self._at + size + 2:
                raise _Incomplete
            value = bytes(self._data[self._at : self._at + size])
            self._at += size + 2
            return ReplyError(value.decode(errors="replace")) if kind == ord("!") else value
        if kind in _ARRAYS:
            count = int(rest)
            if count < 0:
                return None
            values = [self._value() for _ in range(count * 2 if kind in b"%|" else count)]
            if kind == ord("|"):  # attributes of the value that follows
                return self._value()
            return Push(values) if kind == ord(">") else values
        raise ValueError(f"{line[:20]!r}")
