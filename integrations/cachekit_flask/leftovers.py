"""Settings of Flask-Caching and Flask-Session that are still in ``app.config``: each named once, with what replaces it.

Must not know Flask.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

log = logging.getLogger("cachekit")

_URL: Final = "CACHEKIT_URL"
_SESSIONS: Final = "CACHEKIT_SESSIONS"
_NONE: Final = "nothing: leave it out"

_LIBRARIES: Final[Mapping[str, Mapping[str, str]]] = {
    "flask_caching": {
        **dict.fromkeys(
            (
                "CACHE_TYPE", "CACHE_REDIS_URL", "CACHE_REDIS_HOST", "CACHE_REDIS_PORT", "CACHE_REDIS_PASSWORD",
                "CACHE_REDIS_DB", "CACHE_REDIS_SENTINELS", "CACHE_REDIS_SENTINEL_MASTER", "CACHE_REDIS_SENTINEL_PASSWORD",
                "CACHE_REDIS_CLUSTER", "CACHE_MEMCACHED_SERVERS", "CACHE_MEMCACHED_USERNAME", "CACHE_MEMCACHED_PASSWORD",
                "CACHE_DIR", "CACHE_UWSGI_NAME",
            ),
            _URL,
        ),
        "CACHE_DEFAULT_TIMEOUT": "CACHEKIT_TTL",
        "CACHE_KEY_PREFIX": "CACHEKIT_NAMESPACE",
        "CACHE_THRESHOLD": "CACHEKIT_MAX_ENTRIES",
        **dict.fromkeys(
            (
                "CACHE_ARGS", "CACHE_OPTIONS", "CACHE_IGNORE_ERRORS", "CACHE_NO_NULL_WARNING", "CACHE_SOURCE_CHECK",
                "CACHE_ENABLE_SIGNALS", "CACHE_HASH_METHOD", "CACHE_FILE_HASH_METHOD", "CACHE_SERIALIZER",
            ),
            _NONE,
        ),
    },
    "flask_session": {
        **dict.fromkeys(
            (
                "SESSION_TYPE", "SESSION_REDIS", "SESSION_MEMCACHED", "SESSION_FILE_DIR", "SESSION_CACHELIB",
                "SESSION_MONGODB", "SESSION_SQLALCHEMY", "SESSION_DYNAMODB",
            ),
            f"{_URL} and {_SESSIONS} = True",
        ),
        "SESSION_KEY_PREFIX": "CACHEKIT_NAMESPACE",
        "SESSION_PERMANENT": "session.permanent = True where a session begins",
        **dict.fromkeys(
            (
                "SESSION_USE_SIGNER", "SESSION_ID_LENGTH", "SESSION_SID_LENGTH", "SESSION_SERIALIZATION_FORMAT",
                "SESSION_FILE_THRESHOLD", "SESSION_FILE_MODE", "SESSION_CLEANUP_N_REQUESTS",
            ),
            _NONE,
        ),
    },
}  # fmt: skip
"""By the module that reads them, which may still be in use beside this one."""


def leftovers(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings of *config* that nothing reads any more, each with what replaces it."""
    for module, names in _LIBRARIES.items():
        if module not in sys.modules:
            yield from ((name, instead) for name, instead in names.items() if config.get(name) is not None)


def report(app: str, config: Mapping[str, Any]) -> None:
    """Warn of the settings of the application named *app* that nothing reads any more."""
    by_instead: dict[str, list[str]] = {}
    for name, instead in leftovers(config):
        by_instead.setdefault(instead, []).append(name)
    if by_instead:
        said = "; ".join(f"{', '.join(names)} (now {instead})" for instead, names in by_instead.items())
        log.warning("app.config of %r has settings of libraries that are not in use: %s", app, said)
