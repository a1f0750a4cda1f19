"""The setting ``CACHEKIT``: names, what is allowed, and the caches that settings describe, one a process for each.

Every mistake is a ``ConfigError`` with the name of the setting, its value and what is allowed. Must not know requests.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache as remembered
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.apps import apps
from django.utils.module_loading import import_string

from cachekit import Cache, ConfigError, default_cache
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.compress.options import Compression
from cachekit.degrade.options import DegradeOptions
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from cachekit_django.values import Allowed, new_codec

CACHE_OPTIONS: Final = {
    "NAMESPACE": "namespace", "TTL": "ttl", "TTL_CLASSES": "ttl_classes", "TIMEOUT": "timeout", "JITTER": "jitter",
    "MAX_ENTRIES": "max_entries", "MAX_BYTES": "max_bytes", "MAX_VALUE_BYTES": "max_value_bytes",
    "COMPRESS_FROM": "compress_from", "ISOLATED_TTL": "isolated_ttl",
    "STALE_WHILE_REVALIDATE": "stale_while_revalidate", "STALE_IF_ERROR": "stale_if_error",
}  # fmt: skip
"""Settings that describe a cache, and the arguments of ``Cache`` that they are."""

NAMES: Final = (
    "URL", "RULES", "OPTIONS", "PURGERS", "WEBHOOK", "DEGRADATION", "ROUTES", "COMPRESSION", "WARMER",
    "SESSIONS", "TYPES", *CACHE_OPTIONS
)  # fmt: skip

SESSION_NAMES: Final = (
    "URL", "SLIDING", "TYPES", "CLAIMS", "NAMESPACE", "TIMEOUT", "ABSOLUTE_TTL", "TOUCH_INTERVAL", "SETS", "COUNTERS",
    "GRACE", "MAX_BYTES", "COMPRESSION", "COMPRESS_FROM", "PROTECTION", "AT_RETURN", "MAX_LOCAL", "MEMO", "CLAIMS_TTL",
)  # fmt: skip
"""What CACHEKIT["SESSIONS"] may have. Lifetime and cookie are settings of Django: SESSION_COOKIE_AGE and the others."""

_made: dict[str, Cache] = {}
_allowed: WeakKeyDictionary[Cache, Allowed] = WeakKeyDictionary()
_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Conf:
    """The setting ``CACHEKIT``, checked.

    Attributes:
        url: URL of the cache, or empty for the default cache.
        cache: arguments of ``Cache``.
        rules: header rules, in order.
        http: settings of the HTTP cache.
        compression: settings of the compression.
        warmer: dotted path of a ``Warmer``, or empty.
        degradation: settings of what is refused while the store is away, or None.
        edge: the further arguments of ``CacheKit``, which stands in front of Django: webhook and routes.
        purgers: what drops from CDNs.
        sessions: settings of sessions, their names in upper case; see ``keeping``.
        types: what else may be kept, see ``values.Allowed``.
    """

    url: str
    cache: Mapping[str, Any]
    rules: tuple[Rule, ...]
    http: HttpOptions
    compression: Compression
    warmer: str
    degradation: DegradeOptions | None
    edge: Mapping[str, Any]
    purgers: tuple[Any, ...]
    sessions: Mapping[str, Any]
    types: tuple[Any, ...]


def known(given: Any, allowed: tuple[str, ...], where: str) -> Mapping[str, Any]:
    """Return *given*, a dictionary with names out of *allowed*. Raises ``ConfigError``."""
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"the setting {where} must be a dictionary with some of {', '.join(allowed)}; it is {given!r}"
        )
    wrong = sorted(str(name) for name in given if name not in allowed)
    if wrong:
        close = difflib.get_close_matches(wrong[0].upper() if allowed[0].isupper() else wrong[0], allowed, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(
            f"the setting {where} must be a dictionary with some of {', '.join(allowed)}; it has {', '.join(wrong)}{hint}"
        )
    return given


def options_of(kind: Callable[..., Any], given: Any, where: str) -> Any:
    """Return *given* as a *kind* of options: one of them, a dictionary with the names of its fields, or None."""
    if isinstance(kind, type) and isinstance(given, kind):
        return given
    names = tuple(field.name for field in fields(kind) if field.init)  # type: ignore[arg-type]
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"the setting {where} must be {kind.__name__}(...) or a dictionary; it is {given!r}")
    lower = {str(name).lower(): value for name, value in (given or {}).items()}
    try:
        return kind(**known(lower, names, where))
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def read() -> Conf:
    """Return the setting ``CACHEKIT``. Raises ``ConfigError``."""
    from django.conf import settings

    given = known(getattr(settings, "CACHEKIT", {}), NAMES, "CACHEKIT")
    url = given.get("URL") or ""
    if not isinstance(url, str):
        raise ConfigError(f'CACHEKIT["URL"]={url!r} must be a URL such as "redis://localhost" or "memory://"')
    rules = given.get("RULES", ())
    if isinstance(rules, (str, Mapping)) or not all(isinstance(rule, Rule) for rule in rules):
        raise ConfigError(f'CACHEKIT["RULES"]={rules!r} must be a list of Rule("/path/{{id}}", ttl="1h")')
    warmer = given.get("WARMER") or ""
    if not isinstance(warmer, str) or (warmer and "." not in warmer):
        raise ConfigError(f'CACHEKIT["WARMER"]={warmer!r} must be the dotted path of a Warmer, "shop.warm.warmer"')
    types = given.get("TYPES", ())
    if isinstance(types, (str, Mapping)):
        raise ConfigError(f'CACHEKIT["TYPES"]={types!r} must be a list of dotted paths such as "shop.money.Money"')
    degradation = None
    if given.get("DEGRADATION") is not None:
        degradation = options_of(DegradeOptions, given["DEGRADATION"], 'CACHEKIT["DEGRADATION"]')
    return Conf(
        url=url,
        cache={CACHE_OPTIONS[name]: value for name, value in given.items() if name in CACHE_OPTIONS},
        rules=tuple(rules),
        http=options_of(HttpOptions, given.get("OPTIONS"), 'CACHEKIT["OPTIONS"]'),
        compression=options_of(Compression, given.get("COMPRESSION"), 'CACHEKIT["COMPRESSION"]'),
        warmer=warmer,
        degradation=degradation,
        edge={"webhook": given.get("WEBHOOK"), "routes": given.get("ROUTES", ())},
        purgers=tuple(given.get("PURGERS", ())),
        sessions=_sessions(given.get("SESSIONS")),
        types=tuple(types),
    )


def _sessions(given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        given = {str(name).upper(): value for name, value in given.items()}
    return known({} if given is None else given, SESSION_NAMES, 'CACHEKIT["SESSIONS"]')


def http_options() -> HttpOptions:
    """Return the settings of the HTTP cache, and beside them the language that a visitor has chosen.

    Django's ``set_language`` keeps it in a cookie, which ``LocaleMiddleware`` follows without a word in ``Vary``. Asked for
    when the other middlewares are there. Raises ``ConfigError``.
    """
    from django.conf import settings
    from django.middleware.locale import LocaleMiddleware

    options = read().http
    name = settings.LANGUAGE_COOKIE_NAME
    if not settings.USE_I18N or name in options.key_cookies or not has_middleware(LocaleMiddleware):
        return options
    return replace(options, key_cookies=(*options.key_cookies, name))


def has_middleware(kind: type[Any]) -> bool:
    """Say whether MIDDLEWARE has *kind*, or a class that derives from it. Raises ``ImportError`` for what is not there."""
    from django.conf import settings

    found = map(import_string, settings.MIDDLEWARE)
    return any(isinstance(one, type) and issubclass(one, kind) for one in found)


def cache() -> Cache:
    """Return the cache of the setting ``CACHEKIT``; the default cache where it names none. Raises ``ConfigError``."""
    conf = read()
    if conf.url or conf.cache:
        found = build(conf.url or "memory://", conf.cache, "CACHEKIT")
    else:
        found = default_cache()
    allow(found, conf.types)
    if conf.purgers and found.outbox is None:
        found.attach(*conf.purgers)
    return found


def build(url: str, options: Mapping[str, Any], where: str) -> Cache:
    """Return the one cache of this process with *url* and *options*. Raises ``ConfigError`` naming *where*."""
    sign = repr((url, sorted(options.items())))
    with _lock:
        if sign not in _made:
            try:
                _made[sign] = Cache(url, codec=new_codec(), **options)
            except (ConfigError, TypeError) as exc:
                raise ConfigError(f"{where}: {exc}") from exc
        return _made[sign]


def allow(found: Cache, types: Iterable[Any]) -> None:
    """Have *found* keep what functions return of Django, and of *types*. Raises ``ConfigError``.

    The default cache too, which the environment or a program has made without Django.
    """
    if not apps.models_ready or not isinstance(found.codec, MsgpackCodec):  # the modules of types may define models
        return
    with _lock:
        if found not in _allowed:
            _allowed[found] = Allowed(found.codec)
        _allowed[found].allow(types)


def caches() -> list[Cache]:
    """Return every cache that settings describe, those that nobody in this process has used yet included."""
    found = [cache(), *_named(), *_made.values()]
    return list({id(one): one for one in found}.values())


def _named() -> Iterator[Cache]:
    """Yield those of CACHES. A command that skips the checks may be the first to ask for them."""
    from django.conf import settings
    from django.core.cache import caches as theirs

    for alias, params in settings.CACHES.items():
        if not _is_ours(params.get("BACKEND", "")):
            continue
        backend: Any = theirs[alias]
        if backend.wrong is None:
            yield backend.cache


@remembered
def _is_ours(backend: str) -> bool:
    try:
        return getattr(import_string(backend), "of_cachekit", False) is True
    except ImportError:
        return False


def invalidate(*tags: str) -> None:
    """Drop what carries one of *tags* in every cache of the settings."""
    for one in caches():
        one.invalidate(*tags)


async def ainvalidate(*tags: str) -> None:
    """Do the same without blocking."""
    for one in caches():
        await one.ainvalidate(*tags)
