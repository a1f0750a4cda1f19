"""The warm hit: what this process holds, fresh and asked for plainly, as a ready-made answer without an exchange.

Owns the short way from a request to stored fields in the form that an edge sends. It decides nothing of its own: it
answers only where an exchange would give the same answer, and leaves everything else to it. A property test holds the
two together (tests/property/test_warm_properties.py). Must not know ASGI or WSGI.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import IntFlag
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from cachekit.entry import Entry
from cachekit.http.credentials import SECRETS
from cachekit.http.exchange import LONGEST_CHAIN, NEVER_PLAIN
from cachekit.http.headers import Headers
from cachekit.http.message import FORMAT, Mark, variant_key
from cachekit.http.options import HttpOptions
from cachekit.http.port import CachePort
from cachekit.http.selecting import field_of, nominated, overlooks
from cachekit.http.status import CacheStatus

S = TypeVar("S")
F = TypeVar("F")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Trait(IntFlag):
    """What the fields of a request mean for the short way."""

    HOST = 1
    CREDENTIALS = 2
    """It says who is asking."""
    ODD = 4
    """Only an exchange can judge it."""
    KEYED = 8
    """It is part of the key."""


_CREDENTIALS: Final = int(Trait.CREDENTIALS)
_REMEMBERED: Final = 4096
_ROUNDING: Final = 0.001
"""Seconds by which what was sent last is given up early, so that no sum of fractions keeps it too long."""
_SHARED: Final = int(Mark.SHARED)
_NO_CACHE: Final = int(Mark.NO_CACHE)


class Recent(Generic[K, V]):
    """A bounded map in two generations: when the young one is full it becomes the old one, which is forgotten.

    Whoever is in a hurry looks into ``young`` first, and calls ``get`` only where that has nothing.
    """

    __slots__ = ("_limit", "old", "young")

    def __init__(self, limit: int = _REMEMBERED) -> None:
        self._limit = limit
        self.young: dict[K, V] = {}
        self.old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the value of *key*, or None."""
        found = self.young.get(key)
        if found is None and (found := self.old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        """Remember *value*."""
        if len(self.young) >= self._limit:
            self.old, self.young = self.young, {}
        self.young[key] = value


class _Encoded(Generic[F]):
    """The fields of one stored response as an edge sends them.

    They hold for as long as the stored fields are the very same objects. Nothing else of the response is kept here: it
    would be held after it was dropped.
    """

    __slots__ = ("added", "fields", "headers", "said")

    def __init__(self, headers: Headers, added: Headers, fields: list[F]) -> None:
        self.headers = headers
        self.added = added
        self.fields = fields
        self.said: tuple[float, float, tuple[float, float, float], list[F]] = (0.0, 0.0, (0.0, 0.0, 0.0), fields)
        """What was sent last: from when until when it says the same, since a second brings many hits; of which response,
        by when it was made, its age by then and its lifetime; and the fields. In one piece, for threads."""


class Warm(Generic[S, F]):
    """Answers from what this process holds.

    Args:
        cache: where responses are kept.
        options: the settings of the cache.
        form: makes a field as the edge sends it.
        values: gives what a request says in a field (lower case), line by line.
    """

    def __init__(
        self,
        cache: CachePort,
        options: HttpOptions,
        form: Callable[[str, str], F],
        values: Callable[[S, str], tuple[str, ...]],
    ) -> None:
        self._cache = cache
        self._options = options
        self._form = form
        self._values = values
        self._told = options.cache_status
        self._cookies = options.key_cookies
        self._encoded: Recent[str, _Encoded[F]] = Recent()
        self._ages: dict[int, F] = {}
        self._hits: dict[int, F] = {}

    def answer(self, key: str, entry: Entry[Any], traits: int, request: S) -> tuple[int, str, list[F], bytes] | None:
        """Return status, reason, fields and body of the stored response at *key*, or None.

        Args:
            key: the key of the URL.
            entry: what this process holds there.
            traits: the ``Trait`` of the request; ODD is not among them.
            request: the request as the edge knows it.
        """
        cache = self._cache
        packed = entry.value
        if type(packed) is not tuple or len(packed) != 14 or packed[0] != FORMAT:
            return None
        if packed[11] or self._cookies:
            found = self._variant(key, packed, request)
            if found is None:
                return None
            key, packed = found
        _, status, reason, headers, body, made_at, age, lifetime, _, _, marks, _, _, added = packed
        if (
            type(status) is not int
            or type(body) is not bytes
            or marks & _NO_CACHE
            or (traits & _CREDENTIALS and not marks & _SHARED)
        ):
            return None
        now = cache.clock()
        encoded = self._encoded.young.get(key) or self._encoded.get(key)
        if encoded is None or encoded.headers is not headers or encoded.added is not added:
            if type(headers) is not tuple or type(added) is not tuple:
                return None
            encoded = _Encoded(headers, added, [self._form(name, value) for name, value in (*headers, *added)])
            self._encoded.put(key, encoded)
        else:
            since, until, times, fields = encoded.said
            if since <= now < until and times == (made_at, age, lifetime):
                return status, reason, fields.copy(), body  # a list of its own each time, as below
        times = made_at, age, lifetime
        passed = now - made_at
        if passed > 0.0:
            age += passed
        left = lifetime - age
        if left <= 0:
            return None
        whole, ttl = int(age), int(left)
        fields = [*encoded.fields, self._ages.get(whole) or self._age(whole)]
        if self._told:
            fields.append(self._hits.get(ttl) or self._hit(ttl, key))
        if passed > 0.0:
            encoded.said = now, now + min(whole + 1 - age, left - ttl) - _ROUNDING, times, fields
        # Whoever wraps this cache may change it in place.
        return status, reason, fields.copy(), body

    def _age(self, seconds: int) -> F:
        field = self._form("Age", str(seconds))
        if len(self._ages) >= _REMEMBERED:
            self._ages.clear()
        self._ages[seconds] = field
        return field

    def _hit(self, ttl: int, key: str) -> F:
        field = self._form("Cache-Status", CacheStatus(hit=True, ttl=ttl, key=key).print(self._options))
        if not self._options.status_key:
            if len(self._hits) >= _REMEMBERED:
                self._hits.clear()
            self._hits[ttl] = field
        return field

    def _variant(self, key: str, packed: tuple[Any, ...], request: S) -> tuple[str, tuple[Any, ...]] | None:
        """Follow the chain of variants as an exchange does; return the key and the response that the request selects."""
        values = self._values
        for _ in range(LONGEST_CHAIN):
            vary, generation = packed[11], packed[12]
            names = [name for name, _ in vary]
            if not SECRETS.isdisjoint(names) or overlooks(names, self._cookies):
                return None
            fields = [field_of(name) for name in names]
            chosen = [_said(name, values(request, field)) for name, field in zip(names, fields, strict=True)]
            if all(value == own for value, (_, own) in zip(chosen, vary, strict=True)):
                return key, packed
            asked = [(field, value) for field in dict.fromkeys(fields) for value in values(request, field)]
            key = variant_key(key, generation, asked, names)
            entry = self._cache.peek(key)
            if entry is None or type(packed := entry.value) is not tuple or len(packed) != 14 or packed[0] != FORMAT:
                return None
        return None


def _said(name: str, values: tuple[str, ...]) -> str:
    return _one_way(name, values) if field_of(name) in SECRETS else _nominated(name, values)  # they are not remembered


def _one_way(name: str, values: tuple[str, ...]) -> str:
    field = field_of(name)
    return nominated([(field, value) for value in values], name)


_nominated = lru_cache(maxsize=1024)(_one_way)


def traits_of(name: str, options: HttpOptions) -> int:
    """Return what the request field *name* (lower case) means."""
    odd = name in _ODD or (options.request_directives and name in ("cache-control", "pragma"))
    return int(
        (Trait.HOST if name == "host" else 0)
        | (Trait.CREDENTIALS if name in options.credentials else 0)
        | (Trait.ODD if odd else 0)
        | (Trait.KEYED if name == "forwarded" or name in options.keying.headers else 0)
    )


_ODD: Final = frozenset({*NEVER_PLAIN, "transfer-encoding", "content-length"})
