"""Where sessions are kept: from the settings to one ``cachekit.sessions.Sessions`` a process.

Every mistake is a ``ConfigError`` with the name of the setting, its value and what is allowed. Must not know requests.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from typing import Any, Final

from cachekit import ConfigError
from cachekit.sessions import SessionOptions, Sessions
from cachekit_django import conf

_OWN: Final = ("URL", "SLIDING", "TYPES", "CLAIMS")
_OF_URL: Final = ("NAMESPACE", "TIMEOUT")

SETTINGS: Final = frozenset({
    "CACHEKIT", "CACHES", "SESSION_CACHE_ALIAS", "SESSION_COOKIE_AGE", "SECRET_KEY", "SECRET_KEY_FALLBACKS"
})  # fmt: skip
"""Settings that say where and how sessions are kept."""

_made: dict[tuple[Any, ...], tuple[Any, Sessions]] = {}
_now: list[tuple[Sessions, bool]] = []
_lock = threading.RLock()


def sessions() -> Sessions:
    """Return where the settings say that sessions are kept. Raises ``ConfigError``."""
    return (_now[0] if _now else _read())[0]


def slides() -> bool:
    """Say whether looking at a session keeps it alive, in the browser too (SLIDING). Raises ``ConfigError``."""
    return (_now[0] if _now else _read())[1]


def in_use() -> bool:
    """Say whether the project keeps its sessions here."""
    from django.conf import settings

    return str(settings.SESSION_ENGINE).startswith("cachekit_django.")


def forget() -> None:
    """Read the settings anew when they are next needed."""
    _now.clear()


def _read() -> tuple[Sessions, bool]:
    from django.conf import settings

    given = conf.read().sessions
    sliding = given.get("SLIDING", False)
    if not isinstance(sliding, bool):
        raise ConfigError(f'CACHEKIT["SESSIONS"]: SLIDING={sliding!r} must be True or False')
    source, sign = _source(given)
    age = settings.SESSION_COOKIE_AGE
    sign += (age, settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS, repr(sorted(given.items())))
    with _lock:
        if sign not in _made:
            try:
                claims = _claims(given.get("CLAIMS", False))
                made = Sessions(source, _options(given, age), claims=claims)
                _made[sign] = source, made
            except (ConfigError, TypeError) as exc:
                raise ConfigError(f'CACHEKIT["SESSIONS"]: {exc}') from exc
        _now[:] = [(_made[sign][1], sliding)]
        return _now[0]


def _source(given: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Return a URL or a cache, and what tells it from others."""
    from django.conf import settings
    from django.core.cache import caches

    from cachekit_django.single import SingleValues

    url = given.get("URL")
    if url is not None:
        if not isinstance(url, str) or not url:
            raise ConfigError(f'CACHEKIT["SESSIONS"]: URL={url!r} must be a URL such as "redis://localhost"')
        return url, (url,)
    if wrong := [name for name in _OF_URL if name in given]:
        raise ConfigError(
            f'CACHEKIT["SESSIONS"]: {", ".join(wrong)} without a URL: sessions are kept on the server of a cache, '
            "with its namespace and its time-out"
        )
    alias = settings.SESSION_CACHE_ALIAS
    if alias not in settings.CACHES:
        raise ConfigError(f"SESSION_CACHE_ALIAS={alias!r} must be one of CACHES: {', '.join(settings.CACHES)}")
    backend = caches[alias]
    if isinstance(backend, SingleValues):
        source = backend.cache
    elif alias == "default":  # the caches of this project are others: what CACHEKIT says holds
        source = conf.cache()
    else:
        raise ConfigError(
            f"SESSION_CACHE_ALIAS={alias!r}: its BACKEND must be cachekit_django.CacheBackend, not "
            f"{type(backend).__module__}.{type(backend).__name__}"
        )
    return source, (id(source),)


def _options(given: Mapping[str, Any], age: Any) -> SessionOptions:
    from django.conf import settings

    from cachekit_django.values import codec

    if isinstance(age, bool) or not isinstance(age, (int, float)) or age <= 0:
        raise ConfigError(f"SESSION_COOKIE_AGE={age!r} must be a positive number of seconds")
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return SessionOptions(
        secrets=[hashlib.sha256(f"cachekit.django{secret}".encode()).hexdigest() for secret in secrets],
        ttl=age,
        sliding=False,  # reading leaves the lifetime alone, as Django does: it is another one for each session
        codec=codec(given.get("TYPES", ())),
        **{name.lower(): value for name, value in given.items() if name not in _OWN},
    )


def _claims(given: Any) -> tuple[str, ...]:
    """Return the keys that are claimed: those of the login always among them."""
    from cachekit_django.claims import LOGIN

    if isinstance(given, bool):
        return LOGIN if given else ()
    if isinstance(given, str) or not all(isinstance(key, str) for key in given):
        raise ConfigError(f"CLAIMS={given!r} must be True, or a list of further keys of the session")
    return tuple(dict.fromkeys((*LOGIN, *given)))
