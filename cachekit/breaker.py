"""A circuit breaker as a value: whether a call is allowed now, and what its outcome changes.

Pure: time comes in as ``now``. Must not know what it protects.
"""

from __future__ import annotations

from cachekit.errors import ConfigError


class Breaker:
    """Opens after *failures* consecutive failures, or a slow one; then lets one probe through after each pause.

    The pause doubles up to a cap.

    Args:
        failures: consecutive failures that open it.
        pause: seconds before the first probe.
        longest_pause: cap of the pause in seconds.

    Raises:
        ConfigError: a number is out of range.
    """

    __slots__ = ("_failures", "_limit", "_longest", "_open_until", "_pause", "_probing", "_shortest")

    def __init__(self, *, failures: int = 3, pause: float = 0.5, longest_pause: float = 10.0) -> None:
        if failures < 1 or pause <= 0 or longest_pause < pause:
            raise ConfigError("a breaker needs failures >= 1 and 0 < pause <= longest_pause (seconds)")
        self._limit = failures
        self._shortest = self._pause = pause
        self._longest = longest_pause
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Return whether calls are refused, apart from probes."""
        return self._open_until is not None

    @property
    def is_quiet(self) -> bool:
        """Return whether everything is well: it is closed and the last call did not fail."""
        return not self._failures  # it opens by failures only

    def allow(self, now: float) -> bool:
        """Say whether a call may go through at *now*. While open, one caller a pause is let through as a probe."""
        if self._open_until is None:
            return True
        if self._open_until - self._longest <= now < self._open_until:  # else the clock was set back
            return False
        self._open_until = now + self._pause
        self._probing = True
        return True

    def retry_after(self, now: float) -> float:
        """Return the seconds until the next probe, 0 when closed."""
        return 0.0 if self._open_until is None else min(self._longest, max(0.0, self._open_until - now))

    def record(self, ok: bool, now: float, *, slow: bool = False) -> bool:
        """Take in an outcome. Returns True when this opened or closed the breaker.

        A failure that was *slow* opens it at once: each further try would cost a caller as much time again.

        Only a probe's failure makes the pause longer: calls that were under way when it opened say nothing new.
        """
        probe, self._probing = self._probing, False
        if ok:
            was_open, self._open_until = self._open_until is not None, None
            self._failures, self._pause = 0, self._shortest
            return was_open
        self._failures += 1
        if self._open_until is not None:
            if not probe:
                return False
            self._pause = min(self._pause * 2, self._longest)
            self._open_until = now + self._pause
            return False
        if slow or self._failures >= self._limit:
            self._open_until = now + self._pause
            return True
        return False
