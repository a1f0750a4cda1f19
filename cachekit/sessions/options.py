"""The settings of sessions, checked when they are made.

Pure, but for one warning: settings for development say what they weaken. Must not know how they are used.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cachekit.codecs.base import Codec
from cachekit.codecs.protection import Protection
from cachekit.errors import ConfigError
from cachekit.policy import FOREVER, Duration, positive_seconds, seconds

log = logging.getLogger("cachekit")

SHORTEST_SECRET: Final = 16
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_PATH: Final = re.compile(r"/[\x21-\x3a\x3c-\x7e]*\Z")
_DOMAIN: Final = re.compile(r"\.?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\Z")
_RESERVED: Final = "_"

_KINDS: Final[tuple[tuple[str, type | tuple[type, ...], str], ...]] = (
    *((name, str, "text") for name in ("cookie_name", "path", "same_site", "compression", "at_return", "load", "namespace")),
    *((name, bool, "True or False") for name in ("sliding", "keep_alive", "partitioned", "development",
                                                 "save_on_server_error", "no_store")),
    *((name, int, "a whole number") for name in ("max_bytes", "compress_from", "max_local", "memo")),
    ("domain", (str, type(None)), "text, or None"),
    ("timeout", (int, float), "a positive number of seconds"),
)  # fmt: skip

_DEVELOPMENT: Final = (
    "sessions run with development=True: the cookie also travels over plain HTTP (no Secure) and has no __Host- prefix, "
    "so that whoever reads the network, or holds a sibling domain, can take over or plant a session. Never in production."
)


class Load(StrEnum):
    """When a session is read from a store on a server.

    Under WSGI what is read before the application is asked for then, and waited for when somebody looks: what comes first
    in the application runs beside the store.
    """

    AUTO = "auto"
    """When it is first looked at. Paths whose requests keep looking are learned, and theirs is read before them."""
    EAGER = "eager"
    """Before the application is called, whenever the request has a cookie."""
    EXPLICIT = "explicit"
    """By ``await session.load()``; looking at it before that raises ``SessionError`` on the event loop."""


class AtReturn(StrEnum):
    """What becomes of changes made while the store was away, once it is back."""

    MERGE = "merge"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """The settings of sessions.

    Attributes:
        secrets: the secret that signs cookies, or several: the first signs, all are accepted. At least 16 characters.
        ttl: how long a session lives after it was last used.
        absolute_ttl: how long it lives at most, however much it is used; None sets no such end.
        remember_ttl: the *ttl* of a session that was told to ``remember()``, whose cookie outlives the browser.
        sliding: let whoever looks at a session keep it alive; False: it ends *ttl* after it was last changed.
        touch_interval: how exact "last seen" and the count of live sessions are; each costs one command an interval.
        keep_alive: let requests that never look at their session also keep it alive, once a *touch_interval*.
        cookie_name: the name of the cookie; by default ``__Host-session``, where that is possible, else ``session``.
        path: the path of the cookie.
        domain: its domain; None (no other host gets it) is safer.
        same_site: ``lax``, ``strict`` or ``none``.
        partitioned: keep the cookie apart for each top-level site (CHIPS).
        development: allow plain HTTP, and log what that weakens.
        sets: keys whose values are lists or sets that only grow: concurrent additions are all kept.
        counters: keys whose values are numbers: concurrent additions are added up.
        claims: keys that also ride in the cookie, signed but readable, so that they are known while the store is away.
        claims_ttl: how long claims are believed without having been renewed.
        grace: how long requests that were under way when an id changed may still deliver their changes.
        max_bytes: bound on one session, encoded, not compressed.
        codec: turns values into bytes; by default ``MsgpackCodec()``.
        compression: ``snappy``, or ``zstd`` (extra ``zstd``): about 30 % smaller, twice the time.
        compress_from: bytes from which a session is compressed.
        protection: encrypts or signs what is stored: ``cachekit.Encryption`` or ``cachekit.Signing``; None does neither.
        at_return: ``merge`` or ``drop`` what was changed while the store was away.
        memo: bytes of this process in which what was read of sessions on a server is remembered, for the requests of a
            visitor that follow each other; 0 remembers nothing. Values are decoded anew, and the server is asked each time.
        max_local: bound on the sessions held in this process while the store is away.
        load: when an asyncio application's session is read: ``auto``, ``eager``, ``explicit``.
        save_on_server_error: also keep changes of requests that are answered with 500 or above.
        no_store: send ``Cache-Control: no-store`` instead of ``private`` once a session was looked at.
        namespace: prefix of the keys in the store.
        timeout: seconds that a request may wait for the store, where a URL is given.

    Raises:
        ConfigError: a value is out of range, or contradicts another; the message names it.
    """

    secrets: str | Sequence[str] = field(repr=False)
    ttl: Duration = "24h"
    absolute_ttl: Duration | None = None
    remember_ttl: Duration = "30d"
    sliding: bool = True
    touch_interval: Duration = "1m"
    keep_alive: bool = False
    cookie_name: str = ""
    path: str = "/"
    domain: str | None = None
    same_site: str = "lax"
    partitioned: bool = False
    development: bool = False
    sets: Sequence[str] = ()
    counters: Sequence[str] = ()
    claims: Sequence[str] = ()
    claims_ttl: Duration = "24h"
    grace: Duration = "30s"
    max_bytes: int = 1024 * 1024
    codec: Codec | None = None
    compression: str = "snappy"
    compress_from: int = 1024
    protection: Protection | None = None
    at_return: str = "merge"
    memo: int = 32 * 1024 * 1024
    max_local: int = 10_000
    load: str = "auto"
    save_on_server_error: bool = False
    no_store: bool = False
    namespace: str = "cachekit"
    timeout: float = 0.25
    keys: tuple[str, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        self._check_kinds()
        given = (self.secrets,) if isinstance(self.secrets, str) else tuple(self.secrets)
        if not given or not all(type(each) is str and len(each) >= SHORTEST_SECRET for each in given):
            raise ConfigError(
                f"secrets must be one or more strings of at least {SHORTEST_SECRET} characters, the newest first: "
                "make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
            )
        object.__setattr__(self, "keys", given)
        for name in ("ttl", "remember_ttl", "claims_ttl"):
            if positive_seconds(getattr(self, name), name) == FOREVER:
                raise ConfigError(f"{name}=None would keep sessions for ever: give a duration such as '24h'")
        positive_seconds(self.absolute_ttl, "absolute_ttl")
        for name in ("touch_interval", "grace"):
            seconds(getattr(self, name), name)
        self._check_cookie()
        self._check_choices()
        for name in ("max_bytes", "max_local"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name}={value!r} must be positive")
        if self.memo < 0:
            raise ConfigError(f"memo={self.memo!r} must be a number of bytes, or 0")
        if self.keep_alive and not self.sliding:
            raise ConfigError("keep_alive=True and sliding=False contradict each other")
        if not self.timeout > 0:
            raise ConfigError(f"timeout={self.timeout!r} must be a positive number of seconds")
        if self.development:
            log.warning(_DEVELOPMENT)

    def _check_kinds(self) -> None:
        for name, kind, words in _KINDS:
            value = getattr(self, name)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ConfigError(f"{name}={value!r} must be {words}")

    def _check_cookie(self) -> None:
        name = self.cookie
        if not _NAME.match(name):
            raise ConfigError(f"cookie_name={name!r} is no name for a cookie")
        if not _PATH.match(self.path):
            raise ConfigError(f"path={self.path!r} must begin with a slash and hold neither spaces nor semicolons")
        if self.domain is not None and not _DOMAIN.match(self.domain):
            raise ConfigError(f"domain={self.domain!r} is no domain")
        if self.same_site not in ("lax", "strict", "none"):
            raise ConfigError(f"same_site={self.same_site!r} must be 'lax', 'strict' or 'none'")
        if name.startswith("__Host-") and (self.development or self.domain is not None or self.path != "/"):
            raise ConfigError(
                f"cookie_name={name!r}: browsers take the prefix __Host- only from HTTPS, for the path '/', with no domain"
            )
        if name.startswith("__Secure-") and self.development:
            raise ConfigError(f"cookie_name={name!r}: browsers take the prefix __Secure- only from HTTPS")
        if self.development and (self.same_site == "none" or self.partitioned):
            raise ConfigError("same_site='none' and partitioned=True need Secure, which development=True leaves out")

    def _check_choices(self) -> None:
        for name, value, allowed in (
            ("compression", self.compression, ("snappy", "zstd")),
            ("at_return", self.at_return, tuple(AtReturn)),
            ("load", self.load, tuple(Load)),
        ):
            if value not in allowed:
                raise ConfigError(f"{name}={value!r} must be one of {', '.join(allowed)}")
        for name in ("sets", "counters", "claims"):
            keys = getattr(self, name)
            if isinstance(keys, str) or not all(type(key) is str and key for key in keys):
                raise ConfigError(f"{name}={keys!r} must be a list of keys")
            if any(key.startswith(_RESERVED) for key in keys):
                raise ConfigError(f"{name}: keys that begin with {_RESERVED!r} are cachekit's own")
        if both := set(self.sets) & set(self.counters):
            raise ConfigError(f"{sorted(both)} cannot be both sets and counters")

    @property
    def cookie(self) -> str:
        """Return the name of the cookie."""
        if self.cookie_name:
            return self.cookie_name
        return "session" if self.development or self.domain is not None or self.path != "/" else "__Host-session"

    def life(self, *, remembered: bool) -> float:
        """Return the seconds that a session lives after it was last used."""
        return seconds(self.remember_ttl if remembered else self.ttl)

    @property
    def absolute(self) -> float:
        """Return the seconds that a session lives at most."""
        return positive_seconds(self.absolute_ttl, "absolute_ttl")

    @property
    def slack(self) -> float:
        """Return the interval of touches in seconds: never a large part of the life of a session."""
        return min(seconds(self.touch_interval), self.life(remembered=False) / 10)
