"""``lifespan=cachekit_lifespan(cache, warmer)``: warms up before the application takes traffic, and closes the cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from cachekit import Cache, ConfigError
from cachekit.warm import Warmer

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]


def cachekit_lifespan(
    cache: Cache, warmer: Warmer | None = None, *, lifespan: Lifespan | None = None
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """Return a lifespan for ``Starlette`` or ``FastAPI``, around the application's own.

    The application starts first, so that the warm-up may use what it opened; it stops before the cache closes. Its state is
    passed on.

    Args:
        cache: the cache to close in the end.
        warmer: what to run in the beginning; by its deadline the application takes traffic in any case.
        lifespan: the application's own.

    Raises:
        ConfigError: an argument is of another kind.

    Example:
        >>> from starlette.applications import Starlette
        >>> app = Starlette(lifespan=cachekit_lifespan(Cache()))
    """
    if not isinstance(cache, Cache):
        raise ConfigError(f"cachekit_lifespan: cache={cache!r} must be a Cache")
    if warmer is not None and not isinstance(warmer, Warmer):
        raise ConfigError(f"cachekit_lifespan: warmer={warmer!r} must be a cachekit.warm.Warmer")
    if lifespan is not None and not callable(lifespan):
        raise ConfigError(f"cachekit_lifespan: lifespan={lifespan!r} must be the application's own lifespan")

    @asynccontextmanager
    async def around(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(cache.aclose)
            state = await stack.enter_async_context(lifespan(app)) if lifespan is not None else None
            if warmer is not None and not warmer.ready:
                await warmer.arun()
            yield state

    return around
