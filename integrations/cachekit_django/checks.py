"""System checks: each names the wrong setting, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name
from django.utils.module_loading import import_string

from cachekit import ConfigError
from cachekit.sessions.memory import MemorySessions
from cachekit_django import conf, keeping, queries

_MIDDLEWARE: Final = "cachekit_django.middleware."
_FIRST: Final = (f"{_MIDDLEWARE}CompressionMiddleware", f"{_MIDDLEWARE}HttpCacheMiddleware")
_DJANGO: Final = ("django.middleware.gzip.GZipMiddleware",)
_INSIDE: Final = (
    "django.contrib.sessions.middleware.SessionMiddleware", f"{_MIDDLEWARE}SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.locale.LocaleMiddleware",
)  # fmt: skip


def errors() -> list[str]:
    """Return what is wrong with the settings, a sentence each."""
    from django.conf import settings

    found: list[str] = []
    try:
        given = conf.read()
        conf.cache()
        if given.warmer:
            import_string(given.warmer)
    except (ConfigError, ImportError) as exc:
        found.append(str(exc) if isinstance(exc, ConfigError) else f'CACHEKIT["WARMER"]: {exc}')
    for alias, params in settings.CACHES.items():
        if not str(params.get("BACKEND", "")).startswith("cachekit_django."):
            continue
        from cachekit_django.backend import CacheBackend

        wrong = CacheBackend(params.get("LOCATION", ""), params).wrong
        if wrong is not None and str(wrong) not in found:  # one without a LOCATION has the faults of CACHEKIT
            found.append(f"CACHES[{alias!r}]: {wrong}")
    if keeping.in_use() and not found:
        try:
            if keeping.sessions().driver.claimed and not _sends_claims():
                found.append(
                    'CACHEKIT["SESSIONS"]: CLAIMS needs "cachekit_django.middleware.SessionMiddleware" in '
                    "MIDDLEWARE, in place of Django's own"
                )
        except (ConfigError, ImportError) as exc:
            found.append(str(exc))
    return found


def _sends_claims() -> bool:
    from cachekit_django.middleware import SessionMiddleware

    return conf.has_middleware(SessionMiddleware)


def warnings() -> Iterator[Warning]:
    """Yield what is allowed, but hardly meant."""
    from django.conf import settings

    order = list(settings.MIDDLEWARE)
    for own in _FIRST:
        if own not in order:
            continue
        before = [name for name in order[: order.index(own)] if name in _INSIDE or name in _FIRST[1:]]
        if before:
            yield Warning(
                f"MIDDLEWARE: {before[0]} stands before {own}, so what it adds to a response comes too late to be seen",
                hint=f"Put {own.rpartition('.')[2]} first.",
                id="cachekit.W001",
            )
    if _FIRST[0] in order and any(name in order for name in _DJANGO):
        yield Warning(
            f"MIDDLEWARE has {_DJANGO[0]} and {_FIRST[0]}: one of them is enough",
            hint="Remove GZipMiddleware.",
            id="cachekit.W002",
        )
    left = sorted(name for name in dir(settings) if name.startswith("DJANGO_REDIS_"))
    if left and not any(str(one.get("BACKEND", "")).startswith("django_redis.") for one in settings.CACHES.values()):
        yield Warning(
            f"{', '.join(left)}: no cache of django-redis is left that reads this",
            hint="Remove it. The cache of cachekit never breaks a page, and logs when its store goes away.",
            id="cachekit.W004",
        )
    for model in queries.uncovered():
        yield Warning(
            f"{model._meta.label}: its default manager is Invalidating, its base manager is not, so that related managers "
            "(add, set) and on_delete=SET_NULL change rows without dropping their tags",
            hint=f"Leave base_manager_name={model._meta.base_manager_name!r} out, or name a manager that is Invalidating.",
            id="cachekit.W005",
        )


def check(**_: Any) -> list[CheckMessage]:
    """Return the messages for ``manage.py check``."""
    return [*(Error(text, id="cachekit.E001") for text in errors()), *warnings()]


def check_deployed(**_: Any) -> list[CheckMessage]:
    """Return the messages for ``manage.py check --deploy``."""
    if not keeping.in_use() or errors() or not isinstance(keeping.sessions().store.inner, MemorySessions):
        return []
    return [
        Warning(
            "sessions are kept in memory: each process has its own, and a restart ends them",
            hint='Set CACHEKIT["URL"], or CACHEKIT["SESSIONS"] = {"URL": ...}, to the URL of a server.',
            id="cachekit.W003",
        )
    ]
