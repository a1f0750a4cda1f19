"""A connection of an event loop that one command at a time is sent on, without a stream in between.

The client library connects, with all that this takes (TLS, authentication, the choice of a database); from then on the
transport speaks to us. Reading through its streams, parsers and time-outs costs more than the server's answer. Must not
know what the commands mean, nor who decides to try again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, cast

from cachekit.clock import stopwatch
from cachekit.stores.reply import Reply
from cachekit.stores.resp import NOTHING, Reader, ReplyError
from cachekit.stores.wire import Command

Awaited: TypeAlias = "asyncio.Future[Any] | Reply"

_MORE: Final = object()


class Deadlines:
    """Ends futures whose time is over. All have the same time, so that one timer serves all: one each costs too much.

    Args:
        loop: where they belong.
        seconds: how long each may take.
        error: makes what they end with.
    """

    __slots__ = ("_error", "_loop", "_timer", "_waiting", "seconds")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, error: Callable[[], Exception]) -> None:
        self._loop = loop
        self._error = error
        self.seconds = seconds
        self._waiting: deque[tuple[float, Awaited]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: Awaited) -> None:
        """End *future* with an error unless it is done in time."""
        waiting = self._waiting
        while waiting and waiting[0][1].done():  # what is done is not held on to
            waiting.popleft()
        waiting.append((stopwatch() + self.seconds, future))
        if self._timer is None:
            self._timer = self._loop.call_later(self.seconds, self._ring)

    def _ring(self) -> None:
        now = stopwatch()
        waiting = self._waiting
        while waiting and (waiting[0][1].done() or waiting[0][0] <= now):
            _, future = waiting.popleft()
            if not future.done():
                future.set_exception(self._error())
        self._timer = self._loop.call_later(waiting[0][0] - now, self._ring) if waiting else None


class AioLane(asyncio.Protocol):
    """One connection; whoever has it has it alone."""

    def __init__(self, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        from redis.exceptions import ConnectionError as Broken

        self._loop = loop
        self._broken = Broken
        self._connection = connection
        self._reader, self._pack = _reader_of(connection), _packer_of(connection)
        self._future: Reply | None = None
        self._replies: list[Any] = []
        self._count = 0
        self.lost = False
        """Whether the connection has ended."""

    @classmethod
    async def open(cls, connection: Any) -> AioLane:
        """Return a lane over *connection*, of the client library, which is not open yet. Raises what that raises."""
        try:
            await connection.connect()
            lane = cls(connection, asyncio.get_running_loop())
            lane._transport = cast("asyncio.Transport", connection._writer.transport)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        lane._transport.set_protocol(lane)
        lane.lost = connection._reader.at_eof()  # it may have ended in between
        return lane

    _transport: asyncio.Transport

    def ask(self, command: Command) -> Reply:
        """Send *command*. Returns the future of its reply, whose exception is what the client library would raise."""
        return self._send(self._pack(command), -1)

    def ask_all(self, commands: Sequence[Command]) -> Reply:
        """Send *commands* in one go. Returns the future of their replies, error replies among them as values."""
        return self._send(b"".join([self._pack(command) for command in commands]), len(commands))

    def _send(self, data: bytes, count: int) -> Reply:
        future = self._future = Reply(self._loop)
        self._count = count
        if self.lost:
            future.set_exception(self._broken("the connection was closed by the server"))
        else:
            self._transport.write(data)
        return future

    # -- what the transport tells -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes of replies."""
        future = self._future
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _MORE:
                if future is None or future.done():  # nobody asked, or nobody waits any more
                    self.close()
                    return
                if self._count >= 0:
                    self._replies.append(reply)
                    if len(self._replies) < self._count:
                        continue
                    replies, self._replies = self._replies, []
                    broken = next((one for one in replies if isinstance(one, self._broken)), None)
                    reply = replies if broken is None else broken
                self._future = None
                if self._has_more():  # than was asked for: seen before anybody goes on, who would ask again
                    self.close()
                self._land(future, reply)
                return
        except Exception as exc:  # noqa: BLE001 - bytes that are no replies
            self._end(exc)
            self.close()

    def _has_more(self) -> bool:
        try:
            return self._reader.gets() is not _MORE
        except Exception:  # noqa: BLE001 - bytes that are no replies are more, too
            return True

    def _land(self, future: Reply, reply: Any) -> None:
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is waited for."""
        self.lost = True
        self._end(self._broken(f"the connection was lost: {exc or 'closed by the server'}"))
        self._let_go()

    def _end(self, exc: Exception) -> None:
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_exception(exc)

    def close(self) -> None:
        """Close the connection; nothing that was not yet sent is waited for."""
        self.lost = True
        self._transport.abort()
        self._let_go()

    def forget(self) -> None:
        """Free the socket of a loop that was closed, which would run nothing that a transport asks it to."""
        self.lost = True
        sock = getattr(self._transport, "_sock", None)
        if sock is not None:
            sock.close()
            self._transport._sock, self._transport._closing = None, True  # type: ignore[attr-defined]
        self._let_go()

    def _let_go(self) -> None:
        # The library's own object would warn that it was not closed.
        self._connection._writer = self._connection._reader = None


class _PlainReader:
    """The reader of ``hiredis``, in Python."""

    def __init__(self, error: Callable[[str], Exception]) -> None:
        self._reader = Reader()
        self._error = error
        self.feed = self._reader.feed

    def gets(self) -> Any:
        value = self._reader.next()
        if type(value) is ReplyError:
            return self._error(str(value))
        return _MORE if value is NOTHING else value


def _reader_of(connection: Any) -> Any:
    error = connection._parser.parse_error
    try:
        import hiredis
    except ImportError:
        return _PlainReader(error)
    return hiredis.Reader(replyError=error, notEnoughData=_MORE)


def _packer_of(connection: Any) -> Callable[[Command], bytes]:
    try:
        from hiredis import pack_command
    except ImportError:
        return _plain_packer_of(connection)
    return lambda command: pack_command(tuple(command))


def _plain_packer_of(connection: Any) -> Callable[[Command], bytes]:
    return lambda command: b"".join(connection.pack_command(*command))
