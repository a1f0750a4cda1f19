"""Stores of sessions, and one application behind both edges."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import pytest

from cachekit import Cache
from cachekit._io import drive
from cachekit.sessions import SessionOptions, Sessions
from cachekit.sessions.memory import MemorySessions
from cachekit.sessions.store import Key, Record, Verdict
from cachekit.testing import ManualClock
from tests.conftest import Running
from tests.sessions.aging import grow_older

pytest.register_assert_rewrite("cachekit.sessions.testing")

SECRET = "a secret of tests, long enough"
LONGEST_PAUSE = 11


def options(**given: Any) -> SessionOptions:
    return SessionOptions(**{"secrets": SECRET, **given})


class Got:
    """A response as a browser sees it."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.headers if field.lower() == name]

    def get(self, name: str) -> str | None:
        found = self.all(name)
        return ", ".join(found) if found else None


class Browser:
    """Sends requests to one edge, and keeps cookies."""

    def __init__(self, edge: Edge, jar: dict[str, str] | None = None) -> None:
        self.edge, self.jar = edge, jar if jar is not None else {}

    def copy(self) -> Browser:
        """Another tab that has sent its cookies before this one's answer comes."""
        return Browser(self.edge, dict(self.jar))

    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.jar.items())

    def take(self, got: Got) -> Got:
        for line in got.all("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.jar.pop(name, None)
                else:
                    self.jar[name] = morsel.value
        return got

    def ask(self, do: Callable[..., Any] | None = None, *, keep: bool = True, **more: Any) -> Got:
        """Send a request; the application calls *do* with its session."""
        got = self.edge.request(do, cookie=self.cookie(), **more)
        return self.take(got) if keep else got

    def look(self, do: Callable[[Any], Any] = dict, **more: Any) -> Any:
        """Return what *do* makes of the session in a request."""
        seen: list[Any] = []
        self.ask(lambda session: seen.append(do(session)), **more)
        return seen[0]


class Edge:
    """One application behind one edge. What it does, each request says."""

    kind = ""

    def __init__(self, sessions: Sessions, *, cache: Cache | None = None) -> None:
        self.sessions, self.cache = sessions, cache
        self.app = self.build()

    def build(self) -> Any:
        raise NotImplementedError

    def request(self, do: Any = None, **more: Any) -> Got:
        raise NotImplementedError

    def browser(self) -> Browser:
        return Browser(self)

    def close(self) -> None:
        pass


class AsgiEdge(Edge):
    kind = "asgi"

    def build(self) -> Any:
        self.runner = asyncio.Runner()
        if self.cache is not None:
            from cachekit.asgi import CacheKit

            return CacheKit(self.inner, cache=self.cache, sessions=self.sessions)
        from cachekit.sessions.asgi import SessionMiddleware

        return SessionMiddleware(self.inner, self.sessions)

    async def inner(self, scope, receive, send):
        plan = scope["test"]
        if plan["do"] is not None:
            plan["do"](scope["session"])
        headers = [(name.encode(), value.encode()) for name, value in plan["headers"]]
        await send({"type": "http.response.start", "status": plan["status"], "headers": headers})
        if plan["between"] is not None:
            plan["between"](scope["session"])
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        if plan["after"] is not None:
            plan["after"](scope["session"])
        if plan["leaves"]:
            raise OSError("the client has left")
        await send({"type": "http.response.body", "body": b"b"})

    def request(
        self, do=None, *, cookie="", method="GET", path="/", status=200, headers=(), agent="tests", between=None,
        after=None, leaves=False,
    ) -> Got:  # fmt: skip
        job = self.arequest(
            do, cookie=cookie, method=method, path=path, status=status, headers=headers, agent=agent,
            between=between, after=after, leaves=leaves,
        )  # fmt: skip
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self.runner.run(job)
        return Running(asyncio.run, self._elsewhere(job)).result()  # a request in the middle of another one

    async def _elsewhere(self, job):
        try:
            return await job
        finally:
            link = getattr(self.sessions.store.inner, "link", None)
            if link is not None:
                await link._aclose()

    async def arequest(
        self, do=None, *, cookie="", method="GET", path="/", status=200, headers=(), agent="tests", between=None,
        after=None, leaves=False,
    ) -> Got:  # fmt: skip
        sent: list[Any] = []

        async def send(message):
            sent.append(message)

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        fields = [(b"host", b"test"), (b"user-agent", agent.encode())]
        if cookie:
            fields.append((b"cookie", cookie.encode("latin-1")))
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode(), "query_string": b"", "scheme": "https", "root_path": "", "headers": fields,
            "client": ("127.0.0.1", 1), "server": ("test", 443),
            "test": {"do": do, "status": status, "headers": headers, "between": between, "after": after,
                     "leaves": leaves},
        }  # fmt: skip
        with contextlib.suppress(OSError) if leaves else contextlib.nullcontext():
            await self.app(scope, receive, send)
        start = next(message for message in sent if message["type"] == "http.response.start")
        head = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        return Got(start["status"], head, b"".join(m["body"] for m in sent if m["type"] == "http.response.body"))

    def close(self) -> None:
        link = getattr(self.sessions.store.inner, "link", None)
        if link is not None:
            self.runner.run(link._aclose())
        self.runner.close()


