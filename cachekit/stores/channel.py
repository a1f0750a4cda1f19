"""What this process hears of the others, and who in it wants to know: the first level, and those who wait for a lease.

Opened when somebody first needs it; a store that has no first level and never waits has no channel. Must not know how
announcements travel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from cachekit._fork import renew_in_child
from cachekit._io import IO
from cachekit.stores.bus import OnLive, OnLost, OnMessage
from cachekit.stores.names import Announcement

ENDS: Final = frozenset({"kept", "free", "keys"})
"""The kinds of announcement that say that a lease ended."""


class Listening(Protocol):
    """What carries announcements."""

    first: Future[bool]
    kind: str

    def stop(self) -> None: ...

    def close(self) -> None: ...


Open: TypeAlias = Callable[[OnMessage, OnLive, OnLost], Listening]


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Somebody who wants to hear everything."""

    on_message: OnMessage
    on_live: OnLive
    on_lost: OnLost


class Subscription:
    """The channel as a subscriber sees it."""

    def __init__(self, channel: Channel, subscriber: Subscriber, first: Future[bool]) -> None:
        self._channel = channel
        self._subscriber = subscriber
        self.first = first

    def stop(self) -> None:
        """Hear nothing any more."""
        self._channel.leave(self._subscriber)

    def close(self) -> None:
        """Hear nothing any more, and stop listening altogether."""
        self.stop()
        self._channel.close()


class Channel:
    """Hands announcements to subscribers, and wakes those who wait for a lease.

    Args:
        open_bus: starts to listen.
    """

    def __init__(self, open_bus: Open) -> None:
        self._open_bus = open_bus
        self._renew()
        renew_in_child(self, Channel._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._bus: Listening | None = None
        self._subscribers: tuple[Subscriber, ...] = ()
        self._waiting: dict[str, list[Future[bool]]] = {}
        self.live = False

    @property
    def kind(self) -> str:
        """Return how announcements travel: ``tracking``, ``pubsub``, or ``none`` while nobody listens."""
        bus = self._bus
        return "none" if bus is None else bus.kind

    def open(self) -> Future[bool]:
        """Start to listen. Returns what is done once the first attempt has succeeded or failed."""
        with self._lock:
            if self._bus is None:
                self._bus = self._open_bus(self._message, self._became_live, self._became_lost)
            return self._bus.first

    async def ensure(self, io: IO, timeout: float) -> bool:
        """Listen, and wait for at most *timeout* seconds until that is so. Returns whether the channel is live."""
        if not self.live and (self._bus is None or not self._bus.first.done()):
            with suppress(TimeoutError):
                await io.wait(self.open(), timeout)
        return self.live

    @property
    def tried(self) -> bool:
        """Return whether listening was tried at least once."""
        bus = self._bus
        return bus is not None and bus.first.done()

    def subscribe(self, on_message: OnMessage, on_live: OnLive, on_lost: OnLost) -> Subscription:
        """Have everything told; *on_live* is called at once where the channel is live already."""
        subscriber = Subscriber(on_message, on_live, on_lost)
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)
            if self.live:  # told under the lock, so that a loss is not told before
                on_live()
        return Subscription(self, subscriber, self.open())

    def leave(self, subscriber: Subscriber) -> None:
        """Tell *subscriber* nothing any more."""
        with self._lock:
            self._subscribers = tuple(one for one in self._subscribers if one is not subscriber)

    # -- those who wait -----------------------------------------------------------------------------------------------

    def expect(self, key: str) -> Future[bool] | None:
        """Return what is done when the lease of *key* ends, with whether its value was kept; None while not live."""
        if not self.live:
            return None
        future: Future[bool] = Future()
        with self._lock:
            self._waiting.setdefault(key, []).append(future)
        return future

    def forget(self, key: str, future: Future[bool]) -> None:
        """Expect *future* no longer."""
        with self._lock:
            waiting = self._waiting.get(key, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(key, None)

    def _wake(self, keys: tuple[str, ...], *, kept: bool) -> None:
        with self._lock:
            woken = [future for key in keys for future in self._waiting.pop(key, ())]
        for future in woken:
            if future.set_running_or_notify_cancel():
                future.set_result(kept)

    # -- what the bus tells -------------------------------------------------------------------------------------------

    def _message(self, payload: bytes) -> None:
        if self._waiting and (told := Announcement.read(payload)) is not None and told.kind in ENDS:
            self._wake(told.names, kept=told.kind != "free")
        for subscriber in self._subscribers:
            subscriber.on_message(payload)

    def _became_live(self) -> None:
        with self._lock:
            self.live = True
            for subscriber in self._subscribers:
                subscriber.on_live()

    def _became_lost(self, error: Exception) -> None:
        with self._lock:
            self.live = False
            waiting = tuple(self._waiting)
            for subscriber in self._subscribers:
                subscriber.on_lost(error)
        self._wake(waiting, kept=False)

    def _end(self) -> Listening | None:
        with self._lock:
            bus, self._bus = self._bus, None
            self.live = False
            waiting = tuple(self._waiting)
        self._wake(waiting, kept=False)
        return bus

    def stop(self) -> None:
        """Stop listening, without waiting for it."""
        if (bus := self._end()) is not None:
            bus.stop()

    def close(self) -> None:
        """Stop listening; it begins anew when it is needed again."""
        if (bus := self._end()) is not None:
            bus.close()
