"""Connections to databases that jobs behind requests open: each is the job's own, and closed when it ends."""

from __future__ import annotations

import asyncio
import gc
import io
import threading

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from cachekit_django import get_asgi_application, get_wsgi_application
from django.conf import settings
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

from cachekit import Cache
from cachekit.asgi import Route as AsyncRoute
from cachekit.testing import ManualClock
from cachekit.warm import Warmer
from cachekit.wsgi import Route
from tests.background import background_done
from tests.conftest import PATIENCE, until

STALE = {"Cache-Control": "public, max-age=0, stale-while-revalidate=600", "ETag": '"same"'}


def users(request):
    return HttpResponse(str(User.objects.count()), headers=STALE)


async def ausers(request):
    """Answer at once, and when it is asked again, which a refresh does, when it may."""
    asked.append(request)
    if len(asked) > 1:
        await go_on[0].wait()
    return HttpResponse(str(await User.objects.acount()), headers=STALE)


asked, go_on = [], []
urlpatterns = [path("users", users), path("ausers", ausers)]


class Opened:
    """The connections that are opened, held so that no garbage collector closes them."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def __call__(self, *, connection, **_: object) -> None:
        self.all.append(connection)

    @property
    def left(self) -> int:
        return sum(one.connection is not None for one in self.all)


@pytest.fixture
def opened(rows):
    connections.close_all()
    noted = Opened()
    connection_created.connect(noted)
    yield noted
    connection_created.disconnect(noted)
    for one in noted.all:
        one.inc_thread_sharing()
        one.close()


@pytest.fixture
def clock():
    return ManualClock(1_000_000)


@pytest.fixture
def cache(clock):
    return Cache(clock=clock)


@pytest.fixture
def project(memory):
    """A project whose pages are these."""
    middleware = ["cachekit_django.middleware.HttpCacheMiddleware"]
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware):
        yield


@pytest.fixture
def persistent(monkeypatch):
    """Connections that Django keeps for the next request of a thread."""
    monkeypatch.setitem(settings.DATABASES["default"], "CONN_MAX_AGE", None)


@pytest.fixture
def ended(patient):
    """Waits until no thread of a job is left."""
    return lambda: patient(lambda: not [one for one in threading.enumerate() if one.name.startswith("cachekit-backg")])


def get(app, where="/users"):
    """Ask as a server does, which closes what it got."""
    said = []
    body = app(
        {
            "REQUEST_METHOD": "GET", "PATH_INFO": where, "SERVER_NAME": "x", "SERVER_PORT": "80", "QUERY_STRING": "",
            "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(b""), "wsgi.errors": io.StringIO(),
        },
        lambda status, *_: said.append(status),
    )  # fmt: skip
    try:
        text = b"".join(body)
        return said[0][:3], text
    finally:
        getattr(body, "close", lambda: None)()


async def aget(app, where="/users"):
    """Do the same with an ASGI application."""
    sent = []
    asked = [{"type": "http.request", "body": b"", "more_body": False}]
    scope = {
        "type": "http", "method": "GET", "path": where, "raw_path": where.encode(), "query_string": b"",
        "headers": [(b"host", b"x")], "scheme": "http", "server": ("x", 80), "client": ("c", 1),
        "http_version": "1.1", "root_path": "",
    }  # fmt: skip

    async def receive():
        if asked:
            return asked.pop()
        return await asyncio.get_running_loop().create_future()

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


# In threads


def test_a_refresh_of_a_function(cache, clock, opened, ended):
    seen = []

    @cache.cached(ttl=10, stale_while_revalidate=60)
    def count(number):
        seen.append(threading.current_thread())
        return User.objects.count()

    assert [count(number) for number in range(3)] == [0] * 3
    clock.advance(11)
    assert [count(number) for number in range(3)] == [0] * 3
    ended()
    assert len({*seen}) == len(opened.all) == 4  # one of the caller, who keeps it
    assert opened.left == 1 and connection.connection is not None


def test_a_load_that_is_waited_for_only_so_long(cache, opened, ended):
    count = cache.cached(ttl=10, hard_timeout=PATIENCE)(lambda number: User.objects.count())
    assert [count(number) for number in range(3)] == [0] * 3
    ended()
    assert (len(opened.all), opened.left) == (3, 0)


def test_a_load_that_fails(cache, opened, ended):
    @cache.cached(ttl=10, hard_timeout=PATIENCE)
    def count():
        return User.objects.get(pk=User.objects.count())

    with pytest.raises(User.DoesNotExist):
        count()
    ended()
    assert (len(opened.all), opened.left) == (1, 0)


def test_a_job_has_a_transaction_of_its_own(cache, opened, ended):
    """What a request has not committed, nobody else may keep; and its connection is not a job's to close."""
    count = cache.cached(ttl=10, hard_timeout=PATIENCE)(lambda: User.objects.count())
    with transaction.atomic():
        User.objects.create(username="ann")
        assert count() == 0
        ended()
        assert User.objects.count() == 1
    assert (User.objects.count(), opened.left) == (1, 1)


