"""Fixtures for the tests of applications: a fresh cache, and a clock that moves only when it is told to.

Loaded by pytest wherever cachekit is installed, so that it must import nothing before a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cachekit.facade import Cache
    from cachekit.testing import ManualClock


@pytest.fixture
def cachekit_clock() -> ManualClock:
    """Return a clock that stands still: ``cachekit_clock.advance(60)`` lets a minute pass."""
    from cachekit.testing import ManualClock

    return ManualClock()


@pytest.fixture
def cachekit_cache(cachekit_clock: ManualClock) -> Iterator[Cache]:
    """Return an empty cache in this process on ``cachekit_clock``, closed when the test has ended."""
    from cachekit.facade import Cache

    with Cache(clock=cachekit_clock) as cache:
        yield cache
