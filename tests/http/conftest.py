"""Both edges behind one interface: a scripted application, grammar checked on both sides, time that stands still."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from wsgiref.validate import validator

import pytest

from cachekit import Cache
from cachekit.entry import Entry
from cachekit.events import Events
from cachekit.http import asgi, wsgi
from cachekit.http.headers import first, format_date, values
from cachekit.http.options import HttpOptions
from cachekit.stores.base import Ticket
from cachekit.testing import ManualClock
from tests.background import background_done


@dataclass
class Answer:
    """What the scripted application answers."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | list[bytes] = b"body"
    error: Exception | None = None
    breaks: Exception | None = None
    before: Callable[[], object] | None = None
    during: Callable[[], object] | None = None

    @property
    def chunks(self) -> list[bytes]:
        return [self.body] if isinstance(self.body, bytes) else self.body


@dataclass
class Seen:
    """A request as the application saw it."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        return first(self.headers, name)


@dataclass
class Got:
    """A response as the client saw it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    chunks: list[bytes]

    def get(self, name: str) -> str | None:
        return first(self.headers, name.lower())

    def all(self, name: str) -> list[str]:
        return values(self.headers, name.lower())

    @property
    def cache_status(self) -> str:
        return self.get("cache-status") or ""

    @property
    def hit(self) -> bool:
        return "; hit" in self.cache_status


class Site:
    """An application behind one edge of the cache."""

    kind = ""

    def __init__(self, cache: Any, clock: ManualClock) -> None:
        self.cache = cache
        self.clock = clock
        self.seen: list[Seen] = []
        self.answers: list[Answer] | Callable[[Seen], Answer] = [Answer()]
        self.app: Any = None
        self.server: dict[str, Any] = {}
        """What the server says of each request beside that, in its scope or environ."""
        self.setup()

    def setup(self, rules: Any = (), **options: Any) -> Site:
        self.app = self.wrap(rules, HttpOptions(**options))
        return self

    def answer(self, *answers: Answer | list[tuple[str, str]]) -> Site:
        """Answer with *answers* in turn, and with the last one ever after."""
        self.answers = [one if isinstance(one, Answer) else Answer(headers=one) for one in answers]
        return self

    def says(self, control: str, **more: Any) -> Site:
        """Answer always with this Cache-Control."""
        headers = [("Cache-Control", control), *more.pop("headers", [])]
        return self.answer(Answer(headers=headers, **more))

    def respond(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        if callable(self.answers):
            answer = self.answers(seen)
        else:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.before is not None:
            answer.before()
        if answer.error is not None:
            raise answer.error
        return answer

    @property
    def forwards(self) -> int:
        return len(self.seen)

    def wrap(self, rules: Any, options: HttpOptions) -> Any:
        raise NotImplementedError

    def request(
        self, method: str = "GET", target: str = "/x", headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: bytes = b"",
    ) -> Got:  # fmt: skip
        raise NotImplementedError

    def get(self, target: str = "/x", **headers: str) -> Got:
        return self.request("GET", target, [(name.replace("_", "-"), value) for name, value in headers.items()])

    def settle(self) -> None:
        """Let background work end."""

    def date(self, offset: float = 0.0) -> str:
        return format_date(self.clock.now + offset)


def _pairs(headers: Any) -> list[tuple[str, str]]:
    return list(headers.items()) if isinstance(headers, dict) else list(headers or [])


class AsgiSite(Site):
    kind = "asgi"

    def __init__(self, cache: Any, clock: ManualClock) -> None:
        self.loop = asyncio.new_event_loop()
        super().__init__(cache, clock)

    def wrap(self, rules: Any, options: HttpOptions) -> Any:
        return asgi.HttpCache(self._app, self.cache, rules=rules, options=options)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        await receive()
        answer = self.respond(Seen(scope["method"], scope["path"], scope["query_string"].decode(), headers))
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        if answer.during is not None:
            answer.during()
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        last = len(answer.chunks) - 1
        for at, chunk in enumerate(answer.chunks):
            if answer.breaks is not None and at == last:
                raise answer.breaks
            await send({"type": "http.response.body", "body": chunk, "more_body": at < last})

    def request(self, method="GET", target="/x", headers=None, body=b"") -> Got:
        return self.loop.run_until_complete(self.arequest(method, target, headers, body))

    async def arequest(self, method="GET", target="/x", headers=None, body=b"") -> Got:
        path, _, query = target.partition("?")
        pairs = _pairs(headers)
        if not any(name.lower() == "host" for name, _ in pairs):
            pairs.insert(0, ("host", "example.org"))
        from urllib.parse import unquote

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "https",
            "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in pairs], "state": {},
            "extensions": {}, **self.server,
        }  # fmt: skip
        checked = Grammar()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, receive, checked)
        return checked.got()

    def settle(self) -> None:
        self.loop.run_until_complete(background_done())

    def close(self) -> None:
        self.settle()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class Grammar:
    """A ``send`` that insists on the order of messages."""

    def __init__(self) -> None:
        self.start: dict[str, Any] | None = None
        self.chunks: list[bytes] = []
        self.ended = False
        self.others: list[str] = []

    async def __call__(self, message: Any) -> None:
        assert not self.ended, f"{message} after the end"
        kind = message["type"]
        if kind == "http.response.start":
            assert self.start is None
            assert type(message["status"]) is int
            for name, value in message["headers"]:
                assert (type(name), type(value)) == (bytes, bytes)
                assert not set(b"\r\n") & {*name, *value}
            self.start = message
        elif kind == "http.response.body":
            assert self.start is not None
            self.chunks.append(message.get("body", b""))
            self.ended = not message.get("more_body", False)
        else:
            self.others.append(kind)

    def got(self) -> Got:
        assert self.start is not None
        assert self.ended
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.start["headers"]]
        return Got(self.start["status"], pairs, b"".join(self.chunks), self.chunks)


