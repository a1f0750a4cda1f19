"""The WSGI edges: ``Degradation`` outside of everything, ``Guards`` next to the application.

Own the grammar of PEP 3333. Must not know what is cached, nor how a call is kept to its time: helper.py does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from cachekit._io import BLOCKING, drive
from cachekit.arguments import check_app
from cachekit.clock import Clock, system_clock
from cachekit.degrade.gate import BAD, THREADS, Counts, Gate, Gates, Route
from cachekit.degrade.health import StorePort
from cachekit.degrade.helper import Helper
from cachekit.degrade.options import DegradeCounts, DegradeOptions, Degrading
from cachekit.degrade.refusal import PROBLEM, Body, Refusal, Refused, check_body
from cachekit.events import Emit

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_NOTHING: Final = "the application gave no answer"


class Degradation:
    """Refuses protected paths while the store, or another part, is away, and tells how it is.

    Args:
        app: a WSGI application.
        cache: the cache whose store is watched; None watches only the sources.
        options: the settings; instead of them, those of ``DegradeOptions`` may be given by name.
        emit: receives events; those of *cache* when left out.
        **settings: see ``DegradeOptions``.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        app: App,
        *,
        cache: StorePort | None = None,
        options: DegradeOptions | None = None,
        emit: Emit | None = None,
        **settings: Any,
    ) -> None:
        check_app(app, "a WSGI application")
        self.app = app
        chosen = emit if emit is not None else getattr(cache, "events", _nowhere)
        self._degrading = Degrading(options or DegradeOptions(**settings), cache, chosen)

    @property
    def counts(self) -> DegradeCounts:
        """Return what happened so far."""
        return self._degrading.counts

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        degrading, path, method = self._degrading, path_of(environ), environ["REQUEST_METHOD"]
        if degrading.is_health(path) and method in ("GET", "HEAD"):
            status, headers, body = drive(degrading.tell(BLOCKING))
            return respond(start_response, status, headers, b"" if method == "HEAD" else body)
        if degrading.is_protected(path):
            refusal = drive(degrading.admit(BLOCKING, path))
            if refusal is None:
                return self.app(environ, start_response)
            headers, body = refusal.render(degrading.options.body, method)
            marked = degrading.mark(headers, degrading.health.glance().away or ("store",))
            return respond(start_response, refusal.status, marked, body)
        away = degrading.glance()
        return self.app(environ, self._marking(start_response, away) if away else start_response)

    def _marking(self, start_response: StartResponse, away: Sequence[str]) -> StartResponse:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, self._degrading.mark(headers, away), *exc_info)

        return start


class Guards:
    """Gives each route of an application a time-out, a bound on concurrency and a breaker. Stands inside the HTTP cache.

    What is refused is answered with 503, what is given up with 504, an application that returns without an answer with 502:
    the HTTP cache outside then serves what is stale, where that is allowed.

    A thread cannot be ended from outside. An application with a time-out therefore runs in a thread of its own; when it is
    given up, the client is answered, and the thread goes on until the application returns. Its place among the route's
    ``concurrency`` (64 when it names none) is free only then, so that their number is bounded.

    Args:
        app: a WSGI application.
        routes: what is granted; the first that is for a path holds. Other paths are let through as they are.
        body: ``"problem"`` for application/problem+json, or an object that is sent as application/json.
        clock: source of time for the breakers.
        emit: receives events.

    Raises:
        ConfigError: *app* is no application, or a route or the body cannot be used.
    """

    def __init__(
        self,
        app: App,
        routes: Sequence[Route],
        *,
        body: Body = PROBLEM,
        clock: Clock = system_clock,
        emit: Emit | None = None,
    ) -> None:
        check_app(app, "a WSGI application")
        self.app = app
        self._body = check_body(body)
        self._gates = Gates(routes, clock=clock, emit=emit or _nowhere, threads=THREADS)

    @property
    def counts(self) -> dict[str, Counts]:
        """Return what happened so far, by the path of the route."""
        return self._gates.counts

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        gate = self._gates.find(path_of(environ))
        if gate is None:
            return self.app(environ, start_response)
        try:
            drive(gate.enter(BLOCKING))
            if math.isinf(gate.route.span("timeout")):
                return _Counted.call(self.app, environ, start_response, gate)
            return Helper.call(self.app, environ, start_response, gate)
        except Refused as exc:
            headers, body = exc.refusal.render(self._body, environ["REQUEST_METHOD"])
            return respond(start_response, exc.refusal.status, headers, body)


class _Counted:
    """The iterable of an application that runs in the server's thread: its place is free when it is closed."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._status = 0
        self._inside = True
        self._body: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] = iter(())

    @classmethod
    def call(cls, app: App, environ: Environ, start_response: StartResponse, gate: Gate) -> Iterable[bytes]:
        made = cls(gate)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            made._status = int(status[:3]) if status[:3].isdecimal() else 500
            return start_response(status, headers, *exc_info)

        try:
            made._body = app(environ, start)
            made._iterator = iter(made._body)
            first = next(made._iterator, None)
        except BaseException:
            made._failed()
            raise
        if first is None:
            if not made._status:
                made.close()
                raise Refused(Refusal(502, _NOTHING))
            return made
        made._iterator = _chain(first, made._iterator)
        return made

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._iterator)
        except StopIteration:
            raise
        except BaseException:
            self._leave(False)
            raise

    def _failed(self) -> None:
        """End a call that the server never saw."""
        self._leave(False)
        self.close()

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._leave(self._status not in BAD and self._status > 0)

    def _leave(self, ok: bool) -> None:
        if self._inside:
            self._inside = False
            self._gate.leave(ok)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def path_of(environ: Environ) -> str:
    """Return the path that the client asked for, decoded."""
    raw = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return str(raw).encode("latin-1", "replace").decode("utf-8", "replace") or "/"


def respond(start_response: StartResponse, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> list[bytes]:
    """Answer at once."""
    start_response(f"{status} {Refusal(status, '').phrase}", list(headers))
    return [body] if body else []


def _nowhere(_: object) -> None:
    pass


__all__ = ["Degradation", "Guards"]
