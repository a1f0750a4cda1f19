"""The HTTP client of the purgers: one call, one answer, within a bounded time.

Made of the standard library: purges are few, bundled, and sent behind the requests, so that neither connection pools nor
HTTP/2 would be felt, and a purge must work on every installation. Must not know what a call means or when to repeat it.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from typing import Final
from urllib.parse import urlsplit

from cachekit._io import IO
from cachekit.cdn.base import HttpCall, Reply
from cachekit.clock import Clock, system_clock
from cachekit.errors import ConfigError, PurgeError
from cachekit.policy import Duration, positive_seconds

_MAX_REPLY: Final = 256 * 1024
_AGENT: Final = "cachekit"


class Client:
    """Sends calls.

    Args:
        timeout: seconds that a call may take altogether, however slowly the server dribbles.
        clock: stamps replies.
        context: TLS settings; those of the system when left out.

    Raises:
        ConfigError: the time-out is no positive duration.
    """

    def __init__(
        self, *, timeout: Duration = 10.0, clock: Clock = system_clock, context: ssl.SSLContext | None = None
    ) -> None:
        self.timeout = positive_seconds(timeout, "timeout")
        self._clock = clock
        self._context = context

    async def send(self, io: IO, call: HttpCall) -> Reply:
        """Send *call*. Raises ``PurgeError`` when there is no whole answer in time; redirections are not followed."""
        return await io.call(self._send, None, call)

    def _send(self, call: HttpCall) -> Reply:
        parts = urlsplit(call.url)
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        late = threading.Event()

        def cut() -> None:
            late.set()
            if (sock := connection.sock) is not None:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        alarm = threading.Timer(self.timeout, cut)
        alarm.daemon = True
        alarm.start()
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            has_host = any(name.lower() == "host" for name, _ in call.headers)
            connection.putrequest(call.method, target, skip_host=has_host, skip_accept_encoding=True)
            for name, value in (("User-Agent", _AGENT), ("Connection", "close"), *call.headers):
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(call.body)))
            connection.endheaders(call.body or None)
            response = connection.getresponse()
            body = response.read(_MAX_REPLY)
            if late.is_set():  # what looks like the end was our own doing
                raise TimeoutError
            return Reply(response.status, tuple(response.getheaders()), body, self._clock())
        except (OSError, http.client.HTTPException, ValueError) as exc:
            host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
            if late.is_set() or isinstance(exc, TimeoutError):
                raise PurgeError(f"{host} did not answer within {self.timeout:g} s") from None
            detail = call.scrub(f"{type(exc).__name__}: {exc}"[:300])
            raise PurgeError(f"{host} gave no answer: {detail}") from None  # the cause could show what was sent
        finally:
            alarm.cancel()
            connection.close()

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=self._context)
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.timeout)
        raise ConfigError(f"a purge call needs an http or https URL, not {scheme!r}")
