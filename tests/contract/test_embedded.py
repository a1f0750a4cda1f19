"""The private server ends with the process that started it, however that ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cachekit import Cache, ConfigError
from cachekit.errors import StoreUnavailable
from cachekit.stores import embedded
from cachekit.stores.embedded import EmbeddedServer

pytestmark = pytest.mark.server

PROGRAM = """
import signal, sys, time
from cachekit import Cache

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell turns off for what it runs behind
cache = Cache("embedded://")
cache.set("k", 1)
assert cache.get("k") == 1
print(cache.store.inner.link.url, flush=True)
time.sleep(60)
"""


def answers(path: str) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_its_process(how):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        path = process.stdout.readline().decode().strip().removeprefix("unix://")
        assert answers(path)
        process.send_signal(how)
        process.wait(10)
    deadline = time.monotonic() + 10
    while answers(path):
        assert time.monotonic() < deadline, "the server outlived its process"
        time.sleep(0.01)
    while Path(path).parent.exists():
        assert time.monotonic() < deadline, "its temporary directory outlived it"
        time.sleep(0.01)


def test_a_path_is_shared(tmp_path):
    directory = tmp_path / "s"
    with Cache(f"embedded://{directory}") as here, Cache(f"embedded://{directory}") as elsewhere:
        here.set("k", "v")
        assert elsewhere.get("k") == "v"


def test_a_server_that_cannot_start_leaves_nothing(tmp_path, monkeypatch):
    def missing():
        raise ConfigError("no wheel")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(embedded, "_binary", missing)
    with pytest.raises(ConfigError, match="no wheel"):
        Cache("embedded://")
    monkeypatch.setattr(embedded, "_binary", lambda: "/bin/false")
    monkeypatch.setattr(embedded, "_START_DEADLINE", 0.1)
    with pytest.raises(StoreUnavailable, match="it said: nothing"):
        Cache("embedded://")
    assert list(tmp_path.iterdir()) == []


def test_a_path_too_long_for_a_socket_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="too long"):
        EmbeddedServer(str(tmp_path / ("x" * 120)))
