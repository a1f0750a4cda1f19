"""Connections lent without ceremony: what the client library does around a command costs more than the command.

Uses the library's connections (their sockets, TLS, authentication and parsers) but not its pool, retries and
instrumentation. A connection that was idle and turns out to be broken is replaced once, so that a restarted server costs
nothing; a time-out is never tried again, and a command that must not run twice is not sent again once it was sent.
Must not know what the commands mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cachekit.stores.wire import AioWire, Command, Wire


class BlockingLanes:
    """Idle connections of the blocking world; taking and giving back are single steps of a list."""

    def __init__(self, pool: Any) -> None:
        from redis.exceptions import ConnectionError as Broken
        from redis.exceptions import ResponseError

        self._pool = pool
        self._broken = Broken
        self._refused = ResponseError
        self._most: int = pool.max_connections
        self._idle: list[Wire] = []

    def connection(self, **options: Any) -> Any:
        """Return a connection that is not yet open and belongs to the caller; *options* come before the pool's own."""
        return self._pool.connection_class(**{**self._pool.connection_kwargs, **options})

    def _new(self) -> Wire:
        return Wire(self.connection())

    def run(self, command: Command, *, once: bool = False) -> Any:
        """Run *command*; where it must run at most *once*, a lost reply is an error. Raises what the library raises."""
        try:
            lane = self._idle.pop()
        except IndexError:
            return self._on(self._new(), command)
        if once:
            return self._on(lane if self._stands(lane) else self._new(), command)
        try:
            return self._on(lane, command)
        except self._broken:
            return self._on(self._new(), command)

    def _stands(self, lane: Wire) -> bool:
        """Say whether the other side has not closed an idle *lane*."""
        try:
            standing = not lane.connection.can_read(timeout=0)
        except (self._broken, OSError):
            standing = False
        if not standing:
            lane.connection.disconnect()
        return standing

    def _on(self, lane: Wire, command: Command) -> Any:
        try:
            response = lane.ask(command)
        except self._refused:
            self._give_back(lane)  # an answer like any other, as far as the connection is concerned
            raise
        except BaseException:
            lane.connection.disconnect()
            raise
        self._give_back(lane)
        return response

    def send(self, commands: Sequence[Command]) -> Any:
        """Send *commands* in one go. Returns the connection, for ``receive``."""
        lane = self._idle.pop() if self._idle else self._new()
        if lane.connection._sock is not None and not self._stands(lane):
            lane = self._new()
        connection = lane.connection
        try:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        except BaseException:
            connection.disconnect()
            raise
        return lane

    def receive(self, lane: Wire, count: int) -> list[Any]:
        """Return the replies to what was sent on *lane*, error replies among them as values."""
        replies: list[Any] = []
        read = lane.connection.read_response
        try:
            for _ in range(count):
                try:
                    replies.append(read())
                except self._refused as exc:
                    replies.append(exc)
        except BaseException:
            lane.connection.disconnect()
            raise
        self._give_back(lane)
        return replies

    def _give_back(self, lane: Wire) -> None:
        if len(self._idle) < self._most:
            self._idle.append(lane)
        else:
            lane.connection.disconnect()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().connection.disconnect()


class AioLanes:
    """Idle connections of one event loop. Each command is bounded by *timeout* seconds, opening a connection included.

    One timer serves all commands: one for each would cost more than the rest of what is done here.
    """

    def __init__(self, pool: Any, timeout: float) -> None:
        from redis.exceptions import ConnectionError as Broken
        from redis.exceptions import ResponseError

        self._pool = pool
        self._timeout = timeout
        self._options = {**pool.connection_kwargs, "socket_timeout": None}
        self._broken = Broken
        self._refused = ResponseError
        self._idle: list[AioWire] = []
        self._places = asyncio.Semaphore(pool.max_connections)
        self._loop = asyncio.get_running_loop()
        self._flying: dict[AioWire, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, command: Command, *, once: bool = False) -> Any:
        """Run *command*, once there is a place for it. Raises ``TimeoutError``, and what the client library raises."""
        if once or not self._idle or self._places.locked() or not self._idle[-1].is_straight:
            async with asyncio.timeout(self._timeout), self._places:
                return await self._run(command, once=once)
        started = self._loop.time()
        async with self._places:  # there is one
            lane = self._idle.pop()
            self._flying[lane] = until = started + self._timeout
            if self._timer is None:
                self._timer = self._loop.call_at(until, self._late)
            try:
                return await self._on(lane, command)
            except self._broken:
                if lane.late:
                    raise TimeoutError from None
            finally:
                del self._flying[lane]
            async with asyncio.timeout(until - self._loop.time()):
                return await self._on(self._new(), command)

    def _late(self) -> None:
        """Give up the commands whose time is over."""
        now = self._loop.time()
        for lane, until in list(self._flying.items()):
            if until <= now:
                lane.give_up()
        soonest = min((until for until in self._flying.values() if until > now), default=None)
        self._timer = None if soonest is None else self._loop.call_at(soonest, self._late)

    async def _run(self, command: Command, *, once: bool) -> Any:
        try:
            lane = self._idle.pop()
        except IndexError:
            return await self._on(self._new(), command)
        if once:
            return await self._on(lane if await self._stands(lane) else self._new(), command)
        try:
            return await self._on(lane, command)
        except self._broken:
            return await self._on(self._new(), command)

    def connection(self, **options: Any) -> Any:
        """Return a connection that is not yet open and belongs to the caller; *options* come before the pool's own."""
        return self._pool.connection_class(**{**self._options, **options})

    def _new(self) -> AioWire:
        return AioWire(self.connection())

    async def _stands(self, lane: AioWire) -> bool:
        reader = lane.connection._reader
        if reader is not None and not reader.at_eof() and reader.exception() is None:
            return True
        await lane.connection.disconnect(nowait=True)
        return False

    async def _on(self, lane: AioWire, command: Command) -> Any:
        try:
            response = await lane.ask(command)
        except self._refused:
            self._give_back(lane)
            raise
        except BaseException:
            await lane.connection.disconnect(nowait=True)
            raise
        self._give_back(lane)
        return response

    def _give_back(self, lane: AioWire) -> None:
        if not lane.late:  # else it was given up in the moment in which its reply came
            self._idle.append(lane)

    async def run_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run *commands* in one round trip. Returns the replies, error replies among them as values."""
        async with asyncio.timeout(self._timeout), self._places:
            lane = self._idle.pop() if self._idle else self._new()
            if lane.connection.is_connected and not await self._stands(lane):
                lane = self._new()
            connection = lane.connection
            replies: list[Any] = []
            try:
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except self._refused as exc:
                        replies.append(exc)
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            self._give_back(lane)
            return replies

    async def close(self) -> None:
        """Close the idle connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._idle:
            await self._idle.pop().connection.disconnect()
