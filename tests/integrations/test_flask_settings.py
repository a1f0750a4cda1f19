"""Each setting and each argument of the Flask adapter: what it does, and what a wrong value is told at the start."""

from __future__ import annotations

import json
from typing import Any

import pytest

flask = pytest.importorskip("flask")

from cachekit_flask import CacheKit, CacheKitSessionInterface, DegradeOptions, Webhook  # noqa: E402
from cachekit_flask.settings import NAMES  # noqa: E402

from cachekit import Cache, Cloudflare, ConfigError  # noqa: E402
from cachekit.sessions import Sessions  # noqa: E402
from cachekit.testing import ManualClock  # noqa: E402
from cachekit.webhook import sign  # noqa: E402
from tests.cdn.stand_in import Answer, StandIn  # noqa: E402

SECRET = "correct horse battery"


def application(**config: Any) -> Any:
    app = flask.Flask("shop")
    app.secret_key = "dev"
    app.config.update(config)
    return app


# -- what they do -----------------------------------------------------------------------------------------------------


def test_webhook() -> None:
    calls = []
    app = application(
        CACHEKIT_WEBHOOK=Webhook(SECRET, path="/hook"),
        CACHEKIT_RULES=[{"path": "/products/{id}", "ttl": "1h", "tags": ["product:{id}"]}],
    )

    @app.get("/products/<int:number>")
    def product(number):
        calls.append(number)
        return str(len(calls))

    kit = CacheKit(app)
    client = app.test_client()
    assert [client.get("/products/42").text for _ in range(2)] == ["1", "1"]
    body = json.dumps({"event": "product.updated", "data": {"id": 42}, "changed": ["price"]}).encode()
    assert client.post("/hook", data=body).status_code == 401
    assert client.get("/products/42").text == "1"
    fields = sign(SECRET, body, delivery_id="d1", now=kit.cache.clock())
    assert client.post("/hook", data=body, headers=fields).status_code == 200
    assert client.get("/products/42").text == "2"


@pytest.mark.parametrize("given", [{"protected": ["/pay/**"], "retry_after": 7}, DegradeOptions(["/pay/**"], 7)])
def test_degradation(given: Any) -> None:
    app = application(CACHEKIT_DEGRADATION=given, CACHEKIT_URL="redis://127.0.0.1:1")  # where nobody listens
    app.add_url_rule("/pay/now", "pay", lambda: "paid")
    app.add_url_rule("/", "home", lambda: "home")
    CacheKit(app)
    client = app.test_client()
    refused = client.get("/pay/now")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "7")
    assert client.get("/").text == "home"
    assert client.get("/-/health").json["state"] == "degraded"


def test_routes() -> None:
    clock, calls = ManualClock(), []
    app = application(CACHEKIT_ROUTES=[{"path": "/reports/**", "failures": 2, "pause": "30s"}])

    @app.get("/reports/all")
    @app.get("/other")
    def broken():
        calls.append(flask.request.path)
        return "broken", 500

    CacheKit(app, cache=Cache(clock=clock))
    client = app.test_client()
    assert [client.get("/reports/all", buffered=True).status_code for _ in range(4)] == [500, 500, 503, 503]
    assert [client.get("/other", buffered=True).status_code for _ in range(4)] == [500] * 4
    assert calls.count("/reports/all") == 2
    clock.advance(31)
    assert client.get("/reports/all", buffered=True).status_code == 500, "it is tried again"


def test_purgers() -> None:
    cdn = StandIn(Answer(200, {"success": True, "errors": [], "messages": [], "result": {"id": "z1"}}))
    try:
        purger = Cloudflare(zone="z1", token="sesame", base_url=cdn.url, plan="enterprise")
        app = application(CACHEKIT_PURGERS=[purger], CACHEKIT_URL="memory://")
        kit = CacheKit(app)
        outbox = kit.cache.outbox
        assert outbox is not None
        kit.invalidate("product:42")
        assert kit.cache.purges()[purger.name].pending == 1
    finally:
        cdn.close()


def test_purgers_beside_those_of_the_cache_are_refused_and_not_forgotten() -> None:
    ours, theirs = (Cloudflare(zone=f"z{n}", token="sesame", name=name) for n, name in enumerate(("ours", "theirs")))
    cache = Cache(purgers=[theirs])
    with pytest.raises(ConfigError, match=r"CACHEKIT_PURGERS=\['ours'\].*theirs.*name all of them"):
        CacheKit(application(CACHEKIT_PURGERS=[ours]), cache=cache)
    shared = Cache()
    for _ in range(2):  # two applications with one cache
        CacheKit(application(CACHEKIT_PURGERS=[ours]), cache=shared)
    assert list(shared.outbox.purgers) == ["ours"]


# -- what a wrong value is told ---------------------------------------------------------------------------------------

