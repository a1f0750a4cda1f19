"""The WSGI edge of the HTTP cache: a call and its iterable to and from an exchange.

Owns which way a request takes. Must not know how PEP 3333 lets an application answer (``wsgi_response.py``).
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from cachekit._io import BLOCKING, drive
from cachekit.arguments import check_app
from cachekit.http.decisions import Serve
from cachekit.http.driver import Driver
from cachekit.http.exchange import Exchange
from cachekit.http.following import Following
from cachekit.http.headers import HeaderList
from cachekit.http.options import HttpOptions
from cachekit.http.outside import private_wsgi
from cachekit.http.passage import Passage
from cachekit.http.port import CachePort
from cachekit.http.rules import Rule, Rules
from cachekit.http.warm import Trait, Warm
from cachekit.http.wsgi_past import Bypass
from cachekit.http.wsgi_request import Environ, Reader, request_of, values_of, with_conditions
from cachekit.http.wsgi_response import App, ExcInfo, Pieces, Response, StartResponse, Write, ignore, line
from cachekit.tags import Groups, collect, leave

log = logging.getLogger("cachekit")

_CREDENTIALS: Final = int(Trait.CREDENTIALS)
_ODD: Final = int(Trait.ODD)
_READS: Final = ("GET", "HEAD")


class HttpCache:
    """A shared HTTP cache in front of a WSGI application.

    Args:
        app: the application.
        cache: where responses are kept.
        rules: header rules, the first that suits a response holds.
        options: see ``HttpOptions``.

    Raises:
        ConfigError: *app* is no application.
    """

    def __init__(
        self, app: App, cache: CachePort, *, rules: Sequence[Rule] | Rules = (), options: HttpOptions | None = None
    ) -> None:
        check_app(app, "a WSGI application")
        self.app: App = private_wsgi(app)
        self._driver = driver = Driver(cache, rules, options)
        reader = Reader(driver.options)
        self._read = reader.read
        self._peek = cache.peek
        self._warm: Warm[Environ, tuple[str, str]] = Warm(cache, driver.options, _field, values_of)
        self._goes_past = driver.goes_past
        self._past = driver.past
        self._tally = driver.tally
        self._methods = driver.past.methods
        bypass = Bypass(driver, reader)
        self._of_method, self._of_miss = bypass.of_method, bypass.of_miss

    @property
    def hits(self) -> int:
        """Return how many requests were answered from the cache."""
        return self._tally.hits + self._driver.counters.stale

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method != "GET":
            try:
                unsafe = self._methods[method]
            except KeyError:
                unsafe = self._past.by_method(method)
            if unsafe is not None:
                return self.app(environ, self._of_method(environ, start_response, unsafe))
        passes = ""
        short = None
        try:
            key, traits = self._read(environ)
            if key is not None and not traits & _ODD and method in _READS:
                entry = self._peek(key)
                if entry is not None:
                    short = self._warm.answer(key, entry, traits, environ)
                else:
                    passes = self._goes_past(key, traits & _CREDENTIALS != 0) if method == "GET" else ""
        except Exception:  # noqa: BLE001 - the long way meets the same fault, and reports it
            passes = ""
        if short is not None:
            self._tally.hits += 1
            status, reason, fields, body = short
            start_response(line(status, reason), fields)
            return [body] if body and method != "HEAD" else []
        if not passes:
            return self._exchange(environ, start_response)
        used: Groups = set()
        start = self._of_miss(environ, start_response, used, passes)
        if not self._past.tells:
            return self.app(environ, start)
        token = collect(used)
        try:
            return self.app(environ, start)
        finally:
            leave(token)

    def _exchange(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        driver = self._driver
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
            start_response(line(answer.status, answer.reason), list(answer.headers))
            return Pieces(answer)
        if answer.refresh:
            self._refresh(environ, exchange)
        start_response(line(answer.status, answer.reason), list(answer.headers))
        return [answer.body] if answer.body else []

    def _forward(self, environ: Environ, start_response: StartResponse, passage: Passage) -> Iterable[bytes]:
        if passage.headers is not None:
            environ = with_conditions(environ, passage.headers)
        response = Response(self._driver, passage, start_response)
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
                body = Response(self._driver, passage, _start_nothing).call(self.app, environ)
                try:
                    for _ in body:
                        pass
                finally:
                    close = getattr(body, "close", None)
                    if close is not None:
                        close()
        finally:
            await self._driver.leave(BLOCKING, passage)


def _field(name: str, value: str) -> tuple[str, str]:
    return name, value


def _start_nothing(status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
    del status, headers, exc_info
    return ignore


__all__ = ["App", "ExcInfo", "HttpCache", "StartResponse", "Write"]
