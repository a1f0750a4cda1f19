"""How long a value may be used: one ``Policy`` per class of data, and the parsing of durations such as ``"5m"``.

Pure. Must not know about entries, stores or functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, TypeAlias

from cachekit.errors import ConfigError

Duration: TypeAlias = float | int | str | timedelta
"""Seconds, a ``timedelta``, or a string such as ``"500ms"``, ``"30s"``, ``"5m"``, ``"1h30m"``, ``"1d"``, ``"2w"``."""

FOREVER: Final = math.inf

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+\Z")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_PLAIN: Final = frozenset({int, float, str, timedelta})
_REMEMBERED: Final = 256
_EXAMPLES: Final = 'a number of seconds, a timedelta, or a string such as "30s", "5m", "1h30m", "1d"'


def seconds(value: Duration, what: str = "duration") -> float:
    """Return *value* in seconds. Raises ``ConfigError`` naming *what* when it is negative or cannot be parsed."""
    if isinstance(value, bool):
        raise ConfigError(f"{what}={value!r} is not a duration: give {_EXAMPLES}")
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, (int, float)):
        result = float(value)
    elif _DURATION.match(text := str(value).strip().lower().replace(" ", "")):
        result = sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
    else:
        raise ConfigError(f"{what}={value!r} is not a duration: give {_EXAMPLES}")
    if math.isnan(result) or result < 0:
        raise ConfigError(f"{what}={value!r} is negative or not a number: give {_EXAMPLES}")
    return result


def positive_seconds(value: Duration | None, what: str) -> float:
    """Return *value* in seconds, ``FOREVER`` for None. Raises ``ConfigError`` for zero too."""
    if value is None:
        return FOREVER
    result = seconds(value, what)
    if result == 0:
        raise ConfigError(f"{what}=0 would never be served: give {_EXAMPLES}, or None to keep the value until evicted")
    return result


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a value is fresh, and how long it may be served stale.

    Attributes:
        ttl: seconds for which the value is fresh; ``math.inf`` keeps it until it is evicted or invalidated.
        stale_while_revalidate: seconds after *ttl* in which a stale value is served while one refresh runs behind
            (RFC 5861 section 3).
        stale_if_error: seconds after *ttl* in which a stale value is served when the loader fails (RFC 5861 section 4).
        jitter: part of *ttl* (0 to 1) by which lifetimes are randomly shortened, so that they do not all end at once.
        beta: eagerness of probabilistic early refresh; 0 turns it off, 1 is optimal (Vattani, Chierichetti, Lowenstein,
            "Optimal Probabilistic Cache Stampede Prevention", PVLDB 8(8), 2015, doi 10.14778/2757807.2757813). None is 1
            where no lease is held (``lock=False``) and 0 elsewhere.
        lease: seconds for which one process may hold a key while it loads; another takes over afterwards.
        refresh_at: part of *ttl* (0 to 1) after which a hit starts a refresh behind; 0 turns eager refresh off.
        soft_timeout: seconds that a caller waits for a load while a stale value could be served instead; None for ever.
        hard_timeout: seconds that a caller waits for a load at all; None for ever. The load goes on behind.
        name: the TTL class, a label for counters.

    Raises:
        ConfigError: a number is out of range.
    """

    ttl: float = FOREVER
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    jitter: float = 0.0
    beta: float | None = None
    lease: float = 30.0
    refresh_at: float = 0.0
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ttl", positive_seconds(self.ttl, "ttl"))
        for field in ("stale_while_revalidate", "stale_if_error"):
            object.__setattr__(self, field, seconds(getattr(self, field), field))
        object.__setattr__(self, "lease", positive_seconds(self.lease, "lease"))
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"jitter={self.jitter!r} must be a part of the ttl: at least 0 and below 1, such as 0.1")
        if self.beta is not None and not self.beta >= 0:
            raise ConfigError(
                f"beta={self.beta!r} must not be negative: 0 turns early refresh off, 1 is the usual value"
            )
        if not 0 <= self.refresh_at < 1:
            raise ConfigError(
                f"refresh_at={self.refresh_at!r} must be a part of the ttl: 0 (off) or below 1, such as 0.8"
            )
        for field in ("soft_timeout", "hard_timeout"):
            if (value := getattr(self, field)) is not None:
                object.__setattr__(self, field, positive_seconds(value, field))
        if self.lease == FOREVER:
            raise ConfigError("lease must end: give a number of seconds above the loader's longest run")

    @classmethod
    def of(
        cls,
        ttl: Duration | None,
        *,
        stale_while_revalidate: Duration = 0,
        stale_if_error: Duration = 0,
        jitter: float = 0.0,
        beta: float | None = None,
        lease: Duration = 30,
        name: str = "",
    ) -> Policy:
        """Build a policy from durations in any accepted form. Raises ``ConfigError``."""
        return cls(
            ttl=positive_seconds(ttl, "ttl"),
            stale_while_revalidate=seconds(stale_while_revalidate, "stale_while_revalidate"),
            stale_if_error=seconds(stale_if_error, "stale_if_error"),
            jitter=jitter,
            beta=beta,
            lease=positive_seconds(lease, "lease"),
            name=name,
        )


class TTLClasses:
    """The named policies of one cache, such as ``{"tenant_stats": "5m", "tenant_config": Policy(ttl=86400)}``.

    Raises:
        ConfigError: a name could be read as a duration, or a value is neither a duration nor a ``Policy``.
    """

    def __init__(self, classes: Mapping[str, Duration | Policy] | None = None, *, jitter: float = 0.0) -> None:
        self._jitter = jitter
        self._classes: dict[str, Policy] = {}
        self._resolved: dict[tuple[type, Any], tuple[Policy, Policy]] = {}  # what a duration means, beside a default
        for name, value in (classes or {}).items():
            if not name or _DURATION.match(name):
                raise ConfigError(f"{name!r} cannot name a TTL class: use a word that is not a duration")
            policy = value if isinstance(value, Policy) else Policy.of(value, jitter=jitter)
            self._classes[name] = replace(policy, name=name)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes, in the order given."""
        return tuple(self._classes)

    def resolve(self, ttl: Duration | Policy | None, default: Policy) -> Policy:
        """Return the policy that *ttl* means: a policy, a class by its name, a duration, or *default* for None.

        Raises:
            ConfigError: *ttl* is neither a duration nor the name of a class.
        """
        if ttl is None:
            return default
        if isinstance(ttl, Policy):
            return ttl
        if isinstance(ttl, str):
            if (policy := self._classes.get(ttl)) is not None:
                return policy
            if not _DURATION.match(ttl.strip().lower().replace(" ", "")):
                known = ", ".join(map(repr, self._classes)) or "none are defined"
                raise ConfigError(
                    f"ttl={ttl!r} is neither a duration nor a TTL class (classes: {known}): give {_EXAMPLES}"
                )
        if type(ttl) not in _PLAIN:
            return replace(default, ttl=positive_seconds(ttl, "ttl"), name="")
        found = self._resolved.get((type(ttl), ttl))
        if found is None or found[0] is not default:
            found = default, replace(default, ttl=positive_seconds(ttl, "ttl"), name="")
            if len(self._resolved) >= _REMEMBERED:
                self._resolved.clear()
            self._resolved[type(ttl), ttl] = found
        return found[1]