WRONG: list[tuple[str, Any, str]] = [
    ("URL", 7, "must be a URL such as"),
    ("URL", "", "must be a URL such as"),
    ("URL", "http://x", "unknown URL scheme 'http'.*use one of"),
    ("TTL", "soon", 'ttl=.soon. is not a duration.*"5m"'),
    ("TTL", -5, "negative"),
    ("TTL_CLASSES", "5m", "must be a dictionary such as"),
    ("TTL_CLASSES", {5: "5m"}, "must be a dictionary such as"),
    ("TTL_CLASSES", {"prices": "soon"}, "'soon' is not a duration"),
    ("JITTER", "x", "from 0 to 1"),
    ("JITTER", 2, "below 1"),
    ("STALE_WHILE_REVALIDATE", "soon", "stale_while_revalidate=.soon. is not a duration"),
    ("STALE_IF_ERROR", "soon", "stale_if_error=.soon. is not a duration"),
    ("NAMESPACE", 5, "must be a word"),
    ("TIMEOUT", "1", "must be the seconds"),
    ("TIMEOUT", -1, "more than 0"),
    ("MAX_ENTRIES", "5", "must be a whole number"),
    ("MAX_ENTRIES", 0, "positive"),
    ("MAX_BYTES", "x", "number of bytes"),
    ("MAX_BYTES", -5, "positive"),
    ("ENABLED", 1, "must be True or False"),
    ("RULES", "x", "must be a list of Rule"),
    ("RULES", 5, "must be a list of Rule"),
    ("RULES", [{"path": "/a", "tll": 1}], "no 'tll' .did you mean 'ttl'"),
    ("HTTP", "x", "must be HttpOptions"),
    ("HTTP", {"max_bodies": 1}, "did you mean 'max_body'"),
    ("COMPRESSION", 7, "must be True, False, Compression"),
    ("COMPRESSION", {"minimum": -1}, "minimum=-1"),
    ("SESSIONS", "yes", "must be True, False, SessionOptions"),
    ("SESSIONS", {"ttl": "1h"}, "'secrets' is missing"),
    ("SESSIONS", {"secrets": "short"}, "at least 16"),
    ("SESSIONS", {"secrets": SECRET, "max_bytes": "x"}, "max_bytes='x' must be a whole number"),
    ("WEBHOOK", "secret", "must be Webhook"),
    ("WEBHOOK", {"secrets": SECRET}, "must be Webhook"),
    ("DEGRADATION", "x", "must be DegradeOptions"),
    ("DEGRADATION", {"protect": []}, "did you mean 'protected'"),
    ("DEGRADATION", {"protected": "/pay"}, "must be a list of paths"),
    ("DEGRADATION", {"retry_after": "x"}, "retry_after='x' must be a whole number"),
    ("ROUTES", "x", "must be a list of Route"),
    ("ROUTES", ["x"], "must be a list of Route"),
    ("ROUTES", [{"timeout": 1}], "'path' is missing"),
    ("ROUTES", [{"path": "/a", "timout": 1}], "did you mean 'timeout'"),
    ("ROUTES", [{"path": "/a", "timeout": "soon"}], "'soon' is not a duration"),
    ("PURGERS", "x", "must be a list of purgers"),
    ("PURGERS", ["x"], "must be a list of purgers"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_wrong_setting_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        CacheKit(application(**{f"CACHEKIT_{name}": value}))
    said = str(caught.value)
    assert f"CACHEKIT_{name}" in said or "CACHEKIT_*" in said
    assert repr(value) in said or str(next(iter(value.values())) if isinstance(value, dict) else value) in said


def test_every_setting_is_in_the_table() -> None:
    assert {f"CACHEKIT_{name}" for name, _, _ in WRONG} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cache", "redis://x", "cache='redis://x' must be a Cache"),
        ("rules", 5, "rules=5 must be a list of Rule"),
        ("rules", ["/a"], "rules must be a list of Rule"),
        ("options", {"max_body": 1}, "options={.*} must be HttpOptions"),
        ("compression", "gzip", "compression='gzip' must be True, False"),
        ("sessions", "yes", "sessions='yes' must be True, SessionOptions"),
        ("webhook", "secret", "webhook='secret' must be Webhook"),
        ("degradation", "x", "degradation='x' must be DegradeOptions"),
        ("routes", 5, "routes=5 must be a list of Route"),
        ("routes", ["/a"], "routes must be a list of Route"),
        ("warmer", "x", "warmer='x' must be a cachekit.warm.Warmer"),
        ("app", "x", "app='x' must be a Flask application"),
    ],
)
def test_a_wrong_argument_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CacheKit(**{"app": application(), name: value})


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Cache(), {"ttl": "1h"}, "no option 'ttl'.*absolute_ttl"),
        (Cache(), {"counter": ["x"]}, "no option 'counter' .did you mean 'counters'"),
        (Cache(), {"counters": "x"}, "counters='x' must be a list"),
        (5, {}, "not in int"),
        ("http://x", {}, "unknown URL scheme 'http'"),
        (Sessions("memory://", CacheKitSessionInterface(Cache())._source.options), {"counters": ["x"]}, "none beside"),
    ],
)
def test_a_wrong_interface_is_named(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CacheKitSessionInterface(source, **options)
