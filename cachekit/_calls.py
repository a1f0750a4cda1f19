"""What a cache did while a test looked; users import it from ``cachekit.testing``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from cachekit.stats import Figures, Stats


class Observed(Protocol):
    """What ``calls`` counts: a ``Cache``."""

    def stats(self) -> Stats:
        """Return what it did so far."""
        ...


class Calls:
    """What a cache did between two moments; see ``calls``."""

    def __init__(self, cache: Observed) -> None:
        self._cache = cache
        self._before = cache.stats()
        self._after: Stats | None = None

    def _figures(self) -> Figures:
        return (self._after or self._cache.stats()).total - self._before.total

    def end(self) -> None:
        """Count no further."""
        self._after = self._cache.stats()

    def of(self, fn: Callable[..., Any]) -> Figures:
        """Return what the cached function *fn* did. Raises ``LookupError`` when this cache does not know it."""
        name = f"{fn.__module__}.{fn.__qualname__}"
        after = (self._after or self._cache.stats()).by_function
        if name not in after:
            raise LookupError(f"{name} is not decorated by this cache: it knows {', '.join(filter(None, after))}")
        return after[name] - self._before.by_function.get(name, Figures())

    @property
    def hits(self) -> int:
        """Return how many values were served fresh."""
        return self._figures().hits

    @property
    def misses(self) -> int:
        """Return how many values were not there, or no longer fresh."""
        return self._figures().misses

    @property
    def stale(self) -> int:
        """Return how many values were served stale."""
        return self._figures().stale

    @property
    def loads(self) -> int:
        """Return how often a loader ran."""
        return self._figures().loads

    @property
    def load_errors(self) -> int:
        """Return how often a loader raised."""
        return self._figures().load_errors

    def __repr__(self) -> str:
        seen = self._figures()
        return f"<{seen.hits} hits, {seen.misses} misses, {seen.stale} stale, {seen.loads} loads, {seen.load_errors} errors>"


@contextlib.contextmanager
def calls(cache: Observed) -> Iterator[Calls]:
    """Count what *cache* does in a ``with`` block, and no further.

    Example:
        >>> from cachekit import Cache
        >>> cache = Cache()
        >>> @cache.cached(ttl="5m")
        ... def price(product: int) -> int:
        ...     return product * 2
        >>> with calls(cache) as seen:
        ...     _ = price(21), price(21)
        >>> seen
        <1 hits, 1 misses, 0 stale, 1 loads, 0 errors>
    """
    seen = Calls(cache)
    try:
        yield seen
    finally:
        seen.end()
