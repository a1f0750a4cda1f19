"""``cachekit run`` as its user sees it: real processes, real sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from cachekit.config import RunConfig, load
from cachekit.errors import ConfigError
from cachekit.serve import interface_of, load_app
from tests.apps import plain_asgi, plain_wsgi
from tests.ports import free_port

ROOT = Path(__file__).parents[2]

TABLE = """
[tool.cachekit.ttl_classes]
short = "30s"
long = {ttl = "1h", stale_if_error = "1d"}

[[tool.cachekit.rules]]
path = "/kept/{name}"
ttl = "long"
tags = ["page:{name}"]
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cachekit", "run", *arguments]


@contextlib.contextmanager
def running(tmp_path, *arguments: str, table: str = TABLE, env: dict[str, str] | None = None):
    config = tmp_path / "cachekit.toml"
    config.write_text(table)
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(*arguments, "--config", str(config), "--port", str(port)),
            cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, start_new_session=True,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
            deadline = time.monotonic() + 30
            while True:
                try:
                    client.get("/ready")
                    break
                except httpx.TransportError:
                    assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
            client.log, client.process = log, process
            yield client
        process.send_signal(signal.SIGINT)
        process.wait(15)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_an_asgi_application(tmp_path):
    with running(tmp_path, "tests.apps.plain_asgi:app") as client:
        first, second = client.get("/kept/a"), client.get("/kept/a")
        assert first.json() == second.json()
        assert "hit" in second.headers["cache-status"]
        assert first.headers["cache-tag"] == "page:a"
        assert client.get("/other").json()["calls"] < client.get("/other").json()["calls"]
        shown = client.log.read_text()
        assert "tests.apps.plain_asgi:app (ASGI)" in shown
        assert "kept 1h" in shown and "stale-if-error 1d" in shown and "page:{name}" in shown


def test_a_wsgi_application_shares_the_cache_with_its_functions(tmp_path):
    with running(tmp_path, "tests.apps.plain_wsgi:app") as client:
        first, second = client.get("/kept/a"), client.get("/kept/a")
        assert first.json() == second.json()
        assert "hit" in second.headers["cache-status"]
        client.post("/other/a")  # invalidates the tag of the function that the page used
        assert client.get("/kept/a").json()["calls"] > first.json()["calls"]
        assert "(WSGI)" in client.log.read_text()


@pytest.mark.server
def test_workers_share_an_embedded_server(tmp_path):
    with running(tmp_path, "tests.apps.plain_asgi:app", "--workers", "2", "--store", "tiered+embedded://") as client:
        pids = set()
        for _ in range(60):
            # A connection of its own each time, so that both workers get some.
            with httpx.Client(base_url=client.base_url, trust_env=False) as one:
                pids.add(one.get("/kept/shared").json()["pid"])
        assert len(pids) == 1  # one worker made the page, both serve it


def test_each_worker_shows_its_figures(tmp_path):
    first = free_port()
    while (second := free_port()) != first + 1:
        first = second
    arguments = ["--workers", "2", "--store", "tiered+embedded://", "--metrics-port", str(first)]
    with running(tmp_path, "tests.apps.plain_asgi:app", *arguments) as client:
        for port in (first, first + 1):  # one worker serves before the other has started
            until_open(port)
        asked = 0
        while not all(shown := [lookups(first), lookups(first + 1)]) and asked < 500:
            asked += 1
            with httpx.Client(base_url=client.base_url, trust_env=False) as one:  # so that both workers get some
                assert one.get("/kept/a").status_code == 200
        assert sum(shown) == asked + 1  # the one that saw that it serves
        assert f"http://127.0.0.1:{first} to {first + 1}" in client.log.read_text()


def test_figures_that_find_no_port_fail_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(tmp_path, "tests.apps.plain_asgi:app", "--metrics-port", port) as client:
            assert client.get("/kept/a").status_code == 200
            assert f"none of the ports {port} to {port} on 127.0.0.1 is free" in client.log.read_text()


