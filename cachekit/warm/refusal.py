"""The answer to a request that comes before the warm-up has ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cachekit.errors import ConfigError

STATUS: Final = 503
REASON: Final = "Service Unavailable"
BODY: Final = b"The application is starting. Please try again.\n"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which requests are refused, and with which headers.

    Raises:
        ConfigError: *retry_after* is not positive, or *allow* is a string.
    """

    retry_after: int
    allow: Iterable[str] = ()

    def __post_init__(self) -> None:
        if type(self.retry_after) is not int or self.retry_after < 1:
            raise ConfigError(f"retry_after={self.retry_after!r} must be a positive whole number of seconds")
        if isinstance(self.allow, str):
            raise ConfigError(f'allow={self.allow!r} must be a list of paths: ["{self.allow}"]')
        object.__setattr__(self, "allow", frozenset(self.allow))

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers. No cache may keep this answer."""
        return [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(BODY))),
            ("Retry-After", str(self.retry_after)),
            ("Cache-Control", "no-store"),
        ]
