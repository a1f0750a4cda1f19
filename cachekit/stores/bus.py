"""How a process learns what others invalidated: one subscribed connection, read by one daemon thread.

The thread serves both worlds. While the subscription stands, every announcement reaches *on_message*; when it breaks,
or the server stops answering pings, *on_lost* runs first and *on_live* after the next subscription is confirmed. Must
not know what announcements mean.

Announcements are published by the scripts that invalidate, in the same step. Client tracking of the stamps themselves
was rejected as the carrier: it also announces that a stamp was created or given a longer life, which happens with every
store of a tagged value, and would drop the first level for nothing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from cachekit.stores.link import RedisLink

log = logging.getLogger("cachekit")

HEARTBEAT: Final = 1.0
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Bus:
    """Listens to one channel until it is closed.

    Args:
        link: the server.
        channel: the channel's name.
        on_message: receives the payload of each announcement, on the bus's thread.
        on_live: called when the subscription is confirmed.
        on_lost: called when it breaks.
    """

    def __init__(
        self,
        link: RedisLink,
        channel: str,
        *,
        on_message: Callable[[bytes], None],
        on_live: Callable[[], None],
        on_lost: Callable[[Exception], None],
    ) -> None:
        self._link = link
        self._channel = channel
        self._on_message = on_message
        self._on_live = on_live
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._connection: Any = None
        self.first: Future[bool] = Future()
        """Done once the first attempt to subscribe has succeeded or failed."""
        self._thread = threading.Thread(target=self._listen, name="cachekit-bus", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Returns when the thread is gone, at the latest after a heartbeat."""
        self._stop.set()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(Exception):
                connection._sock.shutdown(2)  # wakes the reader; the public disconnect() is not safe from outside
        if threading.current_thread() is not self._thread:
            self._thread.join(HEARTBEAT + 1)

    def _connect(self) -> Any:
        pool = self._link.blocking().connection_pool
        options = {**pool.connection_kwargs, "protocol": 2, "socket_timeout": HEARTBEAT}
        options.pop("max_connections", None)
        connection = pool.connection_class(**options)
        try:
            connection.connect()
            connection.send_command("SUBSCRIBE", self._channel)
            connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _listen(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._connection = self._connect()
            except Exception as exc:  # noqa: BLE001 - whatever it is, try again
                if failures == 0:
                    self._on_lost(exc)
                self._arrived(False)
                self._stop.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
                continue
            failures = 0
            try:
                self._on_live()
                self._arrived(True)
                self._read(self._connection)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the channel is lost
                if not self._stop.is_set():
                    self._on_lost(exc)
            finally:
                connection, self._connection = self._connection, None
                with contextlib.suppress(Exception):
                    connection.disconnect()

    def _arrived(self, live: bool) -> None:
        if not self.first.done():
            self.first.set_result(live)

    def _read(self, connection: Any) -> None:
        """Hand on announcements; a server that answers neither them nor a ping for two heartbeats is lost."""
        waiting_for_pong = False
        while not self._stop.is_set():
            if not connection.can_read(timeout=HEARTBEAT):
                if waiting_for_pong:
                    raise TimeoutError("no answer to a ping within a heartbeat")
                connection.send_command("PING", check_health=False)
                waiting_for_pong = True
                continue
            response = connection.read_response()
            waiting_for_pong = False
            if isinstance(response, list) and response and response[0] == b"message":
                self._on_message(response[2])
