"""The link to one Redis or Valkey server, in both worlds; and, behind the same methods, to one that Sentinel names.

Owns time-outs and scripts. Must not know what the commands mean.

A cache must not wait: a command gets *timeout* seconds, and only a broken connection is tried again, once, so that
a restarted server costs nothing. (The client's own defaults wait nearly a minute for a frozen server.)
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from weakref import WeakMethod

from cachekit._fork import renew_in_child
from cachekit._io import ASYNCIO, BLOCKING, IO, drive
from cachekit.errors import ConfigError, StoreError, StoreTimeout, StoreUnavailable
from cachekit.stores.address import Address, parse
from cachekit.stores.multiget import MultiGet, Name
from cachekit.stores.node import Ahead, Dial, Node, at

R = TypeVar("R")

Arg: TypeAlias = str | bytes | int | float
Call: TypeAlias = tuple[Sequence[Arg], Sequence[Arg]]
"""The keys and the arguments of a script."""

_SWEEP: Final = 1000


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and its SHA-1, by which a server runs it without receiving it again."""

    source: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        """Read the script *name* that is shipped with the package, with the functions that it shares with others."""
        folder = resources.files("cachekit.stores").joinpath("lua")
        source = folder.joinpath(f"{name}.lua").read_text("utf-8")
        # The server wants its flags in front.
        flags, rest = source.split("\n", 1) if source.startswith("#!") else ("", source)
        for shared in ("announce", "crc"):
            if f"{shared}(" in source or f"{shared}_" in source:
                rest = folder.joinpath(f"_{shared}.lua").read_text("utf-8") + rest
        source = f"{flags}\n{rest}" if flags else rest
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    def whole(self, keys: Sequence[Arg], args: Sequence[Arg]) -> tuple[Arg, ...]:
        """Return the command that runs it on a server that may not have it."""
        return ("EVAL", self.source, len(keys), *keys, *args)


Runner: TypeAlias = Callable[[Arg, Sequence[Arg]], Awaitable[Any]]
"""Runs a command, given its key and itself."""

Settle: TypeAlias = Callable[[Runner, bytes], Coroutine[Any, Any, None]]
"""Told of a primary before it is used, by the identity of its replication history; may run commands already."""


