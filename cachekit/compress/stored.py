"""The encoded forms of stored responses: each is made once per coding, and sent again as long as the response is the same.

They are found by the very bytes that they were made of, so nothing here can be out of date: a response that changed is other
bytes, and one that was dropped is asked for no more. Must not know edges, keys or tags.
"""

from __future__ import annotations

import logging

from cachekit.compress.options import Compression
from cachekit.compress.response import Asked, encode

log = logging.getLogger("cachekit")


class Encoded:
    """Bodies and what they became, within a bound in bytes.

    Two generations: when the young one is full it becomes the old one, which is forgotten. What is asked for again moves to
    the young one. A body that does not grow smaller is remembered as such.

    Args:
        options: see ``Compression``; ``memo`` is the bound.
    """

    __slots__ = ("_limit", "_old", "_options", "_size", "_young")

    def __init__(self, options: Compression) -> None:
        self._options = options
        self._limit = options.memo // 2
        self._size = 0
        self._young: dict[tuple[str, bytes], bytes] = {}
        self._old: dict[tuple[str, bytes], bytes] = {}

    def find(self, coding: str, body: bytes) -> bytes | None:
        """Return what *body* became, *body* itself where it did not grow smaller, None where that is not known."""
        found = self._young.get((coding, body))
        if found is None and (found := self._old.get((coding, body))) is not None:
            self._put(coding, body, found)
        return found

    def make(self, asked: Asked, body: bytes) -> bytes:
        """Encode *body*; returns *body* itself where that fails, or does not make it smaller."""
        name = asked.choice.coding
        assert name is not None
        try:
            made = encode(self._options.coding(name), asked, body)
        except Exception:
            log.exception("compression failed; the response is sent without it")
            return body
        if len(made) >= len(body) and asked.choice.identity:
            made = body
        if not asked.padded and (asked.choice.identity or len(made) < len(body)):
            self._put(name, body, made)
        return made

    def _put(self, coding: str, body: bytes, made: bytes) -> None:
        size = len(made) + (len(body) if made is not body else 0)
        if size > self._limit:
            return
        if self._size + size > self._limit:
            self._old, self._young, self._size = self._young, {}, 0
        if (coding, body) not in self._young:
            self._size += size
            self._young[coding, body] = made
