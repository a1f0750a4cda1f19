"""The warm-up in front of applications: ASGI with and without lifespan, WSGI, and requests that come too early."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cachekit import Cache, ConfigError
from cachekit.warm import Warmer
from cachekit.warm.refusal import BODY


@pytest.fixture
def order() -> list[str]:
    return []


@pytest.fixture
def warmer(order) -> Warmer:
    made = Warmer(progress=False)
    made.add(order.append, "warm")
    return made


class Server:
    """Speaks ASGI to an application as a server does."""

    def __init__(self, app) -> None:
        self.app = app
        self.sent: list[dict] = []
        self.inbox: asyncio.Queue = asyncio.Queue()
        self.changed = asyncio.Condition()
        self.state: dict = {}

    async def send(self, message) -> None:
        async with self.changed:
            self.sent.append(message)
            self.changed.notify_all()

    def start(self) -> asyncio.Task:
        self.inbox.put_nowait({"type": "lifespan.startup"})
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        return asyncio.create_task(self.app(scope, self.inbox.get, self.send))

    async def until(self, number: int) -> list[str]:
        async with self.changed, asyncio.timeout(10):
            await self.changed.wait_for(lambda: len(self.sent) >= number)
        return [message["type"] for message in self.sent]

    async def get(self, path: str = "/", **options) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(options.pop("method", "GET"), path)


def starlette(order: list[str], cache: Cache | None = None) -> Starlette:
    @contextlib.asynccontextmanager
    async def lifespan(_app):
        order.append("app starts")
        yield {"pool": "open"}
        order.append("app stops")

    return Starlette(routes=[Route("/", lambda _: PlainTextResponse("hello"))], lifespan=lifespan)


def test_the_jobs_run_after_the_apps_startup_and_before_it_is_complete(warmer: Warmer, order) -> None:
    async def job():
        server = Server(warmer.asgi(starlette(order)))
        running = server.start()
        assert await server.until(1) == ["lifespan.startup.complete"]
        assert order == ["app starts", "warm"]
        assert server.state == {"pool": "open"}
        assert (await server.get()).text == "hello"
        server.inbox.put_nowait({"type": "lifespan.shutdown"})
        assert await server.until(2) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        await running
        return order

    assert asyncio.run(job()) == ["app starts", "warm", "app stops"]


def test_startup_waits_for_the_warm_up_and_requests_are_refused_meanwhile(order) -> None:
    async def job():
        go_on = asyncio.Event()
        warmer = Warmer(progress=False)
        warmer.add(go_on.wait)
        server = Server(warmer.asgi(starlette(order), retry_after=7, allow=["/live"]))
        running = server.start()
        while not order:
            await asyncio.sleep(0)
        response = await server.get()
        assert (response.status_code, response.content) == (503, BODY)
        assert (response.headers["retry-after"], response.headers["cache-control"]) == ("7", "no-store")
        assert response.headers["content-length"] == str(len(BODY))
        assert (await server.get(method="HEAD")).content == b""
        assert (await server.get("/live")).status_code == 404  # the application's own answer
        assert server.sent == []
        go_on.set()
        assert await server.until(1) == ["lifespan.startup.complete"]
        assert (await server.get()).text == "hello"
        server.inbox.put_nowait({"type": "lifespan.shutdown"})
        await running

    asyncio.run(job())


async def raises(scope, receive, send):
    assert scope["type"] == "http"


async def returns(scope, receive, send):
    if scope["type"] == "http":
        raise AssertionError


@pytest.mark.parametrize("app", [raises, returns])
def test_apps_without_lifespan(warmer: Warmer, order, app) -> None:
    """They raise or return; the server takes either for "unsupported", and must find the cache warm then."""

    async def job():
        server = Server(warmer.asgi(app))
        with pytest.raises(AssertionError) if app is raises else contextlib.nullcontext():
            await server.start()
        return server.sent, order, warmer.ready

    assert asyncio.run(job()) == ([], ["warm"], True)


def test_an_app_whose_startup_fails_is_not_warmed(warmer: Warmer, order) -> None:
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def job():
        server = Server(warmer.asgi(app))
        await server.start()
        return server.sent

    assert asyncio.run(job()) == [{"type": "lifespan.startup.failed", "message": "no database"}]
    assert (order, warmer.ready) == ([], False)


def test_an_app_that_fails_after_startup_is_not_warmed_again(warmer: Warmer, order) -> None:
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})
        raise OSError

    async def job():
        with pytest.raises(OSError):
            await Server(warmer.asgi(app)).start()

    asyncio.run(job())
    assert order == ["warm"]


def test_a_startup_that_is_cancelled(warmer: Warmer, order) -> None:
    async def job():
        entered = asyncio.Event()

        async def never_ends():
            entered.set()
            await asyncio.get_running_loop().create_future()

        warmer.add(never_ends)
        server = Server(warmer.asgi(starlette([])))
        running = server.start()
        await entered.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return [message["type"] for message in server.sent], warmer.ready

    assert asyncio.run(job()) == (["lifespan.startup.failed"], False)  # which is what the framework says


def test_a_server_without_lifespan_starts_the_warm_up_by_its_first_request(order) -> None:
    async def job():
        go_on = asyncio.Event()

        async def wait():
            order.append("begun")
            await go_on.wait()

        warmer = Warmer(progress=False)
        warmer.add(wait)
        server = Server(warmer.asgi(starlette([])))
        assert [(await server.get()).status_code for _ in range(3)] == [503] * 3
        while not order:
            await asyncio.sleep(0)
        go_on.set()
        while not warmer.ready:
            await asyncio.sleep(0)
        return (await server.get()).text

    assert asyncio.run(job()) == "hello"
    assert order == ["begun"]


def test_a_websocket_that_comes_too_early_is_closed(warmer: Warmer) -> None:
    async def job():
        server = Server(warmer.asgi(starlette([])))
        server.inbox.put_nowait({"type": "websocket.connect"})
        await server.app({"type": "websocket", "path": "/"}, server.inbox.get, server.send)
        return server.sent

    assert [(message["type"], message["code"]) for message in asyncio.run(job())] == [("websocket.close", 1013)]


def test_other_scopes_pass(warmer: Warmer) -> None:
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(warmer.asgi(app)({"type": "channel"}, None, None))
    assert seen == ["channel"]


def test_what_is_warm_already_is_not_warmed_again(warmer: Warmer, order) -> None:
    warmer.run()

    async def job():
        await Server(warmer.asgi(returns)).start()

    asyncio.run(job())
    assert warmer.wsgi(hello, at_construction=True) is not None
    assert order == ["warm"]


def test_a_warm_app_answers_its_first_request_from_the_cache(cache: Cache) -> None:
    @cache.cached(ttl="5m")
    async def stats(tenant):
        return f"stats of {tenant}"

    async def show(request):
        return PlainTextResponse(await stats(int(request.path_params["tenant"])))

    warmer = Warmer(progress=False)
    warmer.add_each(stats, [(tenant,) for tenant in range(3)])
    app = warmer.asgi(Starlette(routes=[Route("/{tenant}", show)]))

    async def job():
        server = Server(app)
        running = server.start()
        await server.until(1)
        text = (await server.get("/2")).text
        server.inbox.put_nowait({"type": "lifespan.shutdown"})
        await running
        return text

    assert asyncio.run(job()) == "stats of 2"
    assert (cache.stats().total.hits, cache.stats().total.loads) == (1, 3)


# -- WSGI ---------------------------------------------------------------------------------------------------------------


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def get(app, path="/", method="GET") -> tuple[str, dict[str, str], bytes]:
    head = []
    body = b"".join(app({"REQUEST_METHOD": method, "PATH_INFO": path}, lambda *given: head.extend(given)))
    return head[0], dict(head[1]), body


def test_wsgi_warms_on_the_first_request(warmer: Warmer, order) -> None:
    app = warmer.wsgi(hello)
    assert order == []
    assert [get(app)[2] for _ in range(3)] == [b"hello"] * 3
    assert order == ["warm"]


def test_wsgi_warms_when_it_is_made(warmer: Warmer, order) -> None:
    app = warmer.wsgi(hello, at_construction=True)
    assert (order, warmer.ready) == (["warm"], True)
    assert get(app)[2] == b"hello"


def test_wsgi_refuses_what_comes_during_the_warm_up(thread) -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait():
        entered.set()
        assert leave.wait(10)

    warmer = Warmer(progress=False)
    warmer.add(wait)
    app = warmer.wsgi(hello, retry_after=9, allow=["/live"])
    first = thread(get, app)
    assert entered.wait(10)
    status, headers, body = get(app)
    assert (status, headers["Retry-After"], headers["Cache-Control"], body) == (
        "503 Service Unavailable", "9", "no-store", BODY
    )  # fmt: skip
    assert get(app, method="HEAD")[2] == b""
    assert get(app, "/live")[2] == b"hello"
    leave.set()
    assert first.result()[2] == b"hello"
    assert get(app)[2] == b"hello"


def test_wsgi_inside_of_an_event_loop(warmer: Warmer) -> None:
    async def job():
        return get(warmer.wsgi(hello))[2]

    assert asyncio.run(job()) == b"hello"


def test_an_app_that_is_allowed_does_not_warm(warmer: Warmer, order) -> None:
    assert get(warmer.wsgi(hello, allow=["/live"]), "/live")[2] == b"hello"
    assert order == []


@pytest.mark.parametrize("options", [{"retry_after": 0}, {"retry_after": 1.5}, {"allow": "/live"}])
def test_wrong_arguments(warmer: Warmer, options) -> None:
    for wrap in (warmer.asgi, warmer.wsgi):
        with pytest.raises(ConfigError, match=next(iter(options))):
            wrap(hello, **options)