class WsgiEdge(Edge):
    kind = "wsgi"

    def build(self) -> Any:
        if self.cache is not None:
            from cachekit.wsgi import CacheKit

            return CacheKit(self.inner, cache=self.cache, sessions=self.sessions)
        from cachekit.sessions.wsgi import SessionMiddleware

        return SessionMiddleware(self.inner, self.sessions)

    def inner(self, environ, start_response):
        plan, session = environ["test"], environ["cachekit.session"]
        if plan["do"] is not None:
            plan["do"](session)
        start_response(f"{plan['status']} Status", list(plan["headers"]))
        if plan["between"] is not None:
            plan["between"](session)
        yield b"a"
        if plan["after"] is not None:
            plan["after"](session)
        yield b"b"

    def request(
        self, do=None, *, cookie="", method="GET", path="/", status=200, headers=(), agent="tests", between=None,
        after=None, leaves=False,
    ) -> Got:  # fmt: skip
        environ = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_NAME": "test",
            "SERVER_PORT": "443", "HTTP_HOST": "test", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "https",
            "HTTP_USER_AGENT": agent, "wsgi.version": (1, 0),
            "test": {"do": do, "status": status, "headers": headers, "between": between, "after": after},
        }  # fmt: skip
        if cookie:
            environ["HTTP_COOKIE"] = cookie
        heads: list[Any] = []

        def start_response(line, fields, exc_info=None):
            heads.append((int(line[:3]), fields))
            return lambda data: None

        body = self.app(environ, start_response)
        parts = []
        try:
            for part in body:
                parts.append(part)
                if leaves and part == b"a":
                    next(body)  # the application has gone on, the client has not
                    break
        finally:
            if hasattr(body, "close"):
                body.close()
        return Got(*heads[-1], b"".join(parts))


EDGES = {"asgi": AsgiEdge, "wsgi": WsgiEdge}


@pytest.fixture(params=["asgi", "wsgi"])
def edge_kind(request):
    return EDGES[request.param]


@pytest.fixture
def patience():
    """Seconds that a request waits for the store: on a busy machine an answer may take its time."""
    return 5.0


@pytest.fixture
def site(edge_kind, clock, watch, patience):
    """Makes sites: applications whose sessions are kept as the caller says."""
    made: list[Edge] = []

    def make(source: Any = "memory://", *, cache: Cache | None = None, **given: Any) -> Edge:
        now = given.pop("clock", clock)
        sessions = Sessions(source, options(**{"timeout": patience, **given}), clock=now, observers=[watch])
        made.append(edge_kind(sessions, cache=cache))
        return made[-1]

    yield make
    for edge in made:
        edge.close()
        with contextlib.suppress(Exception):
            edge.sessions.close()


@pytest.fixture
def passing(request: pytest.FixtureRequest, clock: ManualClock) -> Callable[[float], None]:
    """Lets seconds pass: on the clock, and on servers, which count time themselves."""

    def pass_(seconds: float) -> None:
        clock.advance(seconds)
        if "server" in request.fixturenames:
            with request.getfixturevalue("server").client() as client:
                grow_older([client], seconds)

    return pass_


@contextlib.contextmanager
def frozen(server):
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


class InBytes(MemorySessions):
    """Keeps bytes in this process, as servers do elsewhere."""

    in_process = False
    takes_parcels = False


class Swapped(InBytes):
    """Does it as servers do that compare what is there themselves."""

    def swaps(self, was: Record) -> bool:
        return was.created > 0

    async def swap(self, io: Any, key: Key, was: Record, body: bytes, version: str) -> bool:
        if await MemorySessions.read(self, io, key, 0.0) != was:
            return False
        record = was._replace(body=body, version=version)
        return (await MemorySessions.write(self, io, key, record, was.version)).verdict is Verdict.DONE


def put(key: str, value: Any) -> Callable[[Any], None]:
    """Return what an application does that stores one value."""

    def do(session: Any) -> None:
        session[key] = value

    return do


__all__ = ["drive"]
