"""A WSGI application in a thread of its own, whose caller waits no longer than it wants to.

The thread calls the application, iterates over what it returns and closes it, all by itself, since connections and locals
of frameworks belong to threads. Once it was given up it can neither send nor read any more: what it does, the server
never sees. Must not know what is answered instead.
"""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from cachekit.around import surrounded
from cachekit.degrade.gate import BAD, Gate
from cachekit.degrade.refusal import Refusal, Refused
from cachekit.errors import AppTimeout

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger("cachekit")

_AHEAD: Final = 8
"""Pieces of a body that the application may be ahead of its client."""
_LOOK: Final = 0.1
_END: Final = object()


class _GivenUp(Exception):
    """Raised in the application's thread: nobody wants its response any more."""


class Helper:
    """One call of an application, and the iterable that the server gets."""

    def __init__(self, gate: Gate, environ: Environ) -> None:
        self._gate = gate
        self._timeout = gate.route.span("timeout")
        self._pieces: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._lock = threading.Lock()
        self._gone = False
        self._given_up = False
        self._head: tuple[Any, ...] | None = None
        self._first: Any = None
        self._input = _Input(environ.get("wsgi.input"), self)

    @classmethod
    def call(cls, app: App, environ: Environ, start_response: StartResponse, gate: Gate) -> Iterable[bytes]:
        """Call *app* and return its response as soon as there is some of it. Raises ``Refused``."""
        made = cls(gate, environ)
        own = {**environ, "wsgi.input": made._input}
        own.pop("wsgi.file_wrapper", None)  # files are read here
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(made._work, app, own), name="cachekit-guard", daemon=True
        )  # fmt: skip
        thread.start()
        first = made._next(begun=False)
        if first is _END and made._head is None:
            raise Refused(Refusal(502, "the application gave no answer"))
        assert made._head is not None
        start_response(*made._head)
        made._first = first
        return made

    # What the application's thread does

    def _work(self, app: App, environ: Environ) -> None:
        ok: bool | None = False
        error: BaseException | None = None
        try:
            ok = surrounded(lambda: self._run(app, environ))  # its place is free when its connections are closed
        except _GivenUp:
            ok = None
        except BaseException as exc:
            error, ok = exc, False
            if self._gone:
                log.warning("an application failed after its request was given up", exc_info=exc)
        finally:
            self._gate.leave(None if self._given_up else ok)
        try:
            self._put(_END if error is None else error)
        except _GivenUp:
            pass

    def _run(self, app: App, environ: Environ) -> bool:
        """Call *app* and pass on what it answers. Returns whether that is no error."""
        body: Any = None
        try:
            body = app(environ, self._start)
            for piece in body:
                self._put(piece)
            return self._head is not None and int(self._head[0][:3]) not in BAD
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        if self._gone:
            raise _GivenUp
        if exc_info is None:
            if self._head is not None:
                raise AssertionError("start_response() was called a second time without exc_info")
            self._head = (status, headers)
        else:
            self._head = (status, headers, exc_info)
        return self._put

    def _put(self, piece: Any) -> None:
        while True:
            if self._gone:
                raise _GivenUp
            try:
                self._pieces.put(piece, timeout=_LOOK)
                return
            except queue.Full:
                continue  # the client reads slowly

    # What the server's thread does

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece, self._first = self._first, None
        if piece is None:
            piece = self._next(begun=True)
        if piece is _END:
            self._first = _END
            raise StopIteration
        found: bytes = piece
        return found

    def _next(self, *, begun: bool) -> Any:
        while True:
            try:
                piece = self._pieces.get(timeout=self._timeout)
                break
            except queue.Empty:
                with self._lock:
                    if self._input.reading:
                        continue  # it waits for the client
                    self._gone = self._given_up = True
                self._gate.record(False)
                refused = self._gate.timed_out()
                if not begun:
                    raise refused from None
                raise AppTimeout(
                    f"the application fell silent for {self._timeout:g} s in the middle of its response"
                ) from None
        if isinstance(piece, BaseException):
            self._gone = True
            raise piece
        return piece

    def close(self) -> None:
        """End: also when the client left, in which case the application is stopped at its next piece."""
        self._gone = True


class _Input:
    """``wsgi.input`` that can be taken away: a read after the end would take bytes of the connection's next request."""

    def __init__(self, inner: Any, helper: Helper) -> None:
        self._inner = inner
        self._helper = helper
        self.reading = False

    def _read(self, name: str, *args: Any) -> Any:
        with self._helper._lock:
            if self._helper._gone:
                raise OSError("the request was given up")
            self.reading = True
        try:
            return getattr(self._inner, name)(*args)
        finally:
            self.reading = False

    def read(self, *args: Any) -> Any:
        """Read from the request's body."""
        return self._read("read", *args)

    def readline(self, *args: Any) -> Any:
        """Read a line of the request's body."""
        return self._read("readline", *args)

    def readlines(self, *args: Any) -> Any:
        """Read the lines of the request's body."""
        return self._read("readlines", *args)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line
