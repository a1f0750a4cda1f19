"""What came of a warm-up, as values. Must not know how it ran."""

from __future__ import annotations

import logging
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that raised on its last try.

    Attributes:
        job: what was called, such as ``shop.stats('acme', 'day')``.
        error: what it raised; ``CancelledError`` when it was cancelled by something of its own.
        attempts: how often it was tried.
    """

    job: str
    error: BaseException
    attempts: int


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a warm-up.

    Attributes:
        succeeded: jobs that returned.
        failed: jobs that raised on their last try.
        unfinished: jobs that the deadline cut off, or that had not begun.
        seconds: how long it took.
        deadline: the deadline in seconds if it cut something off, or None.
    """

    succeeded: int = 0
    failed: tuple[Failure, ...] = ()
    unfinished: tuple[str, ...] = ()
    seconds: float = 0.0
    deadline: float | None = None

    @property
    def total(self) -> int:
        """Return how many jobs there were."""
        return self.succeeded + len(self.failed) + len(self.unfinished)

    @property
    def ok(self) -> bool:
        """Return whether every job returned."""
        return not self.failed and not self.unfinished and self.deadline is None

    @property
    def level(self) -> int:
        """Return the level at which it is logged."""
        return logging.WARNING if self.failed or self.deadline is not None else logging.INFO

    def __str__(self) -> str:
        parts = [f"{self.succeeded} of {self.total} jobs in {self.seconds:.1f} s"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.deadline is not None:
            parts.append(f"{len(self.unfinished)} unfinished at the deadline of {self.deadline:g} s")
        return ", ".join(parts)
