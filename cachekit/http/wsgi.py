"""The WSGI edge of the HTTP cache: a call and its iterable to and from an exchange.

Owns the grammar of PEP 3333: ``start_response`` and ``write``, iterables closed once, ``wsgi.file_wrapper`` left alone.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from cachekit._io import BLOCKING, drive
from cachekit.http.driver import Driver, Passage
from cachekit.http.exchange import Exchange, Serve
from cachekit.http.headers import HeaderList, Headers, first
from cachekit.http.message import Request
from cachekit.http.options import HttpOptions
from cachekit.http.port import CachePort
from cachekit.http.rules import Rule, Rules
from cachekit.tags import collecting

Environ: TypeAlias = dict[str, Any]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
Write: TypeAlias = Callable[[bytes], object]


class StartResponse(Protocol):
    """What a server hands to an application."""

    def __call__(self, status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
        """Take in the head of the response."""
        ...


App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger("cachekit")


class HttpCache:
    """A shared HTTP cache in front of a WSGI application.

    Args:
        app: the application.
        cache: where responses are kept.
        rules: header rules, the first that suits a response holds.
        options: see ``HttpOptions``.
    """

    def __init__(
        self, app: App, cache: CachePort, *, rules: Sequence[Rule] | Rules = (), options: HttpOptions | None = None
    ) -> None:
        self.app = app
        self._driver = Driver(cache, rules, options)

    @property
    def hits(self) -> int:
        """Return how many requests were answered from the cache."""
        return self._driver.hits

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        driver = self._driver
        try:
            exchange = driver.open(request_of(environ))
        except Exception:
            log.exception("the HTTP cache could not read a request; it passes by")
            return self.app(environ, start_response)
        answer: Serve | Passage | None = driver.at_once(exchange)
        if answer is None:
            answer = drive(driver.enter(BLOCKING, exchange))
        if isinstance(answer, Passage):
            return self._forward(environ, start_response, answer)
        if answer.refresh:
            self._refresh(environ, exchange)
        start_response(status_line(answer), list(answer.headers))
        return [answer.body] if answer.body else []

    def _forward(self, environ: Environ, start_response: StartResponse, passage: Passage) -> Iterable[bytes]:
        if passage.headers is not None:
            environ = _with_conditions(environ, passage.headers)
        response = _Response(self._driver, passage, start_response)
        return response.call(self.app, environ)

    def _refresh(self, environ: Environ, exchange: Exchange) -> None:
        passage = self._driver.refreshing(BLOCKING, exchange)
        if passage is None:
            return
        assert passage.headers is not None
        environ = _with_conditions(environ, passage.headers)
        environ.update({"REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO(b"")})
        for name in ("wsgi.file_wrapper", "CONTENT_LENGTH", "CONTENT_TYPE"):
            environ.pop(name, None)
        BLOCKING.spawn(self._revalidate(environ, passage))

    async def _revalidate(self, environ: Environ, passage: Passage) -> None:
        try:
            if await self._driver.take_off(BLOCKING, passage):
                body = _Response(self._driver, passage, _start_nothing).call(self.app, environ)
                try:
                    for _ in body:
                        pass
                finally:
                    close = getattr(body, "close", None)
                    if close is not None:
                        close()
        finally:
            await self._driver.leave(BLOCKING, passage)


class _Response:
    """The ``start_response`` that the application gets, and the iterable that the server gets.

    The head is held until the first of the body is there, as servers do, so that ``start_response`` may be called again
    with ``exc_info``. The application runs in a context of its own, where its tags are collected.
    """

    __slots__ = (
        "_close", "_collecting", "_context", "_driver", "_exc_info", "_file", "_head", "_instead", "_iterator",
        "_passage", "_sent", "_server", "_silent", "_write",
    )  # fmt: skip

    def __init__(self, driver: Driver, passage: Passage, server: StartResponse) -> None:
        self._driver = driver
        self._passage = passage
        self._server = server
        self._context = copy_context()
        self._collecting: collecting | None = collecting()
        self._head: tuple[str, HeaderList] | None = None
        self._exc_info: ExcInfo | None = None
        self._write: Write = _ignore
        self._iterator: Iterator[bytes] = iter(())
        self._close: Callable[[], object] | None = None
        self._file: object = None
        self._instead: list[bytes] | None = None  # what is sent in place of the application's body
        self._silent: HeaderList | None = None  # the head of a 304, until what it stands for is stored
        self._sent = False

    def call(self, app: App, environ: Environ) -> Iterable[bytes]:
        """Call *app* and return what the server is to send."""
        try:
            return self._call(app, environ)
        except BaseException:
            self._end()
            raise

    def _call(self, app: App, environ: Environ) -> Iterable[bytes]:
        assert self._collecting is not None
        self._passage.tags = self._context.run(self._collecting.__enter__)
        wrapper = environ.get("wsgi.file_wrapper")
        if wrapper is not None and not isinstance(wrapper, type):
            environ["wsgi.file_wrapper"] = lambda *args, **kwargs: self._note_file(wrapper(*args, **kwargs))
        try:
            body = self._context.run(app, environ, self.start_response)
        except Exception as exc:
            if not self._survives(exc):
                raise
            return self._instead or []
        finally:
            if wrapper is not None:
                environ["wsgi.file_wrapper"] = wrapper
        self._close = getattr(body, "close", None)
        if body is self._file or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            return self._pass_by(body)
        if self._head is not None and type(body) in (list, tuple):
            return self._at_once(body)
        self._iterator = iter(body)
        return self

    # What the application calls

    def start_response(self, status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
        """Take in the head; a later call, with *exc_info*, replaces it while nothing was sent."""
        if self._instead is not None:
            return _ignore
        if self._sent:
            self._passage.exchange.recording.spoil("replaced")
            self._write = self._server(status, headers, exc_info)
        elif self._head is not None and exc_info is None:
            raise AssertionError("start_response() was called a second time without exc_info")
        else:
            self._head, self._exc_info = (status, headers), exc_info
        return self.write

    def write(self, data: bytes) -> None:
        """Send *data* at once, as the old interface wants it."""
        self._decide()
        self._record(data)
        if self._instead is None:
            self._write(data)

    # What the server calls

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._instead is None or self._silent is not None:
            try:
                chunk = self._advance()
            except Exception as exc:
                if not self._survives(exc):
                    raise
                chunk = None
            if chunk is not None:
                return chunk
        if not self._instead:
            raise StopIteration
        return self._instead.pop()

    def close(self) -> None:
        """Close what the application returned, once."""
        try:
            close, self._close = self._close, None
            if close is not None:
                self._context.run(close)
        finally:
            self._end()

    # Parts of the above

    def _decide(self) -> None:
        """Send the head, or what is sent in its place."""
        if self._sent or self._head is None:
            return
        status, headers = self._head
        code = int(status[:3]) if status[:3].isdecimal() else 0
        if code < 100:
            self._passage.exchange.recording.spoil("malformed")
            self._start(status, headers)
            return
        answer = drive(self._driver.started(BLOCKING, self._passage, code, status[4:], headers))
        if isinstance(answer, Serve):
            self._replace(answer)
        elif answer.silent:
            self._sent = True
            self._instead, self._silent = [], list(answer.headers)
        else:
            self._start(status, list(answer.headers))

    def _start(self, status: str, headers: HeaderList) -> None:
        self._sent = True
        if self._exc_info is None:
            self._write = self._server(status, headers)
        else:
            self._write = self._server(status, headers, self._exc_info)

    def _replace(self, answer: Serve) -> None:
        self._sent = True
        self._instead = [answer.body] if answer.body else []
        self._server(status_line(answer), list(answer.headers))

    def _advance(self) -> bytes | None:
        """Return the next of the body, or None when there is no more to send of it."""
        while (chunk := self._context.run(next, self._iterator, None)) is not None:
            self._decide()
            if self._instead is not None and self._silent is None:
                return None
            self._record(chunk)
            if self._silent is None:
                return chunk
        self._finish()
        return None

    def _at_once(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Record a body that is all there, and let the server have it as it is."""
        self._decide()
        if self._instead is None or self._silent is not None:
            for chunk in body:
                self._record(chunk)
        self._finish()
        return body if self._instead is None else self._instead

    def _pass_by(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Let the server have what its file wrapper made."""
        self._passage.exchange.recording.spoil("extension")
        self._finish()
        if self._instead is None:
            return body
        self.close()
        return self._instead

    def _record(self, chunk: bytes) -> None:
        passage = self._passage
        if passage.open:
            if passage.feed(chunk) or not passage.exchange.recording.active:
                drive(self._driver.ended(BLOCKING, passage))
        elif passage.committed and chunk:
            drive(self._driver.overrun(BLOCKING, passage))

    def _finish(self) -> None:
        self._decide()
        if self._sent:
            drive(self._driver.ended(BLOCKING, self._passage))
        if self._silent is not None:
            self._server("304 Not Modified", self._silent)
            self._silent = None
        self._end()

    def _survives(self, error: Exception) -> bool:
        """Say whether a stale response is sent in place of *error*."""
        instead = None if self._sent else drive(self._driver.failed(BLOCKING, self._passage, error))
        self._end()
        if instead is None:
            return False
        log.warning("the application failed; a stale response is served", exc_info=error)
        self._replace(instead)
        return True

    def _note_file(self, made: object) -> object:
        self._file = made
        return made

    def _end(self) -> None:
        inside, self._collecting = self._collecting, None
        if inside is not None:
            self._context.run(inside.__exit__, None, None, None)
            drive(self._driver.leave(BLOCKING, self._passage))


def request_of(environ: Environ) -> Request:
    """Return the request that *environ* describes."""
    headers = [
        (name[5:].replace("_", "-").lower(), value) for name, value in environ.items() if name.startswith("HTTP_")
    ]
    for name, field in (("CONTENT_TYPE", "content-type"), ("CONTENT_LENGTH", "content-length")):
        if environ.get(name):
            headers.append((field, environ[name]))
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    target = quote(path, safe="/:@!$&'()*+,;=~") or "/"
    sent = (environ.get("RAW_URI") or environ.get("REQUEST_URI") or target).partition("?")[0]
    if sent != target and sent.startswith("/"):
        # The application may go by either; where they are not the same path, the key holds both.
        target = sent if unquote_to_bytes(sent) == path else f"{target}?{quote(sent)}"
    if query := environ.get("QUERY_STRING"):
        target = f"{target}?{query}"
    host = environ.get("HTTP_HOST") or f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
    decoded = path.decode("utf-8", "replace") or "/"
    return Request(environ["REQUEST_METHOD"].upper(), environ["wsgi.url_scheme"], host, decoded, target, headers)


def status_line(answer: Serve) -> str:
    """Return status code and reason phrase."""
    reason = answer.reason
    if not reason:
        try:
            reason = HTTPStatus(answer.status).phrase
        except ValueError:
            reason = "Unknown"
    return f"{answer.status} {reason}"


def _with_conditions(environ: Environ, headers: Headers) -> Environ:
    changed = dict(environ)
    for name, field in (("HTTP_IF_NONE_MATCH", "if-none-match"), ("HTTP_IF_MODIFIED_SINCE", "if-modified-since")):
        changed.pop(name, None)
        if (value := first(headers, field)) is not None:
            changed[name] = value
    return changed


def _ignore(data: bytes) -> None:
    del data


def _start_nothing(status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
    del status, headers, exc_info
    return _ignore
