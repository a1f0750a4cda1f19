"""When purges are delivered, and how it stands with them. Pure. Must not know how they are delivered."""

from __future__ import annotations

from dataclasses import dataclass

from cachekit.errors import ConfigError
from cachekit.policy import Duration, positive_seconds, seconds


@dataclass(frozen=True, slots=True)
class PurgeOptions:
    """When purges are delivered.

    Attributes:
        delay: seconds before the first try: until then the other processes have heard of the invalidation, and further
            ones join the same call.
        rebound: seconds after which a confirmed purge is sent once more; 0 for never.
        first_pause: seconds after the first failure; doubles with each further one, up to *longest_pause*, half of it
            by chance.
        longest_pause: see *first_pause*.
        give_up_after: age at which a purge that still fails is declared dead. It stays visible, and ``retry_dead`` or
            a further invalidation of the same tag tries it anew.
        timeout: seconds that one call may take.
        flush: seconds that ``close`` waits for what would be lost with the process.

    Raises:
        ConfigError: a value is out of range.
    """

    delay: Duration = 0.1
    rebound: Duration = 10
    first_pause: Duration = 0.5
    longest_pause: Duration = "1m"
    give_up_after: Duration = "1d"
    timeout: Duration = 10
    flush: Duration = 5

    def __post_init__(self) -> None:
        for name in ("delay", "rebound", "flush"):
            object.__setattr__(self, name, seconds(getattr(self, name), name))
        for name in ("first_pause", "longest_pause", "give_up_after", "timeout"):
            object.__setattr__(self, name, positive_seconds(getattr(self, name), name))
        if self.span("longest_pause") < self.span("first_pause"):
            raise ConfigError("longest_pause must not be shorter than first_pause")

    def span(self, name: str) -> float:
        """Return the option *name* in seconds."""
        value: float = getattr(self, name)
        return value

    def pause(self, tries: int, chance: float) -> float:
        """Return the seconds to wait after *tries* failures; *chance* is from 0 to 1."""
        full = min(self.span("first_pause") * 2.0 ** min(tries, 60), self.span("longest_pause"))
        return full * (0.5 + chance / 2)


@dataclass(frozen=True, slots=True)
class PurgeStatus:
    """How it stands with one purger.

    Attributes:
        pending: tags and URLs that the CDN has not confirmed.
        oldest_age: seconds for which the oldest of them waits; 0 when none does.
        rebounding: those that were confirmed and are sent once more.
        dead: those that were given up.
        dead_targets: the first hundred of them, as ``tag:product:42`` or ``url:https://...``.
        delivered: confirmations, by all processes that share the outbox.
        failed: deliveries that failed.
        last_error: what was wrong last, or empty. It may be long gone: *last_error_age* says how long.
        last_error_age: seconds since then, or None.
        unsaved: those that wait in this process for the store to come back.
    """

    pending: int = 0
    oldest_age: float = 0.0
    rebounding: int = 0
    dead: int = 0
    dead_targets: tuple[str, ...] = ()
    delivered: int = 0
    failed: int = 0
    last_error: str = ""
    last_error_age: float | None = None
    unsaved: int = 0
