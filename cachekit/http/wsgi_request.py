"""Requests of WSGI: what an environ describes, and the short way to its key.

Pure. Must not know what is stored.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from cachekit.http.credentials import BY_SERVER, KNOWN, SOMEBODY
from cachekit.http.exchange import NEVER_PLAIN
from cachekit.http.headers import Headers, first
from cachekit.http.message import Request
from cachekit.http.options import HttpOptions
from cachekit.http.warm import Recent, Trait, traits_of

Environ: TypeAlias = dict[str, Any]

_KEYED: Final = int(Trait.KEYED)
_ODD: Final = int(Trait.ODD)
_LONGEST: Final = 512
_SITES: Final = 8
_NOTHING: Final[dict[str | None, Any]] = {}


def request_of(environ: Environ) -> Request:
    """Return the request that *environ* describes."""
    headers = [
        (name[5:].replace("_", "-").lower(), value) for name, value in environ.items() if name.startswith("HTTP_")
    ]
    for name, field in (("CONTENT_TYPE", "content-type"), ("CONTENT_LENGTH", "content-length")):
        if environ.get(name):
            headers.append((field, environ[name]))
    for name, field in BY_SERVER.items():
        if environ.get(name):
            headers.append((field, environ[name]))
    if environ.get(KNOWN):
        headers.append((SOMEBODY, "?"))
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    target = quote(path, safe="/:@!$&'()*+,;=~") or "/"
    sent = (environ.get("RAW_URI") or environ.get("REQUEST_URI") or target).partition("?")[0]
    if sent != target and sent.startswith("/"):
        # The application may go by either; where they are not the same path, the key holds both.
        target = sent if unquote_to_bytes(sent) == path else f"{target}?{quote(sent)}"
    if query := environ.get("QUERY_STRING", ""):
        target = f"{target}?{query}"
    host = environ.get("HTTP_HOST") or f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
    decoded = path.decode("utf-8", "replace") or "/"
    method = environ["REQUEST_METHOD"].upper()
    return Request(method, environ["wsgi.url_scheme"], host, decoded, target, headers, query)


def values_of(environ: Environ, name: str) -> tuple[str, ...]:
    """Return what the request of *environ* says in the field *name* (lower case)."""
    if name in ("content-type", "content-length"):
        found = environ.get(_variable(name)[5:])
        return (found,) if found else ()
    found = environ.get(_variable(name))
    return () if found is None else (found,)


def with_conditions(environ: Environ, headers: Headers) -> Environ:
    """Return *environ* with the conditions of *headers* in place of its own conditions and ranges."""
    changed = {name: value for name, value in environ.items() if name not in _ASKS_FOR_LESS}
    for name, field in _ASKING.items():
        if (value := first(headers, field)) is not None:
            changed[name] = value
    return changed


_ASKING: Final = {
    "HTTP_IF_NONE_MATCH": "if-none-match", "HTTP_IF_MODIFIED_SINCE": "if-modified-since", "HTTP_RANGE": "range",
    "HTTP_IF_RANGE": "if-range",
}  # fmt: skip
_ASKS_FOR_LESS: Final = frozenset(_ASKING)


class Reader:
    """Reads keys and traits of requests, and remembers those of the latest."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        names = {*NEVER_PLAIN, "transfer-encoding", "content-length", "cache-control", "pragma", "forwarded"}
        names |= {*options.credentials, *options.keying.headers} - {"host", "content-type"}
        traits = {_variable(name): traits_of(name, options) for name in names}
        traits.update({name: traits_of(field, options) for name, field in BY_SERVER.items()})
        self._traits = {name: trait for name, trait in traits.items() if trait}
        self._special = frozenset(self._traits)
        self._keys: Recent[tuple[Any, ...], str] = Recent()
        self._sites: dict[str, dict[str | None, Recent[str | None, str]]] = {}  # by scheme and host
        self._simple = options.keying.by_url and not {"host", "content-type"} & {*options.keying.headers}

    def read(self, environ: Environ) -> tuple[str | None, int]:
        """Return the key of the URL, None when it has none that is quickly made, and the traits of the request."""
        get = environ.get
        traits = _ODD if get("CONTENT_LENGTH") else 0
        keyed: tuple[Any, ...] = ()
        if not self._special.isdisjoint(environ):
            known = self._traits
            for name in sorted(self._special.intersection(environ)):
                trait = known[name]
                if name in BY_SERVER and not environ[name]:  # as some servers say that nobody is
                    continue
                traits |= trait
                if trait & _KEYED:
                    keyed = (*keyed, name, environ[name])
        if not self._simple:
            return None, traits
        plain = False
        if not keyed and not get("SCRIPT_NAME") and not get("QUERY_STRING"):
            path = get("PATH_INFO")
            if plain := (get("REQUEST_URI") or get("RAW_URI") or path) == path:
                # The path as it is: of the latest of them the keys are at hand.
                site = self._sites.get(environ["wsgi.url_scheme"], _NOTHING).get(get("HTTP_HOST"))
                if site is not None and (known := site.young.get(path) or site.get(path)) is not None:
                    return known, traits
        sign = (
            environ["wsgi.url_scheme"], get("HTTP_HOST"), get("PATH_INFO"), get("SCRIPT_NAME"), get("QUERY_STRING"),
            get("REQUEST_URI"), get("RAW_URI"), get("SERVER_NAME"), get("SERVER_PORT"), keyed,
        )  # fmt: skip
        key = self._keys.young.get(sign) or self._keys.get(sign)
        if key is None:
            key = self._options.keying.key(request_of(environ))
            if key is not None and sum(len(part) for part in (*sign[:9], *keyed) if part) < _LONGEST:
                self._keys.put(sign, key)
        if plain and key is not None:
            self._learn(environ["wsgi.url_scheme"], get("HTTP_HOST"), get("PATH_INFO"), key)
        return key, traits

    def _learn(self, scheme: str, host: str | None, path: str | None, key: str) -> None:
        """Remember the *key* of *path* on a site."""
        if not host or not path or len(host) > _LONGEST or len(path) >= _LONGEST:
            return
        hosts = self._sites.setdefault(scheme, {}) if len(self._sites) < _SITES else self._sites.get(scheme, {})
        if (found := hosts.get(host)) is None:
            if len(hosts) >= _SITES:
                return
            found = hosts[host] = Recent()
        found.put(path, key)


def _variable(name: str) -> str:
    return f"HTTP_{name.upper().replace('-', '_')}"
