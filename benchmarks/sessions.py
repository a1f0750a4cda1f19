"""Sessions beside the peers that are installed: time added to a bare application, commands and bytes counted on the server.

Each peer stands in its own framework, and so does cachekit beside it, on one Valkey. Run alone with
``python -m benchmarks.sessions``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
import statistics
import time
import types
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import redis

from benchmarks.measure import Row, interleaved
from cachekit.sessions import SessionOptions, Sessions
from cachekit.sessions.asgi import SessionMiddleware as AsgiSessions
from cachekit.sessions.wsgi import SessionMiddleware as WsgiSessions
from cachekit.stores.embedded import EmbeddedServer

CALLS, ROUNDS = 20, 40
SECRET = "a secret for benchmarks alone, long enough"  # not a secret
CLIENTS, PAUSE, SECONDS = 64, 0.1, 3.0
SMALL, LARGE = "2 KB", "100 KB"
TARGETS = {
    ("read", SMALL): {"django-redis": 1.0, "starsessions": 0.5, "Flask-Session": 0.5},
    ("modify", SMALL): {"Flask-Session": 0.85},
    ("read", LARGE): {"django-redis": 0.95},
    ("modify", LARGE): {"Flask-Session": 0.7},
}


def data(size: str) -> dict[str, Any]:
    """Return what a shop keeps of a visitor, in about that many bytes; it compresses as text does, not better."""
    chance = random.Random(size)
    items = 16 if size == SMALL else 800

    def words(count: int) -> str:
        return " ".join("".join(chance.choices("aeiounrstlmdkp", k=chance.randint(3, 9))) for _ in range(count))

    return {
        "user_id": 4711, "locale": "en-GB", "currency": "GBP", "hits": 0,
        "cart": [
            {"sku": f"{chance.randrange(10**8):08}", "name": words(4), "price": chance.randrange(9999), "quantity": 1}
            for _ in range(items)
        ],
        "viewed": [f"/product/{chance.randrange(10**6)}" for _ in range(items)],
    }  # fmt: skip


def act(session: Any, what: str) -> None:
    """Do with *session* what a request of kind *what* does."""
    if what == "read":
        assert session["user_id"] == 4711
        assert session["cart"]
    elif what == "glance":  # who is asking, and nothing else
        assert session["user_id"] == 4711
    elif what == "modify":
        session["hits"] = session["hits"] + 1
    elif what.startswith("fill "):
        session.update(data(what[5:]))


@dataclass
class Contestant:
    """An application: calls it with what to do and a cookie, and returns the Set-Cookie lines."""

    name: str
    framework: str
    call: Callable[[str, str], list[str]]
    cookies: dict[str, str] = field(default_factory=dict)

    def fill(self) -> None:
        for size in (SMALL, LARGE):
            lines = self.call(f"fill {size}", "")
            self.cookies[size] = "; ".join(line.partition(";")[0] for line in lines)


# -- WSGI: Flask and Django -----------------------------------------------------------------------------------------------


def wsgi(app: Any) -> Callable[[str, str], list[str]]:
    base = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "SERVER_NAME": "bench", "SERVER_PORT": "443",
        "HTTP_HOST": "bench", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "https", "wsgi.version": (1, 0),
        "wsgi.multithread": True, "wsgi.multiprocess": True, "wsgi.run_once": False,
    }  # fmt: skip

    def call(what: str, cookie: str) -> list[str]:
        import io

        environ = {
            **base,
            "QUERY_STRING": what.replace(" ", "+"),
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
        }
        if cookie:
            environ["HTTP_COOKIE"] = cookie
        lines: list[str] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            assert status.startswith("200"), status
            lines.extend(value for name, value in headers if name.lower() == "set-cookie")
            return lines.append  # as servers do: what is written by it is no Set-Cookie line, and nobody writes here

        body = app(environ, start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
        return lines

    return call


def flask_app(session: Callable[[], Any] | None) -> Any:
    from flask import Flask, request

    app = Flask("bench")

    @app.get("/")
    def page() -> str:
        what = request.query_string.decode().replace("+", " ")
        if what != "nothing" and session is not None:
            act(session(), what)
        return "page"

    return app


def flasks(server: EmbeddedServer, sessions: Sessions) -> Iterator[Contestant]:
    from flask import request
    from flask import session as flask_session

    yield Contestant("bare", "Flask", wsgi(flask_app(None)))
    app = flask_app(lambda: request.environ["cachekit.session"])
    app.wsgi_app = WsgiSessions(app.wsgi_app, sessions)
    yield Contestant("cachekit", "Flask", wsgi(app))
    if importlib.util.find_spec("flask_session") is not None:
        from flask_session import Session

        app = flask_app(lambda: flask_session)
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(unix_socket_path=str(server.socket)))
        Session(app)
        yield Contestant("Flask-Session", "Flask", wsgi(app))


def djangos(server: EmbeddedServer, sessions: Sessions) -> Iterator[Contestant]:
    import django
    from django.conf import settings

    peer = importlib.util.find_spec("django_redis") is not None
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url} if peer else {}
    module = types.ModuleType("benchmarks_urls")
    settings.configure(
        SECRET_KEY=SECRET, ROOT_URLCONF=module, ALLOWED_HOSTS=["*"], MIDDLEWARE=[], INSTALLED_APPS=[],
        SESSION_ENGINE="django.contrib.sessions.backends.cache", **({"CACHES": {"default": cache}} if peer else {}),
    )  # fmt: skip
    django.setup()
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def page(request: HttpRequest) -> HttpResponse:
        what = request.META["QUERY_STRING"].replace("+", " ")
        session = request.META.get("cachekit.session", getattr(request, "session", None))
        if what != "nothing" and session is not None:
            act(session, what)
        return HttpResponse("page")

    module.urlpatterns = [path("", page)]  # type: ignore[attr-defined]
    bare = WSGIHandler()
    yield Contestant("bare", "Django", wsgi(bare))
    yield Contestant("cachekit", "Django", wsgi(WsgiSessions(bare, sessions)))
    if peer:
        settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
        yield Contestant("django-redis", "Django", wsgi(WSGIHandler()))


# -- ASGI: Starlette -------------------------------------------------------------------------------------------------------


def starlette_app(*, sessions: bool = True) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def page(request: Request) -> PlainTextResponse:
        what = request.scope["query_string"].decode().replace("+", " ")
        if what != "nothing" and sessions:
            act(request.session, what)
        return PlainTextResponse("page")

    # A path for each kind of request, as in a real application.
    return Starlette(
        routes=[
            Route("/read", page),
            Route("/modify", page),
            Route("/nothing", page),
            Route("/fill", page),
            Route("/glance", page),
        ]
    )


def asgi(app: Any) -> Callable[[str, str], Awaitable[list[str]]]:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def call(what: str, cookie: str) -> list[str]:
        lines: list[str] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 200
                lines.extend(value.decode() for name, value in message["headers"] if name == b"set-cookie")

        path = f"/{what.partition(' ')[0]}"
        headers = [(b"host", b"bench"), (b"cookie", cookie.encode())] if cookie else [(b"host", b"bench")]
        await app({
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "https",
            "path": path, "raw_path": path.encode(), "query_string": what.replace(" ", "+").encode(), "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("bench", 443), "state": {},
        }, receive, send)  # fmt: skip
        return lines

    return call


def starlettes(server: EmbeddedServer, sessions: Sessions) -> Iterator[tuple[str, Any]]:
    yield "bare", starlette_app(sessions=False)
    yield "cachekit", AsgiSessions(starlette_app(), sessions)
    if importlib.util.find_spec("starsessions") is not None:
        from starsessions import SessionAutoloadMiddleware, SessionMiddleware
        from starsessions.stores.redis import RedisStore

        app = starlette_app()
        app.add_middleware(SessionAutoloadMiddleware)
        app.add_middleware(
            SessionMiddleware, store=RedisStore(server.url), lifetime=86400, rolling=True, cookie_https_only=False
        )
        yield "starsessions", app


# -- measuring ----------------------------------------------------------------------------------------------------------


def timed(contestants: list[Contestant], what: str, size: str) -> dict[str, Row]:
    """Return nanoseconds a call of each."""

    def runner(one: Contestant) -> Callable[[int], float]:
        cookie = one.cookies.get(size, "")

        def run(calls: int) -> float:
            started = time.perf_counter()
            for _ in range(calls):
                one.call(what, cookie)
            return time.perf_counter() - started

        return run

    return interleaved({one.name: runner(one) for one in contestants}, calls=CALLS, rounds=ROUNDS)


def counted(server: EmbeddedServer, one: Contestant, what: str, size: str) -> tuple[float, float]:
    """Return the commands and the bytes on the wire of one request, as the server counts them."""
    cookie = one.cookies.get(size, "")
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        with client.monitor() as monitor:
            client.echo("start")
            for _ in range(10):
                one.call(what, cookie)
            client.echo("end")
            commands = 0
            for command in monitor.listen():
                if command["command"] == "ECHO end":
                    break
                name = command["command"].split()[0]
                if command["client_type"] != "lua" and name not in ("ECHO", "HELLO", "CLIENT", "SELECT", "MONITOR"):
                    commands += 1
        empty = _wire(client, lambda: None)
        return commands / 10, max(
            0.0, (_wire(client, lambda: [one.call(what, cookie) for _ in range(10)]) - empty) / 10
        )


def _wire(client: Any, work: Callable[[], object]) -> int:
    def total() -> int:
        info = client.info("stats")
        return int(info["total_net_input_bytes"]) + int(info["total_net_output_bytes"])

    before = total()
    work()
    return total() - before


def table(server: EmbeddedServer, contestants: list[Contestant]) -> None:
    framework = contestants[0].framework
    for one in contestants[1:]:
        one.fill()
    print(f"\n### Sessions, {framework}\n\n| | added, us | x cachekit's | cachekit / it | aim | commands | bytes |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for what, size in (
        ("nothing", SMALL),
        ("read", SMALL),
        ("modify", SMALL),
        ("glance", LARGE),
        ("read", LARGE),
        ("modify", LARGE),
    ):
        rows = timed(contestants, what, size)
        # The least of many short rounds: what else runs on the machine only ever adds.
        added = {name: min(row.rounds) - min(rows["bare"].rounds) for name, row in rows.items()}
        for one in contestants[1:]:
            commands, wire = counted(server, one, what, size)
            mine, its = added["cachekit"], added[one.name]
            ratio = "" if one.name == "cachekit" or what == "nothing" else f"{mine / its:.2f}"
            aim = TARGETS.get((what, size), {}).get(one.name)
            more = "" if one.name == "cachekit" or what == "nothing" else f"{its / mine:.2f}"
            said = f"{what}, {size}" if what != "nothing" else "not touched"
            print(
                f"| {one.name}, {said} | {its / 1000:,.0f} | {more} | {ratio} | {'' if aim is None else aim} "
                f"| {commands:g} | {wire:,.0f} |"
            )


async def percentile(call: Any, cookies: list[str], seconds: float) -> tuple[float, float]:
    """Return the 50th and 99th percentile in ms of requests that *CLIENTS* clients send, with pauses in between.

    The pauses are random: equal ones would let clients that once met go on together, in groups that only grow.
    """
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        cookie, sent, pauses = cookies[number % len(cookies)], number, random.Random(number)
        await asyncio.sleep(PAUSE * number / CLIENTS)
        while (started := time.perf_counter()) < end:
            sent += 1
            await call("read" if sent % 5 else "modify", cookie)
            took.append(time.perf_counter() - started)
            await asyncio.sleep(pauses.expovariate(1 / PAUSE))

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    took.sort()
    return took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000


async def visitors(call: Any, count: int) -> list[str]:
    """Return the cookies of *count* new sessions."""
    lines = [await call(f"fill {SMALL}", "") for _ in range(count)]
    return ["; ".join(line.partition(";")[0] for line in each) for each in lines]


def crowd(runner: asyncio.Runner, calls: dict[str, Any], *, sessions: int) -> None:
    """Measure many clients; with fewer *sessions* than clients, writers of one session meet."""
    kind = "each with a session of its own" if sessions == CLIENTS else f"on {sessions} session"
    print(
        f"\n### 2 KB, {CLIENTS} clients at once, {kind}, one change in five, pauses of {PAUSE * 1000:.0f} ms on average\n"
    )
    print("| | P50, ms | P99, ms | P99 added |\n|---|---:|---:|---:|")
    cookies = {name: runner.run(visitors(call, sessions)) for name, call in calls.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for attempt in range(4):
        for name, call in calls.items():
            figures = runner.run(percentile(call, cookies[name], SECONDS if attempt else SECONDS / 4))
            if attempt:  # the first one only opens connections
                found[name].append(figures)
    bare = statistics.median(p99 for _, p99 in found["bare"])
    for name, rounds in found.items():
        p50, p99 = (statistics.median(each[at] for each in rounds) for at in (0, 1))
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {'' if name == 'bare' else f'{p99 - bare:.2f}'} |")


def main() -> bool:
    server = EmbeddedServer()
    options = SessionOptions(secrets=SECRET, cookie_name="own", timeout=5.0)
    try:
        for made in (flasks, djangos):
            sessions = Sessions(server.url, options)
            table(server, list(made(server, sessions)))
            sessions.close()
        with asyncio.Runner() as runner:
            sessions = Sessions(server.url, options)
            apps = dict(starlettes(server, sessions))
            calls = {name: asgi(app) for name, app in apps.items()}

            def blocking(call: Any) -> Callable[[str, str], list[str]]:
                return lambda what, cookie: runner.run(call(what, cookie))

            contestants = [Contestant(name, "Starlette", blocking(call)) for name, call in calls.items()]
            table(server, contestants)
            for count in (CLIENTS, 1):
                crowd(runner, calls, sessions=count)
            runner.run(sessions.aclose())
    finally:
        server.close()
    return True


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
