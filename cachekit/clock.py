"""Time and chance: the only module that reads the system's clock or draws random numbers.

Everything else receives a ``Clock`` (a callable that returns seconds) or ``now: float``.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Returns seconds since the epoch. Entries outlive processes, so their times are wall-clock times."""

Chance: TypeAlias = Callable[[], float]
"""Returns a number in [0, 1), as ``random.random`` does."""

system_clock: Clock = time.time
system_chance: Chance = random.random
stopwatch: Clock = time.perf_counter
"""Measures durations only; its zero means nothing."""


def random_token(size: int = 16) -> bytes:
    """Return *size* random bytes from the operating system."""
    return os.urandom(size)
