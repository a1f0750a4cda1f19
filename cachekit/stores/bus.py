"""How a process learns what others changed: a connection to each primary, all of them read by one daemon thread.

The thread serves both worlds. The scripts that change something write the name of an announcement and delete it again in
the same step; who tracks the prefix of those names (``CLIENT TRACKING ... BCAST``) is told of it once, and of nothing else.
The stamps themselves are not tracked: a stamp is also created, and given a longer life, with each store of a tagged value,
and each of those would be told too. A server or proxy that refuses tracking is subscribed to instead; the same scripts
publish.

The channel is live only while *every* primary is listened to. When a connection breaks, leads to a replica, does not
answer for two heartbeats, or slots change hands, it is lost as a whole, and begins anew. Must not know what announcements
mean.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

from cachekit.clock import stopwatch
from cachekit.errors import StoreUnavailable
from cachekit.stores.link import Link
from cachekit.stores.names import Announcement, Names
from cachekit.stores.node import Node
from cachekit.stores.resp import NOTHING, Push, Reader, ReplyError

log = logging.getLogger("cachekit")

HEARTBEAT: Final = 1.0
TRACKING: Final = "tracking"
PUBSUB: Final = "pubsub"

_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_CHUNK: Final = 65536
_EVERYTHING: Final = Announcement("", "all").payload()

OnMessage: TypeAlias = Callable[[bytes], None]
OnLive: TypeAlias = Callable[[], None]
OnLost: TypeAlias = Callable[[Exception], None]


class Ear:
    """One connection that listens to one primary.

    Raises:
        Exception: whatever keeps it from listening.
    """

    def __init__(self, node: Node, link: Link, names: Names) -> None:
        from redis.exceptions import ConnectionError as Broken
        from redis.exceptions import ResponseError

        self.node = node
        self.kind = TRACKING
        self._names = names
        self._gist_of: Callable[[Any], object] = link.gist
        self._gist: object = NOTHING
        self._pulse = link.pulse
        self._waiting = False
        self._reader = Reader()
        self.connection: Any = node.connection(protocol=3, socket_timeout=HEARTBEAT)
        try:
            try:
                self.connection.connect()
            except (ResponseError, Broken) as exc:
                if isinstance(exc, Broken) and "HELLO" not in str(exc):
                    raise
                self._connect_plainly()  # it does not speak RESP3
            self._start()
            self.socket.setblocking(False)
        except BaseException:
            self.connection.disconnect()
            raise

    @property
    def socket(self) -> socket.socket:
        """Return the socket, which from here on only this object reads."""
        found: socket.socket = self.connection._sock
        return found

    def _connect_plainly(self) -> None:
        self.kind = PUBSUB
        self._pulse = ("PING",)
        self._gist_of = _kind_of
        self.connection.disconnect()
        self.connection = self.node.connection(protocol=2, socket_timeout=HEARTBEAT)
        self.connection.connect()

    def _start(self) -> None:
        if self.kind == TRACKING:
            refused = self._say("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._names.announcements)
            if not isinstance(refused, ReplyError):
                return
            log.info("%r refuses CLIENT TRACKING, it is subscribed to instead: %s", self.node, refused)
            self.kind = PUBSUB
        reply = self._say("SUBSCRIBE", self._names.channel)
        if isinstance(reply, ReplyError):
            raise StoreUnavailable(f"{self.node!r} lets nobody listen: {reply}")

    def _say(self, *command: str) -> Any:
        """Return the first thing that is said after *command*; before the channel is live nothing else matters."""
        self.connection.send_command(*command, check_health=False)
        while (value := self._reader.next()) is NOTHING:
            data = self.socket.recv(_CHUNK)
            if not data:
                raise StoreUnavailable(f"{self.node!r} closed the connection")
            self._reader.feed(data)
        return value

    def beat(self) -> None:
        """Ask for a sign of life; one that was asked for a heartbeat ago must have come. Raises ``TimeoutError``."""
        if self._waiting:
            raise TimeoutError(f"{self.node!r} gave no sign of life within a heartbeat")
        self._waiting = True
        self.socket.settimeout(HEARTBEAT)
        try:
            self.connection.send_command(*self._pulse, check_health=False)
        finally:
            self.socket.setblocking(False)

    def hear(self) -> Iterator[bytes]:
        """Yield the announcements that have arrived.

        Raises:
            StoreUnavailable: the connection broke, or leads elsewhere now.
        """
        while True:
            try:
                data = self.socket.recv(_CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                raise StoreUnavailable(f"{self.node!r} closed the connection")
            self._waiting = False
            self._reader.feed(data)
            while (value := self._reader.next()) is not NOTHING:
                yield from self._understand(value)

    def _understand(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, (Push, list)) and value and value[0] == b"message":
            yield value[2]
        elif isinstance(value, Push):
            if value and value[0] == b"invalidate":
                for name in value[1] if value[1] is not None else ():
                    yield self._names.payload(name)
                if value[1] is None:  # the server was flushed
                    yield _EVERYTHING
        elif isinstance(value, ReplyError):
            raise StoreUnavailable(f"{self.node!r} answered {value}")
        elif not (isinstance(value, list) and value and value[0] == b"subscribe"):
            gist = self._gist_of(value)
            if self._gist is not NOTHING and gist != self._gist:
                raise StoreUnavailable(f"{self.node!r} is not what it was: a replica now, or slots changed hands")
            self._gist = gist

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            self.connection.disconnect()


class Bus:
    """Listens to all primaries of *link* until it is closed.

    Args:
        link: the servers.
        names: the names of the namespace.
        on_message: receives the payload of each announcement, on the bus's thread.
        on_live: called when every primary is listened to.
        on_lost: called when that ends, and when the first attempt fails; once until it is live again.
    """

    def __init__(self, link: Link, names: Names, *, on_message: OnMessage, on_live: OnLive, on_lost: OnLost) -> None:
        self._link = link
        self._names = names
        self._on_message = on_message
        self._on_live = on_live
        self._on_lost = on_lost
        self._stop = threading.Event()
        self.kind = "none"
        """``tracking`` or ``pubsub``, as soon as it is known."""
        self._wakes, self._woken = socket.socketpair()
        self.first: Future[bool] = Future()
        """Done once the first attempt to listen has succeeded or failed."""
        self._thread = threading.Thread(target=self._listen, name="cachekit-bus", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Have the thread end, without waiting for it."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self._wakes.send(b"x")

    def close(self) -> None:
        """Stop listening. Returns when the thread is gone, at the latest after a heartbeat."""
        self.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(HEARTBEAT + 1)

    def _connect(self) -> list[Ear]:
        ears: list[Ear] = []
        try:
            for node in self._link.primaries():
                ears.append(Ear(node, self._link, self._names))  # noqa: PERF401 - those that are open are closed below
        except BaseException:
            for ear in ears:
                ear.close()
            raise
        return ears

    def _listen(self) -> None:
        failures = 0
        told = False  # each loss once: whoever counts from its beginning must not begin again with every attempt
        while not self._stop.is_set():
            ears: list[Ear] = []
            try:
                ears = self._connect()
                self.kind = TRACKING if all(ear.kind == TRACKING for ear in ears) else PUBSUB
                told = False
                self._on_live()
                self._arrived(True)
                failures = 0
                self._hear(ears)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the channel is lost; try again
                if self._stop.is_set():
                    break
                if not told:
                    told = True
                    self._on_lost(exc)
                self._arrived(False)
                if not ears:
                    self._stop.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
                    failures += 1
            finally:
                for ear in ears:
                    ear.close()
        self._arrived(False)
        self._wakes.close()
        self._woken.close()

    def _arrived(self, live: bool) -> None:
        if not self.first.done():
            self.first.set_result(live)

    def _hear(self, ears: list[Ear]) -> None:
        """Hand on announcements until the bus is closed. Raises when one of *ears* is deaf."""
        with selectors.DefaultSelector() as selector:
            for ear in ears:
                selector.register(ear.socket, selectors.EVENT_READ, ear)
            selector.register(self._woken, selectors.EVENT_READ)
            beat = stopwatch()
            while not self._stop.is_set():
                for key, _ in selector.select(max(0.0, beat - stopwatch())):
                    if key.data is not None:
                        for payload in key.data.hear():
                            self._on_message(payload)
                if stopwatch() >= beat:
                    for ear in ears:
                        ear.beat()
                    beat = stopwatch() + HEARTBEAT


def _kind_of(reply: Any) -> object:
    return type(reply)
