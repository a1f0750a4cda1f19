"""The link to one Redis or Valkey server: one blocking client and one asyncio client per event loop, made when needed.

Owns URLs, time-outs, scripts and the translation of the client's errors. Must not know what the commands mean.

A cache must not wait: a command gets *timeout* seconds, and only a broken connection is tried again, once, so that
a restarted server costs nothing. (The client's own defaults wait nearly a minute for a frozen server.)
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from cachekit._fork import renew_in_child
from cachekit._io import IO
from cachekit.errors import ConfigError, StoreError, StoreTimeout, StoreUnavailable
from cachekit.stores.lanes import AioLanes, BlockingLanes

if TYPE_CHECKING:
    import redis
    import redis.asyncio

Arg: TypeAlias = str | bytes | int | float
Call: TypeAlias = tuple[Sequence[Arg], Sequence[Arg]]

SCHEMES: Final = {
    "redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss",
    "unix": "unix", "redis+unix": "unix", "valkey+unix": "unix",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and its SHA-1, by which a server runs it without receiving it again."""

    source: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        """Read the script *name* that is shipped with the package."""
        source = resources.files("cachekit.stores").joinpath("lua", f"{name}.lua").read_text("utf-8")
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def client_url(url: str) -> str:
    """Return *url* in the form that the client library understands. Raises ``ConfigError`` for an unknown scheme."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"unknown URL scheme {parts.scheme!r}: use one of {', '.join(f'{s}://' for s in SCHEMES)}")
    if SCHEMES[parts.scheme] == "unix" and not parts.path:
        raise ConfigError(f"{url!r} names no socket: write unix:///path/to/server.sock")
    return urlunsplit(parts._replace(scheme=SCHEMES[parts.scheme])) if parts.scheme != "unix" else url


class RedisLink:
    """Runs commands and scripts on a server, in both worlds.

    Args:
        url: ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://``, as redis-py understands them.
        timeout: seconds that a command may take, connecting included.
        max_connections: bound of each connection pool.

    Raises:
        ConfigError: the URL or a number cannot be used.
    """

    def __init__(self, url: str, *, timeout: float = 0.25, max_connections: int = 128) -> None:
        if not timeout > 0:
            raise ConfigError(f"timeout={timeout!r} must be a positive number of seconds")
        self.url = client_url(url)
        self.timeout = timeout
        self._max_connections = max_connections
        self._renew()
        renew_in_child(self, RedisLink._renew)
        self.blocking()  # reports a URL that cannot be used now, without connecting

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._blocking: redis.Redis | None = None
        self._lanes: BlockingLanes | None = None
        self._aio: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()
        self._aio_lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, AioLanes] = WeakKeyDictionary()

    def __repr__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"RedisLink({urlunsplit((parts.scheme, host, parts.path, '', ''))!r})"

    def _options(self, retry: type[Any], no_backoff: type[Any], connection_error: type[Exception]) -> dict[str, Any]:
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "retry": retry(no_backoff(), 1, supported_errors=(connection_error,)),
            "max_connections": self._max_connections,
            "protocol": 2,
        }

    def blocking(self) -> redis.Redis:
        """Return the blocking client."""
        if self._blocking is None:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            try:
                with self._lock:
                    if self._blocking is None:
                        self._blocking = redis.Redis.from_url(
                            self.url, **self._options(Retry, NoBackoff, redis.ConnectionError)
                        )
            except (ValueError, TypeError) as exc:
                raise ConfigError(f"the store URL cannot be used: {exc}") from exc
        return self._blocking

    def aio(self) -> redis.asyncio.Redis:
        """Return the asyncio client of the running loop."""
        loop = asyncio.get_running_loop()
        client = self._aio.get(loop)
        if client is None:
            import redis
            import redis.asyncio
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            client = redis.asyncio.Redis.from_url(self.url, **self._options(Retry, NoBackoff, redis.ConnectionError))
            self._aio[loop] = client
        return client

    async def command(self, io: IO, *args: Arg) -> Any:
        """Run one command. Raises ``StoreError``."""
        return await io.call(self.blocking_command, self.aio_command, args)

    def blocking_command(self, args: Sequence[Arg]) -> Any:
        """Run one command here. Raises ``StoreError``."""
        try:
            if (lanes := self._lanes) is None:
                lanes = self._lanes = BlockingLanes(self.blocking().connection_pool)
            return lanes.run(args)
        except Exception as exc:
            raise translate(exc, self) from exc

    async def aio_command(self, args: Sequence[Arg]) -> Any:
        """Run one command on the running loop. Raises ``StoreError``."""
        try:
            lanes = self._aio_lanes.get(asyncio.get_running_loop())
            if lanes is None:
                lanes = self._aio_lanes[asyncio.get_running_loop()] = AioLanes(self.aio().connection_pool)
            async with asyncio.timeout(self.timeout):
                return await lanes.run(args)
        except Exception as exc:
            raise translate(exc, self) from exc

    async def script(self, io: IO, script: Script, keys: Sequence[Arg], args: Sequence[Arg]) -> Any:
        """Run *script*, sending its text only to a server that does not have it. Raises ``StoreError``."""
        try:
            return await self.command(io, "EVALSHA", script.sha, len(keys), *keys, *args)
        except StoreError as exc:
            if not is_no_script(exc):
                raise
        return await self.command(io, "EVAL", script.source, len(keys), *keys, *args)

    async def scripts(self, io: IO, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run *script* once for each of *calls* (keys and arguments), in one round trip. Raises ``StoreError``."""
        batch = [("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in calls]
        try:
            return await self._batch(io, batch)
        except StoreError as exc:
            if not is_no_script(exc):
                raise
        await self.command(io, "SCRIPT", "LOAD", script.source)
        return await self._batch(io, batch)

    async def _batch(self, io: IO, batch: list[tuple[Arg, ...]]) -> list[Any]:
        return await io.call(self._pipeline, self._apipeline, batch)

    def _pipeline(self, batch: list[tuple[Arg, ...]]) -> list[Any]:
        pipe: Any = self.blocking().pipeline(transaction=False)
        for command in batch:
            pipe.execute_command(*command)
        try:
            return list(pipe.execute())
        except Exception as exc:
            raise translate(exc, self) from exc

    async def _apipeline(self, batch: list[tuple[Arg, ...]]) -> list[Any]:
        pipe: Any = self.aio().pipeline(transaction=False)
        for command in batch:
            pipe.execute_command(*command)
        try:
            async with asyncio.timeout(self.timeout):
                return list(await pipe.execute())
        except Exception as exc:
            raise translate(exc, self) from exc

    async def close(self, io: IO) -> None:
        """Close the blocking client, and the asyncio client of the running loop if there is one."""
        with self._lock:
            client, self._blocking = self._blocking, None
            lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.close()
        if client is not None:
            client.close()
        await io.call(_nothing, self._aclose)

    async def _aclose(self) -> None:
        lanes = self._aio_lanes.pop(asyncio.get_running_loop(), None)
        if lanes is not None:
            await lanes.close()
        client = self._aio.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


def _nothing() -> None:
    pass


def is_no_script(error: StoreError) -> bool:
    """Say whether *error* means that the server does not have the script."""
    from redis.exceptions import NoScriptError

    return isinstance(error.__cause__, NoScriptError)


def translate(exc: Exception, link: object) -> StoreError:
    """Return the ``StoreError`` that says what *exc*, raised by the client, means."""
    import redis

    if isinstance(exc, StoreError):
        return exc
    if isinstance(exc, (redis.TimeoutError, TimeoutError, socket.timeout)):
        return StoreTimeout(f"{link!r} did not answer in time: {exc}")
    if isinstance(exc, redis.AuthenticationError):
        return StoreUnavailable(f"{link!r} refused the credentials: {exc}")
    if isinstance(exc, (redis.ConnectionError, OSError)):
        return StoreUnavailable(f"{link!r} cannot be reached: {exc}")
    if isinstance(exc, (redis.ReadOnlyError, redis.OutOfMemoryError)):
        return StoreError(f"{link!r} refuses writes: {exc}")
    if isinstance(exc, RuntimeError) and "closed" in str(exc):
        return StoreUnavailable(f"{link!r}: the event loop of this connection is closed")
    return StoreError(f"{link!r}: {exc}")
