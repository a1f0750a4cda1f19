"""The dashboard's SQL: one plain function a question, and a meter of what the database spends on them.

A flight counts as on time when it lands no more than 15 minutes late, the airlines' own convention; the share is of
those that landed. A flight that never left is cancelled. Nothing here knows HTTP, and nothing remembers an answer.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Row = dict[str, Any]
Group = Literal["carrier", "hour", "month", "origin"]

ON_TIME_MINUTES = 15

# Shared by every question about a set of flights, so that they all count alike.
MEASURES = f"""
    COUNT(*) AS flights,
    SUM(dep_time IS NULL) AS cancelled,
    ROUND(AVG(dep_delay), 2) AS mean_departure_delay,
    ROUND(AVG(arr_delay), 2) AS mean_arrival_delay,
    ROUND(AVG(arr_delay <= {ON_TIME_MINUTES}), 4) AS on_time_share
"""


class Meter:
    """Count the queries of all threads and the time they take."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queries = 0
        self._seconds = 0.0
        self._cpu_seconds = 0.0

    def record(self, seconds: float, cpu_seconds: float) -> None:
        """Add one query that took *seconds* on the clock and *cpu_seconds* of a processor."""
        with self._lock:
            self._queries += 1
            self._seconds += seconds
            self._cpu_seconds += cpu_seconds

    def read(self) -> dict[str, float]:
        """Return the totals since the process started."""
        with self._lock:
            return {
                "queries": self._queries,
                "seconds": round(self._seconds, 6),
                "cpu_seconds": round(self._cpu_seconds, 6),
            }


class Connection(sqlite3.Connection):
    """A read-only connection whose queries are metered."""

    meter: Meter

    def rows(self, sql: str, parameters: Mapping[str, object]) -> list[Row]:
        """Return the rows of *sql* as dictionaries."""
        started, cpu_started = time.perf_counter(), time.thread_time()
        try:
            cursor = self.execute(sql, parameters)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, values, strict=True)) for values in cursor]
        finally:
            self.meter.record(time.perf_counter() - started, time.thread_time() - cpu_started)

    def row(self, sql: str, parameters: Mapping[str, object]) -> Row | None:
        """Return the first row of *sql*, or ``None``."""
        return next(iter(self.rows(sql, parameters)), None)


class Database:
    """The file, opened once for each thread that asks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meter = Meter()
        self._of_thread = threading.local()
        self._lock = threading.Lock()
        self._opened: list[Connection] = []

    def connection(self) -> Connection:
        """Return the calling thread's connection."""
        connection: Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = self._open()
        return connection

    def close(self) -> None:
        """Close every connection; call it when no request is running."""
        with self._lock:
            opened, self._opened = self._opened, []
        self._of_thread = threading.local()
        for connection in opened:
            connection.close()

    def _open(self) -> Connection:
        # check_same_thread only because close() runs in another thread than the queries did.
        uri = f"{self.path.resolve().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, factory=Connection, check_same_thread=False)
        connection.meter = self.meter
        connection.execute("PRAGMA mmap_size = 268435456")
        with self._lock:
            self._opened.append(connection)
        return connection


@dataclass(frozen=True, slots=True)
class Scope:
    """Which flights a question is about; ``None`` means all of them."""

    carrier: str | None = None
    origin: str | None = None
    month: int | None = None

    def where(self, *conditions: str) -> str:
        """Return the ``WHERE`` clause, with further *conditions*; values travel as parameters only."""
        wanted = [f"{column} = :{column}" for column, value in asdict(self).items() if value is not None]
        return "WHERE " + (" AND ".join((*wanted, *conditions)) or "TRUE")


EVERYTHING = Scope()


def totals(db: Connection, scope: Scope = EVERYTHING) -> Row:
    """Return the headline numbers."""
    found = db.row(
        f"""
        SELECT {MEASURES},
               COUNT(DISTINCT tailnum) AS aircraft,
               COUNT(DISTINCT dest) AS destinations,
               COALESCE(SUM(distance) FILTER (WHERE dep_time IS NOT NULL), 0) AS miles,
               ROUND(COALESCE(SUM(air_time), 0) / 60.0, 1) AS hours_in_the_air
        FROM flights {scope.where()}
        """,
        asdict(scope),
    )
    assert found is not None, "an aggregate always has a row"
    return found