class Link(Protocol):
    """Runs commands on the servers behind one URL, whatever their topology. Every method raises ``StoreError``."""

    address: Address
    timeout: float

    def command(self, io: IO, *args: Arg, once: bool = False) -> Awaitable[Any]:
        """Run one command, on the server that has its first key; *once*: never send it again after it was sent."""
        ...

    async def script(
        self, io: IO, script: Script, keys: Sequence[Arg], args: Sequence[Arg], *, once: bool = False
    ) -> Any:
        """Run *script*, sending its text only to a server that does not have it."""
        ...

    async def scripts(self, io: IO, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run *script* once for each of *calls*, in one round trip to each server."""
        ...

    def ask_ahead(self, name: Name, *args: Arg) -> Ahead | None:
        """Send the read *args* of the key *name*, and wait for nothing; None, with nothing sent, where that cannot be."""
        ...

    def read(self, io: IO, names: Sequence[Name]) -> Awaitable[list[bytes | None]]:
        """Return the values of *names*, None for those that are absent; reads of one loop share round trips."""
        ...

    async def sweep(self, io: IO, pattern: str) -> None:
        """Delete the keys that match *pattern*, on every primary."""
        ...

    async def scan(self, io: IO, pattern: str, cursor: bytes | None) -> tuple[bytes | None, list[bytes]]:
        """Return some of the keys that match *pattern*, and the next cursor: None after the last, on the last primary."""
        ...

    def settle_by(self, settle: WeakMethod[Settle]) -> None:
        """Have *settle* called with each primary that may have taken another's place, before anything else uses it."""
        ...

    def primaries(self) -> Sequence[Node]:
        """Return all primaries as they are now, from a thread that may block."""
        ...

    pulse: tuple[str, ...]
    """The command by which a listening connection makes sure that it still stands, and leads to a primary."""

    def gist(self, reply: Any) -> object:
        """Return what must not change in the reply to the pulse while a connection is listened to."""
        ...

    async def close(self, io: IO) -> None:
        """Close the blocking connections, and those of the running loop if there is one."""
        ...


def checked(url: str, timeout: float, max_connections: int) -> tuple[Address, Dial]:
    """Return what *url* says and how to reach its servers. Raises ``ConfigError``."""
    address = parse(url)
    if type(timeout) not in (int, float) or not 0 < timeout < math.inf:
        raise ConfigError(f"timeout={timeout!r} must be a positive number of seconds")
    if max_connections < 1:
        raise ConfigError(f"max_connections={max_connections!r} must be at least 1")
    return address, Dial(address.url, timeout, max_connections)


class Single:
    """A link whose keys all lie on one server, which ``_node`` finds.

    Args:
        url: the store URL.
        timeout: seconds that a command may take, connecting included.
        max_connections: bound of the connections in each world.

    Raises:
        ConfigError: the URL or a number cannot be used.
    """

    pulse: tuple[str, ...] = ("PING",)

    def __init__(self, url: str, *, timeout: float = 0.25, max_connections: int = 64) -> None:
        self.address, self.dial = checked(url, timeout, max_connections)
        self.timeout = timeout
        self._max_connections = max_connections
        self._settlers: list[WeakMethod[Settle]] = []
        self._reads = MultiGet(
            lambda names: self.blocking_command(("MGET", *names)),
            lambda names: self.aio_command(("MGET", *names)),
            timeout=timeout,
            name=repr(self),
            ask_now=lambda names, then: self.ask_now(("MGET", *names), then),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address.shown!r})"

    @property
    def url(self) -> str:
        """Return the URL of the server, as the client library understands it."""
        return self.address.url

    def blocking_command(self, args: Sequence[Arg], once: bool = False) -> Any:
        """Run one command here."""
        raise NotImplementedError

    def aio_command(self, args: Sequence[Arg], once: bool = False) -> Awaitable[Any]:
        """Run one command on the running loop."""
        raise NotImplementedError

    async def _node(self, io: IO) -> Node:
        raise NotImplementedError

    def command(self, io: IO, *args: Arg, once: bool = False) -> Awaitable[Any]:
        return io.call(self.blocking_command, self.aio_command, args, once)

    async def script(
        self, io: IO, script: Script, keys: Sequence[Arg], args: Sequence[Arg], *, once: bool = False
    ) -> Any:
        try:
            return await self.command(io, "EVALSHA", script.sha, len(keys), *keys, *args, once=once)
        except StoreError as exc:
            if not is_no_script(exc):
                raise
        return await self.command(io, *script.whole(keys, args), once=once)

    async def scripts(self, io: IO, script: Script, calls: Sequence[Call]) -> list[Any]:
        batch = [("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in calls]
        replies = await self._run_all(io, batch)
        if any(_is_no_script(reply) for reply in replies):
            await self.command(io, "SCRIPT", "LOAD", script.source)
            replies = await self._run_all(io, batch)
        return replies_of(self, replies)

    async def _run_all(self, io: IO, batch: Sequence[Sequence[Arg]]) -> list[Any]:
        node = await self._node(io)
        return await io.call(node.run_all, node.arun_all, batch)

    def ask_now(self, args: Sequence[Arg], then: Callable[[Any], object]) -> bool:  # noqa: ARG002 - see RedisLink
        """Send one command on the running loop before this returns, where that can be done without waiting."""
        return False

    def ask_ahead(self, name: Name, *args: Arg) -> Ahead | None:  # noqa: ARG002 - all keys lie on one server
        node = self._known
        return None if node is None else node.ask_ahead(args)

    @property
    def _known(self) -> Node | None:
        """Return the server, where that needs nobody to be asked."""
        raise NotImplementedError

    def read(self, io: IO, names: Sequence[Name]) -> Awaitable[list[bytes | None]]:
        return self._reads.read(io, names)

    async def sweep(self, io: IO, pattern: str) -> None:
        cursor: Any = b"0"
        while True:
            cursor, names = await self.command(io, "SCAN", cursor, "MATCH", pattern, "COUNT", _SWEEP)
            if names:
                await self.command(io, "UNLINK", *names)
            if cursor in (b"0", 0, "0"):
                return

    async def scan(self, io: IO, pattern: str, cursor: bytes | None) -> tuple[bytes | None, list[bytes]]:
        following, names = await self.command(io, "SCAN", cursor or b"0", "MATCH", pattern, "COUNT", _SWEEP)
        return (None if following in (b"0", 0, "0") else following), names

    def settle_by(self, settle: WeakMethod[Settle]) -> None:
        self._settlers.append(settle)

    def primaries(self) -> Sequence[Node]:
        return [drive(self._node(BLOCKING))]

    def gist(self, reply: Any) -> object:
        return type(reply)

    async def close(self, io: IO) -> None:
        raise NotImplementedError


class RedisLink(Single):
    """Runs commands and scripts on one server, in both worlds."""

    def __init__(self, url: str, *, timeout: float = 0.25, max_connections: int = 64) -> None:
        super().__init__(url, timeout=timeout, max_connections=max_connections)
        self.node = Node(self.dial, repr(self))

    def blocking_command(self, args: Sequence[Arg], once: bool = False) -> Any:
        return self.node.run(args, once)

    def aio_command(self, args: Sequence[Arg], once: bool = False) -> Awaitable[Any]:
        return self.node.arun(args, once)

    def ask_now(self, args: Sequence[Arg], then: Callable[[Any], object]) -> bool:
        return self.node.ask_now(args, then)

    @property
    def _known(self) -> Node | None:
        return self.node

    async def _node(self, io: IO) -> Node:  # noqa: ARG002 - there is nothing to look up
        return self.node

    async def close(self, io: IO) -> None:
        self.node.close()
        await io.call(_nothing, self._aclose)

    async def _aclose(self) -> None:
        await self.node.aclose()


class Shared:
    """Runs one job at a time for all who need its outcome: the others wait for it."""

    def __init__(self) -> None:
        self._renew()
        renew_in_child(self, Shared._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[object, Future[Any]] = {}

    async def run(self, io: IO, name: object, seconds: float, job: Callable[[], Awaitable[R]]) -> R:
        """Return the outcome of *job*, or that of the job *name* that is under way, for at most *seconds*."""
        own: Future[Any] = Future()
        own.set_running_or_notify_cancel()
        with self._lock:
            running = self._running.get(name)
            if running is None:
                self._running[name] = own
        if running is not None:
            try:
                return await io.wait(running, seconds)
            except TimeoutError as exc:
                raise StoreTimeout(f"{name}: no answer in time") from exc
        try:
            outcome = await job()
        except BaseException as exc:
            with self._lock:
                self._running.pop(name, None)
            own.set_exception(exc if isinstance(exc, StoreError) else StoreUnavailable(f"{name}: given up"))
            raise
        with self._lock:
            self._running.pop(name, None)
        own.set_result(outcome)
        return outcome


async def settle(io: IO, node: Node, settlers: Sequence[WeakMethod[Settle]], run: Runner) -> None:
    """Learn which primary *node* is, and have everyone who needs to know told before it is used."""
    node.history = None
    said = await io.call(node.run, node.arun, ("INFO", "replication"))
    history = node.recognise(said)
    for weak in settlers:
        if (tell := weak()) is not None:
            await tell(run, history)
    node.settled = node.history == history  # else a connection was made meanwhile that led elsewhere


def replies_of(link: object, replies: list[Any]) -> list[Any]:
    """Return *replies*; raise the first error among them."""
    from cachekit.stores.node import translate

    for reply in replies:
        if isinstance(reply, Exception):
            raise translate(reply, link) from reply
    return replies


def _nothing() -> None:
    pass


def _is_no_script(reply: object) -> bool:
    from redis.exceptions import NoScriptError

    return isinstance(reply, NoScriptError)


def is_no_script(error: StoreError) -> bool:
    """Say whether *error* means that the server does not have the script."""
    return _is_no_script(error.__cause__)


__all__ = ["ASYNCIO", "Arg", "Call", "Link", "RedisLink", "Script", "Shared", "Single", "at", "settle"]
