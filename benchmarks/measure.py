"""Timing that can be trusted on a noisy machine: contestants take turns, medians are compared, ratios are printed."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass
class Row:
    """One contestant: nanoseconds per call, one figure a round."""

    name: str
    rounds: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def ratio(row: Row, floor: Row) -> float:
    """Return the median of the round-by-round ratios: each compares two figures taken next to each other."""
    return statistics.median(a / b for a, b in zip(row.rounds, floor.rounds, strict=True))


def interleaved(contestants: dict[str, Callable[[int], float]], *, calls: int, rounds: int) -> dict[str, Row]:
    """Run each contestant (which makes *n* calls and returns the seconds they took) once a round, in turn."""
    rows = {name: Row(name) for name in contestants}
    for run in contestants.values():
        run(max(1, calls // 10))
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in contestants.items():
                rows[name].rounds.append(run(calls) / calls * 1e9)
    finally:
        gc.enable()
    return rows


def blocking(call: Callable[[], object]) -> Callable[[int], float]:
    """Return a contestant that calls *call* in a loop."""

    def run(calls: int) -> float:
        numbers = range(calls)
        started = time.perf_counter()
        for _ in numbers:
            call()
        return time.perf_counter() - started

    return run


def awaited(call: Callable[[], Awaitable[object]], runner: asyncio.Runner) -> Callable[[int], float]:
    """Return a contestant that awaits *call* in a loop."""

    async def work(calls: int) -> float:
        numbers = range(calls)
        started = time.perf_counter()
        for _ in numbers:
            await call()
        return time.perf_counter() - started

    return lambda calls: runner.run(work(calls))


def concurrent(call: Callable[[], Awaitable[object]], runner: asyncio.Runner, tasks: int) -> Callable[[int], float]:
    """Return a contestant that awaits *call* from *tasks* tasks at once."""

    async def work(calls: int) -> float:
        async def one() -> None:
            for _ in range(calls // tasks):
                await call()

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(tasks)))
        return time.perf_counter() - started

    return lambda calls: runner.run(work(calls))


def show(title: str, rows: dict[str, Row], floor: str, budget: dict[str, float] | None = None) -> bool:
    """Print a table with ratios to *floor*. Returns whether every budgeted ratio is kept."""
    kept = True
    print(f"\n### {title}\n\n| | ns a call | x {floor} | at most |\n|---|---:|---:|---:|")
    for name, row in rows.items():
        times = ratio(row, rows[floor])
        allowed = (budget or {}).get(name)
        mark = "" if allowed is None else f"{allowed:g}"
        if allowed is not None and times > allowed:
            kept, mark = False, f"**{allowed:g} exceeded**"
        print(f"| {name} | {row.median:,.0f} | {times:.2f} | {mark} |")
    return kept
