"""Waiting for what runs behind a request."""

from __future__ import annotations

import asyncio

from cachekit._io import ASYNCIO


async def background_done() -> None:
    """Wait until no background job of the running loop is left; those of other loops are not its own to wait for."""
    loop = asyncio.get_running_loop()
    while tasks := [task for task in ASYNCIO._tasks if task.get_loop() is loop]:  # type: ignore[attr-defined]
        await asyncio.wait(tasks)