def delay_percentiles(db: Connection, scope: Scope = EVERYTHING) -> Row:
    """Return the nearest-rank percentiles of the arrival delay, in minutes."""
    found = db.row(
        f"""
        SELECT MIN(arr_delay) FILTER (WHERE rank >= 0.5) AS p50,
               MIN(arr_delay) FILTER (WHERE rank >= 0.9) AS p90,
               MIN(arr_delay) FILTER (WHERE rank >= 0.99) AS p99
        FROM (
            SELECT arr_delay, CUME_DIST() OVER (ORDER BY arr_delay) AS rank
            FROM flights {scope.where("arr_delay IS NOT NULL")}
        )
        """,
        asdict(scope),
    )
    assert found is not None, "an aggregate always has a row"
    return found


def measures_by(db: Connection, group: Group, scope: Scope = EVERYTHING) -> list[Row]:
    """Return the measures of each *group*, in its order."""
    return db.rows(
        f"SELECT {group}, {MEASURES} FROM flights {scope.where()} GROUP BY {group} ORDER BY {group}", asdict(scope)
    )


def delay_percentiles_by(db: Connection, group: Group, scope: Scope = EVERYTHING) -> list[Row]:
    """Return the median and the 90th percentile of the departure delay of each *group*."""
    return db.rows(
        f"""
        SELECT {group},
               MIN(dep_delay) FILTER (WHERE rank >= 0.5) AS p50,
               MIN(dep_delay) FILTER (WHERE rank >= 0.9) AS p90
        FROM (
            SELECT {group}, dep_delay, CUME_DIST() OVER (PARTITION BY {group} ORDER BY dep_delay) AS rank
            FROM flights {scope.where("dep_delay IS NOT NULL")}
        )
        GROUP BY {group} ORDER BY {group}
        """,
        asdict(scope),
    )


def by_weekday(db: Connection, scope: Scope = EVERYTHING) -> list[Row]:
    """Return the measures of each day of the week, 0 for Sunday."""
    return db.rows(
        f"""
        SELECT CAST(STRFTIME('%w', PRINTF('%04d-%02d-%02d', year, month, day)) AS INTEGER) AS weekday, {MEASURES}
        FROM flights {scope.where()} GROUP BY weekday ORDER BY weekday
        """,
        asdict(scope),
    )


def ranked_carriers(db: Connection, scope: Scope = EVERYTHING) -> list[Row]:
    """Return every carrier with its measures, the most punctual first."""
    return db.rows(
        f"""
        SELECT RANK() OVER (ORDER BY on_time_share DESC) AS rank, name, measured.*
        FROM (
            SELECT carrier, {MEASURES},
                   COUNT(DISTINCT tailnum) AS aircraft, COUNT(DISTINCT dest) AS destinations
            FROM flights {scope.where()} GROUP BY carrier
        ) AS measured
        JOIN airlines USING (carrier)
        ORDER BY rank, carrier
        """,
        asdict(scope),
    )


def fleets(db: Connection, scope: Scope = EVERYTHING) -> list[Row]:
    """Return what each carrier flew with: makers, mean seats and mean year of the aircraft."""
    return db.rows(
        f"""
        SELECT carrier,
               COUNT(DISTINCT manufacturer) AS makers,
               COUNT(DISTINCT model) AS models,
               ROUND(AVG(seats), 1) AS mean_seats,
               ROUND(AVG(planes.year), 1) AS mean_year
        FROM flights JOIN planes USING (tailnum) {scope.where()}
        GROUP BY carrier ORDER BY carrier
        """,
        asdict(scope),
    )


def makers(db: Connection, scope: Scope = EVERYTHING, *, limit: int = 5) -> list[Row]:
    """Return the makers of the aircraft that flew most."""
    return db.rows(
        f"""
        SELECT manufacturer, COUNT(*) AS flights, COUNT(DISTINCT tailnum) AS aircraft, SUM(seats) AS seats
        FROM flights JOIN planes USING (tailnum) {scope.where("dep_time IS NOT NULL")}
        GROUP BY manufacturer ORDER BY flights DESC, manufacturer LIMIT :limit
        """,
        {**asdict(scope), "limit": limit},
    )


def busiest_routes(db: Connection, scope: Scope = EVERYTHING, *, limit: int = 10) -> list[Row]:
    """Return the routes with most flights."""
    return db.rows(
        f"""
        SELECT origin, dest, airports.name AS destination, measured.*
        FROM (
            SELECT origin, dest, COUNT(DISTINCT carrier) AS carriers, MAX(distance) AS distance, {MEASURES}
            FROM flights {scope.where()} GROUP BY origin, dest
        ) AS measured
        LEFT JOIN airports ON airports.faa = dest
        ORDER BY flights DESC, origin, dest LIMIT :limit
        """,
        {**asdict(scope), "limit": limit},
    )


