"""What becomes of what a loader made: the wishes of the loader itself, and what the function's options say.

Pure decisions; the engine carries them out. Must not know about stores or flights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cachekit.policy import Duration, Policy, positive_seconds
from cachekit.tags import tag


class Loading:
    """The load that is running here, as its loader may influence it.

    Attributes:
        key: the cache key that is being loaded; empty where nothing is.
    """

    __slots__ = ("_stored", "_ttl", "key")

    def __init__(self, key: str = "") -> None:
        self.key = key
        self._ttl: float | None = None
        self._stored = True

    @property
    def ttl(self) -> float | None:
        """Return the lifetime in seconds that was asked for, or None."""
        return self._ttl

    @ttl.setter
    def ttl(self, value: Duration) -> None:
        """Ask for another lifetime than the function's own. Raises ``ConfigError``."""
        self._ttl = positive_seconds(value, "ttl")

    @property
    def stored(self) -> bool:
        """Return whether the result may be kept."""
        return self._stored

    def no_store(self) -> None:
        """Ask that the result is given to whoever waits for it, and not kept."""
        self._stored = False

    def tag(self, *tags: str) -> None:
        """Add tags to the result. Raises ``ConfigError`` for an invalid one."""
        tag(*tags)


here: Final[ContextVar[Loading | None]] = ContextVar("cachekit_loading", default=None)


def current() -> Loading:
    """Return the load that is running here. Where none is, what is asked of it has no effect.

    Example:
        >>> def rates() -> dict[str, float]:
        ...     current().ttl = "10m"
        ...     return {"EUR": 1.0}
    """
    return here.get() or Loading()


@dataclass(frozen=True, slots=True)
class Raised:
    """A kept exception: what stands in the cache instead of a value."""

    name: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a function's options say about its results.

    Attributes:
        keep_if: receives the result and says whether it is kept; None keeps all.
        none_ttl: lifetime of None in seconds; None gives it the ordinary one, 0 does not keep it.
        exceptions: lifetimes in seconds of the kinds of exception that are kept.
    """

    keep_if: Callable[[Any], object] | None = None
    none_ttl: float | None = None
    exceptions: Mapping[type[Exception], float] = field(default_factory=dict)
    _kinds: dict[str, type[Exception]] = field(default_factory=dict, repr=False, compare=False)

    def policy(self, value: Any, policy: Policy, loading: Loading) -> Policy | None:
        """Return how long *value* is kept, or None when it is not."""
        if not loading.stored or (self.keep_if is not None and not self.keep_if(value)):
            return None
        if loading.ttl is not None:
            return replace(policy, ttl=loading.ttl)
        if value is None and self.none_ttl is not None:
            return replace(policy, ttl=self.none_ttl) if self.none_ttl > 0 else None
        return policy

    def failure(self, exc: Exception) -> tuple[Raised, Policy] | None:
        """Return what is kept of *exc* and for how long, or None when it is not."""
        for kind, ttl in self.exceptions.items():
            if isinstance(exc, kind):
                name = _name(type(exc))
                self._kinds[name] = type(exc)
                return Raised(name, exc.args), Policy(ttl=ttl)
        return None

    def revive(self, raised: Raised) -> Exception:
        """Return the exception that was kept, or the nearest kind that is known here."""
        for kind in (self._kinds.get(raised.name), *self.exceptions):
            if kind is not None:
                try:
                    return kind(*raised.args)
                except TypeError:
                    continue
        return RuntimeError(raised.name, *raised.args)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
