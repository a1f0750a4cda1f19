"""Requests of ASGI: what a scope describes, and the short way to its key.

Pure. Must not know what is stored.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from cachekit.http.credentials import SOMEBODY, USER, certificate_of, knows
from cachekit.http.message import Request
from cachekit.http.options import HttpOptions
from cachekit.http.warm import Recent, Trait, traits_of

Scope: TypeAlias = MutableMapping[str, Any]

_HOST: Final = int(Trait.HOST)
_KEYED: Final = int(Trait.KEYED)
_ODD: Final = int(Trait.ODD)
_NAMES: Final = 1024
_SCHEMES: Final = 8
_LONGEST: Final = 512
_SHORT: Final = 90
_IN_PATH: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._~-"
_IN_QUERY: Final = _IN_PATH + b"=&%"
_SLASH: Final = ord("/")
_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9/._~-]*\Z", re.ASCII)
_PLAIN_QUERY: Final = re.compile(rb"[A-Za-z0-9/._~=&%-]*\Z")


def request_of(scope: Scope) -> Request:
    """Return the request that *scope* describes."""
    headers = [(_field(name), str(value, "latin-1")) for name, value in scope["headers"]]
    if certificate := certificate_of(scope):
        headers.append(("client-cert", certificate))
    if knows(scope, scope.get(USER)):
        headers.append((SOMEBODY, "?"))
    hosts = [value for name, value in headers if name == "host"]
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    target = quote(path, safe="/:@!$&'()*+,;=~")
    if raw is not None and (sent := raw.decode("latin-1")) != target:
        # The application may go by either; where they are not the same path, the key holds both.
        target = sent if unquote(sent) == path else f"{target}?{quote(sent)}"
    query: bytes = scope.get("query_string", b"")
    if query:
        target = f"{target}?{query.decode('latin-1')}"
    host = hosts[0] if len(hosts) == 1 else ""
    asked = query.decode("latin-1")
    return Request(scope["method"].upper(), scope.get("scheme", "http"), host, path, target, headers, asked)


def values_of(scope: Scope, name: str) -> tuple[str, ...]:
    """Return what the request of *scope* says in the field *name* (lower case), line by line."""
    wanted = name.encode("latin-1")
    return tuple([value.decode("latin-1") for field, value in scope["headers"] if field.lower() == wanted])


class Reader:
    """Reads keys and traits of requests, and remembers those of the latest."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._traits: dict[bytes, int] = {}
        self._certified = traits_of("client-cert", options)
        self._known = traits_of(SOMEBODY, options)
        self._keys: Recent[tuple[Any, ...], str] = Recent()
        self._prefixes: dict[Any, dict[bytes | None, str]] = {}  # by scheme and host
        self._simple = options.keying.by_url
        self._as_is = options.keying.as_is

    def read(self, scope: Scope) -> tuple[str | None, int]:
        """Return the key of the URL, None when it has none that is quickly made, and the traits of the request."""
        known = self._traits
        host = None
        traits = 0
        keyed: tuple[Any, ...] = ()
        headers = scope["headers"]
        try:
            for name, value in headers:
                if trait := known[name]:
                    traits |= trait
                    if trait & _HOST:
                        host = value if host is None else b""
                    if trait & _KEYED:
                        keyed = (*keyed, name, value)
        except KeyError:
            return self.read(scope) if self._learn(headers) else (None, 0)
        if "extensions" in scope and certificate_of(scope):
            traits |= self._certified
        if USER in scope and knows(scope, scope[USER]):  # by whoever stands before
            traits |= self._known
        if not self._simple:
            return None, traits
        get = scope.get
        prefixes = self._prefixes.get(get("scheme"))
        if prefixes is not None and not keyed and (prefix := prefixes.get(host)) is not None:
            # The short way to what _plain says; anything else goes by it.
            path, raw, query = scope["path"], get("raw_path"), get("query_string")
            if (
                raw
                and len(raw) <= _SHORT
                and raw[0] == _SLASH
                and not raw.translate(None, _IN_PATH)
                and raw.decode() == path
            ):
                if not query:
                    return prefix + path, traits
                if len(raw) + len(query) <= _SHORT and not query.translate(None, _IN_QUERY):
                    return f"{prefix}{path}?{query.decode()}", traits
        sign = (get("scheme"), host, scope["path"], get("raw_path"), get("query_string"), keyed)
        key = self._keys.young.get(sign) or self._keys.get(sign) or self._plain(sign)
        if key is None:
            key = self._options.keying.key(request_of(scope))
            if key is not None and sum(len(part) for part in (*sign[1:5], *keyed) if part) < _LONGEST:
                self._keys.put(sign, key)
        return key, traits

    def _plain(self, sign: tuple[Any, ...]) -> str | None:
        """Return the key of a URL of letters and digits, which needs no care; None for any other."""
        scheme, host, path, raw, query, keyed = sign
        if (
            not host
            or keyed
            or not self._as_is
            or len(path) + len(query or b"") > _SHORT
            or not _PLAIN_PATH.match(path)
        ):
            return None
        if (raw is not None and raw != path.encode()) or (query and not _PLAIN_QUERY.match(query)):
            return None
        if (prefix := self._prefixes.get(scheme, {}).get(host)) is None:
            origin = self._options.keying.key(Request("GET", scheme, host.decode("latin-1"), "/", "/", ()))
            if origin is None or len(origin) > _SHORT:
                return None
            prefix = origin[:-1]
            known = self._prefixes.setdefault(scheme, {}) if len(self._prefixes) < _SCHEMES else {}
            if len(known) < _NAMES:
                known[host] = prefix
        return f"{prefix}{path}?{query.decode()}" if query else prefix + path

    def _learn(self, headers: Any) -> bool:
        """Learn what the names of *headers* mean; False when there are too many of them."""
        if len(headers) > _NAMES // 2:
            return False
        if len(self._traits) > _NAMES // 2:
            self._traits = {}
        for name, _ in headers:
            # The short ways find what Vary names by its dashes: another spelling takes the long one.
            self._traits[bytes(name)] = traits_of(_field(name), self._options) | (_ODD if b"_" in name else 0)
        return True


def _field(name: bytes) -> str:
    """Return the field that *name* may mean to the application: WSGI and CGI know no difference between ``_`` and ``-``."""
    return str(name, "latin-1").lower().replace("_", "-")
