"""Compression at the WSGI edge: ``app = Compress(app)``.

Owns the grammar of PEP 3333: the head waits for the first piece of the body, ``write`` still works, iterables are closed
once, and what is not encoded is handed on as it is, so that ``wsgi.file_wrapper`` keeps its speed. Must not know when a
response is encoded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from cachekit.arguments import check_app
from cachekit.compress.codings import Coding, Stream
from cachekit.compress.options import Compression
from cachekit.compress.response import (
    REFUSAL,
    TEXT,
    Asked,
    Judgement,
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
from cachekit.http.headers import HeaderList, Headers, first
from cachekit.http.wsgi import App, ExcInfo, StartResponse, Write
from cachekit.http.wsgi_request import Environ

log = logging.getLogger("cachekit")

_RELEVANT: Final = {
    "HTTP_ACCEPT_ENCODING": "accept-encoding", "HTTP_CACHE_CONTROL": "cache-control",
    "HTTP_IF_NONE_MATCH": "if-none-match", "HTTP_IF_MATCH": "if-match",
}  # fmt: skip


class Compress:
    """Encode the responses of a WSGI application as its clients accept it.

    Args:
        app: the application.
        options: see ``Compression``.
        cached: whether *app* is an HTTP cache. It is then asked for responses without a coding, so that there is one
            stored response for all codings, and what it has stored is encoded once for each.

    Raises:
        ConfigError: *app* is no application.

    Example:
        >>> def app(environ, start_response): ...
        >>> app = Compress(app, Compression(minimum=1000))
    """

    def __init__(self, app: App, options: Compression | None = None, *, cached: bool = False) -> None:
        check_app(app, "a WSGI application")
        self.app = app
        self.options = options or Compression()
        self._forms = Encoded(self.options) if cached else None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ, head = self.around(environ, start_response)
        if head is None:
            start_response("406 Not Acceptable", refusal())
            return [REFUSAL]
        return head.answer(self.app(environ, head))

    def around(self, environ: Environ, start_response: StartResponse) -> tuple[Environ, Head | None]:
        """Return the environ and the ``start_response`` for the application; None where no answer could be acceptable."""
        options = self.options
        fields = [(field, environ[name]) for name, field in _RELEVANT.items() if name in environ]
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "") if options.padding else ""
        decoded = path.encode("latin-1", "replace").decode("utf-8", "replace")
        wanted = asked(options, environ["REQUEST_METHOD"], decoded, fields)
        if wanted.hopeless:
            return environ, None
        if (changed := conditions(options, fields)) is not None:
            environ = {
                **environ,
                **{name: first(changed, field) for name, field in _RELEVANT.items() if name in environ},
            }
        if self._forms is not None and "HTTP_ACCEPT_ENCODING" in environ:
            environ = {name: value for name, value in environ.items() if name != "HTTP_ACCEPT_ENCODING"}
        return environ, Head(options, wanted, start_response, self._forms)


class Head:
    """The ``start_response`` that the application gets."""

    __slots__ = (
        "_asked", "_flush", "_forms", "_headers", "_options", "_start", "_status", "_stream", "_write", "done", "sent"
    )  # fmt: skip

    def __init__(
        self, options: Compression, asked: Asked, start_response: StartResponse, forms: Encoded | None = None
    ) -> None:
        self._options = options
        self._forms = forms
        self._asked = asked
        self._start = start_response
        self._status: str | None = None
        self._headers: HeaderList = []
        self._write: Write | None = None
        self._flush = False
        self._stream: Stream | None = None
        self.sent = False
        self.done = False

    def __call__(self, status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
        if self.sent:
            return self._start(status, headers) if exc_info is None else self._start(status, headers, exc_info)
        if self._status is not None and exc_info is None:
            raise AssertionError("start_response was called a second time without exc_info")
        self._status, self._headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body, as applications older than iterables do."""
        made = self.first(data, last=False) if not self.sent else self.feed(data, last=False)
        if self._write is not None and made:
            self._write(made)

    def answer(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """Return what the server gets in place of *result*."""
        try:
            if self._status is None or self.sent:
                return Body(self, result)
            if type(result) is list or type(result) is tuple:
                made = self.first(result[0] if len(result) == 1 else b"".join(result), last=True)
                return [made] if made else []
            verdict, headers, _, _ = self._judge(0, last=False)
            if verdict in (Verdict.LEAVE, Verdict.PLAIN):
                self._send(headers)
                return result
        except BaseException:
            _close(result)
            raise
        return Body(self, result)

    @property
    def called(self) -> bool:
        """Say whether the application has given its head."""
        return self._status is not None

    def _judge(self, size: int, *, last: bool) -> Judgement:
        assert self._status is not None
        try:
            return judge(TEXT, self._options, self._asked, int(self._status[:3]), self._headers, size, last=last)
        except Exception:
            log.exception("compression could not read a response; it passes by")
            return Judgement(Verdict.LEAVE, self._headers)

    def _send(self, headers: Headers, status: str | None = None) -> None:
        self.sent = True
        self._write = self._start(status or self._status or "", list(headers))

    def first(self, body: bytes, *, last: bool) -> bytes:
        """Take in the first piece of the body; returns what is sent of it."""
        wanted, name = self._asked, self._asked.choice.coding
        verdict, headers, whole, flush = self._judge(len(body), last=last)
        if verdict is not Verdict.ENCODE or name is None or wanted.method == "HEAD":
            if verdict is Verdict.REFUSE:
                self.done = True
                self._send(refusal(self._headers), "406 Not Acceptable")
                return REFUSAL
            self._send(headers)
            return body
        coding = self._options.coding(name)
        if not whole:
            self._stream, self._flush = begin(coding, wanted), flush
            if self._stream is None:
                self._send(plain(TEXT, self._headers))
                return body
            self._send(headers)
            return feed(self._stream, body, flush, last=False)
        made = self._stored(name, body) if self._forms and is_stored(TEXT, headers) else self._whole(coding, body)
        if made is None or (len(made) >= len(body) and wanted.choice.identity):
            self._send(plain(TEXT, self._headers))
            return body
        self.done = True
        self._send([*headers, TEXT.length(len(made))])
        return made

    def _whole(self, coding: Coding, body: bytes) -> bytes | None:
        """Return *body* encoded, or None when that failed: it then travels as it is."""
        try:
            return encode(coding, self._asked, body)
        except Exception:
            log.exception("compression failed; the response is sent without it")
            return None

    def _stored(self, name: str, body: bytes) -> bytes | None:
        """Return what ``_whole`` returns, made once for each stored response."""
        forms = self._forms
        assert forms is not None
        made = None if self._asked.padded else forms.find(name, body)
        if made is None or (made is body and not self._asked.choice.identity):
            made = forms.make(self._asked, body)
        return None if made is body else made

    def feed(self, chunk: bytes, *, last: bool) -> bytes:
        """Take in a further piece; returns what is sent of it."""
        return chunk if self._stream is None else feed(self._stream, chunk, self._flush, last)


class Body:
    """The body that the server iterates over: the application's, encoded as it comes."""

    __slots__ = ("_ended", "_head", "_inner", "_result")

    def __init__(self, head: Head, result: Iterable[bytes]) -> None:
        self._head = head
        self._result = result
        self._inner: Iterator[bytes] = iter(result)
        self._ended = False

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        head = self._head
        if self._ended:
            raise StopIteration
        chunk = next(self._inner, None)
        if chunk is None or head.done:
            self._ended = True
            if head.done:
                raise StopIteration
            made = head.feed(b"", last=True) if head.sent else head.first(b"", last=True) if head.called else b""
            if not made:
                raise StopIteration
            return made
        if head.sent:
            return head.feed(chunk, last=False)
        if not chunk:
            return chunk  # the application may not have given its head yet
        return head.first(chunk, last=False)

    def close(self) -> None:
        """Close the application's iterable."""
        _close(self._result)


def _close(result: object) -> None:
    close: Callable[[], object] | None = getattr(result, "close", None)
    if close is not None:
        close()
