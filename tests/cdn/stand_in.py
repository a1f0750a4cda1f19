"""A server that speaks a CDN's API on a real socket, and misbehaves on demand."""

from __future__ import annotations

import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Answer:
    """How to answer once; *act* is what else to do: ``hang``, ``reset``, ``dribble``."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    act: str = ""


class StandIn:
    """Answers each call with the next of *script*, and with *usual* when that is used up."""

    def __init__(self, usual: Answer) -> None:
        self.usual = usual
        self.script: list[Answer] = []
        self.seen: list[Seen] = []
        self.let_go = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def do_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                with outer._lock:
                    headers = {k.lower(): v for k, v in self.headers.items()}
                    outer.seen.append(Seen(self.command, self.path, headers, body))
                    answer = outer.script.pop(0) if outer.script else outer.usual
                if answer.act == "hang":
                    outer.let_go.wait(20)
                    self.close_connection = True
                    return
                if answer.act == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                if answer.act == "dribble":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                    while not outer.let_go.wait(0.02):
                        self.wfile.write(b"a")
                        self.wfile.flush()
                    return
                if answer.act == "nonsense":
                    self.wfile.write(b"\x00\x01garbage that is no HTTP\r\n\r\n")
                    self.close_connection = True
                    return
                raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_POST = do_PURGE = do_BAN = do_GET = do_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
