"""The cache of the module-level ``cachekit.cache`` and ``cachekit.cached``: one a process, made when first needed.

Its URL is the environment variable ``CACHEKIT_URL``, or ``memory://``. A program that needs more options builds a
``Cache`` and hands it to ``use`` before anything is decorated; ``cachekit run`` does so.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar, Unpack, overload

from cachekit.errors import ConfigError
from cachekit.facade import Cache
from cachekit.signatures import CachedCoroutine, CachedFunction, CachedOptions, Decorate

ENVIRONMENT: Final = "CACHEKIT_URL"

P = ParamSpec("P")
R = TypeVar("R")

_lock = threading.Lock()
_default: list[Cache] = []


def default_cache() -> Cache:
    """Return the default cache, made on the first call. Raises ``ConfigError`` when ``CACHEKIT_URL`` cannot be used."""
    with _lock:
        if not _default:
            url = os.environ.get(ENVIRONMENT) or "memory://"
            try:
                _default.append(Cache(url))
            except ConfigError as exc:
                raise ConfigError(f"{ENVIRONMENT}: {exc}") from exc
        return _default[0]


def use(cache: Cache) -> Cache:
    """Make *cache* the default. Raises ``ConfigError`` when another one is in use already."""
    with _lock:
        if _default and _default[0] is not cache:
            raise ConfigError(
                "the default cache is in use already: call cachekit.use(cache) before importing what decorates functions"
            )
        if not _default:
            _default.append(cache)
        return cache


def is_made() -> bool:
    """Say whether the default cache is there already."""
    return bool(_default)


@overload
def cached(fn: None = None, /, **options: Unpack[CachedOptions]) -> Decorate: ...
@overload
def cached(fn: Callable[P, Coroutine[Any, Any, R]], /) -> CachedCoroutine[P, R]: ...  # type: ignore[overload-overlap]
@overload
def cached(fn: Callable[P, R], /) -> CachedFunction[P, R]: ...
def cached(fn: Any = None, /, **options: Any) -> Any:
    """Keep the results of a function in the default cache; the options are those of ``Cache.cached``.

    Example:
        >>> @cached(ttl="5m", tags=["product:{product_id}"])
        ... def price(product_id: int) -> float:
        ...     return 9.99
        >>> price(42)
        9.99
    """
    cache = default_cache()
    return cache.cached(**options) if fn is None else cache.cached(fn)
