"""The values of an exchange: the request, the stored response and how it is packed.

Pure. Must not know when a response may be stored or served.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit

from cachekit.errors import ConfigError
from cachekit.http.headers import Headers, values
from cachekit.http.selecting import nominated
from cachekit.keys import bounded

_HOST: Final = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?\Z")
_TARGET: Final = re.compile(r"[\x21\x22\x24-\x7e]+\Z")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_HEAD: Final = 120
_FORWARDED: Final = re.compile(r'(?:^|[;,\s])(host|proto)=("[^"]*"|[^;,\s]*)')


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the application will see it.

    Attributes:
        method: upper case.
        scheme: ``http`` or ``https``.
        host: the Host field as sent, or empty when there is not exactly one.
        path: percent-decoded, for rules.
        target: path and query as sent, which is what the key is made of.
        headers: fields with lower-case names.
        query: the query as sent, for rules.
    """

    method: str
    scheme: str
    host: str
    path: str
    target: str
    headers: Headers
    query: str = ""

    def origin(self) -> str | None:
        """Return scheme and authority in normal form, or None when the host is not one."""
        host = self.host.lower()
        if not _HOST.match(host):
            return None
        scheme = self.scheme.lower()
        return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ' '))}"


def key_of(request: Request, keyed: Sequence[str] = (), target: str | None = None) -> str | None:
    """Return the key of the responses to *request*, or to the same with another *target*; None when it has none.

    A ``#`` in a target is refused: it belongs to shortened keys.
    """
    target = request.target if target is None else target
    if (origin := request.origin()) is None or not _TARGET.match(target):
        return None
    key = f"http:{origin}{target}"
    for name, value in request.headers:
        if name in keyed and value.lower() != _own(request, name):
            key += f" {name}={quote(value)}"
        elif name == "forwarded" and (found := _FORWARDED.findall(value.lower())):
            key += f" {name}={quote(repr(found))}"
    return bounded(key)


def url_of(key: str) -> str | None:
    """Return the URL that *key* is for, or None when the key was shortened, or is none of a URL."""
    url = key.partition(" ")[0]
    return url.removeprefix("http:") if url.startswith("http:") and "#" not in url else None


def _own(request: Request, name: str) -> str | None:
    if name in ("x-forwarded-host", "x-host"):
        return request.host.lower()
    if name in ("x-forwarded-proto", "x-forwarded-scheme"):
        return request.scheme
    return None


