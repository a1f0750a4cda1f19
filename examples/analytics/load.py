"""Load: people who look at the dashboards of their carriers, and what they waited for.

Each client is one person who picks a carrier, the large ones far more often than the small, and opens what the dashboard
of it asks for, request after request without a pause; now and then a filtered report or one aircraft. The stream of
requests of a client follows from the seed alone, so two runs ask the same.

The clients run in one process, and a latency is what that process saw: above some hundred requests a second part of it
is the client's own work.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx

# By the number of their flights, so that a Zipf distribution over this order resembles their customers.
CARRIERS = ("UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX", "FL", "AS", "F9", "YV", "HA", "OO")
ORIGINS = ("EWR", "JFK", "LGA")
AIRCRAFT = ("N725MQ", "N722MQ", "N723MQ", "N711MQ", "N713MQ", "N258JB", "N298JB", "N353JB", "N351JB", "N14228")
MONTHS = tuple(range(12, 0, -1))  # the latest is asked for most
TIMEOUT = 60.0


@dataclass(slots=True)
class Tally:
    """What the clients saw so far."""

    latencies: list[float] = field(default_factory=list)
    cache_statuses: Counter[bool] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Report:
    """One measurement.

    Attributes:
        latencies: seconds of each request that was answered with 200, ascending.
        seconds: from the first request to the last answer.
        hits: answers whose ``Cache-Status`` says hit.
        cache_statuses: answers that had a ``Cache-Status`` at all.
        failures: every other outcome, counted by what happened.
        queries: queries of the database meanwhile.
        database_seconds: time spent in them, all threads together.
        database_cpu_seconds: processor time spent in them.
    """

    latencies: tuple[float, ...]
    seconds: float
    hits: int
    cache_statuses: int
    failures: Mapping[str, int]
    queries: int
    database_seconds: float
    database_cpu_seconds: float

    @property
    def count(self) -> int:
        """Return the number of requests that were answered."""
        return len(self.latencies)

    @property
    def errors(self) -> int:
        """Return the number of requests that failed."""
        return sum(self.failures.values())

    @property
    def mean(self) -> float:
        """Return the mean latency in seconds; not a number without any."""
        return sum(self.latencies) / self.count if self.count else math.nan

    @property
    def p50(self) -> float:
        """Return the median latency in seconds."""
        return percentile(self.latencies, 0.5)

    @property
    def p99(self) -> float:
        """Return the latency in seconds that one request in a hundred exceeds."""
        return percentile(self.latencies, 0.99)

    @property
    def requests_per_second(self) -> float:
        """Return the rate of answers."""
        return self.count / self.seconds

    @property
    def hit_rate(self) -> float | None:
        """Return the share of hits, or ``None`` where no cache spoke."""
        return self.hits / self.count if self.cache_statuses else None


def percentile(ascending: tuple[float, ...], share: float) -> float:
    """Return the nearest-rank percentile of *ascending*; not a number when it is empty."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def is_hit(cache_status: str) -> bool:
    """Tell whether a ``Cache-Status`` field (RFC 9211) reports a hit in any cache on the way."""
    unquoted = re.sub(r'"(?:\\.|[^"\\])*"', '""', cache_status)
    return any("hit" in (part.strip() for part in member.split(";")[1:]) for member in unquoted.split(","))


def zipf(chance: random.Random, choices: tuple[Any, ...]) -> Any:
    """Return one of *choices*, the first most often: each with a weight of one over its rank."""
    return chance.choices(choices, weights=[1 / rank for rank in range(1, len(choices) + 1)])[0]


def dashboard(carrier: str | None, origin: str) -> list[str]:
    """Return the URLs that the page asks for when someone opens it for *carrier*; ``None`` is the whole platform."""
    query = f"?carrier={carrier}" if carrier else ""
    return [
        "/",
        "/api/config",
        f"/api/carriers/{carrier}" if carrier else "/api/overview",
        f"/api/delays/by-month{query}",
        f"/api/delays/by-hour{query}",
        "/api/carriers",
        f"/api/weather-impact{query}",
        f"/api/routes{query}{'&' if query else '?'}limit=10",
        f"/api/live/{origin}",
    ]


def requests_of(chance: random.Random) -> Iterator[str]:
    """Yield what one person asks for, without end."""
    while True:
        carrier = None if chance.random() < 0.2 else zipf(chance, CARRIERS)
        origin = zipf(chance, ORIGINS)
        yield from dashboard(carrier, origin)
        if chance.random() < 0.25:
            yield f"/api/airports/{origin}"
        if chance.random() < 0.25:
            month = zipf(chance, MONTHS)
            yield f"/api/reports?month={month}" + (f"&carrier={carrier}" if carrier else f"&origin={origin}")
        if chance.random() < 0.15:
            yield f"/api/aircraft/{zipf(chance, AIRCRAFT)}"


def every_dashboard() -> list[str]:
    """Return each URL that opening any dashboard asks for, once."""
    urls: dict[str, None] = {}
    for origin in ORIGINS:
        for carrier in (None, *CARRIERS):
            urls.update(dict.fromkeys(dashboard(carrier, origin)))
        urls[f"/api/airports/{origin}"] = None
    return list(urls)


async def measure(base_url: str, *, seconds: float, clients: int, seed: int) -> Report:
    """Let *clients* people look at dashboards for *seconds*. A request under way at the end is waited for, and counts."""
    streams = [requests_of(random.Random(f"{seed}:{number}")) for number in range(clients)]
    return await _measure(base_url, streams, seconds)


async def first_requests(base_url: str, *, clients: int) -> Report:
    """Open every dashboard once, with *clients* requests at a time: what the first visitors wait for."""
    urls = every_dashboard()
    return await _measure(base_url, [islice(urls, number, None, clients) for number in range(clients)], math.inf)


async def _measure(base_url: str, streams: Iterable[Iterator[str]], seconds: float) -> Report:
    tally = Tally()
    async with httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=TIMEOUT) as client:
        before = await _meter(client)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(_visit(client, stream, started + seconds, tally))
        elapsed = time.perf_counter() - started
        after = await _meter(client)
    return Report(
        latencies=tuple(sorted(tally.latencies)),
        seconds=elapsed,
        hits=tally.cache_statuses[True],
        cache_statuses=tally.cache_statuses.total(),
        failures=dict(tally.failures),
        queries=int(after["queries"] - before["queries"]),
        database_seconds=after["seconds"] - before["seconds"],
        database_cpu_seconds=after["cpu_seconds"] - before["cpu_seconds"],
    )


async def _visit(client: httpx.AsyncClient, urls: Iterator[str], until: float, tally: Tally) -> None:
    for url in urls:
        started = time.perf_counter()
        if started >= until:
            return
        try:
            response = await client.get(url)
        except httpx.HTTPError as problem:
            tally.failures[type(problem).__name__] += 1
            await asyncio.sleep(0.05)  # a server that refuses at once must not turn this into a spin
            continue
        if response.status_code != 200:
            tally.failures[f"status {response.status_code}"] += 1
            continue
        tally.latencies.append(time.perf_counter() - started)
        if (status := response.headers.get("Cache-Status")) is not None:
            tally.cache_statuses[is_hit(status)] += 1


async def _meter(client: httpx.AsyncClient) -> dict[str, float]:
    answer = await client.get("/meter")
    answer.raise_for_status()
    totals: dict[str, float] = answer.json()
    return totals