class WsgiSite(Site):
    kind = "wsgi"

    def wrap(self, rules: Any, options: HttpOptions) -> Any:
        return wsgi.HttpCache(self._app, self.cache, rules=rules, options=options)

    def _app(self, environ: Any, start_response: Any) -> Any:
        headers = [(n[5:].replace("_", "-").lower(), v) for n, v in environ.items() if n.startswith("HTTP_")]
        query = environ.get("QUERY_STRING", "")
        answer = self.respond(Seen(environ["REQUEST_METHOD"], environ["PATH_INFO"], query, headers))
        start_response(f"{answer.status} Reason", list(answer.headers))
        if answer.during is not None:
            answer.during()
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        return answer.chunks if answer.breaks is None else self._breaking(answer)

    def _breaking(self, answer: Answer) -> Iterator[bytes]:
        yield from answer.chunks[:-1]
        raise answer.breaks  # type: ignore[misc]

    def request(self, method="GET", target="/x", headers=None, body=b"") -> Got:
        environ = {**environ_of(method, target, _pairs(headers), body), **self.server}
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            if exc_info is None:
                assert not started
            started[:] = [(status, headers)]
            return chunks.append

        chunks: list[bytes] = []
        result = self.app(environ, start_response)
        try:
            for chunk in result:
                assert started
                chunks.append(chunk)
        finally:
            if hasattr(result, "close"):
                result.close()
        status, pairs = started[0]
        assert all(type(pair) is tuple for pair in pairs)
        return Got(int(status[:3]), pairs, b"".join(chunks), chunks)

    def settle(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "cachekit-background":
                thread.join()

    def close(self) -> None:
        self.settle()


class ValidatedSite(WsgiSite):
    """The same with ``wsgiref.validate`` on both sides, and a body that is an iterator with ``close``."""

    kind = "wsgi-validated"

    def wrap(self, rules: Any, options: HttpOptions) -> Any:
        return validator(wsgi.HttpCache(validator(self._typed), self.cache, rules=rules, options=options))

    def _typed(self, environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            if not any(name.lower() == "content-type" for name, _ in headers) and status[:3] not in ("204", "304"):
                headers = [*headers, ("Content-Type", "text/plain")]
            return start_response(status, headers, *([exc_info] if exc_info else []))

        return self._app(environ, start)


def environ_of(method: str, target: str, headers: list[tuple[str, str]], body: bytes = b"") -> dict[str, Any]:
    from urllib.parse import unquote_to_bytes

    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query, "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "example.org", "wsgi.version": (1, 0), "wsgi.url_scheme": "https", "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(), "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
    }  # fmt: skip
    for name, value in headers:
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        environ[key] = f"{environ[key]}, {value}" if key in environ and key != "HTTP_HOST" else value
    return environ


class FakeCache:
    """The port in memory, with switches: what fails, and how."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.events = Events()
        self.entries: dict[str, Entry[Any]] = {}
        self.held: set[str] = set()
        self.log: list[tuple[str, str]] = []
        self.raises: set[str] = set()
        self.away = False
        self.other_leads = False
        self.refuses = False

    def _check(self, name: str, key: str) -> None:
        self.log.append((name, key))
        if name in self.raises:
            raise RuntimeError(f"{name} is broken")

    def counting(self, name: str) -> Any:
        return SimpleNamespace(misses=0, stale=0, tally=SimpleNamespace(hits=0))

    def peek(self, key: str) -> Entry[Any] | None:
        if "peek" in self.raises:
            raise RuntimeError("peek is broken")
        return self._live(key)

    def _live(self, key: str) -> Entry[Any] | None:
        entry = self.entries.get(key)
        return entry if entry is not None and self.clock() < entry.dead_at else None

    async def read(self, io: Any, key: str) -> Entry[Any] | None:
        self._check("read", key)
        return None if self.away else self._live(key)

    async def begin(self, io: Any, key: str, tags: Any = (), *, lease: float = 30.0) -> Ticket | None:
        self._check("begin", key)
        if self.away:
            return None
        if self.other_leads or key in self.held:
            return Ticket(key, False)
        self.held.add(key)
        return Ticket(key, True)

    async def commit(self, io: Any, ticket: Ticket, entry: Entry[Any]) -> bool:
        self._check("commit", ticket.key)
        self.held.discard(ticket.key)
        if self.away or self.refuses:
            return False
        self.entries[ticket.key] = entry
        return True

    async def holds(self, io: Any, ticket: Ticket, tags: Any, stamps: Any = ()) -> bool:
        self._check("holds", ticket.key)
        return ticket.key in self.held

    async def ended(self, io: Any, ticket: Ticket, poll: float) -> bool:
        self._check("ended", ticket.key)
        await io.sleep(poll)
        return False

    async def release(self, io: Any, ticket: Ticket) -> None:
        self._check("release" if ticket.leads else "unheeded", ticket.key)
        if ticket.leads:
            self.held.discard(ticket.key)

    def forget(self, keys: Any) -> bool:
        return False

    async def drop(self, io: Any, *keys: str) -> None:
        self._check("drop", " ".join(keys))
        for key in keys:
            self.entries.pop(key, None)
            self.held.discard(key)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(clock: ManualClock) -> Cache:
    return Cache("memory://", clock=clock)


@pytest.fixture
def fake(clock: ManualClock) -> FakeCache:
    return FakeCache(clock)


EDGES = {"asgi": AsgiSite, "wsgi": WsgiSite, "wsgi-validated": ValidatedSite}


@pytest.fixture(params=list(EDGES))
def edge(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def build(edge: str, clock: ManualClock) -> Iterator[Callable[[Any], Site]]:
    made: list[Site] = []

    def build(cache: Any) -> Site:
        made.append(EDGES[edge](cache, clock))
        return made[-1]

    yield build
    for site in made:
        site.close()


@pytest.fixture
def site(build: Callable[[Any], Site], cache: Cache) -> Site:
    return build(cache)
