"""``Warmer``: runs jobs that fill a cache, a few at a time, before the application takes traffic.

One implementation, on an event loop: coroutine functions run there, plain functions in threads. ``run`` brings a loop of
its own, ``arun`` uses the running one. Must not know what a job caches: a job is a call.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import reprlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from cachekit._io import ASYNCIO, BLOCKING, stopped_scope
from cachekit.around import asurrounded
from cachekit.clock import Chance, stopwatch, system_chance
from cachekit.errors import ConfigError
from cachekit.policy import Duration, positive_seconds, seconds
from cachekit.warm.port import in_thread
from cachekit.warm.progress import Careful, Progress, Silent, is_logged, suited
from cachekit.warm.report import Failure, Report

if TYPE_CHECKING:
    from cachekit.warm.asgi import App as AsgiApp
    from cachekit.warm.asgi import WarmedAsgi
    from cachekit.warm.wsgi import App as WsgiApp
    from cachekit.warm.wsgi import WarmedWsgi

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[[], object])

log = logging.getLogger("cachekit")

_LONGEST_PAUSE: Final = 5.0
_GRACE: Final = 1.0
_SHOWN: Final = 5
"""Failures that are logged in full: when a database is away, one says as much as a thousand."""


@dataclass(frozen=True, slots=True)
class Job:
    """One call to make."""

    fn: Callable[..., object]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        named = (f"{name}={reprlib.repr(value)}" for name, value in self.kwargs.items())
        return f"{_name(self.fn)}({', '.join((*map(reprlib.repr, self.args), *named))})"


@dataclass(frozen=True, slots=True)
class _Each:
    """A function whose tuples of arguments are known only when *source* is called."""

    fn: Callable[..., object]
    source: Job


@dataclass(slots=True)
class _Run:
    """How far one warm-up is. Belongs to one event loop."""

    progress: Progress
    waiting: dict[int, Job] = field(default_factory=dict)
    succeeded: int = 0
    failed: list[Failure] = field(default_factory=list)


class Warmer:
    """Runs jobs before the application takes traffic.

    Args:
        concurrency: jobs that run at a time.
        retries: how often a job that raised is tried again.
        backoff: seconds before the first further try; doubles with each, up to 5 seconds, half of it by chance.
        deadline: seconds after which the application starts anyway; None waits for ever.
        progress: shows how far it is: a bar on a terminal, lines elsewhere; True for that, False for nothing, or your own.
        sleep: lets time pass, for tests.
        chance: source of randomness, for tests.

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> from cachekit import Cache
        >>> cache = Cache()
        >>> @cache.cached(ttl="5m")
        ... def stats(tenant: int, period: str) -> str:
        ...     return f"{tenant} by {period}"
        >>> warmer = Warmer(progress=False)
        >>> warmer.add_each(stats, [(tenant, "day") for tenant in range(50)])
        >>> warmer.run().succeeded
        50
        >>> warmer.ready
        True
    """

    def __init__(
        self,
        *,
        concurrency: int = 8,
        retries: int = 2,
        backoff: Duration = 0.1,
        deadline: Duration | None = "20s",
        progress: bool | Progress = True,
        sleep: Callable[[float], Awaitable[object]] = ASYNCIO.sleep,
        chance: Chance = system_chance,
    ) -> None:
        if type(concurrency) is not int or concurrency < 1:
            raise ConfigError(f"concurrency={concurrency!r} must be a positive whole number of jobs")
        if type(retries) is not int or retries < 0:
            raise ConfigError(f"retries={retries!r} must be a whole number, 0 for a single try")
        self._concurrency = concurrency
        self._retries = retries
        self._backoff = seconds(backoff, "backoff")
        self._deadline = positive_seconds(deadline, "deadline")
        self._progress = progress
        self._sleep = sleep
        self._chance = chance
        self._planned: list[Job | _Each] = []
        self._ready = False
        self._report: Report | None = None

    # -- what to do ---------------------------------------------------------------------------------------------------

    def add(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Add one call of a function or coroutine function, cached or not.

        A value that is in the cache already is not loaded again; add ``fn.refresh`` for that.
        """
        self._planned.append(Job(_callable(fn), args, kwargs))

    def add_each(
        self,
        fn: Callable[..., object],
        arguments: Iterable[Sequence[Any]] | Callable[[], Iterable[Sequence[Any]] | Awaitable[Iterable[Sequence[Any]]]],
    ) -> None:
        """Add a call of *fn* for each tuple of *arguments*.

        *arguments* may be a function or coroutine function that returns them, such as a query for the busiest tenants:
        it is called when the warm-up runs.
        """
        if callable(arguments):
            self._planned.append(_Each(_callable(fn), Job(arguments)))
        else:
            self._planned.extend(_jobs(_callable(fn), arguments))

    def job(self, fn: F, /) -> F:
        """Add a function without arguments, as a decorator."""
        self._planned.append(Job(_callable(fn)))
        return fn

    # -- how it went --------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Return whether the application may take traffic: the jobs have ended, or the deadline has passed."""
        return self._ready

    @property
    def report(self) -> Report | None:
        """Return what came of the last warm-up; None before the first."""
        return self._report

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Run every job, on an event loop of its own. Never raises what a job raises.

        Connections that a coroutine function opened on that loop end with it.

        Raises:
            ConfigError: an event loop runs in this thread.
        """
        if stopped_scope(BLOCKING) is not None:
            raise ConfigError("warmer.run() would block the running event loop: use `await warmer.arun()`")
        return asyncio.run(self.arun())

    async def arun(self) -> Report:
        """Run every job. Never raises what a job raises.

        At the deadline no further job begins; coroutines are cancelled, functions in threads are left to end by
        themselves.
        """
        started = stopwatch()
        run = _Run(Careful(self._shown()))
        work = asyncio.create_task(self._work(run), name="cachekit-warm")
        alarm = asyncio.create_task(self._alarm())
        try:
            await asyncio.wait({work, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cut = work.cancel()
            alarm.cancel()
            if cut:
                await asyncio.wait({work}, timeout=_GRACE)  # a job that will not be cancelled holds nobody up
            left = tuple(map(str, run.waiting.values()))
            deadline = self._deadline if cut else None
            report = Report(run.succeeded, tuple(run.failed), left, stopwatch() - started, deadline)
            run.progress.finish(report)
        if not cut:
            work.result()
        _log(report, shown=self._progress is True)
        self._report = report
        self._ready = True
        return report

    async def _alarm(self) -> None:
        if math.isinf(self._deadline):
            await asyncio.get_running_loop().create_future()
        await self._sleep(self._deadline)

    async def _work(self, run: _Run) -> None:
        planned = list(self._planned)
        run.waiting = dict(enumerate(each.source if isinstance(each, _Each) else each for each in planned))
        found: dict[int, list[Job]] = {}

        def unfold(number: int, result: Any) -> None:
            each = planned[number]
            assert isinstance(each, _Each)
            found[number] = list(_jobs(each.fn, result))

        await self._all(run, [number for number, each in enumerate(planned) if isinstance(each, _Each)], unfold)
        jobs: list[Job] = []
        for number, each in enumerate(planned):
            jobs += found.get(number, ()) if isinstance(each, _Each) else [each]
        run.waiting = dict(enumerate(jobs))
        run.progress.start(len(jobs))
        unlisted = len(run.failed)

        def count(_number: int, _result: Any) -> None:
            run.succeeded += 1

        def show() -> None:
            run.progress.advance(run.succeeded + len(run.failed) - unlisted, len(run.failed))

        await self._all(run, list(run.waiting), count, show)

    async def _all(
        self,
        run: _Run,
        numbers: Sequence[int],
        take: Callable[[int, Any], None],
        show: Callable[[], None] = lambda: None,
    ) -> None:
        """Run the jobs with *numbers*, a few at a time; *take* receives the results."""
        left = iter(numbers)

        async def worker() -> None:
            for number in left:
                job = run.waiting[number]
                failure = await self._try(job, functools.partial(take, number))
                del run.waiting[number]
                if failure is not None:
                    run.failed.append(failure)
                show()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._concurrency, len(numbers))):
                group.create_task(worker())

    async def _try(self, job: Job, take: Callable[[Any], None]) -> Failure | None:
        """Run *job* until it returns or its tries are used up."""
        attempt = 0
        while True:
            attempt += 1
            try:
                take(await _call(job))
                return None
            except Exception as exc:  # noqa: BLE001 - a job may raise anything; the report has it
                error: BaseException = exc
            except asyncio.CancelledError as exc:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                error = exc  # the job cancelled itself
            if attempt > self._retries:
                return Failure(str(job), error, attempt)
            pause = min(self._backoff * 2 ** (attempt - 1), _LONGEST_PAUSE)
            await self._sleep(pause * (0.5 + self._chance() / 2))

    def _shown(self) -> Progress:
        if isinstance(self._progress, bool):
            return suited() if self._progress else Silent()
        return self._progress

    # -- in front of an application -----------------------------------------------------------------------------------

    def asgi(self, app: AsgiApp, *, retry_after: int = 2, allow: Iterable[str] = ()) -> WarmedAsgi:
        """Return *app* with the warm-up before the end of its startup.

        The jobs run after the application's own startup code, so that they may use what it opened, and before the server
        hears that it is complete. A request that comes earlier is answered with 503.

        Args:
            app: an ASGI application, with or without lifespan.
            retry_after: seconds that such a request is told to wait.
            allow: paths that are answered nevertheless, such as that of a liveness probe.
        """
        from cachekit.warm.asgi import WarmedAsgi

        return WarmedAsgi(self, app, retry_after=retry_after, allow=allow)

    def wsgi(
        self, app: WsgiApp, *, at_construction: bool = False, retry_after: int = 2, allow: Iterable[str] = ()
    ) -> WarmedWsgi:
        """Return *app* with the warm-up before its first answer.

        Args:
            app: a WSGI application.
            at_construction: warm up here and now instead of on the first request.
            retry_after: seconds that requests which come during the warm-up are told to wait, with 503.
            allow: paths that are answered nevertheless, such as that of a liveness probe.
        """
        from cachekit.warm.wsgi import WarmedWsgi

        return WarmedWsgi(self, app, at_construction=at_construction, retry_after=retry_after, allow=allow)


async def _call(job: Job) -> Any:
    """Run *job*: here if it is a coroutine function, in a thread otherwise."""
    fn = job.fn
    if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004 - its kind matters
        made: Any = fn(*job.args, **job.kwargs)
    else:
        made = await asyncio.wrap_future(in_thread(lambda: _listed(fn(*job.args, **job.kwargs))))
    if not inspect.isawaitable(made):
        return made
    return await asyncio.create_task(
        asurrounded(made)
    )  # a task of its own, so that jobs do not share context variables


def _listed(result: Any) -> Any:
    """Exhaust an iterator where it was made, which may be a thread: it may do I/O."""
    return list(result) if isinstance(result, Iterator) else result


def _jobs(fn: Callable[..., object], arguments: Iterable[Sequence[Any]]) -> Iterator[Job]:
    for each in arguments:
        if not isinstance(each, (tuple, list)):
            raise ConfigError(
                f"{_name(fn)}: add_each() takes a tuple of arguments for each call, not {each!r}: ({each!r},)"
            )
        yield Job(fn, tuple(each))


def _callable(fn: Callable[P, object]) -> Callable[P, object]:
    if not callable(fn):
        raise ConfigError(f"a job is a function and its arguments: add(fn, 1, 2), not the result {fn!r} of a call")
    return fn


def _name(fn: Callable[..., object]) -> str:
    name = getattr(fn, "__qualname__", None)
    return reprlib.repr(fn) if name is None else f"{fn.__module__}.{name}"


def _log(report: Report, *, shown: bool) -> None:
    """Log *report*; where nobody reads the log, one that was *shown* is not repeated by logging's last resort."""
    if not shown or is_logged(report):
        anyway = "; the application starts anyway" if report.deadline is not None else ""
        log.log(report.level, "warming: %s%s", report, anyway)
    for failure in report.failed[:_SHOWN]:
        log.warning("warming: %s failed after %d tries", failure.job, failure.attempts, exc_info=failure.error)


__all__ = ["Job", "Warmer"]