def variant_key(key: str, generation: str, request: Headers, names: Sequence[str]) -> str:
    """Return the key of the variant for *request* of the responses at *key* that vary by *names*.

    *generation* names the response now at *key*: once that is dropped, the variants under it are out of reach.
    """
    chosen = "".join(f"\n{name}{nominated(request, name)}" for name in names)
    digest = hashlib.blake2b(
        f"{key}\n{generation}{chosen}".encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()
    return f"{key[:_HEAD]} ~{digest}"


def same_origin(request: Request, reference: str) -> str | None:
    """Return the target that *reference* (Location, Content-Location) names, or None when it is of another origin."""
    try:
        base = f"{request.scheme}://{request.host}{request.target}"
        found = urlsplit(urljoin(base, reference))
        host = found.netloc
    except ValueError:
        return None
    other = Request(request.method, found.scheme, host, "", "", ())
    if other.origin() is None or other.origin() != request.origin():
        return None
    return f"{found.path or '/'}{'?' + found.query if found.query else ''}"


class Mark(IntFlag):
    """What holds for a stored response."""

    NO_CACHE = 1
    """Ask before each use."""
    FORBIDS_STALE = 2
    """Never serve it stale."""
    SHARED = 4
    """It is for everyone, whatever credentials they send."""
    AUTHORIZED = 8
    """It may answer requests with Authorization."""
    OWN_ETAG = 16
    """Its ETag is ours; the application does not know it."""


FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it is kept.

    Attributes:
        status: status code.
        reason: reason phrase, or empty.
        headers: end-to-end fields, Age left out.
        body: the whole content.
        made_at: when it was received.
        age: its age by then.
        lifetime: seconds of freshness, counted from its origin.
        swr: seconds of staleness in which it is served while it is revalidated.
        sie: seconds of staleness in which it is served when the application fails.
        marks: see ``Mark``.
        vary: names and values of the request fields that selected it.
        generation: what the keys of its other variants are made with.
        added: fields that the cache and its rules add to *headers* when it is served.
    """

    status: int
    reason: str
    headers: Headers
    body: bytes
    made_at: float
    age: float
    lifetime: float
    swr: float = 0.0
    sie: float = 0.0
    marks: int = 0
    vary: tuple[tuple[str, str], ...] = ()
    generation: str = ""
    added: Headers = ()

    def age_at(self, now: float) -> float:
        """Return the current age (RFC 9111 section 4.2.3)."""
        return self.age + max(0.0, now - self.made_at)

    def selected_by(self, request: Headers) -> bool:
        """Say whether *request* selects it (RFC 9111 section 4.1)."""
        return all(nominated(request, name) == value for name, value in self.vary)

    def pack(self) -> tuple[Any, ...]:
        """Return it as plain values."""
        return (
            FORMAT, self.status, self.reason, _shared(tuple(map(_pair, self.headers))), self.body, self.made_at, self.age,
            self.lifetime, self.swr, self.sie, int(self.marks), self.vary, self.generation, tuple(map(_pair, self.added)),
        )  # fmt: skip

    @classmethod
    def unpack(cls, packed: object) -> StoredResponse | None:
        """Return what ``pack`` made, or None when it is of another format or was not made by it."""
        if not isinstance(packed, (tuple, list)) or len(packed) != 14 or packed[0] != FORMAT:
            return None
        _, status, reason, headers, body, made_at, age, lifetime, swr, sie, marks, vary, generation, added = packed
        numbers = (made_at, age, lifetime, swr, sie)
        if type(status) is not int or type(reason) is not str or type(marks) is not int or type(generation) is not str:
            return None
        if type(body) is not bytes or not all(type(number) in (int, float) for number in numbers):
            return None
        fields, selecting, ours = _pairs(headers), _pairs(vary), _pairs(added)
        if fields is None or selecting is None or ours is None:
            return None
        return cls(status, reason, fields, body, made_at, age, lifetime, swr, sie, marks, selecting, generation, ours)


@lru_cache(maxsize=4096)
def _pair(pair: tuple[str, str]) -> tuple[str, str]:
    """Return the one object for equal pairs: most responses have most of their fields in common."""
    return sys.intern(pair[0]), pair[1]


@lru_cache(maxsize=1024)
def _shared(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return pairs


def _pairs(found: object) -> tuple[tuple[str, str], ...] | None:
    if not isinstance(found, (tuple, list)):
        return None
    for pair in found:
        if (
            not isinstance(pair, (tuple, list))
            or len(pair) != 2
            or type(pair[0]) is not str
            or type(pair[1]) is not str
        ):
            return None
    if type(found) is tuple and (not found or type(found[0]) is tuple):
        return found
    return tuple((name, value) for name, value in found)


def content_length(headers: Headers) -> int | None:
    """Return the length that Content-Length states, None when there is none, -1 when it makes no sense."""
    stated = {part.strip(" \t") for value in values(headers, "content-length") for part in value.split(",")}
    if not stated:
        return None
    text = stated.pop()
    return int(text) if not stated and text.isascii() and text.isdigit() and len(text) < 19 else -1


def check_origin(to: str) -> str:
    """Return the origin *to* in plain form. Raises ``ConfigError`` when it is none."""
    try:
        parts = urlsplit(to)
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"to={to!r} must be an origin such as http://127.0.0.1:3000: {exc}") from exc
    if port == 0:
        raise ConfigError(f"to={to!r} must be an origin such as http://127.0.0.1:3000: there is no port 0")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.path not in ("", "/")
        or "@" in parts.netloc
    ):
        raise ConfigError(f"to={to!r} must be an origin such as http://127.0.0.1:3000, without a path")
    if parts.query or parts.fragment:
        raise ConfigError(f"to={to!r} must be an origin such as http://127.0.0.1:3000, without a query")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")
