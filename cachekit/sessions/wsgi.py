"""The WSGI edge of sessions: ``environ["cachekit.session"]``.

Owns the grammar of PEP 3333. The head of a response is held until the first of its body, as servers do, so that a session
that is changed in between still gets its cookie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from cachekit._io import BLOCKING, drive
from cachekit.arguments import check_app
from cachekit.http.outside import MADE
from cachekit.sessions.driver import Exchange
from cachekit.sessions.facade import Sessions, check

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

KEY: Final = "cachekit.session"


class SessionMiddleware:
    """Gives each request of *app* its session.

    Args:
        app: the application.
        sessions: where sessions are kept.

    Raises:
        ConfigError: *app* is no application, or *sessions* is something else.
    """

    def __init__(self, app: App, sessions: Sessions) -> None:
        check_app(app, "a WSGI application")
        self.app = app
        self.sessions = check(sessions)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        cookie = environ.get("HTTP_COOKIE")
        exchange = self.sessions.driver.open(
            (cookie,) if cookie else (),
            method=environ["REQUEST_METHOD"],
            agent=environ.get("HTTP_USER_AGENT", ""),
        )
        if cookie:
            exchange.foresee(environ.get("PATH_INFO", ""))
        environ = {**environ, KEY: exchange.session}
        return _Response(exchange, start_response).call(self.app, environ)


class _Response:
    """The ``start_response`` that the application gets, and the iterable that the server gets."""

    __slots__ = ("_bare", "_body", "_exchange", "_finished", "_head", "_iterator", "_made", "_start", "_write")

    def __init__(self, exchange: Exchange, start_response: StartResponse) -> None:
        self._exchange = exchange
        self._start = start_response
        self._head: tuple[str, list[tuple[str, str]], Any] | None = None
        self._write: Callable[[bytes], object] | None = None  # the server's, once the head is out
        self._body: Any = ()
        self._iterator: Iterator[bytes] = iter(())
        self._finished = False
        self._bare = False  # whether there is no body because nobody asked for one: its head is that of a stream
        self._made = False  # whether the application had done all it does before the head was released

    def call(self, app: App, environ: Environ) -> Iterable[bytes]:
        """Call *app*, and return what the server is to send."""
        try:
            body = app(environ, self.start_response)
        except BaseException:
            self._exchange.let_go()  # nothing is kept of a request that failed
            raise
        self._body = body
        wrapper = environ.get("wsgi.file_wrapper")
        if self._head is not None and (
            isinstance(body, (list, tuple)) or (isinstance(wrapper, type) and isinstance(body, wrapper))
        ):
            # Everything that the application does has been done: the server gets the body as it is.
            self._made = True
            try:
                self._release()
                self._finish()
            except BaseException:
                self._close_body()
                raise
            return body
        self._iterator = iter(body)
        self._made = self._head is not None and type(self._iterator) in MADE
        self._bare = not self._made and environ["REQUEST_METHOD"] == "HEAD"
        return self

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Take in the head of the response."""
        if self._write is not None:  # too late: the server raises what there is to raise
            return self._start(status, headers, exc_info)
        self._head = (status, headers, exc_info)
        return self._written

    def _written(self, data: bytes) -> object:
        self._release(streamed=True)
        assert self._write is not None
        return self._write(data)

    def _release(self, *, streamed: bool = False) -> None:
        head, self._head = self._head, None
        if head is None:
            return
        status, headers, exc_info = head
        try:
            number = int(status[:3])
        except ValueError:
            number = 200
        if streamed:
            self._exchange.streams(number, headers)
        fields = drive(self._exchange.head(BLOCKING, number, headers))
        self._write = self._start(status, fields) if exc_info is None else self._start(status, fields, exc_info)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            data = next(self._iterator)
        except StopIteration:
            self._release(streamed=self._bare)
            self._finish()
            raise
        if data and self._head is not None:
            whole = _says_length(self._head[1], len(data))
            self._release(streamed=not self._made)
            if whole:
                self._exchange.whole()
        return data

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            if self._made:
                self._exchange.body_sent()  # all of its changes were kept with the head
            elif self._write is not None:  # else the client was told nothing, and nothing is kept
                drive(self._exchange.finish(BLOCKING))
            self._exchange.let_go()

    def _close_body(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()

    def close(self) -> None:
        """End the response: also when its client has left in the middle of it."""
        try:
            self._close_body()
        finally:
            self._finish()


def _says_length(headers: list[tuple[str, str]], size: int) -> bool:
    """Say whether the body has *size* bytes, as far as the application has said how many."""
    said = [value for name, value in headers if name.lower() == "content-length"]
    return said == [str(size)]
