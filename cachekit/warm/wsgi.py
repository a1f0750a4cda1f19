"""The warm-up in front of a WSGI application. Owns the moment when it runs; must not know what it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from cachekit._fork import renew_in_child
from cachekit.warm.port import Warming, in_thread
from cachekit.warm.refusal import BODY, REASON, STATUS, Refusal

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]


class WarmedWsgi:
    """An application that answers nothing before the warm-up has ended. ``Warmer.wsgi`` makes it."""

    def __init__(
        self,
        warmer: Warming,
        app: App,
        *,
        at_construction: bool = False,
        retry_after: int = 2,
        allow: Iterable[str] = (),
    ) -> None:
        self.app = app
        self._warmer = warmer
        self._refusal = Refusal(retry_after, allow)
        renew_in_child(self, WarmedWsgi._renew)
        self._renew()
        if at_construction:
            self._warm()

    def _renew(self) -> None:
        self._turn = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not self._warmer.ready and environ.get("PATH_INFO", "") not in self._refusal.allow:
            if not self._turn.acquire(blocking=False):
                return self._refuse(environ, start_response)
            try:
                self._warm()
            finally:
                self._turn.release()
        return self.app(environ, start_response)

    def _warm(self) -> None:
        if not self._warmer.ready:
            in_thread(self._warmer.run).result()  # this thread may have an event loop already

    def _refuse(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response(f"{STATUS} {REASON}", self._refusal.headers())
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [BODY]
