"""Explores the orders in which concurrent actors can run, instead of hoping for one.

An actor is a coroutine written against ``IO``. It gives way at each call of a store, at each wait and wherever it says
``await step()``. The explorer runs a scenario again and again, each time with another sequence of choices of who goes
next: every sequence if there are few enough, else those of the first levels of the tree and then random ones.
"""

from __future__ import annotations

import contextvars
import inspect
import random
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

from cachekit.stores.base import Store


class _Step:
    def __await__(self) -> Iterator[None]:
        yield


async def step() -> None:
    """Let another actor go on."""
    await _Step()


class SteppedIO:
    """The world of one simulated process: every wait gives way to the other actors."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    @property
    def scope(self) -> object:
        return self

    async def call(self, blocking, aio, *args):
        await step()
        return blocking(*args)

    async def wait(self, future: Future[Any], timeout: float | None = None) -> Any:
        for _ in range(10_000):
            if future.done():
                return future.result()
            await step()
        raise AssertionError("a wait that never ends")

    async def sleep(self, seconds: float) -> None:
        await step()

    def every(self, seconds: float, job: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], None]:
        return lambda: None

    def spawn(self, job: Coroutine[Any, Any, object]) -> None:
        self._schedule.add(job)


class SteppedStore:
    """A store whose every operation is one step: others may run before and after it."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(method) or name == "close":
            return method

        async def stepped(*args: Any, **kwargs: Any) -> Any:
            await step()
            result = await method(*args, **kwargs)
            await step()
            return result

        return stepped


class Schedule:
    """One run: actors, and the choices of who goes next."""

    def __init__(self, prefix: tuple[int, ...], rest: random.Random | None) -> None:
        self._prefix = prefix
        self._rest = rest
        self._actors: list[tuple[Coroutine[Any, Any, object], contextvars.Context]] = []
        self.choices: list[tuple[int, int]] = []

    def io(self) -> SteppedIO:
        """Return the world of a new simulated process."""
        return SteppedIO(self)

    def add(self, actor: Coroutine[Any, Any, object]) -> None:
        self._actors.append((actor, contextvars.copy_context()))

    def run(self) -> None:
        """Run all actors to their end, and raise what one of them raises."""
        try:
            while self._actors:
                count = len(self._actors)
                at = len(self.choices)
                if at < len(self._prefix):
                    chosen = min(self._prefix[at], count - 1)  # a server that has a script already saves a step
                else:
                    chosen = self._rest.randrange(count) if self._rest is not None else 0
                self.choices.append((chosen, count))
                actor, context = self._actors[chosen]
                try:
                    context.run(actor.send, None)
                except StopIteration:
                    del self._actors[chosen]
                except BaseException:
                    del self._actors[chosen]
                    raise
        finally:
            for actor, context in self._actors:
                context.run(actor.close)


def explore(scenario: Callable[[Schedule], None], *, most: int, seed: int = 0) -> int:
    """Run *scenario* (which adds actors and runs the schedule) in up to *most* orders. Returns how many were run."""
    runs = 0
    todo: list[tuple[int, ...]] = [()]
    while todo and runs < most // 2:
        prefix = todo.pop()
        schedule = Schedule(prefix, None)
        _attempt(scenario, schedule)
        runs += 1
        for at in range(len(prefix), len(schedule.choices)):
            taken = tuple(choice for choice, _ in schedule.choices[:at])
            todo.extend((*taken, other) for other in range(1, schedule.choices[at][1]))
    exhausted = not todo
    while not exhausted and runs < most:
        schedule = Schedule((), random.Random(f"{seed}/{runs}"))
        _attempt(scenario, schedule)
        runs += 1
    return runs


def _attempt(scenario: Callable[[Schedule], None], schedule: Schedule) -> None:
    try:
        scenario(schedule)
    except BaseException as exc:
        exc.add_note(f"schedule: {[choice for choice, _ in schedule.choices]}")
        raise
