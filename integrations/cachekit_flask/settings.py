"""The ``CACHEKIT_...`` values of ``app.config``: what they may be, checked when the extension is set up.

Owns names, kinds and messages. Must not know Flask.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cachekit import Cache, ConfigError, Policy
from cachekit.compress.options import Compression
from cachekit.http.credentials import BY_SERVER
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from cachekit.policy import TTLClasses
from cachekit.sessions import SessionOptions
from cachekit.wsgi import DegradeOptions, Route, Webhook

PREFIX: Final = "CACHEKIT_"


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``app.config`` says.

    Attributes:
        enabled: False leaves the application alone: nothing is kept.
        rules: header rules.
        http: settings of the HTTP cache, or None for the usual ones.
        compression: settings of compression, or None for none.
        sessions: how ``flask.session`` is kept, or None to leave it to Flask.
        webhook: deliveries that it receives invalidate.
        degradation: what is refused while the store is away.
        routes: time-outs, bounds and breakers of the application.
        purgers: CDNs that are told of invalidations.
        cache: the arguments of ``Cache``; empty where nothing says what the cache should be.
    """

    enabled: bool = True
    rules: tuple[Rule, ...] = ()
    http: HttpOptions | None = None
    compression: Compression | None = None
    sessions: bool | SessionOptions | None = None
    webhook: Webhook | None = None
    degradation: DegradeOptions | None = None
    routes: tuple[Route, ...] = ()
    purgers: tuple[Any, ...] = ()
    cache: Mapping[str, Any] = field(default_factory=dict)

    def make_cache(self) -> Cache | None:
        """Return the cache that the settings describe, or None where they describe none. Raises ``ConfigError``."""
        if not self.cache:
            return None
        given = dict(self.cache)
        url = given.pop("url", None) or os.environ.get("CACHEKIT_URL") or "memory://"
        try:
            return Cache(url, **given)
        except ConfigError as exc:
            raise ConfigError(f"app.config, {PREFIX}*: {exc}") from exc


@dataclass(frozen=True, slots=True)
class State:
    """What one application has.

    Attributes:
        cache: where everything is kept.
        enabled: whether anything is.
        credentials: the names in the environ of what says who is asking.
    """

    cache: Cache
    enabled: bool = True
    credentials: frozenset[str] = frozenset()


def variables(fields: Iterable[str]) -> frozenset[str]:
    """Return under which names an environ has the request *fields*, and what the server says in their place."""
    named = {field: f"HTTP_{field.upper().replace('-', '_')}" for field in fields}
    return frozenset({*named.values(), *(name for name, field in BY_SERVER.items() if field in named)})


def _made(kind: type[Any], words: str) -> Callable[[Any], Any]:
    """Return what turns a mapping into *kind*, and takes one that is made already."""
    fields = [one for one in dataclasses.fields(kind) if one.init]
    names = tuple(one.name for one in fields)
    needed = [
        one.name for one in fields if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]

    def make(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(words)
        for name in value:
            if name not in names:
                raise ConfigError(f"there is no {name!r}{_close(name, names)}; there are {', '.join(names)}")
        if missing := [repr(name) for name in needed if name not in value]:
            raise ConfigError(f"{', '.join(missing)} is missing; there are {', '.join(names)}")
        return kind(**value)

    return make


_route = _made(Route, 'must be a list of Route(...) or of {"path": "/reports/**", "timeout": "5s"}')
_degradation = _made(DegradeOptions, "must be DegradeOptions(...) or a dictionary of its arguments")
_rule = _made(Rule, 'must be a list of Rule(...) or of {"path": "/products/{id}", "ttl": "1h"}')
_http = _made(HttpOptions, "must be HttpOptions(...) or a dictionary of its arguments")
_sessions = _made(SessionOptions, "must be True, False, SessionOptions(...) or a dictionary of its arguments")
_compression = _made(Compression, "must be True, False, Compression(...) or a dictionary of its arguments")


def _list(make: Callable[[Any], Any], words: str) -> Callable[[Any], Any]:
    def check(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise ConfigError(f"must be a list of {words}")
        return tuple(make(one) for one in value)

    return check


def _purger(value: Any) -> Any:
    if not (isinstance(getattr(value, "name", None), str) and callable(getattr(value, "build", None))):
        raise ConfigError("must be a list of purgers, such as cachekit.Cloudflare(...)")
    return value


def _url(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError("must be a URL such as memory://, redis://localhost or tiered+redis://localhost")
    return value


def _classes(value: Any) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ConfigError('must be a dictionary such as {"prices": "5m"}')
    TTLClasses(value)
    return value


def _wait(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError("must be the seconds, more than 0, that a request may wait for the server")
    return value


def _compress(value: Any) -> Compression | None:
    if isinstance(value, bool):
        return Compression() if value else None
    made: Compression = _compression(value)
    return made


def _session(value: Any) -> bool | SessionOptions | None:
    if isinstance(value, bool):
        return value or None
    made: SessionOptions = _sessions(value)
    return made


def _is(kind: type | tuple[type, ...], words: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"must be {words}")
        return value

    return check


def _duration(value: Any) -> Any:
    Policy.of(value)
    return value


def _window(option: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        Policy.of(None, **{option: value})
        return value

    return check


_NUMBER: Final = (int, float)

CACHE: Final[Mapping[str, Callable[[Any], Any]]] = {
    "URL": _url,
    "TTL": _duration,
    "TTL_CLASSES": _classes,
    "JITTER": _is(_NUMBER, "a number from 0 to 1"),
    "STALE_WHILE_REVALIDATE": _window("stale_while_revalidate"),
    "STALE_IF_ERROR": _window("stale_if_error"),
    "NAMESPACE": _is(str, "a word"),
    "TIMEOUT": _wait,
    "MAX_ENTRIES": _is(int, "a whole number"),
    "MAX_BYTES": _is(int, "a number of bytes"),
}
"""The settings that make a cache; each is the argument of ``Cache`` of the same name."""

OTHERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "ENABLED": _is(bool, "True or False"),
    "RULES": _list(_rule, "Rule(...)"),
    "HTTP": _http,
    "COMPRESSION": _compress,
    "SESSIONS": _session,
    "WEBHOOK": _is(Webhook, "Webhook(secret)"),
    "DEGRADATION": _degradation,
    "ROUTES": _list(_route, "Route(...)"),
    "PURGERS": _list(_purger, "purgers, such as cachekit.Cloudflare(...)"),
}

NAMES: Final = tuple(PREFIX + name for name in (*CACHE, *OTHERS))


def read(config: Mapping[str, Any]) -> Settings:
    """Return what *config* says. Raises ``ConfigError`` with the name, the value and what is allowed."""
    cache: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in config.items():
        if not name.startswith(PREFIX):
            continue
        short = name.removeprefix(PREFIX)
        check = CACHE.get(short) or OTHERS.get(short)
        if check is None:
            raise ConfigError(
                f"app.config has {name}={value!r}{_close(name, NAMES)}: the settings are {', '.join(NAMES)}"
            )
        if value is None:
            continue
        try:
            checked = check(value)
        except ConfigError as exc:
            raise ConfigError(f"app.config[{name!r}]={value!r}: {exc}") from exc
        (cache if short in CACHE else others)[short.lower()] = checked
    return Settings(cache=cache, **others)


def _close(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(names), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
