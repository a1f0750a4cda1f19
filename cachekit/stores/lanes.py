"""Connections lent without ceremony: what the client library does around a command costs more than the command.

Uses the library's connections (their sockets, TLS, authentication and parsers) but not its pool, retries and
instrumentation. A connection that was idle and turns out to be broken is replaced once, so that a restarted server costs
nothing; a time-out is never tried again, and a command that must not run twice is not sent again once it was sent.
Must not know what the commands mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from cachekit.stores.aiolane import AioLane, Deadlines
from cachekit.stores.places import Places
from cachekit.stores.reply import Reply
from cachekit.stores.wire import Command, Wire


class Asked:
    """A command whose reply nobody has waited for yet.

    Args:
        lanes: what the connection goes back to.
        lane: the connection, on which nothing else may be sent before.
    """

    __slots__ = ("_lane", "_lanes")

    def __init__(self, lanes: BlockingLanes, lane: Wire) -> None:
        self._lanes = lanes
        self._lane = lane

    def reply(self) -> Any:
        """Return the reply, once. Raises what the client library raises."""
        return self._lanes.lent(self._lane, self._lane.hear)

    def drop(self) -> None:
        """Need no reply. One that is not there yet costs the connection: nobody waits for it."""
        try:
            if self._lane.connection.can_read(timeout=0):
                self.reply()
            else:
                self._lane.connection.disconnect()
        except Exception:  # noqa: BLE001 - whatever it says, nobody asks any more
            self._lane.connection.disconnect()


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

    def ask_ahead(self, command: Command) -> Asked | None:
        """Send *command*, and wait for nothing. Returns None, with nothing sent, where no open connection is free."""
        try:
            lane = self._idle.pop()
        except IndexError:
            return None
        try:
            if lane.tell(command):
                return Asked(self, lane)
        except BaseException:
            lane.connection.disconnect()
            raise
        self._give_back(lane)
        return None

    def _on(self, lane: Wire, command: Command) -> Any:
        return self.lent(lane, lane.ask, command)

    def lent(self, lane: Wire, call: Callable[..., Any], *args: Any) -> Any:
        """Return what *call*, which uses *lane*, returns; then others may have the lane."""
        try:
            response = call(*args)
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
        self._idle.append(lane)
        if len(self._idle) > self._most:
            self._shrink()

    def _shrink(self) -> None:
        with suppress(IndexError):  # another thread was faster
            self._idle.pop().connection.disconnect()

    def close(self) -> None:
        """Close the idle connections, and each of the others when it is given back."""
        self._most = 0
        while self._idle:
            self._shrink()


class AioLanes:
    """Idle connections of one event loop.

    Args:
        pool: the client library's recipe of a connection.
        loop: where they belong.
        timeout: seconds that a command may take, connecting included.
    """

    def __init__(self, pool: Any, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        from redis.exceptions import ConnectionError as Broken
        from redis.exceptions import ResponseError

        self._pool = pool
        self._loop = loop
        self._options = {**pool.connection_kwargs, "socket_timeout": None}
        self._broken = Broken
        self._refused = ResponseError
        self._idle: list[AioLane] = []
        self._closed = False
        self._out: set[AioLane] = set()
        """Those that no task has, which would close them when the loop ends."""
        self._places = Places(pool.max_connections)
        self._deadlines = Deadlines(loop, timeout, lambda: TimeoutError(f"no answer within {timeout:g} s"))

    def run(self, command: Command, *, once: bool = False) -> Awaitable[Any]:
        """Run *command*, once there is a place for it. Raises what the client library raises, or ``TimeoutError``."""
        return self._run(AioLane.ask, command, once)

    def ask_now(self, command: Command, then: Callable[[Any, BaseException | None], object]) -> bool:
        """Send *command* before this returns, and give *then* the reply, or the error in its place.

        Returns False, with nothing sent, where no open connection is free.
        """
        if not self._places.take():
            return False
        if (lane := self._free()) is None:
            self._places.give_back()
            return False
        try:
            future = lane.ask(command)
        except BaseException:
            self._places.give_back()
            lane.close()
            raise
        self._deadlines.watch(future)
        self._out.add(lane)

        def arrived(future: Reply) -> None:
            self._out.discard(lane)
            self._places.give_back()
            exc = future.exception()
            if exc is None or isinstance(exc, self._refused):
                self._give_back(lane)
            else:
                lane.close()
            then(None if exc is not None else future.result(), exc)

        future.add_done_callback(arrived)
        return True

    def _free(self) -> AioLane | None:
        """Return an open connection that nobody uses, or None."""
        while self._idle:
            if not (lane := self._idle.pop()).lost:
                return lane
        return None

    async def run_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run *commands* in one round trip. Returns the replies, error replies among them as values."""
        if not commands:
            return []
        replies: list[Any] = await self._run(AioLane.ask_all, commands, once=True)
        return replies

    async def _run(
        self, ask: Callable[[AioLane, Any], Reply], what: Any, once: bool, until: float | None = None
    ) -> Any:
        """Take a place, unless *until* says that there is one until then; use it, and give it back."""
        if until is None:
            until = self._loop.time() + self._deadlines.seconds
            if not self._places.take():
                async with asyncio.timeout_at(until):
                    await self._places.wait()
                    return await self._run(ask, what, once, until)
        try:  # one coroutine for the usual case: each layer of them is felt
            if (lane := self._free()) is not None:
                try:
                    future = ask(lane, what)
                    self._deadlines.watch(future)
                    response = await future
                except BaseException as exc:
                    self._failed(lane, exc)
                    if once or not isinstance(exc, self._broken):
                        raise
                else:
                    self._give_back(lane)
                    return response
            async with asyncio.timeout_at(until):
                return await self._on(await AioLane.open(self.connection()), ask, what)
        finally:
            self._places.give_back()

    async def _on(self, lane: AioLane, ask: Callable[[AioLane, Any], Reply], what: Any) -> Any:
        try:
            future = ask(lane, what)
            self._deadlines.watch(future)
            response = await future
        except BaseException as exc:
            self._failed(lane, exc)
            raise
        self._give_back(lane)
        return response

    def _failed(self, lane: AioLane, exc: BaseException) -> None:
        if isinstance(exc, self._refused):  # an answer like any other, as far as the connection is concerned
            self._give_back(lane)
        else:
            lane.close()

    def _give_back(self, lane: AioLane) -> None:
        if self._closed:
            lane.close()
        else:
            self._idle.append(lane)

    def connection(self, **options: Any) -> Any:
        """Return a connection that is not yet open and belongs to the caller; *options* come before the pool's own."""
        return self._pool.connection_class(**{**self._options, **options})

    def close(self) -> None:
        """Close the idle connections, and each of the others when it is given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def forget(self) -> None:
        """Free the connections of a loop that was closed."""
        for lanes in (self._idle, self._out):
            while lanes:
                lanes.pop().forget()
