"""``Degradation``: protected paths, the others, health, through both edges, with a store that is really stopped."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from cachekit import Cache, ConfigError, Kind
from cachekit._io import ASYNCIO
from cachekit.degrade import Health, State, asgi, wsgi
from cachekit.degrade.options import DegradeOptions, Degrading
from cachekit.degrade.paths import Paths


class Site:
    def __init__(self, kind: str, cache: Cache | None, **settings) -> None:
        self.kind, self.cache, self.reached = kind, cache, []
        self.runner = asyncio.Runner()
        self.headers = [("Content-Type", "text/plain")]

        async def aapp(scope, receive, send):
            self.reached.append(scope["path"])
            if scope["type"] == "websocket":
                return
            fields = [(n.lower().encode(), v.encode()) for n, v in self.headers]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": b"fine"})

        def app(environ, start_response):
            self.reached.append(environ["PATH_INFO"])
            start_response("200 OK", list(self.headers))
            return [b"fine"]

        self.app = asgi.Degradation(aapp, cache=cache, **settings) if kind == "asgi" else wsgi.Degradation(
            app, cache=cache, **settings
        )  # fmt: skip

    def get(self, path: str = "/", method: str = "GET"):
        if self.kind == "wsgi":
            got = []
            environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": ""}
            body = b"".join(self.app(environ, lambda s, h, *_: got.append((int(s[:3]), {n.lower(): v for n, v in h}))))
            return (*got[0], body)
        sent = self.scope({"type": "http", "method": method, "path": path, "headers": []})
        return sent[0]["status"], {n.decode(): v.decode() for n, v in sent[0]["headers"]}, sent[1]["body"]

    def scope(self, scope):
        sent = []

        async def receive():
            return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request"}

        async def send(message):
            sent.append(message)

        self.runner.run(self.app(scope, receive, send))
        return sent

    def close(self) -> None:
        if self.cache is not None:
            if self.kind == "asgi":
                self.runner.run(self.cache._close(ASYNCIO))
            self.cache.close()
        self.runner.close()


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def make(kind: str) -> Iterator:
    made: list[Site] = []

    def site(cache: Cache | None = None, **settings) -> Site:
        made.append(Site(kind, cache, **settings))
        return made[-1]

    yield site
    for each in made:
        each.close()


def test_with_the_store_there_nothing_is_refused(make, server) -> None:
    site = make(Cache(server.url, timeout=5), protected=["/api/protected"])
    status, headers, body = site.get("/api/protected")
    assert (status, body, headers) == (200, b"fine", {"content-type": "text/plain"})
    status, headers, body = site.get("/-/health")
    assert (status, json.loads(body)) == (200, {"state": "ready", "parts": {"store": "ok"}})
    assert headers["cache-control"] == "no-store"


def test_with_the_store_away_protected_paths_are_refused_and_others_go_on(make, own_server, watch) -> None:
    site = make(Cache(own_server.url, timeout=0.5, observers=[watch]), protected=["/api/protected"])
    assert site.get("/api/protected")[0] == 200
    own_server.stop()
    site.app._degrading.health._max_age = 0  # as if the second had passed for which it is believed
    status, headers, body = site.get("/api/protected/deeper")
    assert (status, headers["retry-after"], headers["content-type"]) == (503, "30", "application/problem+json")
    assert json.loads(body) == {
        "type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "temporarily unavailable: store"
    }  # fmt: skip
    assert headers["cache-status"] == "cachekit; fwd=bypass; detail=store-away"
    while not site.cache.is_away:  # the breaker takes a few failures to open
        site.get("/api/protected")
    assert site.reached == ["/api/protected"]
    status, headers, body = site.get("/open")
    assert (status, body, headers["cache-status"]) == (200, b"fine", "cachekit; fwd=bypass; detail=store-away")
    assert json.loads(site.get("/-/health")[2]) == {"state": "degraded", "parts": {"store": "away"}}
    assert (site.app.counts.refused >= 1, site.app.counts.degraded) == (True, 1)
    assert (len(watch.of(Kind.REFUSED)) >= 1, len(watch.of(Kind.DEGRADED))) == (True, 1)
    own_server.start()
    deadline = time.monotonic() + 15
    while site.get("/api/protected")[0] == 503:  # nobody else asks the store: the protected path itself finds it back
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert json.loads(site.get("/-/health")[2])["state"] == "ready"
    assert "cache-status" not in site.get("/open")[1]


def test_a_store_that_was_never_there_is_noticed_by_the_first_request(make) -> None:
    site = make(Cache("redis://127.0.0.1:1", timeout=0.2), protected=["/api/protected"])
    assert site.get("/api/protected")[0] == 503
    assert site.reached == []


def test_the_body_is_a_choice(make) -> None:
    site = make(
        sources={"sessions": lambda: False}, protected=["/p"], body={"error": "gone", "retry": 30}, retry_after=5
    )
    status, headers, body = site.get("/p")
    assert (status, headers["content-type"], headers["retry-after"]) == (503, "application/json", "5")
    assert json.loads(body) == {"error": "gone", "retry": 30}
    status, headers, body = site.get("/p", "HEAD")
    assert (status, body, int(headers["content-length"]) > 0) == (503, b"", True)


def test_other_parts_count_too(make) -> None:
    well = {"sessions": True}
    site = make(Cache(), sources={"sessions": lambda: well["sessions"], "queue": lambda: True}, protected=["/p"])
    assert site.get("/p")[0] == 200
    well["sessions"] = False
    assert site.get("/p")[0] == 503
    assert site.get("/open")[1]["cache-status"] == "cachekit; fwd=bypass; detail=sessions-away"
    document = json.loads(site.get("/-/health")[2])
    assert document == {"state": "degraded", "parts": {"store": "ok", "sessions": "away", "queue": "ok"}}


def test_a_source_that_raises_is_away(make, caplog) -> None:
    def broken() -> bool:
        raise RuntimeError("a bug")

    site = make(sources={"sessions": broken}, protected=["/p"])
    assert site.get("/p")[0] == 503
    assert site.get("/open")[0] == 200
    assert "a bug" in caplog.text


def test_codes_and_paths_of_the_health_endpoint(make) -> None:
    well = {"x": True}
    site = make(sources={"x": lambda: well["x"]}, health_path="/healthz", codes={"degraded": 503, "ready": 204})
    assert site.get("/healthz")[0] == 204
    well["x"] = False
    assert site.get("/healthz")[0] == 503
    assert site.get("/healthz", "HEAD")[2] == b""
    assert site.get("/-/health")[2] == b"fine"
    assert site.get("/healthz", "POST")[2] == b"fine"


def test_warming_is_a_state(make) -> None:
    from cachekit.warm import Warmer

    warmer = Warmer(progress=False)
    site = make(warmer=warmer)
    status, _, body = site.get("/-/health")
    assert (status, json.loads(body)["state"]) == (503, "warming")
    warmer.run()
    assert site.get("/-/health")[0] == 200


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cachekit; hit; ttl=5", "cachekit; hit; ttl=5; detail=store-away"),
        ("edge; hit, cachekit; fwd=uri-miss", "edge; hit, cachekit; fwd=uri-miss; detail=store-away"),
        ("cachekit; fwd=bypass, edge; hit", "cachekit; fwd=bypass; detail=store-away, edge; hit"),
        ("cachekit; fwd=miss; detail=set-cookie", "cachekit; fwd=miss; detail=set-cookie"),
        ("cachekit-2; hit", "cachekit-2; hit|cachekit; fwd=bypass; detail=store-away"),
    ],
)
def test_cache_status_gets_the_detail(before: str, after: str) -> None:
    degrading = Degrading(DegradeOptions(), None, lambda _: None)
    made = degrading.mark([("Cache-Status", before)], ["store"])
    assert "|".join(value for _, value in made) == after


def test_websockets_to_protected_paths_are_closed() -> None:
    site = Site("asgi", None, sources={"x": lambda: False}, protected=["/p"])
    (closed,) = site.scope({"type": "websocket", "path": "/p", "headers": []})
    assert (closed["type"], closed["code"]) == ("websocket.close", 1013)
    assert site.scope({"type": "websocket", "path": "/open", "headers": []}) == []
    assert site.reached == ["/open"]
    site.close()


@pytest.mark.parametrize(
    ("patterns", "path", "wanted"),
    [
        (["/api/protected"], "/api/protected", True),
        (["/api/protected"], "/api/protected/", True),
        (["/api/protected"], "/api/protected/x/y", True),
        (["/api/protected"], "/api/protectedness", False),
        (["/api/protected"], "/api", False),
        (["/api/protected"], "//api/protected", True),
        (["/api/protected"], "/api//protected", True),
        (["/api/protected"], "/open/../api/protected", True),
        (["/api/protected"], "/api/./protected", True),
        (["/api/protected"], "/api\\protected", True),
        (["/orders/{id}/pay"], "/orders/7/pay", True),
        (["/orders/{id}/pay"], "/orders/7/pay/more", False),
        (["/a/**"], "/a/b/c", True),
        (["/"], "/anything", True),
        ([], "/anything", False),
        (["/a"], "/a" + "/x" * 5000, True),
    ],
)
def test_which_paths_are_meant(patterns: list[str], path: str, wanted: bool) -> None:
    assert (Paths(patterns).match(path) is not None) is wanted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protected": "/api"}, "protected"),
        ({"protected": ["api"]}, "begins with /"),
        ({"retry_after": -1}, "retry_after"),
        ({"body": "html"}, "body="),
        ({"body": {"a": object()}}, "JSON"),
        ({"health_path": "health"}, "health_path"),
        ({"codes": {"fine": 200}}, "codes"),
        ({"codes": {"ready": 99}}, "codes"),
        ({"max_age": -1}, "max_age"),
        ({"status_name": "a b"}, "status_name"),
        ({"sources": {"store": lambda: True}}, "store"),
        ({"sources": {"x": True}}, "sources"),
    ],
)
def test_wrong_settings_are_refused(make, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**settings)


def test_states_are_words() -> None:
    report = Health(None, {"x": lambda: False}).glance()
    assert (report.state, report.away) == (State.DEGRADED, ("x",))
