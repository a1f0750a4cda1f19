"""Connections lent without ceremony: what the client library does around a command costs more than the command.

Uses the library's connections (their sockets, TLS, authentication and parsers) but not its pool, retries and
instrumentation. A connection that was idle and turns out to be broken is replaced once, so that a restarted server costs
nothing; a time-out is never tried again, and a command that must not run twice is not sent again once it was sent.
Must not know what the commands mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

Command: TypeAlias = Sequence[Any]


class BlockingLanes:
    """Idle connections of the blocking world; taking and giving back are single steps of a list."""

    def __init__(self, pool: Any) -> None:
        from redis.exceptions import ConnectionError as Broken
        from redis.exceptions import ResponseError

        self._pool = pool
        self._broken = Broken
        self._refused = ResponseError
        self._idle: list[Any] = []

    def connection(self, **options: Any) -> Any:
        """Return a connection that is not yet open and belongs to the caller; *options* come before the pool's own."""
        return self._pool.connection_class(**{**self._pool.connection_kwargs, **options})

    def run(self, command: Command, *, once: bool = False) -> Any:
        """Run *command*; where it must run at most *once*, a lost reply is an error. Raises what the library raises."""
        try:
            lane = self._idle.pop()
        except IndexError:
            return self._on(self.connection(), command)
        if once:
            return self._on(lane if self._stands(lane) else self.connection(), command)
        try:
            return self._on(lane, command)
        except self._broken:
            return self._on(self.connection(), command)

    def _stands(self, lane: Any) -> bool:
        """Say whether the other side has not closed an idle *lane*."""
        try:
            standing = not lane.can_read(timeout=0)
        except (self._broken, OSError):
            standing = False
        if not standing:
            lane.disconnect()
        return standing

    def _on(self, lane: Any, command: Command) -> Any:
        try:
            lane.send_packed_command(lane.pack_command(*command), check_health=False)
            response = lane.read_response()
        except self._refused:
            self._give_back(lane)  # an answer like any other, as far as the connection is concerned
            raise
        except BaseException:
            lane.disconnect()
            raise
        self._give_back(lane)
        return response

    def send(self, commands: Sequence[Command]) -> Any:
        """Send *commands* in one go. Returns the connection, for ``receive``."""
        lane = self._idle.pop() if self._idle else self.connection()
        if not self._stands_if_open(lane):
            lane = self.connection()
        try:
            lane.send_packed_command(lane.pack_commands(commands), check_health=False)
        except BaseException:
            lane.disconnect()
            raise
        return lane

    def _stands_if_open(self, lane: Any) -> bool:
        return lane._sock is None or self._stands(lane)

    def receive(self, lane: Any, count: int) -> list[Any]:
        """Return the replies to what was sent on *lane*, error replies among them as values."""
        replies: list[Any] = []
        try:
            for _ in range(count):
                try:
                    replies.append(lane.read_response())
                except self._refused as exc:
                    replies.append(exc)
        except BaseException:
            lane.disconnect()
            raise
        self._give_back(lane)
        return replies

    def _give_back(self, lane: Any) -> None:
        if len(self._idle) < self._pool.max_connections:
            self._idle.append(lane)
        else:
            lane.disconnect()

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

    async def run(self, command: Command, *, once: bool = False) -> Any:
        """Run *command*, once there is a place for it. Raises what the client library raises."""
        async with self._places:
            return await self._run(command, once=once)

    async def _run(self, command: Command, *, once: bool) -> Any:
        try:
            lane = self._idle.pop()
        except IndexError:
            return await self._on(self.connection(), command)
        if once:
            return await self._on(lane if await self._stands(lane) else self.connection(), command)
        try:
            return await self._on(lane, command)
        except self._broken:
            return await self._on(self.connection(), command)

    def connection(self, **options: Any) -> Any:
        """Return a connection that is not yet open and belongs to the caller; *options* come before the pool's own."""
        return self._pool.connection_class(**{**self._options, **options})

    async def _stands(self, lane: Any) -> bool:
        reader = lane._reader
        if reader is not None and not reader.at_eof() and reader.exception() is None:
            return True
        await lane.disconnect(nowait=True)
        return False

    async def _on(self, lane: Any, command: Command) -> Any:
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

    async def run_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run *commands* in one round trip. Returns the replies, error replies among them as values."""
        async with self._places:
            lane = self._idle.pop() if self._idle else self.connection()
            if lane.is_connected and not await self._stands(lane):
                lane = self.connection()
            replies: list[Any] = []
            try:
                await lane.send_packed_command(lane.pack_commands(commands), check_health=False)
                for _ in commands:
                    try:
                        replies.append(await lane.read_response())
                    except self._refused as exc:
                        replies.append(exc)
            except BaseException:
                await lane.disconnect(nowait=True)
                raise
            self._idle.append(lane)
            return replies

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().disconnect()
