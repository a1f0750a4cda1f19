"""The warm-up: jobs of both kinds, how many at a time, further tries, the deadline, the report, how it is shown."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import sys
import threading
from itertools import count

import pytest

from cachekit import Cache, ConfigError
from cachekit.warm import Failure, Report, Warmer
from cachekit.warm.progress import Bar, Lines, Silent, suited


class Boom(Exception):
    """What a job raises."""


class Pauses:
    """Stands in for sleep: remembers how long, and returns at once; the deadline passes when it is told to."""

    def __init__(self, deadline: float = 20.0) -> None:
        self.asked: list[float] = []
        self._deadline = deadline
        self.passed = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        if seconds == self._deadline:
            await self.passed.wait()
        else:
            self.asked.append(seconds)
            await asyncio.sleep(0)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def warmer(pauses) -> Warmer:
    return Warmer(progress=False, sleep=pauses, chance=lambda: 1.0)


@pytest.fixture(params=["run", "arun"])
def run(request):
    """Runs a warmer from the blocking world and from asyncio."""
    if request.param == "run":
        return Warmer.run
    return lambda warmer: asyncio.run(warmer.arun())


def test_jobs_of_both_kinds(warmer: Warmer, cache: Cache, run) -> None:
    @cache.cached(ttl="5m")
    def plain(tenant, period):
        return f"{tenant}-{period}"

    @cache.cached(ttl="5m")
    async def coroutine(tenant, *, period="day"):
        await asyncio.sleep(0)
        return f"{tenant}-{period}"

    ran = []

    @warmer.job
    def job():
        ran.append("job")

    @warmer.job
    async def coroutine_job():
        ran.append("coroutine job")

    warmer.add(plain, "a", period="day")
    warmer.add(coroutine, "b", period="week")
    warmer.add_each(plain, [(tenant, "day") for tenant in range(5)])
    warmer.add_each(coroutine, ([tenant] for tenant in range(5)))
    assert (warmer.ready, warmer.report) == (False, None)
    report = run(warmer)
    assert (report.succeeded, report.failed, report.unfinished, report.deadline, report.ok) == (14, (), (), None, True)
    assert report.seconds > 0
    assert (warmer.ready, warmer.report) == (True, report)
    assert sorted(ran) == ["coroutine job", "job"]
    assert cache.stats().total.loads == 12
    assert plain("a", "day") == "a-day"
    assert asyncio.run(coroutine(4)) == "4-day"
    assert cache.stats().total.hits == 2
    assert job() is None  # the decorator leaves the function as it is


def test_a_warm_cache_is_not_loaded_again_and_refresh_does(warmer: Warmer, cache: Cache) -> None:
    @cache.cached
    def load(x):
        return x

    warmer.add(load, 1)
    warmer.run()
    warmer.run()
    assert cache.stats().total.loads == 1
    warmer.add(load.refresh, 1)
    assert warmer.run().succeeded == 2
    assert cache.stats().total.loads == 2


def busiest():
    return [(1, "day"), (2, "day")]


async def abusiest():
    await asyncio.sleep(0)
    return busiest()


def streamed():
    yield from busiest()


@pytest.mark.parametrize("source", [busiest, abusiest, streamed, lambda: iter(busiest())])
def test_arguments_that_are_asked_for_when_it_runs(warmer: Warmer, run, source) -> None:
    seen = []
    warmer.add_each(lambda *args: seen.append(args), source)
    assert run(warmer).succeeded == 2
    assert sorted(seen) == busiest()


def test_arguments_that_cannot_be_found_are_a_failure(warmer: Warmer, run) -> None:
    def broken():
        raise Boom

    warmer.add_each(print, broken)
    warmer.add_each(print, lambda: ["ab"])
    warmer.add(int)
    report = run(warmer)
    assert report.succeeded == 1
    assert {type(failure.error) for failure in report.failed} == {Boom, ConfigError}
    assert report.total == 3


def test_no_more_than_so_many_at_a_time() -> None:
    async def job():
        running = most = 0
        go_on = asyncio.Event()

        async def work(_number):
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                go_on.set()
            await go_on.wait()
            await asyncio.sleep(0)
            running -= 1

        warmer = Warmer(concurrency=3, progress=False)
        warmer.add_each(work, [(number,) for number in range(20)])
        return (await warmer.arun()).succeeded, most

    assert asyncio.run(job()) == (20, 3)


def test_threads_run_at_the_same_time_and_no_more_than_so_many() -> None:
    together = threading.Barrier(4, timeout=10)
    running, most, lock = count(), [], threading.Lock()
    left = []

    def work(_number):
        with lock:
            most.append(next(running) - len(left))
        together.wait()
        left.append(None)

    warmer = Warmer(concurrency=4, progress=False)
    warmer.add_each(work, [(number,) for number in range(16)])
    assert warmer.run().succeeded == 16  # fewer at a time would never pass the barrier
    assert max(most) <= 7


def test_further_tries_with_growing_pauses(pauses, run) -> None:
    tries = count(1)

    def works_at_last():
        if next(tries) < 5:
            raise Boom

    warmer = Warmer(progress=False, retries=9, backoff=2, sleep=pauses, chance=lambda: 0.0)
    warmer.add(works_at_last)
    assert run(warmer).ok
    assert pauses.asked == [1.0, 2.0, 2.5, 2.5]  # half of 2, 4, 5, 5


def test_what_fails_is_reported_and_the_rest_runs(warmer: Warmer, pauses, caplog, run) -> None:
    def fails(number, *, name):
        raise Boom(number)

    async def also_fails():
        raise Boom("too")

    warmer.add(fails, 1, name="x")
    warmer.add(also_fails)
    warmer.add_each(int, [(number,) for number in range(10)])
    report = run(warmer)
    assert report.succeeded == 10
    by_job = {failure.job.rpartition(".")[2]: failure for failure in report.failed}
    assert by_job.keys() == {"fails(1, name='x')", "also_fails()"}
    failure = by_job["also_fails()"]
    assert (str(failure.error), failure.attempts) == ("too", 3)
    assert not report.ok
    assert warmer.ready
    assert pauses.asked == [0.1, 0.1, 0.2, 0.2]
    assert "10 of 12 jobs" in caplog.text
    assert "2 failed" in caplog.text
    assert caplog.text.count("Traceback") == 2


def test_a_thousand_failures_do_not_flood_the_log(caplog) -> None:
    def fails(_number):
        raise Boom

    warmer = Warmer(progress=False, retries=0)
    warmer.add_each(fails, [(number,) for number in range(100)])
    assert len(warmer.run().failed) == 100
    assert len(caplog.records) == 6


def test_the_deadline(warmer: Warmer, pauses, caplog) -> None:
    begun = []

    async def never_ends(number):
        begun.append(number)
        if len(begun) == 8:
            pauses.passed.set()
        await asyncio.get_running_loop().create_future()

    warmer.add(int)
    warmer.add_each(never_ends, [(number,) for number in range(10)])
    report = asyncio.run(warmer.arun())
    assert (report.succeeded, report.failed, report.deadline) == (1, (), 20.0)
    assert len(report.unfinished) == 10
    assert report.unfinished[9].endswith("never_ends(9)")
    assert len(begun) == 8  # no further job begins
    assert warmer.ready
    assert "10 unfinished at the deadline of 20 s; the application starts anyway" in caplog.text


def test_a_thread_that_never_ends_holds_nobody_up(warmer: Warmer, pauses) -> None:
    entered, leave = threading.Event(), threading.Event()

    def never_ends():
        entered.set()
        assert leave.wait(10)

    async def job():
        warmer.add(never_ends)
        running = asyncio.create_task(warmer.arun())
        await asyncio.to_thread(entered.wait, 10)
        pauses.passed.set()
        return await running

    report = asyncio.run(job())
    assert (len(report.unfinished), report.deadline) == (1, 20.0)
    leave.set()


def test_the_deadline_while_arguments_are_asked_for(warmer: Warmer, pauses) -> None:
    async def never_ends():
        pauses.passed.set()
        await asyncio.get_running_loop().create_future()

    warmer.add(int)
    warmer.add_each(int, never_ends)
    shown = Shown()
    warmer._progress = shown
    report = asyncio.run(warmer.arun())
    assert (report.succeeded, len(report.unfinished)) == (0, 2)
    assert shown.told == [("start", 2), ("finish", report)]


def test_without_a_deadline_it_waits() -> None:
    async def job():
        ended = asyncio.Event()
        warmer = Warmer(progress=False, deadline=None)
        warmer.add(ended.wait)
        running = asyncio.create_task(warmer.arun())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not running.done()
        ended.set()
        return (await running).ok

    assert asyncio.run(job())


def test_a_job_that_cancels_itself_is_a_failure(warmer: Warmer) -> None:
    async def job():
        raise asyncio.CancelledError

    warmer.add(job)
    warmer.add(int)
    report = warmer.run()
    assert (report.succeeded, [type(failure.error) for failure in report.failed]) == (1, [asyncio.CancelledError])


def test_who_cancels_the_warm_up_gets_it_cancelled(warmer: Warmer) -> None:
    async def job():
        entered, cancelled = asyncio.Event(), asyncio.Event()

        async def never_ends():
            entered.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cancelled.set()

        warmer.add(never_ends)
        running = asyncio.create_task(warmer.arun())
        await entered.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return cancelled.is_set(), warmer.ready, len(asyncio.all_tasks())

    assert asyncio.run(job()) == (True, False, 1)


def test_run_refuses_to_block_an_event_loop(warmer: Warmer) -> None:
    async def job():
        warmer.run()

    with pytest.raises(ConfigError, match=r"await warmer.arun\(\)"):
        asyncio.run(job())


def test_jobs_see_the_context_and_leave_it_alone(warmer: Warmer, run) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("given")
    seen = []

    async def coroutine():
        seen.append(variable.get())
        variable.set("changed")

    def plain():
        seen.append(variable.get())
        variable.set("changed")

    for fn in (coroutine, plain, coroutine, plain):
        warmer.add(fn)
    warmer._concurrency = 1
    run(warmer)
    assert seen == ["given"] * 4


def test_callables_of_every_kind(warmer: Warmer, run) -> None:
    seen = []

    class Plain:
        def __call__(self):
            seen.append(1)

    class Coroutine:
        async def __call__(self):
            seen.append(2)

    async def coroutine():
        seen.append(3)

    for fn in (Plain(), Coroutine(), lambda: coroutine(), Coroutine().__call__):
        warmer.add(fn)
    assert run(warmer).ok
    assert sorted(seen) == [1, 2, 2, 3]


def test_an_empty_warm_up(warmer: Warmer, run) -> None:
    assert run(warmer).total == 0
    assert warmer.ready


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concurrency": 0}, "concurrency=0"), ({"concurrency": True}, "concurrency=True"), ({"retries": -1}, "retries=-1"),
        ({"backoff": -1}, "backoff=-1"), ({"deadline": 0}, "deadline=0"), ({"deadline": "soon"}, "deadline='soon'"),
    ],
)  # fmt: skip
def test_wrong_arguments(options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        Warmer(**options)


def test_wrong_jobs(warmer: Warmer) -> None:
    with pytest.raises(ConfigError, match="not the result 3 of a call"):
        warmer.add(3)
    with pytest.raises(ConfigError, match=r"a tuple of arguments for each call, not 'acme': \('acme',\)"):
        warmer.add_each(int, ["acme"])


def test_a_report_in_words() -> None:
    failure = Failure("f()", Boom(), 3)
    assert str(Report(3, (), (), 1.25)) == "3 of 3 jobs in 1.2 s"
    assert str(Report(1, (failure,), ("g()",), 20.0, 20.0)) == (
        "1 of 3 jobs in 20.0 s, 1 failed, 1 unfinished at the deadline of 20 s"
    )


# -- progress -----------------------------------------------------------------------------------------------------------


class Shown:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def start(self, total):
        self.told.append(("start", total))

    def advance(self, done, failed):
        self.told.append(("advance", done, failed))

    def finish(self, report):
        self.told.append(("finish", report))


def test_progress_is_told_in_order(run) -> None:
    def job(number):
        if number == 1:
            raise Boom

    shown = Shown()
    warmer = Warmer(progress=shown, concurrency=1, retries=0)
    warmer.add_each(job, [(0,), (1,), (2,)])
    report = run(warmer)
    assert shown.told == [
        ("start", 3), ("advance", 1, 0), ("advance", 2, 1), ("advance", 3, 1), ("finish", report)
    ]  # fmt: skip


def test_a_failure_to_find_arguments_does_not_count_as_one_of_the_jobs_done() -> None:
    shown = Shown()
    warmer = Warmer(progress=shown, retries=0)
    warmer.add_each(int, lambda: 1 / 0)
    warmer.add(int)
    warmer.run()
    assert shown.told[:2] == [("start", 1), ("advance", 1, 1)]


def test_progress_that_fails_stops_no_warm_up(caplog) -> None:
    class Broken(Shown):
        def advance(self, done, failed):
            raise OSError("no terminal any more")

    warmer = Warmer(progress=Broken())
    warmer.add_each(int, [(number,) for number in range(5)])
    assert warmer.run().ok
    assert caplog.text.count("cannot be shown") == 1


def test_lines_for_each_tenth() -> None:
    stream = io.StringIO()
    warmer = Warmer(progress=Lines(stream), concurrency=1, retries=0)
    warmer.add_each(lambda number: 1 / number, [(number,) for number in range(40)])
    warmer.run()
    lines = stream.getvalue().splitlines()
    assert lines[:3] == [
        "cachekit: warming: 40 jobs", "cachekit: warming: 4/40, 1 failed", "cachekit: warming: 8/40, 1 failed"
    ]  # fmt: skip
    assert len(lines) == 11
    assert lines[-1].startswith("cachekit: warming: 39 of 40 jobs in ")
    stream.close()
    Lines(stream).start(1)  # nobody to tell


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal() -> None:
    stream = Terminal()
    bar = suited(stream)
    assert isinstance(bar, Bar)
    warmer = Warmer(progress=bar, retries=0)
    warmer.add_each(lambda number: 1 / number, [(number,) for number in range(40)])
    warmer.run()
    warmer.run()
    shown = stream.getvalue()
    assert "40/40" in shown
    assert "1 failed" in shown
    assert "39 of 40 jobs in" in shown


def test_what_suits_a_stream(monkeypatch, capsys) -> None:
    assert isinstance(suited(io.StringIO()), Lines)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(suited(Terminal()), Lines)
    warmer = Warmer()
    warmer.add(int)
    warmer.run()
    assert "cachekit: warming: 1 jobs" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(suited(), Silent)
    assert warmer.run().ok


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_result_is_told_once(monkeypatch, capfd, heard: bool, fails: bool) -> None:
    """In the log where somebody reads it, else below the progress; both mostly go to standard error."""
    root, own = logging.getLogger(), logging.getLogger("cachekit")
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler(sys.stderr)] if heard else [])
    monkeypatch.setattr(own, "handlers", [])
    monkeypatch.setattr(own, "level", logging.INFO)
    own.manager._clear_cache()
    warmer = Warmer(retries=0)
    warmer.add((lambda: 1 / 0) if fails else (lambda: None))
    warmer.run()
    own.manager._clear_cache()
    err = capfd.readouterr().err
    assert err.count("of 1 jobs in") == 1
    assert err.count("cachekit: warming: " + ("0 of 1" if fails else "1 of 1")) == (not heard)


def test_success_is_logged_quietly(warmer: Warmer, caplog) -> None:
    caplog.set_level(logging.INFO, "cachekit")
    warmer.run()
    assert [record.levelname for record in caplog.records] == ["INFO"]
