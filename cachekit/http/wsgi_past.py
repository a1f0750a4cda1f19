"""What goes past the cache under WSGI: requests of other methods, and what is known to be uncacheable.

Owns the ``start_response`` that such an application gets, as short as it can be. Must not know what is stored; ``past.py``
says when a response may pass.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from cachekit._io import BLOCKING, drive
from cachekit.http.driver import Driver
from cachekit.http.headers import HeaderList
from cachekit.http.invalidation import invalidated
from cachekit.http.parts import part_key
from cachekit.http.past import CACHE_CONTROL
from cachekit.http.warm import Trait
from cachekit.http.wsgi_request import Environ, Reader, request_of
from cachekit.http.wsgi_response import ExcInfo, StartResponse, Write
from cachekit.tags import Groups, Tags, names_any

log = logging.getLogger("cachekit")

_NAMES: Final = 1024
_UNKNOWN: Final = -1
_KEYED: Final = int(Trait.KEYED)
_REFERENCES: Final = ("location", "content-location")
_LENGTHS: Final = frozenset(map(len, _REFERENCES))


class Bypass:
    """Makes the ``start_response`` of applications that are called past the cache.

    Args:
        driver: the cache.
        reader: reads keys.
    """

    __slots__ = ("_driver", "_dropping", "_meanings", "_method", "_misses", "_passes", "_reader")

    def __init__(self, driver: Driver, reader: Reader) -> None:
        self._driver = driver
        self._dropping = driver.dropping
        self._reader = reader
        past = driver.past
        self._method = None if past.method is None else ("Cache-Status", past.method)
        self._misses = {why: ("Cache-Status", told) for why, told in past.misses.items()}
        self._passes = past.passes
        self._meanings: dict[str, int] = {}

    def of_method(self, environ: Environ, start_response: StartResponse, unsafe: bool) -> StartResponse:
        """Return the ``start_response`` of an application that is called with another method than GET and HEAD."""
        # Some applications rewrite these in place.
        script, path, query = environ.get("SCRIPT_NAME"), environ.get("PATH_INFO"), environ.get("QUERY_STRING")
        told = self._method

        def start(status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
            try:
                if unsafe and status < "4":
                    for name, _ in headers:
                        if len(name) in _LENGTHS and name.lower() in _REFERENCES:
                            keys = self._named(_as_asked(environ, script, path, query), headers)
                            break
                    else:
                        whole = ((script + path if path else script) if script else path) or "/"
                        if whole.isascii() and self._dropping.untrodden(whole):
                            keys = ()
                        else:
                            keys = self._own(_as_asked(environ, script, path, query))
                    if keys and not self._dropping.forget(keys):
                        drive(self._dropping.drop(BLOCKING, keys))
                if told is not None:
                    headers = [*headers, told]
            except Exception:
                log.exception("the HTTP cache could not read a response; it passes by")
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        return start

    def of_miss(self, environ: Environ, start_response: StartResponse, used: Groups, why: str) -> StartResponse:
        """Return the ``start_response`` of an application whose response is known to be uncacheable, and *used* this.

        *why* is what ``Driver.goes_past`` said.
        """
        get = environ.get
        script, path, query = get("SCRIPT_NAME"), get("PATH_INFO"), get("QUERY_STRING")
        meanings = self._meanings

        def start(status: str, headers: HeaderList, exc_info: ExcInfo | None = None, /) -> Write:
            try:
                control: Sequence[str] = ()
                seen = 0
                for name, value in headers:
                    if meaning := meanings.get(name, _UNKNOWN):
                        if meaning < 0 and not (meaning := self._learn(name)):
                            continue
                        seen |= meaning
                        if meaning == CACHE_CONTROL:
                            control = (*control, value)
                expected = self._passes(control, seen)
                if not expected or (used and not control and names_any(used)):
                    request, code = request_of(_as_asked(environ, script, path, query)), int(status[:3])
                    gone = self._driver.went_past(BLOCKING, request, code, headers, why, Tags(used), expected=expected)
                    headers = list(drive(gone))
                elif (told := self._misses.get(why)) is not None:
                    headers = [*headers, told]
            except Exception:
                log.exception("the HTTP cache could not read a response; it passes by")
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        return start

    # Parts of the above

    def _own(self, environ: Environ) -> Sequence[str]:
        """Return the keys of the URL of a request."""
        key, traits = self._reader.read(environ)
        if key is None or traits & _KEYED:
            return self._named(environ, [])
        return (key, part_key(key)) if self._driver.options.store_parts else (key,)

    def _named(self, environ: Environ, headers: HeaderList) -> Sequence[str]:
        """Return the same, and those that the response with *headers* names."""
        return invalidated(request_of(environ), headers, self._driver.options)

    def _learn(self, name: str) -> int:
        meaning = self._driver.past.field(name.lower())
        if len(self._meanings) < _NAMES:
            self._meanings[name] = meaning
        return meaning


def _as_asked(environ: Environ, script: str | None, path: str | None, query: str | None) -> Environ:
    get = environ.get
    if get("PATH_INFO") is path and get("SCRIPT_NAME") is script and get("QUERY_STRING") is query:
        return environ
    then = {"SCRIPT_NAME": script, "PATH_INFO": path, "QUERY_STRING": query}
    return {**environ, **{name: value or "" for name, value in then.items()}}


__all__ = ["Bypass"]
