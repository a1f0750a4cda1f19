"""The settings of one HTTP cache, checked when they are made.

Pure. Must not know how they are used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from cachekit.errors import ConfigError
from cachekit.http.credentials import CREDENTIALS
from cachekit.http.headers import TOKEN
from cachekit.http.keying import KeyFunction, Keying
from cachekit.policy import Duration, seconds

"""Request fields that say who is asking."""

KEYED: Final = (
    "x-forwarded-host", "x-forwarded-proto", "x-forwarded-scheme", "x-forwarded-port", "x-forwarded-prefix",
    "x-forwarded-server", "x-host", "x-original-url", "x-rewrite-url", "x-http-method-override",
)  # fmt: skip
"""Request fields that applications are known to let change their answer, without saying so in Vary."""


class EmitTags(StrEnum):
    """Which tags are told to the outside."""

    NONE = "none"
    RULES = "rules"
    """Those of the header rules, which whoever wrote the rules meant for a CDN."""
    ALL = "all"
    """Those of the cached functions that ran, too, so that a CDN can drop what used them. They are visible to clients
    wherever no CDN takes the field off: name nothing secret in a tag."""


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """The settings of one HTTP cache.

    Attributes:
        allow_set_cookie: store responses that set cookies, and give the same cookie to everyone.
        allow_authorization: store what was answered to a request with Authorization as if it were for everyone.
        allow_cookies: store what was answered to a request with Cookie as if it were for everyone.
        credentials: request fields that say who is asking (names in any case), see ``cachekit.http.credentials``. What a
            server says of it counts as ``remote-user`` and ``client-cert``.
        keyed_headers: request fields that are part of the key of each response; X-Forwarded-Host and X-Forwarded-Proto
            only when they differ from the request's own.
        key_headers: further such fields, beside those of *keyed_headers*.
        key_cookies: names of cookies that set responses apart, by digests of what they say. An unsafe request drops all of
            these responses. Cookies still count as credentials.
        sort_query: leave the order of query parameters out of the key.
        ignore_query: names or patterns of query parameters that are left out of the key, such as ``utm_*``. The
            application must not let them change its answer.
        key: a function of the ``Request`` that returns what else is part of the key; None keeps the cache out of it.
        targets: fields for shared caches that come before Cache-Control, the most binding first.
        max_body: the largest body in bytes that is stored.
        heuristic: part of the time since Last-Modified for which a response without a lifetime is fresh (RFC 9111 section
            4.2.2), where there is no ETag, for requests without credentials; 0 guesses nothing.
        heuristic_max: the longest freshness that is guessed.
        codings: the content codings that the application chooses among, such as ``["br", "gzip"]``: where it varies by
            Accept-Encoding, others make no difference. Left out, each set of codings is a variant of its own.
        any_language_order: take ``en, de`` and ``de, en`` for the same where the application varies by Accept-Language.
            Right only for applications that go by the weights; many take what stands first.
        field_lists: take ``private="set-cookie"`` and ``no-cache="set-cookie"`` to be about these fields alone: they are
            not stored, and the rest is. False takes them to be about the whole response, as many caches do.
        request_directives: obey Cache-Control in requests; False also ignores a visitor's reload.
        stale_while_revalidate: window for responses that do not give one themselves.
        stale_if_error: window for responses that do not give one themselves.
        stale_if_disconnected: seconds of staleness in which a response is served although nobody allowed it, where the
            application cannot reach what it asks: it raises ``ConnectionError`` or ``TimeoutError``, or something caused by
            one, or answers 502 or 504 (RFC 9111 section 4.2.4). Never against ``must-revalidate`` and its kin.
        keep_stale: how long a stale response is kept that can be revalidated, or that varies.
        follow_functions: a stored response is fresh no longer than the results of the ``@cached`` functions that it used.
        store_parts: store a 206, serve ranges from it, and combine it with others.
        generate_etag: give stored responses without ETag a strong one.
        cache_status: send Cache-Status (RFC 9211).
        status_name: the name of this cache in it.
        status_key: tell the key in it.
        status_detail: tell in it why a response is not stored.
        emit_tags: which tags are told in *tag_header*: "none", "rules" or "all".
        tag_header: the field that tells tags, such as "Cache-Tag" or "Surrogate-Key".
        purge_urls: purge at the CDNs too what a successful unsafe method drops here: its URL, and those that it names in
            Location and Content-Location. With *sort_query* or *ignore_query* the URL is purged as its key has it.
        collapse: let concurrent requests for a missing response wait for one of them.
        collapse_timeout: seconds to wait for the start of that response; the others then go on by themselves.
        uncacheable_for: seconds for which a response found uncacheable makes nobody wait.

    Raises:
        ConfigError: a value is out of range; the message names it.
    """

    allow_set_cookie: bool = False
    allow_authorization: bool = False
    allow_cookies: bool = False
    credentials: Sequence[str] = CREDENTIALS
    keyed_headers: Sequence[str] = KEYED
    key_headers: Sequence[str] = ()
    key_cookies: Sequence[str] = ()
    sort_query: bool = False
    ignore_query: Sequence[str] = ()
    key: KeyFunction | None = None
    targets: Sequence[str] = ("surrogate-control", "cdn-cache-control")
    max_body: int = 5 * 1024 * 1024
    heuristic: float = 0.1
    heuristic_max: Duration = "5m"
    codings: Sequence[str] = ()
    any_language_order: bool = False
    field_lists: bool = True
    request_directives: bool = True
    stale_while_revalidate: Duration = 0
    stale_if_error: Duration = 0
    stale_if_disconnected: Duration = 0
    keep_stale: Duration = "1h"
    follow_functions: bool = False
    store_parts: bool = True
    generate_etag: bool = True
    cache_status: bool = True
    status_name: str = "cachekit"
    status_key: bool = False
    status_detail: bool = False
    emit_tags: EmitTags | str = EmitTags.ALL
    tag_header: str = "Cache-Tag"
    purge_urls: bool = False
    collapse: bool = True
    collapse_timeout: Duration = 30
    uncacheable_for: Duration = 10
    _keying: Keying = field(init=False, repr=False, compare=False)
    _said: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, default in _FLAGS.items():
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"{name}={value!r} must be True or False, {default} when left out")
        for name in _SPANS:
            self._set(name, seconds(getattr(self, name), name))
        for name in ("credentials", "keyed_headers", "key_headers", "targets", "codings"):
            self._set(name, _names(getattr(self, name), name))
        for name in ("credentials", "keyed_headers", "key_headers"):  # as requests are read
            self._set(name, tuple(field.replace("_", "-") for field in getattr(self, name)))
        self._set("_said", frozenset(self.credentials))
        for name in ("key_cookies", "ignore_query"):
            self._set(name, _words(getattr(self, name), name))
        if self.key is not None and not callable(self.key):
            raise ConfigError(f"key={self.key!r} must be a function of the request")
        headers = dict.fromkeys([*self.keyed_headers, *self.key_headers])
        keying = Keying(tuple(headers), self.ignore_query, self.key, sort_query=self.sort_query)
        self._set("_keying", keying)
        for name in ("status_name", "tag_header"):
            if not TOKEN.match(str(getattr(self, name))):
                raise ConfigError(f"{name}={getattr(self, name)!r} must be a token of letters, digits and dashes")
        if not self.status_name[0].isalpha():
            raise ConfigError(f"status_name={self.status_name!r} must begin with a letter")
        size: object = self.max_body
        if type(size) is not int or size < 0:
            raise ConfigError(f"max_body={self.max_body!r} must be a number of bytes, 0 or more")
        part: object = self.heuristic
        if not isinstance(part, (int, float)) or not 0 <= part <= 1:
            raise ConfigError(f"heuristic={self.heuristic!r} must be a part, from 0 to 1")
        try:
            self._set("emit_tags", EmitTags(self.emit_tags))
        except ValueError:
            raise ConfigError(f'emit_tags={self.emit_tags!r} must be "none", "rules" or "all"') from None

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def credentials_in(self, names: Collection[str]) -> tuple[str, ...]:
        """Return which of the request fields *names* say who is asking, in the order of ``credentials``."""
        said = self._said
        return () if said.isdisjoint(names) else tuple(name for name in self.credentials if name in names)

    @property
    def keying(self) -> Keying:
        """Return what makes the keys."""
        return self._keying

    def span(self, name: str) -> float:
        """Return the option *name*, a duration, in seconds."""
        value: float = getattr(self, name)
        return value


_SPANS: Final = (
    "stale_while_revalidate", "stale_if_error", "stale_if_disconnected", "keep_stale", "heuristic_max", "collapse_timeout",
    "uncacheable_for",
)  # fmt: skip


def _names(given: object, option: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(f"{option}={given!r} must be a list of header names")
    for name in given:
        if not isinstance(name, str) or not TOKEN.match(name):
            raise ConfigError(f"{option}: {name!r} is not the name of a header")
    return tuple(dict.fromkeys(name.lower() for name in given))


def _words(given: object, option: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(f"{option}={given!r} must be a list of names")
    for name in given:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigError(f"{option}: {name!r} is not a name")
    return tuple(dict.fromkeys(given))


_FLAGS: Final = {one.name: one.default for one in fields(HttpOptions) if isinstance(one.default, bool)}