def until_open(port):
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lookups(port):
    """Return how many requests the worker looked up that shows its figures on *port*."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    counted = ("cachekit_hits_total", "cachekit_misses_total", "cachekit_stale_total")
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(counted))


@pytest.mark.parametrize(("workers", "code"), [("1", -signal.SIGTERM), ("2", 0)])
def test_how_it_ends(tmp_path, workers, code):
    with running(tmp_path, "tests.apps.plain_asgi:app", "--workers", workers) as client:
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(15) == code


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = ["tests.apps.plain_asgi:app", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "address already in use" in done.stderr


def test_a_worker_that_dies_is_replaced(tmp_path):
    with running(tmp_path, "tests.apps.plain_asgi:app", "--workers", "2") as client:

        def pid():
            with httpx.Client(base_url=client.base_url, trust_env=False, timeout=10) as one:
                return one.get("/other").json()["pid"]

        first, deadline = {pid() for _ in range(20)}, time.monotonic() + 60
        for one in first:
            os.kill(one, signal.SIGKILL)
        while True:
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.TransportError):
                if pid() not in first:
                    break
            time.sleep(0.05)


def test_a_factory(tmp_path):
    with running(tmp_path, "tests.apps.plain_asgi:factory", "--factory") as client:
        assert client.get("/kept/a").json()["path"] == "/kept/a"


def test_the_environment_names_the_store(tmp_path):
    env = {"CACHEKIT_URL": "redis://127.0.0.1:1"}  # nobody listens there: it starts anyway
    with running(tmp_path, "tests.apps.plain_asgi:app", env=env) as client:
        assert client.get("/kept/a").json()["calls"] < client.get("/kept/a").json()["calls"]
        assert "redis://127.0.0.1:1" in client.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "table", "said"),
    [
        (["tests.apps.plain_asgi:app"], "[tool.cachekit]\nprot = 80", "did you mean 'port'"),
        (["tests.apps.plain_asgi:app"], '[tool.cachekit]\nport = "80"', "port='80' must be a whole number"),
        (["tests.apps.plain_asgi:app"], "[tool.cachekit]\nworkers = 0", "workers=0 must be a whole number from 1"),
        (["tests.apps.plain_asgi:app"], '[[tool.cachekit.rules]]\npath = "/a"\nttl = "lnog"', "'lnog'"),
        (["tests.apps.plain_asgi:app"], '[[tool.cachekit.rules]]\nttl = "1h"', "path is missing"),
        (["tests.apps.plain_asgi:app"], '[[tool.cachekit.rules]]\npath = "/a"\ntags = ["x:{y}"]', "{y}"),
        (["tests.apps.plain_asgi:app"], '[tool.cachekit.ttl_classes]\na = "-5m"', "'-5m'"),
        (["tests.apps.plain_asgi:app"], "[tool.cachekit.http]\nmax_body = -1", "max_body=-1"),
        (["tests.apps.plain_asgi:app"], "[tool.other]", "no [tool.cachekit] table"),
        (["tests.apps.plain_asgi:app"], "[tool.cachekit", "not valid TOML"),
        (["tests.apps.plain_asgi:app", "--store", "rdis://x"], TABLE, "unknown URL scheme 'rdis'"),
        (["tests.apps.plain_asgi:nothing"], TABLE, "has no 'nothing'"),
        (["tests.apps.nowhere:app"], TABLE, "no module 'tests.apps.nowhere'"),
        (["tests.apps.plain_asgi"], TABLE, "must be written package.module:attribute"),
        (["tests.apps.plain_asgi:not_an_app"], TABLE, "no application"),
        (["tests.apps.plain_asgi:factory"], TABLE, "--factory"),
        ([], TABLE, "app is missing"),
        (["tests.apps.plain_asgi:app", "--metrics-port", "70000"], TABLE, "metrics_port=70000 must be"),
        (
            ["tests.apps.plain_asgi:app", "--metrics-port", "7999", "--workers", "2"],
            TABLE,
            "7999 is where requests arrive",
        ),
        (["tests.apps.plain_asgi:app", "--host", "a" * 64], TABLE, "is nothing to listen on here"),
        (["tests.apps.plain_asgi:app", "--host", "a b"], TABLE, "host='a b' must be an address"),
        (["tests.apps.plain_asgi:app", "--host", "300.1.1.1"], TABLE, "host='300.1.1.1' is nothing to listen on"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(tmp_path, arguments, table, said):
    config = tmp_path / "cachekit.toml"
    config.write_text(table)
    done = subprocess.run(
        command(*arguments, "--config", str(config), "--check"), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_check_shows_and_stops(tmp_path):
    config = tmp_path / "cachekit.toml"
    config.write_text(TABLE)
    done = subprocess.run(
        command("tests.apps.plain_asgi:app", "--config", str(config), "--check", "--store", "redis://u:secret@h/0"),
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "class short" in done.stdout and "secret" not in done.stdout


def test_what_comes_before_what(tmp_path, monkeypatch):
    file = tmp_path / "pyproject.toml"
    file.write_text('[tool.cachekit]\nurl = "memory://file"\nport = 1\nworkers = 3')
    monkeypatch.chdir(tmp_path)
    assert load(None, {}, {}).url == "memory://file"
    assert load(None, {}, {"CACHEKIT_URL": "memory://env"}).url == "memory://env"
    config = load(None, {"url": "memory://option", "port": None}, {"CACHEKIT_URL": "memory://env"})
    assert (config.url, config.port, config.workers) == ("memory://option", 1, 3)


def test_interfaces_are_told_apart():
    class Asgi:
        async def __call__(self, scope, receive, send): ...

    class Wsgi:
        def __call__(self, environ, start_response): ...

    assert interface_of(plain_asgi.app) == "asgi"
    assert interface_of(plain_wsgi.app) == "wsgi"
    assert interface_of(Asgi()) == "asgi"
    assert interface_of(Wsgi()) == "wsgi"
    assert interface_of(plain_asgi.ambiguous, "wsgi") == "wsgi"
    from flask import Flask
    from starlette.applications import Starlette

    assert interface_of(Flask("x")) == "wsgi"
    assert interface_of(Starlette()) == "asgi"
    with pytest.raises(ConfigError, match="asgi, wsgi"):
        interface_of(plain_asgi.ambiguous)


def test_an_error_inside_the_application_is_shown_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "broken_app.py").write_text("import a_module_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError):
        load_app("broken_app:app", factory=False)


def test_defaults_are_valid():
    RunConfig().check()
