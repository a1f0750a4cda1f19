"""What goes around a job that runs behind: in which thread or task, whoever starts it, and what a broken hook may not do."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

import pytest

from cachekit import Cache, around
from cachekit._io import ASYNCIO, BLOCKING
from cachekit.around import around_jobs, asurrounded, surrounded
from cachekit.degrade import Route, asgi, wsgi
from cachekit.observe.monitor import HitRateMonitor
from cachekit.warm import Warmer
from tests.background import background_done
from tests.conftest import PATIENCE, until

visitor: ContextVar[str] = ContextVar("visitor", default="nobody")


class Boom(Exception):
    """What a job, or a hook, raises."""


class Noted:
    """A hook of both worlds that writes down what happens, where, and for whom."""

    def __init__(self, name: str = "hook", *, fails: str = "") -> None:
        self.name, self.fails = name, fails
        self.story: list[tuple[str, object, str]] = []
        self.left = threading.Event()
        self.errors: list[BaseException | None] = []

    def register(self) -> Noted:
        around_jobs(self.name, thread=self.thread, task=self.task)
        return self

    def note(self, what: str) -> None:
        where: object = threading.current_thread()
        try:
            where = asyncio.current_task() or where
        except RuntimeError:
            pass
        self.story.append((what, where, visitor.get()))

    @contextmanager
    def thread(self):
        self.note("entered")
        if self.fails == "entering":
            self.left.set()
            raise Boom
        error = None
        try:
            yield
        except BaseException as exc:
            error = exc
            raise
        finally:
            self.errors.append(error)
            self.note("left")
            self.left.set()
            if self.fails == "leaving":
                raise Boom

    @asynccontextmanager
    async def task(self):
        await asyncio.sleep(0)
        with self.thread():
            yield
        await asyncio.sleep(0)

    def told(self) -> list[str]:
        """Return what happened, where that was one and the same place, which was not the caller's, with its context."""
        assert self.left.wait(PATIENCE)
        (where,) = {where for _, where, _ in self.story}
        assert where is not threading.current_thread()
        assert {who for *_, who in self.story} == {"ann"}
        return [what for what, *_ in self.story]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nobody else's hooks: those of frameworks are registered for the process."""
    monkeypatch.setattr(around, "_of_threads", {})
    monkeypatch.setattr(around, "_of_tasks", {})
    token = visitor.set("ann")
    yield
    visitor.reset(token)


@pytest.fixture
def hook() -> Noted:
    return Noted().register()


# -- whoever starts it, in threads --------------------------------------------------------------------------------------


def refresh(cache, clock, body):
    load = cache.cached(ttl=10, stale_while_revalidate=60)(lambda: body() if clock() > started else "old")
    started = clock()
    assert load() == "old"
    clock.advance(11)
    assert load() == "old"


def bounded(cache, clock, body):
    assert cache.cached(ttl=10, hard_timeout=PATIENCE)(lambda: body())() == "made"


def warmed(cache, clock, body):
    warmer = Warmer(progress=False)
    warmer.add(body)
    assert warmer.run().succeeded == 1


def guarded(cache, clock, body):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [body().encode()]

    guards = wsgi.Guards(app, [Route("/", timeout=PATIENCE)])
    assert b"".join(guards({"PATH_INFO": "/", "REQUEST_METHOD": "GET"}, lambda *_: None)) == b"made"


def page(cache, clock, body):
    made = []

    def app(environ, start_response):
        start_response("200 OK", [("Cache-Control", "public, max-age=10, stale-while-revalidate=60")])
        made.append(body().encode() if made else b"old")
        return made[-1:]

    from cachekit.http.wsgi import HttpCache

    cached = HttpCache(app, cache)
    for seconds in (11, 0):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80"}
        environ |= {"wsgi.url_scheme": "http", "QUERY_STRING": ""}
        assert b"".join(cached(environ, lambda *_: None)) == b"old"
        clock.advance(seconds)


@pytest.mark.parametrize("start", [refresh, bounded, warmed, guarded, page])
def test_a_job_in_a_thread_runs_within_what_is_put_around_it(cache, clock, hook, start):
    def body():
        hook.note("ran")
        return "made"

    start(cache, clock, body)
    assert hook.told() == ["entered", "ran", "left"]


def test_what_the_monitor_calls_back_runs_within_it(cache, hook):
    seen = []
    monitor = HitRateMonitor(
        cache, threshold=0.5, interval=0.001, minimum=1, on_low=lambda _: seen.append(hook.story[-1])
    )
    cache.cached(lambda n: n)(1)
    with monitor:
        assert hook.left.wait(PATIENCE)
    assert seen[0][0] == "entered"


def test_what_runs_in_its_callers_thread_is_left_alone(cache, hook):
    assert cache.get_or_set("k", lambda: "value") == "value"
    assert cache.cached(lambda n: n, ttl=10)(1) == 1

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"fine"]

    guards = wsgi.Guards(app, [Route("/", concurrency=1)])
    assert b"".join(guards({"PATH_INFO": "/", "REQUEST_METHOD": "GET"}, lambda *_: None)) == b"fine"
    assert hook.story == []


