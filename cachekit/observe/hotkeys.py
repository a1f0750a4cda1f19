"""The hottest keys of each function: a bounded sample, taken beside the hit path.

Hits are counted on the entries in process anyway; a sample reads those counts and feeds what was added since the last one
to a summary of fixed size. Hits on a server alone, and misses, are told one by one, where a round trip or a load dwarfs
that. Must not know how it is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cachekit._fork import renew_in_child
from cachekit.errors import ConfigError
from cachekit.events import Event, Kind
from cachekit.facade import Cache
from cachekit.stores.memory import Tally

_COUNTED: Final = (Kind.MISS, Kind.STALE)


@dataclass(frozen=True, slots=True)
class HotKey:
    """One of the hottest keys.

    Attributes:
        key: the cache key.
        lookups: how often it was looked up, at most; it may be too high by *error*, never too low.
        error: by how much *lookups* may be too high.
    """

    key: str
    lookups: int
    error: int = 0


class TopKeys:
    """A summary of *size* counters: the Space-Saving algorithm.

    A key that has no counter takes over the smallest, and its count as the error. Every key with more than ``total / size``
    lookups is in it (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams",
    ICDT 2005, doi 10.1007/978-3-540-30570-5_27).

    Raises:
        ConfigError: *size* is not positive.
    """

    def __init__(self, size: int) -> None:
        if type(size) is not int or size < 1:
            raise ConfigError(f"size={size!r} must be a positive whole number")
        self._size = size
        self._counts: dict[str, tuple[int, int]] = {}
        self.total = 0

    def add(self, key: str, count: int = 1) -> None:
        """Count *key*."""
        self.total += count
        known = self._counts.get(key)
        if known is not None:
            self._counts[key] = known[0] + count, known[1]
        elif len(self._counts) < self._size:
            self._counts[key] = count, 0
        else:
            smallest = min(self._counts, key=lambda name: self._counts[name][0])
            least = self._counts.pop(smallest)[0]
            self._counts[key] = least + count, least

    def top(self, count: int) -> list[HotKey]:
        """Return the *count* hottest keys, the hottest first."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1][0], item[0]))
        return [HotKey(key, lookups, error) for key, (lookups, error) in ordered[:count]]


class HotKeys:
    """Follows the hottest keys of *cache* by function, from now on. One for a cache and process is enough.

    Call ``sample`` now and then, from wherever figures are collected: what an entry served between its last sample and
    its end is not seen.

    Args:
        cache: the cache to follow.
        size: counters for each function; a few times more than the keys that are asked for.

    Example:
        >>> from cachekit import Cache
        >>> cache = Cache()
        >>> @cache.cached(key="price:{product}")
        ... def price(product: int) -> int:
        ...     return product * 2
        >>> hot = HotKeys(cache)
        >>> _ = [price(product) for product in (1, 2, 1, 1, 2, 3)]
        >>> hot.sample()
        >>> [(found.key, found.lookups) for found in hot.top(price.__module__ + ".price", 2)]
        [('price:1', 3), ('price:2', 2)]
    """

    def __init__(self, cache: Cache, *, size: int = 200) -> None:
        TopKeys(size)  # refuses a wrong size
        self._cache = cache
        self._size = size
        self._renew()
        renew_in_child(self, HotKeys._renew)
        cache.events.subscribe(self._observe)
        cache.engine.on_hit = self._hit

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._functions: dict[str, TopKeys] = {}
        self._seen: dict[str, int] = {}
        if self._cache.l1 is not None:
            self._seen = {key: hits for key, _, hits in self._cache.l1.uses()}

    def _observe(self, event: Event) -> None:
        if event.kind in _COUNTED and event.key:
            with self._lock:
                self._of(event.name).add(event.key)

    def _hit(self, key: str, name: str) -> None:
        with self._lock:
            self._of(name).add(key)

    def _of(self, name: str) -> TopKeys:
        found = self._functions.get(name)
        if found is None:
            found = self._functions[name] = TopKeys(self._size)
        return found

    def sample(self) -> None:
        """Take in what entries in process served since the last sample."""
        if self._cache.l1 is None:
            return
        names = self._cache.function_names()
        uses = self._cache.l1.uses()
        with self._lock:
            before, self._seen = self._seen, {key: hits for key, _, hits in uses}
            for key, owner, hits in uses:
                known = before.get(key, 0)
                if added := hits - known if hits >= known else hits:  # fewer: another entry has taken its place
                    self._of(_name(names, owner)).add(key, added)

    def top(self, name: str, count: int = 20) -> list[HotKey]:
        """Return the hottest keys of the function *name*; those of direct calls such as ``get`` under ``""``."""
        with self._lock:
            found = self._functions.get(name)
            return found.top(count) if found is not None else []

    def by_function(self, count: int = 20) -> dict[str, list[HotKey]]:
        """Return the hottest keys of every function that was used."""
        with self._lock:
            return {name: found.top(count) for name, found in sorted(self._functions.items())}


def _name(names: Mapping[Tally, str], owner: Tally) -> str:
    return names.get(owner, owner.label)
