"""No test may hang: after LIMIT seconds it fails with the stacks of every thread, and the others still run.

The limit is an exception that event loops let through: one of another kind, raised between two steps of a task,
would be logged by the loop, which then waits for ever.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Generator
from typing import Any

import pytest

LIMIT = 0 if os.environ.get("CACHEKIT_SOAK") else int(os.environ.get("CACHEKIT_TEST_LIMIT", "180"))
"""Seconds for each of set-up, call and teardown; 0 for none."""

AGAIN = 10.0
"""Seconds after which a test that swallowed the exception gets another."""


class TooLong(SystemExit):
    """The time of a test is up."""


def _up(_signal: int, _frame: object) -> None:
    faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
    raise TooLong(f"this takes longer than {LIMIT} seconds")


def _limited() -> Generator[None, Any, Any]:
    if not LIMIT or not hasattr(signal, "SIGALRM"):
        return (yield)
    before = signal.signal(signal.SIGALRM, _up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, AGAIN)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    return (yield from _limited())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    return (yield from _limited())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    return (yield from _limited())
