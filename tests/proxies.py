"""A small TCP proxy between a client and a server, which delays, cuts, freezes, swallows replies or speaks TLS on demand."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time


class Proxy:
    """Listens on a free port and passes bytes to *target* and back.

    Args:
        target: host and port of the server.
        tls: wraps the client's side.

    Attributes:
        delay: seconds by which replies and messages are late.
        swallow: whether the next reply is thrown away, and its connection with it.
        unknown: the name of a command that this server shall not know, which is passed on as another of the same length.
        open: whether connections are accepted.
    """

    def __init__(self, target: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self.tls = tls
        self.delay = 0.0
        self.swallow = False
        self.unknown = b""
        self.open = True
        self.frozen = threading.Event()
        self.frozen.set()
        self.connections = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.open:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self.tls is not None:
                client = self.tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(self.target)
        except OSError:
            client.close()
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (client, server)
        self._pairs.add(pair)
        self.connections += 1
        threading.Thread(target=self._pump, args=(client, server, pair, False), daemon=True).start()
        self._pump(server, client, pair, True)

    def _pump(self, source, sink, pair, replies) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(65536):
                self.frozen.wait()
                if replies and self.swallow:
                    self.swallow = False
                    break
                if replies and self.delay:
                    time.sleep(self.delay)
                if not replies and self.unknown:
                    data = data.replace(self.unknown, self.unknown[::-1])
                elif self.unknown:
                    data = data.replace(self.unknown[::-1], self.unknown)
                sink.sendall(data)
        self._close(pair)

    def _close(self, pair) -> None:
        self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                end.close()

    def cut(self) -> None:
        """Break every connection."""
        for pair in list(self._pairs):
            self._close(pair)

    def freeze(self) -> None:
        """Pass nothing on, until ``thaw``."""
        self.frozen.clear()

    def thaw(self) -> None:
        """Pass on what was held up."""
        self.frozen.set()

    def close(self) -> None:
        self.open = False
        self.thaw()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(5)