# -- whoever starts it, on a loop ---------------------------------------------------------------------------------------


async def arefresh(cache, clock, body):
    started = clock()

    @cache.cached(ttl=10, stale_while_revalidate=60)
    async def load():
        return await body() if clock() > started else "old"

    assert await load() == "old"
    clock.advance(11)
    assert await load() == "old"


async def abounded(cache, clock, body):
    @cache.cached(ttl=10, hard_timeout=PATIENCE)
    async def load():
        return await body()

    assert await load() == "made"


async def awarmed(cache, clock, body):
    warmer = Warmer(progress=False)
    warmer.add(body)
    assert (await warmer.arun()).succeeded == 1


async def aguarded(cache, clock, body):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": (await body()).encode()})

    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    guards = asgi.Guards(app, [Route("/", timeout=PATIENCE)])
    await guards({"type": "http", "method": "GET", "path": "/"}, receive, send)
    assert sent[1]["body"] == b"made"


@pytest.mark.parametrize("start", [arefresh, abounded, awarmed, aguarded])
def test_a_job_on_a_loop_runs_within_what_is_put_around_it(cache, clock, hook, start):
    async def body():
        await asyncio.sleep(0)
        hook.note("ran")
        return "made"

    async def main():
        caller = asyncio.current_task()
        await start(cache, clock, body)
        await until(hook.left.is_set)
        await background_done()
        assert caller not in [where for _, where, _ in hook.story]

    asyncio.run(main())
    assert hook.told() == ["entered", "ran", "left"]


def test_what_runs_in_its_callers_task_is_left_alone(cache, hook):
    async def load():
        return "value"

    async def main():
        return await cache.aget_or_set("k", load)

    assert (asyncio.run(main()), hook.story) == ("value", [])


# -- hooks --------------------------------------------------------------------------------------------------------------


def test_who_registers_again_stands_around_it_once(hook):
    hook.register()
    inner = Noted("inner").register()
    inner.story = hook.story
    assert surrounded(lambda: "value") == "value"
    assert [what for what, *_ in hook.story] == ["entered", "entered", "left", "left"]


@pytest.mark.parametrize("fails", ["entering", "leaving"])
@pytest.mark.parametrize("start", [refresh, bounded, warmed, guarded, page])
def test_a_broken_hook_costs_no_job_in_a_thread(cache, clock, caplog, fails, start):
    broken, whole = Noted("broken", fails=fails).register(), Noted("whole").register()
    ran = []
    start(cache, clock, lambda: ran.append(1) or "made")
    assert whole.left.wait(PATIENCE) and broken.left.wait(PATIENCE)
    assert (ran, [what for what, *_ in whole.story]) == ([1], ["entered", "left"])


@pytest.mark.parametrize("fails", ["entering", "leaving"])
@pytest.mark.parametrize("start", [arefresh, abounded, awarmed, aguarded])
def test_a_broken_hook_costs_no_job_on_a_loop(cache, clock, caplog, fails, start):
    Noted("broken", fails=fails).register()
    whole = Noted("whole").register()
    ran = []

    async def body():
        ran.append(1)
        return "made"

    async def main():
        await start(cache, clock, body)
        await until(whole.left.is_set)
        await background_done()

    asyncio.run(main())
    assert (ran, [what for what, *_ in whole.story]) == ([1], ["entered", "left"])
    assert "what broken puts around a job behind a request failed" in caplog.text


@pytest.mark.parametrize("fails", ["", "entering", "leaving"])
def test_the_outcome_of_a_job_is_its_own(caplog, fails):
    hook = Noted(fails=fails).register()
    own = KeyError("the job's own")

    def fail():
        raise own

    async def afail():
        raise own

    for call in (lambda: surrounded(fail), lambda: asyncio.run(asurrounded(afail()))):
        with pytest.raises(KeyError) as caught:
            call()
        assert caught.value is own
    assert hook.errors == ([] if fails == "entering" else [own, own])
    assert len(caplog.records) == (2 if fails else 0)


def test_a_failure_of_a_job_is_logged_once_in_both_worlds(hook, caplog, patient):
    async def fail():
        raise Boom("the job's")

    async def main():
        ASYNCIO.spawn(fail())
        await background_done()

    BLOCKING.spawn(fail())
    patient(lambda: "a background job of cachekit failed" in caplog.text)
    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == ["a background job of cachekit failed"] * 2
    assert [type(error) for error in hook.errors] == [Boom, Boom]


def test_a_job_that_is_cancelled_is_left_as_well(hook):
    async def main():
        task = asyncio.create_task(asurrounded(asyncio.get_running_loop().create_future()))
        await until(lambda: hook.story)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert hook.told() == ["entered", "left"]
    assert isinstance(hook.errors[0], asyncio.CancelledError)


def test_a_hook_that_ends_its_thread_ends_no_job(caplog):
    @contextmanager
    def leaves():
        raise SystemExit
        yield

    around_jobs("rude", thread=leaves, task=Noted().task)
    assert Cache().cached(ttl=10, hard_timeout=PATIENCE)(lambda: "made")() == "made"
    assert "what rude puts" in caplog.text
