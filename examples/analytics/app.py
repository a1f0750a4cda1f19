"""An analytics API and its dashboard, as a team would have it in production: it knows nothing about caching.

Its tenants are the carriers. Every endpoint asks the database each time, and none of them sends ``Cache-Control``: what
may be kept, and for how long, is configuration from outside (``cachekit.toml`` beside this file).

Start it with ``uvicorn examples.analytics.app:app``; without its database it builds it first.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from examples.analytics import data, queries
from examples.analytics.queries import Connection, Database, Moment, Scope

PAGE = Path(__file__).parent / "page.html"
MOST_ROUTES = 100

Now = Callable[[], datetime]


def create_app(path: Path = data.DATABASE, *, now: Now = lambda: datetime.now(UTC)) -> Starlette:
    """Return the application over the database at *path*; *now* is the clock of the departure board."""
    database = Database(path)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        data.build(path, say=print)
        yield
        database.close()

    app = Starlette(routes=ROUTES, exception_handlers={HTTPException: error}, lifespan=lifespan)
    app.state.database = database
    app.state.now = now
    return app


# What requests carry -------------------------------------------------------------------------------------------------


def connection(request: Request) -> Connection:
    """Return the connection of the thread that answers *request*."""
    database: Database = request.app.state.database
    return database.connection()


def number(request: Request, name: str, least: int, most: int) -> int | None:
    """Return the query parameter *name* as a number between *least* and *most*, or ``None`` without it."""
    text = request.query_params.get(name)
    if not text:
        return None
    # The length is bounded first: int() refuses thousands of digits with an error of its own.
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and least <= int(text) <= most):
        raise HTTPException(400, f"{name} must be a number from {least} to {most}")
    return int(text)


def known_carrier(db: Connection, carrier: str) -> str:
    """Return the name of *carrier*, or answer 404."""
    name = queries.carrier_name(db, carrier)
    if name is None:
        raise HTTPException(404, f"no carrier {carrier!r}")
    return name


def known_airport(db: Connection, origin: str) -> str:
    """Return the name of the airport *origin*, or answer 404."""
    name = queries.airport_name(db, origin)
    if name is None:
        raise HTTPException(404, f"no flights leave from {origin!r}")
    return name


def scope_of(request: Request, db: Connection) -> Scope:
    """Return the flights that the query parameters ask about, or answer 400 or 404."""
    carrier = request.query_params.get("carrier") or None
    origin = request.query_params.get("origin") or None
    month = number(request, "month", 1, 12)
    if carrier is not None:
        known_carrier(db, carrier)
    if origin is not None:
        known_airport(db, origin)
    return Scope(carrier, origin, month)


def error(_request: Request, problem: Exception) -> Response:
    """Answer an ``HTTPException`` as JSON."""
    assert isinstance(problem, HTTPException)
    return JSONResponse({"error": problem.detail}, problem.status_code, headers=problem.headers)


# Endpoints: plain functions, so Starlette runs each in a thread ---------------------------------------------------------


def page(_request: Request) -> Response:
    """Answer the dashboard."""
    return FileResponse(PAGE, media_type="text/html")


def config(request: Request) -> Response:
    """Answer what the dashboard lets one choose."""
    db = connection(request)
    return JSONResponse(
        {
            "carriers": queries.airlines(db),
            "origins": queries.origins(db),
            "period": queries.period(db),
            "on_time_minutes": queries.ON_TIME_MINUTES,
        }
    )


def overview(request: Request) -> Response:
    """Answer the headline numbers of the whole platform."""
    db = connection(request)
    return JSONResponse(
        {
            "totals": queries.totals(db),
            "arrival_delay": queries.delay_percentiles(db),
            "months": queries.measures_by(db, "month"),
            "origins": queries.measures_by(db, "origin"),
            "makers": queries.makers(db),
            "worst_days": queries.worst_days(db),
        }
    )


def carriers(request: Request) -> Response:
    """Answer every carrier, the most punctual first."""
    db = connection(request)
    return JSONResponse(
        {
            "carriers": queries.ranked_carriers(db),
            "departure_delay": queries.delay_percentiles_by(db, "carrier"),
            "fleets": queries.fleets(db),
        }
    )


def carrier(request: Request) -> Response:
    """Answer everything about one carrier."""
    db = connection(request)
    code = request.path_params["carrier"]
    name, scope = known_carrier(db, code), Scope(carrier=code)
    return JSONResponse(
        {
            "carrier": code,
            "name": name,
            "totals": queries.totals(db, scope),
            "arrival_delay": queries.delay_percentiles(db, scope),
            "months": queries.measures_by(db, "month", scope),
            "origins": queries.measures_by(db, "origin", scope),
            "routes": queries.busiest_routes(db, scope, limit=5),
            "makers": queries.makers(db, scope),
            "worst_days": queries.worst_days(db, scope),
        }
    )


def airport(request: Request) -> Response:
    """Answer everything about one of the three airports."""
    db = connection(request)
    code = request.path_params["origin"]
    name, scope = known_airport(db, code), Scope(origin=code)
    return JSONResponse(
        {
            "origin": code,
            "name": name,
            "totals": queries.totals(db, scope),
            "arrival_delay": queries.delay_percentiles(db, scope),
            "hours": queries.measures_by(db, "hour", scope),
            "market": queries.market_share(db, scope),
            "routes": queries.busiest_routes(db, scope),
            "worst_days": queries.worst_days(db, scope),
        }
    )


def routes(request: Request) -> Response:
    """Answer the busiest routes and the latest ones."""
    db = connection(request)
    scope = scope_of(request, db)
    limit = number(request, "limit", 1, MOST_ROUTES) or 10
    return JSONResponse(
        {
            **queries.route_count(db, scope),
            "busiest": queries.busiest_routes(db, scope, limit=limit),
            "latest": queries.latest_routes(db, scope, limit=limit),
        }
    )


def delays_by_hour(request: Request) -> Response:
    """Answer the delays over the hours of the day."""
    db = connection(request)
    scope = scope_of(request, db)
    return JSONResponse(
        {
            "hours": queries.measures_by(db, "hour", scope),
            "departure_delay": queries.delay_percentiles_by(db, "hour", scope),
            "weekdays": queries.by_weekday(db, scope),
        }
    )


def delays_by_month(request: Request) -> Response:
    """Answer the flights and delays over the year."""
    db = connection(request)
    scope = scope_of(request, db)
    return JSONResponse(
        {
            "months": queries.measures_by(db, "month", scope),
            "departure_delay": queries.delay_percentiles_by(db, "month", scope),
            "rain": queries.rain_by_month(db, scope),
        }
    )


def weather_impact(request: Request) -> Response:
    """Answer how rain, wind and visibility go with delays."""
    db = connection(request)
    scope = scope_of(request, db)
    return JSONResponse(
        {
            **{factor: queries.weather_effect(db, factor, scope) for factor in queries.WEATHER},
            "months": queries.rain_by_month(db, scope),
        }
    )


def reports(request: Request) -> Response:
    """Answer a report on the flights that the filters leave."""
    db = connection(request)
    scope = scope_of(request, db)
    return JSONResponse(
        {
            "filters": {"carrier": scope.carrier, "origin": scope.origin, "month": scope.month},
            "totals": queries.totals(db, scope),
            "arrival_delay": queries.delay_percentiles(db, scope),
            "weekdays": queries.by_weekday(db, scope),
            "hours": queries.measures_by(db, "hour", scope),
            "routes": queries.busiest_routes(db, scope),
            "rain": queries.weather_effect(db, "rain", scope),
            "worst_days": queries.worst_days(db, scope),
        }
    )


def aircraft(request: Request) -> Response:
    """Answer the year of one aircraft."""
    db = connection(request)
    tailnum = request.path_params["tailnum"]
    found = queries.aircraft(db, tailnum)
    if found is None:
        raise HTTPException(404, f"no aircraft {tailnum!r}")
    return JSONResponse(
        {
            **found,
            "months": queries.aircraft_months(db, tailnum),
            "routes": queries.aircraft_routes(db, tailnum),
        }
    )


def live(request: Request) -> Response:
    """Answer the departure board of an airport: the same hour of the same day, in 2013."""
    db = connection(request)
    origin = request.path_params["origin"]
    name = known_airport(db, origin)
    moment = replayed(origin, request.app.state.now())
    return JSONResponse(
        {
            "origin": origin,
            "name": name,
            "replayed": f"2013-{moment.month:02d}-{moment.day:02d} {moment.hour:02d}:00",
            "next_departures": queries.next_departures(db, moment),
            "so_far": queries.day_so_far(db, moment),
            "weather": queries.weather_at(db, moment),
        }
    )


def replayed(origin: str, now: datetime) -> Moment:
    """Return the hour of 2013 that stands for *now*, in Eastern Standard Time; 29 February falls on the 28th."""
    there = now.astimezone(UTC) - timedelta(hours=5)
    day = 28 if (there.month, there.day) == (2, 29) else there.day
    return Moment(origin, there.month, day, there.hour)


def meter(request: Request) -> Response:
    """Answer what the database has done since the process started."""
    database: Database = request.app.state.database
    return JSONResponse(database.meter.read(), headers={"Cache-Control": "no-store"})


ROUTES = [
    Route("/", page),
    Route("/api/config", config),
    Route("/api/overview", overview),
    Route("/api/carriers", carriers),
    Route("/api/carriers/{carrier}", carrier),
    Route("/api/airports/{origin}", airport),
    Route("/api/routes", routes),
    Route("/api/delays/by-hour", delays_by_hour),
    Route("/api/delays/by-month", delays_by_month),
    Route("/api/weather-impact", weather_impact),
    Route("/api/reports", reports),
    Route("/api/aircraft/{tailnum}", aircraft),
    Route("/api/live/{origin}", live),
    Route("/meter", meter),
]

app = create_app()
