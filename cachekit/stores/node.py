"""One server: its connections in both worlds, and whether it may be used.

A server that can lose its place to another (behind Sentinel, in a cluster) is *settled* before it is used: each new
connection is checked to lead to the primary that was settled, by the identity of its replication history, which changes
with every promotion. Must not know what the commands mean or how a server is chosen.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final
from weakref import WeakMethod, finalize

from cachekit._fork import notice, renew_in_child
from cachekit._loops import PerLoop
from cachekit.errors import ConfigError, StoreError, StoreTimeout, StoreUnavailable
from cachekit.stores.lanes import AioLanes, Asked, BlockingLanes
from cachekit.stores.wire import Command

_REPLID: Final = re.compile(rb"master_replid:(\w+)")


@dataclass(frozen=True, slots=True)
class Dial:
    """How to reach servers: everything but which.

    Attributes:
        url: of one server; its scheme, credentials and options hold for all.
        timeout: seconds that a command may take, connecting included.
        max_connections: bound of connections to each server, in each world.
    """

    url: str = field(repr=False)
    timeout: float
    max_connections: int

    def pool(self, library: Any, place: tuple[str, int] | None, **more: Any) -> Any:
        """Return a pool of *library* (blocking or asyncio), for its recipe of a connection.

        Raises:
            ConfigError: the URL cannot be used.
        """
        import redis
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as Broken

        try:
            pool = library.ConnectionPool.from_url(
                self.url,
                socket_timeout=self.timeout,
                socket_connect_timeout=self.timeout,
                retry=library.retry.Retry(NoBackoff(), 1, supported_errors=(Broken,)),
                max_connections=self.max_connections,
                protocol=2,
                **_who_asks(),
                **more,
            )
            if place is not None:
                pool.connection_kwargs.update(host=place[0], port=place[1])
        except (ValueError, TypeError) as exc:
            raise ConfigError(f"the store URL cannot be used: {exc}") from exc
        try:
            # Connects to nothing, but takes the options: one that the library does not know would fail each command.
            pool.connection_class(**pool.connection_kwargs)
        except TypeError as exc:
            name = str(exc).rpartition("argument ")[2]
            hint = "; how long a command may take is Cache(timeout=...)" if "timeout" in name else ""
            raise ConfigError(f"the store URL cannot be used: {name} is no option of a connection{hint}") from exc
        except redis.RedisError as exc:  # such as TLS in an interpreter without it
            raise ConfigError(f"the store URL cannot be used: {exc}") from exc
        return pool


@lru_cache(maxsize=1)
def _who_asks() -> dict[str, Any]:
    """Return what connections tell a server of this client: the library would look its version up for each of them."""
    try:
        from redis.driver_info import DriverInfo
    except ImportError:  # an older one, which knows it
        return {}
    return {"driver_info": DriverInfo()}


class Node:
    """The connections to one server.

    Args:
        dial: how to reach it.
        name: what to call it in messages; without credentials.
        place: host and port, where they are not those of the URL.
        replaceable: whether another server may take its place, so that connections have to be checked.

    Raises:
        ConfigError: the URL cannot be used.
    """

    def __init__(
        self, dial: Dial, name: str, place: tuple[str, int] | None = None, *, replaceable: bool = False
    ) -> None:
        self.dial = dial
        self.name = name
        self.place = place
        self.replaceable = replaceable
        self.settled = not replaceable
        self.history: bytes | None = None
        """The identity of the replication history that was settled."""
        self._lanes: BlockingLanes | None = None
        self._dropped: finalize[..., Any] | None = None
        self._renew()
        renew_in_child(self, Node._renew)
        self._blocking()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._take_lanes()
        self._aio_lanes = PerLoop(self._aio_made, AioLanes.forget)
        self.settled = not self.replaceable

    def __repr__(self) -> str:
        return self.name

    def _blocking(self) -> BlockingLanes:
        notice()
        if (lanes := self._lanes) is None:
            import redis
            import redis.retry

            more = {"redis_connect_func": _weakly(self._check)} if self.replaceable else {}
            with self._lock:
                if (lanes := self._lanes) is None:
                    lanes = self._lanes = BlockingLanes(self.dial.pool(redis, self.place, **more))
                    # Whoever comes after ``close``, as a background job may, leaves no open connection behind for ever.
                    self._dropped = finalize(self, lanes.close)
                    self._dropped.atexit = False
        return lanes

    def _aio(self) -> AioLanes:
        notice()
        return self._aio_lanes.of(asyncio.get_running_loop())

    def _aio_made(self, loop: asyncio.AbstractEventLoop) -> AioLanes:
        import redis.asyncio
        import redis.asyncio.retry

        more = {"redis_connect_func": self._acheck} if self.replaceable else {}
        return AioLanes(self.dial.pool(redis.asyncio, self.place, **more), loop, self.dial.timeout)

    # -- which server it is -------------------------------------------------------------------------------------------

    def _check(self, connection: Any) -> None:
        connection.on_connect()
        connection.send_command("INFO", "replication", check_health=False)
        self._recognise(connection.read_response())

    async def _acheck(self, connection: Any) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", "replication", check_health=False)
        self._recognise(await connection.read_response())

    def _recognise(self, said: Any) -> bytes:
        from redis.exceptions import ConnectionError as Broken

        said = said if isinstance(said, bytes) else str(said).encode()
        found = _REPLID.search(said)
        if b"role:master" not in said or found is None:
            raise Broken(f"{self.name} is not a primary now")
        history: bytes = found[1]
        if self.history is not None and self.history != history:
            raise Broken(f"{self.name} is not the primary that it was")
        self.history = history
        return history

    def recognise(self, said: Any) -> bytes:
        """Return the identity in *said*, the reply to ``INFO replication``. Raises ``StoreUnavailable``."""
        try:
            return self._recognise(said)
        except Exception as exc:
            raise translate(exc, self) from exc

    def unsettle(self) -> None:
        """Have it settled anew before it is used again."""
        if self.replaceable:
            self.settled = False
            self.history = None

    # -- commands -----------------------------------------------------------------------------------------------------

    def run(self, command: Command, once: bool = False) -> Any:
        """Run one command here. Raises ``StoreError``."""
        try:
            return self._blocking().run(command, once=once)
        except Exception as exc:
            raise translate(exc, self) from exc

    async def arun(self, command: Command, once: bool = False) -> Any:
        """Run one command on the running loop. Raises ``StoreError``."""
        try:
            return await self._aio().run(command, once=once)
        except Exception as exc:
            raise translate(exc, self) from exc

    def ask_now(self, command: Command, then: Callable[[Any], object]) -> bool:
        """Send *command* on the running loop before this returns, and give *then* the reply, or the ``StoreError``.

        *then* gets None where the connection turned out to be lost: ``arun`` tries that again. Returns False, with nothing
        sent, where that takes more than an open connection.
        """
        if not self.settled:
            return False
        from redis.exceptions import ConnectionError as Broken

        def told(reply: Any, exc: BaseException | None) -> None:
            if exc is None or isinstance(exc, Broken):
                then(reply)
            else:
                then(translate(exc, self) if isinstance(exc, Exception) else None)

        return self._aio().ask_now(command, told)

    def ask_ahead(self, command: Command) -> Ahead | None:
        """Send *command*, and wait for nothing. Returns None, with nothing sent, where no connection stands ready."""
        notice()
        lanes = self._lanes
        if lanes is None or not self.settled:
            return None
        try:
            asked = lanes.ask_ahead(command)
        except Exception:  # noqa: BLE001 - whoever asks again without haste is told
            return None
        return None if asked is None else Ahead(self, asked)

    def run_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run *commands* in one round trip. Returns replies, error replies among them. Raises ``StoreError``."""
        return self.receive(self.send(commands), len(commands))

    def send(self, commands: Sequence[Command]) -> Any:
        """Send *commands*, whose replies ``receive`` awaits. Raises ``StoreError``."""
        try:
            return self._blocking().send(commands)
        except Exception as exc:
            raise translate(exc, self) from exc

    def receive(self, sent: Any, count: int) -> list[Any]:
        """Return the *count* replies to what was sent. Raises ``StoreError``."""
        try:
            return self._blocking().receive(sent, count)
        except Exception as exc:
            raise translate(exc, self) from exc

    async def arun_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run *commands* in one round trip. Returns replies, error replies among them. Raises ``StoreError``."""
        try:
            return await self._aio().run_all(commands)
        except Exception as exc:
            raise translate(exc, self) from exc

    def connection(self, **options: Any) -> Any:
        """Return a blocking connection of its own, not yet open."""
        return self._blocking().connection(**options)

    def aconnection(self, **options: Any) -> Any:
        """Return a connection of the running loop of its own, not yet open."""
        return self._aio().connection(**options)

    def close(self) -> None:
        """Close the connections of the blocking world."""
        with self._lock:
            lanes = self._take_lanes()
        if lanes is not None:
            lanes.close()

    def _take_lanes(self) -> BlockingLanes | None:
        lanes, self._lanes = self._lanes, None
        if self._dropped is not None:
            self._dropped.detach()
        return lanes

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        lanes = self._aio_lanes.pop(asyncio.get_running_loop())
        if lanes is not None:
            lanes.close()
            await asyncio.sleep(0)  # lets the transports end


def _weakly(method: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return what calls *method* without keeping alive what it belongs to."""
    reference = WeakMethod(method)

    def call(connection: Any) -> None:
        if (found := reference()) is None:
            raise StoreUnavailable("the cache that this connection was made for is gone")
        found(connection)

    return call


