"""The response of a WSGI application while it is made: recorded, and handed on as it comes.

Owns the grammar of PEP 3333: ``start_response`` and ``write``, iterables closed once, ``wsgi.file_wrapper`` left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Protocol, TypeAlias

from cachekit._io import BLOCKING, drive
from cachekit.http.credentials import knows
from cachekit.http.decisions import Serve
from cachekit.http.driver import Driver
from cachekit.http.following import Following
from cachekit.http.headers import HeaderList
from cachekit.http.passage import Passage
from cachekit.http.wsgi_request import Environ
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


class Pieces:
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


class Response:
    """The ``start_response`` that the application gets, and the iterable that the server gets.

    The head is held until the first of the body is there, as servers do, so that ``start_response`` may be called again
    with ``exc_info``. The application runs in a context of its own, where its tags are collected.
    """

    __slots__ = (
        "_close", "_collecting", "_context", "_driver", "_environ", "_exc_info", "_file", "_head", "_instead", "_iterator",
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
        self._write: Write = ignore
        self._iterator: Iterator[bytes] = iter(())
        self._close: Callable[[], object] | None = None
        self._file: object = None
        self._instead: list[bytes] | None = None  # what is sent in place of the application's body
        self._silent: HeaderList | None = None  # the head of a 304, until what it stands for is stored
        self._sent = False
        self._environ: Environ = {}

    def call(self, app: App, environ: Environ) -> Iterable[bytes]:
        """Call *app* and return what the server is to send."""
        try:
            return self._call(app, environ)
        except BaseException:
            self._end()
            raise

    def _call(self, app: App, environ: Environ) -> Iterable[bytes]:
        assert self._collecting is not None
        self._environ = environ
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
            return ignore
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
        if knows(self._environ):
            self._passage.exchange.recording.recognise()
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
        self._server(line(answer.status, answer.reason), list(answer.headers))

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


@lru_cache(maxsize=256)
def line(status: int, reason: str) -> str:
    """Return status code and reason phrase, the usual one where *reason* is empty."""
    if not reason:
        try:
            reason = HTTPStatus(status).phrase
        except ValueError:
            reason = "Unknown"
    return f"{status} {reason}"


def ignore(data: bytes) -> None:
    """Stand for the ``write`` of what is not sent."""
    del data


__all__ = ["App", "ExcInfo", "Pieces", "Response", "StartResponse", "Write", "ignore", "line"]