def test_a_refresh_of_a_page(project, opened, ended):
    app = WSGIHandler()
    assert [get(app) for _ in range(3)] == [("200", b"0")] * 3
    ended()
    assert len(opened.all) >= 2 and opened.left == 0


def test_a_refresh_in_front_of_django(memory, persistent, opened, ended):
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        app = get_wsgi_application()
        assert [get(app) for _ in range(3)] == [("200", b"0")] * 3
        ended()
    assert len(opened.all) >= 2 and opened.left == 1  # that of the server's thread


def test_a_route_with_a_time_out(memory, persistent, opened):
    """Its thread ends with the request, so that a connection kept for the next request would be kept for nobody."""
    given = {"URL": "memory://", "ROUTES": [Route("/users", timeout=PATIENCE)]}
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[], CACHEKIT=given):
        app = get_wsgi_application()
        assert get(app) == ("200", b"0")
    assert (len(opened.all), opened.left) == (1, 0)


@pytest.mark.parametrize("fails", [False, True])
def test_each_database_is_closed(cache, opened, ended, monkeypatch, fails):
    """Also where closing one of them fails, whichever it is."""
    monkeypatch.setitem(connections.databases, "other", {**connection.settings_dict})
    kind = type(connections["default"])
    plain = kind.close

    def close(self):
        plain(self)
        if fails and "backg" in threading.current_thread().name:
            raise OSError

    monkeypatch.setattr(kind, "close", close)
    count = cache.cached(ttl=10, hard_timeout=PATIENCE)(
        lambda: User.objects.count() + User.objects.using("other").count()
    )
    assert count() == 0
    ended()
    assert (len(opened.all), opened.left) == (2, 0)


def test_a_warm_up(cache, opened):
    count = cache.cached(ttl=10)(lambda number: User.objects.count())
    warmer = Warmer(progress=False, concurrency=2)
    warmer.add_each(count, lambda: [(User.objects.count() + number,) for number in range(3)])
    assert warmer.run().succeeded == 3
    assert (len(opened.all), opened.left) == (4, 0)


# On a loop


def test_a_refresh_of_a_coroutine_function_that_outlives_its_request(cache, clock, opened):
    async def main():
        go_on = asyncio.Event()

        @cache.cached(ttl=10, stale_while_revalidate=60)
        async def count():
            if clock() > 1_000_000:
                await go_on.wait()
            return await User.objects.acount()

        async with ThreadSensitiveContext():
            assert await count() == 0
            clock.advance(11)
            assert await count() == 0
            await sync_to_async(connections.close_all)()  # as the end of a request does
        await User.objects.acreate(username="ann")  # in the thread that requests do not use
        go_on.set()
        await background_done()
        assert await count() == 1
        await sync_to_async(connections.close_all)()

    asyncio.run(main())
    assert (len(opened.all), opened.left) == (3, 0)


def test_a_coroutine_function_that_is_waited_for_only_so_long(cache, opened):
    async def main():
        @cache.cached(ttl=10, hard_timeout=PATIENCE)
        async def count():
            return await User.objects.acount()

        async with ThreadSensitiveContext():
            assert await count() == 0
        await background_done()

    asyncio.run(main())
    assert (len(opened.all), opened.left) == (1, 0)