class Ahead:
    """A command that was sent, and whose reply is asked for later: once, or dropped."""

    __slots__ = ("_asked", "_node")

    def __init__(self, node: Node, asked: Asked) -> None:
        self._node = node
        self._asked = asked

    def reply(self) -> Any:
        """Return the reply. Raises ``StoreError``."""
        try:
            return self._asked.reply()
        except Exception as exc:
            raise translate(exc, self._node) from exc

    def drop(self) -> None:
        """Need no reply."""
        self._asked.drop()


def at(dial: Dial, host: str, port: int, *, replaceable: bool = True) -> Node:
    """Return the node at *host* and *port*."""
    return Node(replace(dial), f"{host}:{port}", (host, port), replaceable=replaceable)


def translate(exc: Exception, server: object) -> StoreError:
    """Return the ``StoreError`` that says what *exc*, raised by the client, means."""
    import redis
    from redis.exceptions import ClusterDownError

    if isinstance(exc, StoreError):
        return exc
    if isinstance(exc, (redis.TimeoutError, TimeoutError, socket.timeout)):
        return StoreTimeout(f"{server!r} did not answer in time: {exc}")
    if isinstance(exc, redis.AuthenticationError):
        return StoreUnavailable(f"{server!r} refused the credentials: {exc}")
    if isinstance(exc, (redis.ConnectionError, OSError)):
        return StoreUnavailable(f"{server!r} cannot be reached: {exc}")
    if isinstance(exc, (redis.ReadOnlyError, redis.OutOfMemoryError)):
        return StoreError(f"{server!r} refuses writes: {exc}")
    if isinstance(exc, ClusterDownError):
        return StoreUnavailable(f"{server!r}: the cluster is down: {exc}")
    if isinstance(exc, RuntimeError) and "closed" in str(exc):
        return StoreUnavailable(f"{server!r}: the event loop of this connection is closed")
    return StoreError(f"{server!r}: {exc}")
