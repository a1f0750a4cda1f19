"""The WSGI edge of the HTTP cache: a call and its iterable to and from an exchange.

Owns the grammar of PEP 3333: ``start_response`` and ``write``, iterables closed once, ``wsgi.file_wrapper`` left alone.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextvars import copy_context
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Final, Protocol, TypeAlias

from cachekit._io import BLOCKING, drive
from cachekit.http.driver import Driver, Passage
from cachekit.http.exchange import Exchange, Serve, invalidated
from cachekit.http.following import Following
from cachekit.http.headers import HeaderList
from cachekit.http.options import HttpOptions
from cachekit.http.parts import part_key
from cachekit.http.past import CACHE_CONTROL
from cachekit.http.port import CachePort
from cachekit.http.rules import Rule, Rules
from cachekit.http.warm import Trait, Warm
from cachekit.http.wsgi_request import Environ, Reader, request_of, values_of, with_conditions
from cachekit.tags import collecting

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
Write: TypeAlias = Callable[[bytes], object]


class StartResponse(Protocol):
    """What a server hands to an application."""

    def __call__(self, status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
        """Take in the head of the response."""
        ...


App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger("cachekit")

_CREDENTIALS: Final = int(Trait.CREDENTIALS)
_ODD: Final = int(Trait.ODD)
_REFERENCES: Final = ("location", "content-location")
_LENGTHS: Final = frozenset(map(len, _REFERENCES))


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
        self._driver = driver = Driver(cache, rules, options)
        self._reader = Reader(driver.options)
        self._peek = cache.peek
        self._warm: Warm[Environ, tuple[str, str]] = Warm(cache, driver.options, _field, values_of)

    @property
    def hits(self) -> int:
        """Return how many requests were answered from the cache."""
        return self._driver.hits

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        driver = self._driver
        if (unsafe := driver.past.by_method(environ["REQUEST_METHOD"])) is not None:
            return self.app(environ, self._beside(environ, start_response, unsafe))
        short = self._short(environ)
        if short is not None:
            if isinstance(short, str):
                if driver.past.tells:
                    with collecting() as tags:
                        return self.app(environ, self._past(environ, start_response, tags))
                return self.app(environ, self._past(environ, start_response, frozenset()))
            status, reason, fields, body = short
            driver.hits += 1
            start_response(_line(status, reason), fields)
            return [body] if body and environ["REQUEST_METHOD"] != "HEAD" else []
        try:
            exchange = driver.open(request_of(environ))
        except Exception:
            log.exception("the HTTP cache could not read a request; it passes by")
            return self.app(environ, start_response)
        answer: Serve | Passage | Following | None = driver.at_once(exchange)
        if answer is None:
            answer = drive(driver.enter(BLOCKING, exchange))
        if isinstance(answer, Passage):
            return self._forward(environ, start_response, answer)
        if isinstance(answer, Following):
            start_response(_line(answer.status, answer.reason), list(answer.headers))
            return _Pieces(answer)
        if answer.refresh:
            self._refresh(environ, exchange)
        start_response(status_line(answer), list(answer.headers))
        return [answer.body] if answer.body else []

    def _short(self, environ: Environ) -> tuple[int, str, HeaderList, bytes] | str | None:
        """Return the ready answer, or the key of a request that goes past the cache; None when an exchange is needed."""
        try:
            method = environ["REQUEST_METHOD"]
            key, traits = self._reader.read(environ)
            if key is None or traits & _ODD or method not in ("GET", "HEAD"):
                return None
            entry = self._peek(key)
            if entry is not None:
                return self._warm.answer(key, entry, traits, environ)
            return key if method == "GET" and self._driver.goes_past(key, traits & _CREDENTIALS != 0) else None
        except Exception:  # noqa: BLE001 - the long way meets the same fault, and reports it
            return None

    def _beside(self, environ: Environ, start_response: StartResponse, unsafe: bool) -> StartResponse:
        """Return the ``start_response`` of an application that is called with another method than GET and HEAD."""
        driver = self._driver
        told = driver.past.method

        def start(status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
            try:
                if unsafe and int(status[:3]) < 400:
                    keys = self._invalid(environ, headers)
                    if not driver.forget(keys):
                        drive(driver.drop(BLOCKING, keys))
                if told is not None:
                    headers = [*headers, ("Cache-Status", told)]
            except Exception:
                log.exception("the HTTP cache could not read a response; it passes by")
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        return start

    def _invalid(self, environ: Environ, headers: HeaderList) -> Sequence[str]:
        """Return the keys that a successful request makes invalid, answered with *headers*."""
        options = self._driver.options
        for name, _ in headers:
            if len(name) in _LENGTHS and name.lower() in _REFERENCES:
                break
        else:
            key, _ = self._reader.read(environ)
            if key is not None:
                return (key, part_key(key)) if options.store_parts else (key,)
        return invalidated(request_of(environ), headers, options)

    def _past(self, environ: Environ, start_response: StartResponse, tags: AbstractSet[str]) -> StartResponse:
        """Return the ``start_response`` of an application whose response goes past the cache, known to be uncacheable."""
        driver = self._driver

        def start(status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
            try:
                headers = self._head_past(driver, environ, status, headers, tags)
            except Exception:
                log.exception("the HTTP cache could not read a response; it passes by")
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        return start

    def _head_past(
        self, driver: Driver, environ: Environ, status: str, headers: HeaderList, tags: AbstractSet[str]
    ) -> HeaderList:
        past = driver.past
        control: list[str] = []
        seen = 0
        for name, value in headers:
            if meaning := past.field(name.lower()):
                seen |= meaning
                if meaning == CACHE_CONTROL:
                    control.append(value)
        expected = past.passes(control, seen)
        if not expected or (not control and tags):
            request, code = request_of(environ), int(status[:3])
            return list(drive(driver.went_past(BLOCKING, request, code, headers, tags, expected=expected)))
        return headers if past.miss is None else [*headers, ("Cache-Status", past.miss)]

    def _forward(self, environ: Environ, start_response: StartResponse, passage: Passage) -> Iterable[bytes]:
        if passage.headers is not None:
            environ = with_conditions(environ, passage.headers)
        response = _Response(self._driver, passage, start_response)
        return response.call(self.app, environ)

    def _refresh(self, environ: Environ, exchange: Exchange) -> None:
        passage = self._driver.refreshing(BLOCKING, exchange)
        if passage is None:
            return
        assert passage.headers is not None
        environ = with_conditions(environ, passage.headers)
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


class _Pieces:
    """The body of a response that another request is still making."""

    __slots__ = ("_following",)

    def __init__(self, following: Following) -> None:
        self._following = following

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = drive(self._following.next(BLOCKING))
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Stop following."""
        self._following.close()


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
        """Close what the application returned, once.

        A server that closes before the end has lost its client. Where others wait for the response, the rest of it is
        taken in for them first.
        """
        try:
            self._take_in_the_rest()
            close, self._close = self._close, None
            if close is not None:
                self._context.run(close)
        finally:
            self._end()

    # Parts of the above

    def _take_in_the_rest(self) -> None:
        passage = self._passage
        flight = passage.flight
        while self._sent and passage.open and flight is not None and flight.followers > 0:
            try:
                if self._advance() is None:
                    break
            except Exception:
                log.exception("the application failed after its client left")
                self._end()

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
            complete = passage.feed(chunk)
            if complete or not passage.exchange.recording.active:
                drive(self._driver.ended(BLOCKING, passage))
                if complete:
                    passage.over(True)
        elif passage.committed and chunk:
            drive(self._driver.overrun(BLOCKING, passage))
        elif passage.stream is not None:
            passage.stream.feed(chunk)

    def _finish(self) -> None:
        self._decide()
        if self._sent:
            drive(self._driver.ended(BLOCKING, self._passage))
            self._passage.over(True)
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


def status_line(answer: Serve) -> str:
    """Return status code and reason phrase."""
    return _line(answer.status, answer.reason)


@lru_cache(maxsize=256)
def _line(status: int, reason: str) -> str:
    if not reason:
        try:
            reason = HTTPStatus(status).phrase
        except ValueError:
            reason = "Unknown"
    return f"{status} {reason}"


def _field(name: str, value: str) -> tuple[str, str]:
    return name, value


def _ignore(data: bytes) -> None:
    del data


def _start_nothing(status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
    del status, headers, exc_info
    return _ignore