def test_a_refresh_below_a_middleware_that_is_not_async(cache, clock, opened):
    """It is started where a thread waits for the view; when the job wants to use a thread, nobody waits there any more."""

    async def main():
        go_on = asyncio.Event()

        @cache.cached(ttl=10, stale_while_revalidate=60)
        async def count():
            if clock() > 1_000_000:
                await go_on.wait()
            return await User.objects.acount()

        def middleware():
            async_to_sync(count)()
            connections.close_all()

        async with ThreadSensitiveContext():
            await sync_to_async(middleware)()
            clock.advance(11)
            await sync_to_async(middleware)()
        await User.objects.acreate(username="ann")
        go_on.set()
        await background_done()
        assert await count() == 1
        await sync_to_async(connections.close_all)()

    asyncio.run(main())
    assert opened.left == 0


def test_a_job_that_asks_for_no_thread_gets_none(cache, monkeypatch):
    made = []
    monkeypatch.setattr("asgiref.sync.ThreadPoolExecutor", lambda **_: made.append(1))

    async def main():
        @cache.cached(ttl=10, hard_timeout=PATIENCE)
        async def load():
            await asyncio.sleep(0)
            return "value"

        assert await load() == "value"
        await background_done()

    asyncio.run(main())
    assert made == []


def test_a_loop_that_ends_waits_for_no_query_of_a_job(cache, clock, opened, patient):
    """It was made for one call: an async view under WSGI, ``async_to_sync``, ``asyncio.run``."""
    inside, go_on, released = threading.Event(), threading.Event(), []

    def query():
        count = User.objects.count()
        if clock() > 1_000_000:
            inside.set()
            released.append(go_on.wait(PATIENCE))
        return count

    @cache.cached(ttl=10, stale_while_revalidate=60)
    async def count():
        return await sync_to_async(query)()

    async def main():
        assert await count() == 0
        clock.advance(11)
        assert await count() == 0
        await until(inside.is_set)
        await sync_to_async(connections.close_all)()

    asyncio.run(main())
    go_on.set()
    patient(lambda: opened.left == 0)  # it is closed all the same
    assert (len(opened.all), released) == (2, [True])


def test_an_async_refresh_of_a_page(project, opened):
    async def main():
        app = ASGIHandler()
        go_on[:] = [asyncio.Event()]
        assert [await aget(app, "/ausers") for _ in range(2)] == [(200, b"0")] * 2
        go_on[0].set()  # its request is over
        await background_done()

    asked.clear()
    asyncio.run(main())
    assert (len(asked), len(opened.all), opened.left) == (2, 2, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Django leaves the body's file open
def test_an_async_route_whose_request_is_cancelled(memory, opened):
    """A view in a thread cannot be stopped. Django sends no ``request_finished`` for a request that is cancelled."""
    go_on, inside = threading.Event(), threading.Event()

    def slow(request):
        count = User.objects.count()
        inside.set()
        go_on.wait(PATIENCE)
        return HttpResponse(str(count))

    class Urls:
        urlpatterns = [path("slow", slow)]

    given = {"URL": "memory://", "ROUTES": [AsyncRoute("/slow", timeout=PATIENCE)]}

    async def main(app):
        request = asyncio.create_task(aget(app, "/slow"))
        await until(inside.is_set)
        request.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await request
        await until(lambda: opened.left == 0)

    with override_settings(ROOT_URLCONF=Urls, MIDDLEWARE=[], CACHEKIT=given):
        asyncio.run(main(get_asgi_application()))
    gc.collect()
    assert (len(opened.all), opened.left) == (1, 0)


def test_a_warm_up_of_coroutine_functions(cache, opened):
    async def count():
        return await User.objects.acount()

    warmer = Warmer(progress=False)
    warmer.add(cache.cached(ttl=10)(count))
    assert warmer.run().succeeded == 1
    assert (len(opened.all), opened.left) == (1, 0)
