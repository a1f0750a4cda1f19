"""One response of Django on its way through compression: what ``cachekit.compress`` decides is done here."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.http import HttpRequest

from cachekit.compress.options import Compression
from cachekit.compress.response import (
    REFUSAL,
    TEXT,
    Verdict,
    asked,
    begin,
    conditions,
    encode,
    feed,
    is_stored,
    judge,
    plain,
    refusal,
)
from cachekit.compress.stored import Encoded
from cachekit_django import bridge

log = logging.getLogger("cachekit")


class Encoding:
    """What a request says about codings, and what becomes of its response."""

    __slots__ = ("_asked", "_forms", "_options")

    def __init__(self, options: Compression, request: HttpRequest, forms: Encoded) -> None:
        meta = request.META
        fields = [
            (name, meta[variable])
            for name in ("accept-encoding", "cache-control", "if-none-match", "if-match")
            if (variable := f"HTTP_{name.upper().replace('-', '_')}") in meta
        ]
        self._options = options
        self._forms = forms
        self._asked = asked(options, request.method or "GET", request.path, fields)
        if (changed := conditions(options, fields)) is not None:
            meta.update({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in changed})
            request.__dict__.pop("headers", None)

    @property
    def hopeless(self) -> bool:
        """Say whether no response could be acceptable."""
        return self._asked.hopeless

    def refused(self, fields: Any = ()) -> Any:
        """Return the answer 406."""
        return bridge.response_of(406, "", refusal(fields), REFUSAL)

    def apply(self, response: Any) -> Any:
        """Return *response*, encoded where that is right."""
        options, wanted, fields = self._options, self._asked, bridge.fields_of(response)
        size = 0 if response.streaming else len(response.content)
        try:
            found = judge(TEXT, options, wanted, response.status_code, fields, size, last=not response.streaming)
        except Exception:
            log.exception("compression could not read a response; it passes by")
            return response
        name = wanted.choice.coding
        if found.verdict is Verdict.REFUSE:
            response.close()
            return self.refused(fields)
        if found.verdict is not Verdict.ENCODE or name is None or wanted.method == "HEAD":
            return response if found.headers is fields else bridge.with_fields(response, found.headers)
        coding = options.coding(name)
        if response.streaming:
            stream, flush = begin(coding, wanted), found.flush
            inner = response.streaming_content
            response.streaming_content = (
                _apieces(inner, stream, flush) if response.is_async else _pieces(inner, stream, flush)
            )
            return bridge.with_fields(response, found.headers)
        whole = self._stored if is_stored(TEXT, fields) else self._whole
        made = whole(name, response.content)
        if made is None or (len(made) >= size and wanted.choice.identity):
            return bridge.with_fields(response, plain(TEXT, fields))
        response.content = made
        return bridge.with_fields(response, [*found.headers, TEXT.length(len(made))])

    def _whole(self, name: str, body: bytes) -> bytes | None:
        """Return *body* encoded, or None when that failed: it then travels as it is."""
        try:
            return encode(self._options.coding(name), self._asked, body)
        except Exception:
            log.exception("compression failed; the response is sent without it")
            return None

    def _stored(self, name: str, body: bytes) -> bytes | None:
        """Return what ``_whole`` returns, made once for each stored response."""
        made = None if self._asked.padded else self._forms.find(name, body)
        if made is None or (made is body and not self._asked.choice.identity):
            made = self._forms.make(self._asked, body)
        return None if made is body else made


def _pieces(inner: Any, stream: Any, flush: bool) -> Iterator[bytes]:
    for chunk in inner:
        if made := feed(stream, chunk, flush, last=False):
            yield made
    yield feed(stream, b"", flush, last=True)


async def _apieces(inner: Any, stream: Any, flush: bool) -> AsyncIterator[bytes]:
    async for chunk in inner:
        if made := feed(stream, chunk, flush, last=False):
            yield made
    yield feed(stream, b"", flush, last=True)
