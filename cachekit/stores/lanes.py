"""Connections lent without ceremony: what the client library does around a command costs more than the command.

Uses the library's connections (their sockets, TLS, authentication and parsers) but not its pool, retries and
instrumentation. A connection that was idle and turns out to be broken is replaced once, so that a restarted server costs
nothing; a time-out is never tried again. Must not know what the commands mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any


class BlockingLanes:
    """Idle connections of the blocking world; taking and giving back are single steps of a list."""

    def __init__(self, pool: Any) -> None:
        from redis.exceptions import ConnectionError as Broken
        from redis.exceptions import ResponseError

        self._pool = pool
        self._broken = Broken
        self._refused = ResponseError
        self._idle: list[Any] = []

    def run(self, command: Sequence[Any]) -> Any:
        """Run *command*. Raises what the client library raises."""
        try:
            lane = self._idle.pop()
        except IndexError:
            return self._on(self._pool.connection_class(**self._pool.connection_kwargs), command)
        try:
            return self._on(lane, command)
        except self._broken:
            return self._on(self._pool.connection_class(**self._pool.connection_kwargs), command)

    def _on(self, lane: Any, command: Sequence[Any]) -> Any:
        try:
            lane.send_packed_command(lane.pack_command(*command), check_health=False)
            response = lane.read_response()
        except self._refused:
            self._idle.append(lane)  # an answer like any other, as far as the connection is concerned
            raise
        except BaseException:
            lane.disconnect()
            raise
        if len(self._idle) < self._pool.max_connections:
            self._idle.append(lane)
        else:
            lane.disconnect()
        return response

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().disconnect()


class AioLanes:
    """Idle connections of one event loop. Whoever runs a command bounds its time; the connections themselves do not."""

    def __init__(self, pool: Any) -> None:
        from redis.exceptions import ConnectionError as Broken
        from redis.exceptions import ResponseError

        self._pool = pool
        self._options = {**pool.connection_kwargs, "socket_timeout": None}
        self._broken = Broken
        self._refused = ResponseError
        self._idle: list[Any] = []
        self._places = asyncio.Semaphore(pool.max_connections)

    async def run(self, command: Sequence[Any]) -> Any:
        """Run *command*, once there is a place for it. Raises what the client library raises."""
        async with self._places:
            return await self._run(command)

    async def _run(self, command: Sequence[Any]) -> Any:
        try:
            lane = self._idle.pop()
        except IndexError:
            return await self._on(self._pool.connection_class(**self._options), command)
        try:
            return await self._on(lane, command)
        except self._broken:
            return await self._on(self._pool.connection_class(**self._options), command)

    async def _on(self, lane: Any, command: Sequence[Any]) -> Any:
        try:
            await lane.send_packed_command(lane.pack_command(*command), check_health=False)
            response = await lane.read_response()
        except self._refused:
            self._idle.append(lane)
            raise
        except BaseException:
            await lane.disconnect(nowait=True)
            raise
        self._idle.append(lane)
        return response

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().disconnect()