def latest_routes(db: Connection, scope: Scope = EVERYTHING, *, limit: int = 5) -> list[Row]:
    """Return the routes that are late most often, among those flown at least once a week."""
    return db.rows(
        f"""
        SELECT origin, dest, {MEASURES} FROM flights {scope.where()}
        GROUP BY origin, dest HAVING COUNT(arr_delay) >= 52
        ORDER BY on_time_share, origin, dest LIMIT :limit
        """,
        {**asdict(scope), "limit": limit},
    )


def route_count(db: Connection, scope: Scope = EVERYTHING) -> Row:
    """Return how many routes there are and how many a single carrier flies."""
    found = db.row(
        f"""
        SELECT COUNT(*) AS routes, COALESCE(SUM(carriers = 1), 0) AS flown_by_one_carrier
        FROM (SELECT COUNT(DISTINCT carrier) AS carriers FROM flights {scope.where()} GROUP BY origin, dest)
        """,
        asdict(scope),
    )
    assert found is not None, "an aggregate always has a row"
    return found


def worst_days(db: Connection, scope: Scope = EVERYTHING, *, limit: int = 5) -> list[Row]:
    """Return the days with the longest mean departure delay."""
    return db.rows(
        f"""
        SELECT PRINTF('%04d-%02d-%02d', year, month, day) AS date, {MEASURES}
        FROM flights {scope.where()}
        GROUP BY year, month, day ORDER BY mean_departure_delay DESC, date LIMIT :limit
        """,
        {**asdict(scope), "limit": limit},
    )


def market_share(db: Connection, scope: Scope = EVERYTHING) -> list[Row]:
    """Return each carrier's share of the flights and of the seats."""
    return db.rows(
        f"""
        SELECT carrier, name, flights,
               ROUND(1.0 * flights / SUM(flights) OVER (), 4) AS share_of_flights,
               ROUND(1.0 * seats / SUM(seats) OVER (), 4) AS share_of_seats
        FROM (
            SELECT carrier, COUNT(*) AS flights, SUM(seats) AS seats
            FROM flights LEFT JOIN planes USING (tailnum) {scope.where()} GROUP BY carrier
        )
        JOIN airlines USING (carrier)
        ORDER BY flights DESC, carrier
        """,
        asdict(scope),
    )


WEATHER = {
    "rain": "CASE WHEN precip = 0 THEN 'dry' WHEN precip < 0.1 THEN 'light rain' ELSE 'heavy rain' END",
    "wind": "CASE WHEN wind_speed < 10 THEN 'calm' WHEN wind_speed < 20 THEN 'breezy' ELSE 'strong wind' END",
    "visibility": "CASE WHEN visib >= 10 THEN 'clear' WHEN visib >= 3 THEN 'hazy' ELSE 'fog' END",
}
_MEASURED_BY = {"rain": "precip", "wind": "wind_speed", "visibility": "visib"}


def weather_effect(db: Connection, factor: str, scope: Scope = EVERYTHING) -> list[Row]:
    """Return the measures under each condition of *factor*, a key of ``WEATHER``, the mildest first."""
    flights = "(SELECT * FROM flights " + scope.where() + ")"
    column = _MEASURED_BY[factor]
    order = f"{'-' if factor == 'visibility' else ''}AVG({column})"
    return db.rows(
        f"""
        SELECT {WEATHER[factor]} AS condition, {MEASURES}
        FROM {flights} JOIN weather USING (origin, time_hour)
        WHERE {column} IS NOT NULL GROUP BY condition ORDER BY {order}
        """,
        asdict(scope),
    )


def rain_by_month(db: Connection, scope: Scope = EVERYTHING) -> list[Row]:
    """Return, for each month, the share of the flights that left in rain and their mean delay beside the dry ones'."""
    return db.rows(
        f"""
        SELECT flights.month AS month,
               ROUND(AVG(precip > 0), 4) AS share_in_rain,
               ROUND(AVG(dep_delay) FILTER (WHERE precip > 0), 2) AS mean_delay_in_rain,
               ROUND(AVG(dep_delay) FILTER (WHERE precip = 0), 2) AS mean_delay_when_dry
        FROM (SELECT * FROM flights {scope.where()}) AS flights JOIN weather USING (origin, time_hour)
        GROUP BY flights.month ORDER BY flights.month
        """,
        asdict(scope),
    )


