"""The WSGI edge of compression: PEP 3333 to the letter."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from cachekit.compress.wsgi import Compress
from tests.compress.conftest import TEXT

HEADERS = [("Content-Type", "text/plain")]


class Server:
    """What a server sees."""

    def __init__(self, app: Any) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.written: list[bytes] = []
        self.errors: list[Any] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_ACCEPT_ENCODING": "gzip"}
        self.result = Compress(app)(environ, self.start)

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None:
            self.errors.append(exc_info[1])
            if self.headers:
                raise exc_info[1]
        self.status, self.headers = status, headers
        return self.written.append

    def read(self) -> bytes:
        try:
            return b"".join(self.written) + b"".join(self.result)
        finally:
            if hasattr(self.result, "close"):
                self.result.close()


def test_write_still_works() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", HEADERS)
        write(TEXT)
        write(b"more")
        return [b"end"]

    server = Server(app)
    assert dict(server.headers)["Content-Encoding"] == "gzip"
    assert gzip.decompress(server.read()) == TEXT + b"more" + b"end"


def test_an_iterable_is_closed_once_and_only_once() -> None:
    closed: list[int] = []

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            yield TEXT
            yield TEXT

        def close(self) -> None:
            closed.append(1)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", HEADERS)
        return Pieces()

    server = Server(app)
    assert closed == []
    server.read()
    assert closed == [1]


def test_a_generator_may_give_its_head_late() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        yield b""
        start_response("200 OK", HEADERS)
        yield TEXT

    server = Server(app)
    assert server.status == ""
    assert gzip.decompress(server.read()) == TEXT
    assert server.status == "200 OK"


def test_a_generator_without_any_body() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", HEADERS)
        return iter(())

    server = Server(app)
    assert server.read() == b""
    assert dict(server.headers)["Vary"] == "Accept-Encoding"


def test_an_error_page_replaces_the_head_that_was_not_sent_yet() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", HEADERS)
        try:
            raise ValueError("broken")
        except ValueError:
            start_response("500 Oops", HEADERS, sys.exc_info())
        return [b"sorry"]

    server = Server(app)
    assert (server.read(), server.status, server.errors) == (b"sorry", "500 Oops", [])


def test_an_error_after_the_head_reaches_the_server() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", HEADERS)
        yield TEXT
        try:
            raise ValueError("broken")
        except ValueError:
            start_response("500 Oops", HEADERS, sys.exc_info())

    server = Server(app)
    with pytest.raises(ValueError, match="broken"):
        server.read()


def test_two_heads_are_refused() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", HEADERS)
        start_response("200 OK", HEADERS)
        return []

    with pytest.raises(AssertionError, match="second time"):
        Server(app)


def test_a_file_is_handed_on_as_it_is() -> None:
    wrapped = FileWrapper(io.BytesIO(b"\x89PNG" * 1000))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "image/png")])
        return wrapped

    assert Server(app).result is wrapped


def test_an_application_that_fails_is_closed() -> None:
    closed: list[int] = []

    class Pieces(list[bytes]):
        def close(self) -> None:
            closed.append(1)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", HEADERS)
        return Pieces([TEXT])

    def start(*_: Any) -> Any:
        raise OSError("gone")

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    with pytest.raises(OSError, match="gone"):
        Compress(app)(environ, start)  # type: ignore[arg-type]
    assert closed == [1]
