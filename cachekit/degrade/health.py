"""How the application is: ready, degraded or warming, by what it is made of.

Must not know about HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from cachekit._io import IO
from cachekit.errors import ConfigError

log = logging.getLogger("cachekit")

Source: TypeAlias = Callable[[], bool]
"""Says at once, without I/O, whether something is there; raising means that it is not."""


class State(StrEnum):
    """The states that a load balancer tells apart."""

    READY = "ready"
    DEGRADED = "degraded"
    """Something is away; what does not need it goes on."""
    WARMING = "warming"
    """The warm-up has not ended."""


class StorePort(Protocol):
    """What is asked of a cache; ``cachekit.Cache`` has it."""

    @property
    def is_away(self) -> bool:
        """Say whether the store is known to be away."""
        ...

    async def _available(self, io: IO, max_age: float = 1.0) -> bool: ...


class WarmerPort(Protocol):
    """What is asked of a warmer."""

    @property
    def ready(self) -> bool:
        """Say whether the warm-up has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """How it is.

    Attributes:
        state: in a word.
        parts: whether each part is there, by name.
    """

    state: State
    parts: Mapping[str, bool]

    @property
    def away(self) -> tuple[str, ...]:
        """Return the parts that are not there."""
        return tuple(name for name, well in self.parts.items() if not well)

    def document(self) -> dict[str, Any]:
        """Return it as JSON says it."""
        return {"state": str(self.state), "parts": {n: "ok" if well else "away" for n, well in self.parts.items()}}


class Health:
    """Asks the parts.

    Args:
        cache: its store is the part ``store``.
        sources: further parts by name, such as ``{"sessions": store.is_there}``.
        warmer: while it is not ready the state is ``warming``.
        max_age: seconds for which an answer of the store is believed.

    Raises:
        ConfigError: a source cannot be called.
    """

    def __init__(
        self,
        cache: StorePort | None = None,
        sources: Mapping[str, Source] | None = None,
        warmer: WarmerPort | None = None,
        *,
        max_age: float = 1.0,
    ) -> None:
        self._cache = cache
        self._sources = dict(sources or {})
        given: dict[str, object] = dict(self._sources)
        for name, source in given.items():
            if not callable(source) or name == "store":
                raise ConfigError(f"sources: {name!r} must be a function that returns a bool, and not be called store")
        self._warmer = warmer
        self._max_age = max_age

    async def check(self, io: IO) -> Report:
        """Return how it is now; the store is asked if it has not spoken lately."""
        store = True if self._cache is None else await self._cache._available(io, self._max_age)
        return self._report(store)

    def glance(self) -> Report:
        """Return how it is as far as that is known, at once."""
        return self._report(self._cache is None or not self._cache.is_away)

    def _report(self, store: bool) -> Report:
        parts = {} if self._cache is None else {"store": store}
        parts.update({name: _ask(name, source) for name, source in self._sources.items()})
        if self._warmer is not None and not self._warmer.ready:
            return Report(State.WARMING, parts)
        return Report(State.READY if all(parts.values()) else State.DEGRADED, parts)


def _ask(name: str, source: Source) -> bool:
    try:
        return bool(source())
    except Exception:
        log.exception("the health source %r failed; it counts as away", name)
        return False