def aircraft(db: Connection, tailnum: str) -> Row | None:
    """Return what is known of an aircraft and its year of flights, or ``None`` if it never flew from New York."""
    return db.row(
        f"""
        SELECT flown.*, planes.year AS built, manufacturer, model, seats
        FROM (
            SELECT tailnum, {MEASURES}, COUNT(DISTINCT dest) AS destinations, SUM(distance) AS miles
            FROM flights WHERE tailnum = :tailnum GROUP BY tailnum
        ) AS flown
        LEFT JOIN planes USING (tailnum)
        """,
        {"tailnum": tailnum},
    )


def aircraft_months(db: Connection, tailnum: str) -> list[Row]:
    """Return the aircraft's flights in each month, with the running total."""
    return db.rows(
        """
        SELECT month, COUNT(*) AS flights, SUM(COUNT(*)) OVER (ORDER BY month) AS flights_so_far
        FROM flights WHERE tailnum = :tailnum GROUP BY month ORDER BY month
        """,
        {"tailnum": tailnum},
    )


def aircraft_routes(db: Connection, tailnum: str, *, limit: int = 5) -> list[Row]:
    """Return the routes that the aircraft flew most."""
    return db.rows(
        """
        SELECT origin, dest, COUNT(*) AS flights, ROUND(AVG(arr_delay), 2) AS mean_arrival_delay
        FROM flights WHERE tailnum = :tailnum GROUP BY origin, dest ORDER BY flights DESC, origin, dest LIMIT :limit
        """,
        {"tailnum": tailnum, "limit": limit},
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """An hour of the year at an airport."""

    origin: str
    month: int
    day: int
    hour: int


def next_departures(db: Connection, moment: Moment, *, limit: int = 12) -> list[Row]:
    """Return the departures scheduled from *moment* on, that day."""
    return db.rows(
        """
        SELECT PRINTF('%02d:%02d', hour, minute) AS scheduled, carrier || flight AS flight, dest,
               airports.name AS destination, dep_delay, dep_time IS NULL AS cancelled
        FROM flights LEFT JOIN airports ON airports.faa = dest
        WHERE month = :month AND day = :day AND origin = :origin AND hour >= :hour
        ORDER BY sched_dep_time, flight LIMIT :limit
        """,
        {**asdict(moment), "limit": limit},
    )


def day_so_far(db: Connection, moment: Moment) -> Row:
    """Return the measures of the day's flights scheduled before *moment*."""
    found = db.row(
        f"""
        SELECT {MEASURES} FROM flights
        WHERE month = :month AND day = :day AND origin = :origin AND hour < :hour
        """,
        asdict(moment),
    )
    assert found is not None, "an aggregate always has a row"
    return found


def weather_at(db: Connection, moment: Moment) -> Row | None:
    """Return the weather at *moment*, or ``None`` where no reading was kept."""
    return db.row(
        """
        SELECT temp, wind_speed, precip, visib FROM weather
        WHERE origin = :origin AND month = :month AND day = :day AND hour = :hour LIMIT 1
        """,
        asdict(moment),
    )


def airlines(db: Connection) -> list[Row]:
    """Return the carriers that flew, the largest first: the choices of the dashboard."""
    return db.rows(
        """
        SELECT carrier, name, COUNT(*) AS flights FROM flights JOIN airlines USING (carrier)
        GROUP BY carrier ORDER BY flights DESC, carrier
        """,
        {},
    )


def origins(db: Connection) -> list[Row]:
    """Return the airports that flights leave from."""
    return db.rows(
        """
        SELECT origin, name, lat, lon, flights
        FROM (SELECT origin, COUNT(*) AS flights FROM flights GROUP BY origin) JOIN airports ON faa = origin
        ORDER BY origin
        """,
        {},
    )


def period(db: Connection) -> Row:
    """Return the first and last day on record, and the months between."""
    found = db.row(
        """
        SELECT MIN(PRINTF('%04d-%02d-%02d', year, month, day)) AS first,
               MAX(PRINTF('%04d-%02d-%02d', year, month, day)) AS last,
               COUNT(DISTINCT month) AS months
        FROM flights
        """,
        {},
    )
    assert found is not None, "an aggregate always has a row"
    return found


def carrier_name(db: Connection, carrier: str) -> str | None:
    """Return the name of a carrier, or ``None`` if there is none with that code."""
    found = db.row("SELECT name FROM airlines WHERE carrier = :carrier", {"carrier": carrier})
    return None if found is None else str(found["name"])


def airport_name(db: Connection, origin: str) -> str | None:
    """Return the name of an airport that flights leave from, or ``None``."""
    found = db.row(
        "SELECT name FROM airports WHERE faa = :origin AND EXISTS (SELECT 1 FROM flights WHERE origin = :origin)",
        {"origin": origin},
    )
    return None if found is None else str(found["name"])
