"""The tables of the edge in ``[tool.cachekit]``, the commands that use them, and the middleware put together."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from cachekit import Cache, Cloudflare, ConfigError, Encryption, Fastly, Signing, Varnish
from cachekit.asgi import CacheKit as AsgiKit
from cachekit.asgi import Dashboard, DegradeOptions, Route, Rule, Webhook
from cachekit.config import RunConfig, load
from cachekit.edge_config import protection_of, purgers_of, webhook_of
from cachekit.webhook import sign
from cachekit.wsgi import CacheKit as WsgiKit
from tests.cdn.stand_in import Answer, StandIn
from tests.integrations.test_run import running
from tests.ports import free_port

SECRET = "correct horse battery"
ENV = {
    "CF": "cf-sesame",
    "FA": "fa-sesame",
    "VA": "va-sesame",
    "HOOK": SECRET,
    "OLD": "the older secret",
    "SHORT": "short",
}
ENV |= {"PAGE": "a long page password", "NEW_KEY": "n" * 43 + "=", "OLD_KEY": "o" * 43 + "="}
EVERYTHING = """
[tool.cachekit]
url = "redis://127.0.0.1:1"

[[tool.cachekit.purgers]]
type = "cloudflare"
zone = "z1"
token_env = "CF"
plan = "pro"

[[tool.cachekit.purgers]]
type = "fastly"
service = "s1"
token_env = "FA"
soft = true

[[tool.cachekit.purgers]]
type = "varnish"
url = "http://127.0.0.1:6081"
secret_env = "VA"

[tool.cachekit.purging]
rebound = "20s"

[tool.cachekit.webhook]
path = "/hooks"
secret_env = ["HOOK", "OLD"]
scheme = "standard"
tolerance = "1m"
mapping = "catalogue"

[tool.cachekit.webhook.events."post.edited"]
tags = ["post:{id}"]
changed = {"title, slug" = ["index"]}

[tool.cachekit.degradation]
protected = ["/api/protected"]
body = {error = "try again"}

[[tool.cachekit.routes]]
path = "/reports/**"
timeout = "5s"
concurrency = 4
queue = 8
failures = 5

[tool.cachekit.dashboard]
path = "/-/cachekit"
password_env = "PAGE"
refresh = 5

[tool.cachekit.protection]
kind = "encryption"
keys_env = ["NEW_KEY", "OLD_KEY"]
"""


def test_everything_can_be_configured(tmp_path, monkeypatch) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "cachekit.toml"
    file.write_text(EVERYTHING)
    config = load(file, {})
    purgers = purgers_of(config.purgers, ENV)
    assert purgers == [
        Cloudflare(zone="z1", token="cf-sesame", plan="pro"),
        Fastly(service="s1", token="fa-sesame", soft=True),
        Varnish("http://127.0.0.1:6081", secret="va-sesame"),
    ]
    webhook = config.received()
    assert webhook is not None
    assert (webhook.path, len(webhook.verifier._keys), webhook.verifier.tolerance) == ("/hooks", 2, 60)
    assert webhook.events.tags({"event": "post.edited", "data": {"id": 7}, "changed": ["slug"]}) == ("post:7", "index")
    assert "product.updated" in webhook.events.effects
    assert config.degraded() == DegradeOptions(protected=["/api/protected"], body={"error": "try again"})
    assert config.guarded() == (Route("/reports/**", timeout=5, concurrency=4, queue=8, failures=5),)
    assert config.observed() == Dashboard("/-/cachekit", password=ENV["PAGE"], refresh=5)
    protection = protection_of(config.protection)
    assert isinstance(protection, Encryption)
    assert Signing([ENV["NEW_KEY"]]).first == protection.first  # the first of them is for new values
    assert protection.reveal(Encryption([ENV["OLD_KEY"]]).protect(b"old", b""), b"") == b"old"
    assert not [secret for secret in ENV.values() if secret in repr((config, config.observed(), protection))]


PURGER = '[[tool.cachekit.purgers]]\ntype = "cloudflare"\n'


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            '[[tool.cachekit.purgers]]\ntype = "akamai"',
            r"purgers\[1\]: type must be one of cloudflare, fastly, varnish",
        ),
        (PURGER + 'zone = "z"\ntoken = "abc"', 'token does not belong in a file: write token_env = "NAME'),
        (PURGER + 'zone = "z"\ntoken_env = "NOT_SET"', r"purgers\[1\] \(cloudflare\): token_env names .* NOT_SET"),
        (PURGER + 'zone = "z"\ntoken_env = 5', "token_env must be the name"),
        (PURGER + 'zome = "z"\ntoken_env = "CF"', "did you mean 'zone'"),
        (PURGER + 'token_env = "CF"', "zone"),
        (PURGER + 'zone = "z"\nplan = "gold"\ntoken_env = "CF"', "plan='gold'"),
        ('[tool.cachekit]\npurgers = "x"', "purgers='x' must be a list"),
        ("[tool.cachekit.purging]\ndelay = -1", "purging: delay"),
        ("[tool.cachekit.purging]\nrebond = 1", "did you mean 'rebound'"),
        ('[tool.cachekit.webhook]\npath = "/x"', "secret_env is missing"),
        ('[tool.cachekit.webhook]\nsecret = "abc"', "secrets do not belong in a file"),
        ('[tool.cachekit.webhook]\nsecret_env = "NOT_SET"', "NOT_SET, which is not set"),
        ('[tool.cachekit.webhook]\nsecret_env = "HOOK"\npath = "x"', "webhook: path="),
        ('[tool.cachekit.webhook]\nsecret_env = "HOOK"\nscheme = "gitlab"', "scheme='gitlab'"),
        ('[tool.cachekit.webhook]\nsecret_env = "HOOK"\nmapping = "shop"', "mapping='shop'"),
        ('[tool.cachekit.webhook]\nsecret_env = "HOOK"\n[tool.cachekit.webhook.events.a]\ntag = ["b"]', "mean 'tags'"),
        ('[tool.cachekit.webhook]\nsecret_env = "HOOK"\n[tool.cachekit.webhook.events.a]\ntags = ["{0}"]', "events.a"),
        (
            '[tool.cachekit.webhook]\nsecret_env = "HOOK"\n[tool.cachekit.webhook.scheme]\nheader = "a"',
            "webhook.scheme",
        ),
        ('[tool.cachekit.degradation]\nprotectd = ["/a"]', "did you mean 'protected'"),
        ('[tool.cachekit.degradation]\nprotected = "/a"', "protected='/a'"),
        ('[tool.cachekit.dashboard]\npath = "/x"', "dashboard: password_env is missing"),
        ('[tool.cachekit.dashboard]\npassword_env = "PAGE"', "dashboard: path is missing"),
        ('[tool.cachekit.dashboard]\npath = "/x"\npassword = "a"', "dashboard: a password does not belong in a file"),
        ('[tool.cachekit.dashboard]\npath = "/x"\npassword_env = "NOT_SET"', "dashboard: .* NOT_SET, which is not set"),
        ('[tool.cachekit.dashboard]\npath = "/x"\npassword_env = "SHORT"', "^dashboard: password must be text of at"),
        ('[tool.cachekit.dashboard]\npath = "x"\npassword_env = "PAGE"', "^dashboard: path='x'"),
        ('[tool.cachekit.dashboard]\npath = "/x"\npublic = true\npassword_env = "PAGE"', "no setting 'public'"),
        ('[tool.cachekit.protection]\nkind = "rot13"\nkeys_env = "NEW_KEY"', "protection: kind='rot13' must be one of"),
        ('[tool.cachekit.protection]\nkind = "signing"', "protection: keys_env is missing"),
        ('[tool.cachekit.protection]\nkind = "signing"\nkeys = ["a"]', "protection: keys do not belong in a file"),
        ('[tool.cachekit.protection]\nkind = "signing"\nkeys_env = "SHORT"', r"protection: keys\[0\]"),
        ('[tool.cachekit.protection]\nkind = "signing"\nkeys_env = ["OLD_KEY", "NOT_SET"]', "NOT_SET, which is not"),
        ('[tool.cachekit.protection]\nkind = "signing"\nkey_env = "OLD_KEY"', "did you mean 'keys_env'"),
        ('[tool.cachekit]\nprotection = "signing"', "protection='signing' must be a table"),
        ('[[tool.cachekit.routes]]\ntimeout = "5s"', r"routes\[1\]: path is missing"),
        ('[[tool.cachekit.routes]]\npath = "/a"\ntimout = "5s"', "did you mean 'timeout'"),
        ('[[tool.cachekit.routes]]\npath = "/a"\nqueue = 3', "queue needs concurrency"),
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path, monkeypatch, table: str, said: str) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "cachekit.toml"
    file.write_text(table)
    with pytest.raises(ConfigError, match=said) as caught:
        load(file, {})
    assert not [secret for secret in ENV.values() if secret in str(caught.value)]


def test_no_tables_are_no_parts() -> None:
    config = RunConfig()
    assert (config.received(), config.degraded(), config.guarded(), purgers_of(config.purgers)) == (None, None, (), [])
    assert webhook_of({}) is None


@pytest.fixture
def cdn() -> Iterator[StandIn]:
    made = StandIn(Answer(200, {"success": True}))
    yield made
    made.close()


def test_run_serves_all_of_it(tmp_path, cdn: StandIn) -> None:
    table = f"""
[tool.cachekit]
[[tool.cachekit.purgers]]
type = "cloudflare"
zone = "z1"
token_env = "CF"
base_url = "{cdn.url}"
[tool.cachekit.purging]
delay = 0
[tool.cachekit.webhook]
secret_env = "HOOK"
[tool.cachekit.degradation]
protected = ["/api/protected"]
[tool.cachekit.dashboard]
path = "/-/cachekit"
password_env = "PAGE"
"""
    with running(tmp_path, "tests.apps.plain_asgi:app", table=table, env=ENV) as client:
        assert client.get("/-/health").json()["state"] == "ready"
        assert client.get("/-/cachekit").status_code == 401
        page = client.get("/-/cachekit", auth=("ops", ENV["PAGE"]))
        assert (page.status_code, "hit rate" in page.text) == (200, True)
        body = json.dumps({"event": "product.updated", "data": {"id": 42, "category_id": 7}, "changed": []}).encode()
        headers = dict(sign(SECRET, body, delivery_id="d1", now=time.time()))
        answer = client.post("/-/webhook", content=body, headers=headers)
        assert (answer.status_code, answer.json()["invalidated"]) == (200, ["product:42"])
        deadline = time.monotonic() + 15
        while not cdn.seen:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert cdn.seen[0].json == {"tags": ["product:42"]}


@pytest.mark.parametrize("app", ["tests.apps.plain_asgi:app", "tests.apps.plain_wsgi:app"])
def test_purges_that_only_a_worker_holds_are_delivered_at_its_end(tmp_path, cdn: StandIn, app: str) -> None:
    """Two workers on ``memory://``, asked to end before the delay is over."""
    table = f"""
[tool.cachekit]
url = "memory://"
[[tool.cachekit.purgers]]
type = "cloudflare"
zone = "z1"
token_env = "CF"
base_url = "{cdn.url}"
[tool.cachekit.purging]
delay = 2
flush = 10
[tool.cachekit.webhook]
secret_env = "HOOK"
"""
    with running(tmp_path, app, "--workers", "2", table=table, env=ENV) as client:
        body = json.dumps({"event": "product.updated", "data": {"id": 42, "category_id": 7}, "changed": []}).encode()
        headers = dict(sign(SECRET, body, delivery_id="d1", now=time.time()))
        assert client.post("/-/webhook", content=body, headers=headers).status_code == 200
    assert [seen.json for seen in cdn.seen] == [{"tags": ["product:42"]}]


def cli(tmp_path, *arguments: str, table: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    import os

    file = tmp_path / "cachekit.toml"
    file.write_text(table)
    return subprocess.run(
        [sys.executable, "-m", "cachekit", *arguments, "--config", str(file)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env},
    )  # fmt: skip


def test_tags_are_invalidated_from_the_command_line(tmp_path, valkey, cdn: StandIn) -> None:
    with valkey.client() as client:
        client.flushall()
    table = f"""
[tool.cachekit]
url = "{valkey.url}"
timeout = 5
[[tool.cachekit.purgers]]
type = "cloudflare"
zone = "z1"
token_env = "CF"
base_url = "{cdn.url}"
[tool.cachekit.purging]
delay = 0
first_pause = "1ms"
longest_pause = "1ms"
give_up_after = "1ms"
"""
    with Cache(valkey.url, timeout=5) as cache:
        cache.set("k", 1, tags=["product:42"])
        done = cli(tmp_path, "invalidate", "product:42", table=table, env=ENV)
        assert (done.returncode, done.stderr) == (0, "")
        assert "cloudflare-z1: 0 pending, 0 given up, 1 delivered" in done.stdout
        assert cache.get("k") is None
    cdn.usual = Answer(500)
    done = cli(tmp_path, "invalidate", "product:43", "--wait", "20", table=table, env=ENV)
    shown = cli(tmp_path, "purges", table=table, env=ENV)
    assert "1 given up" in shown.stdout
    assert "last error: status 500" in shown.stdout or "last error: 500" in shown.stdout
    assert "1 purges are tried anew" in cli(tmp_path, "purges", "--retry-dead", table=table, env=ENV).stdout
    refused = cli(tmp_path, "purges", table="[tool.cachekit]", env=ENV)
    assert (refused.returncode, "memory://" in refused.stderr) == (2, True)


def test_purges_of_a_store_that_cannot_be_reached(tmp_path) -> None:
    done = cli(tmp_path, "purges", "--store", f"redis://127.0.0.1:{free_port()}", table="[tool.cachekit]", env=ENV)
    assert (done.returncode, "the store cannot be reached" in done.stderr) == (1, True)


# -- put together --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_the_parts_stand_in_the_right_order(kind: str, clock) -> None:
    """A broken application behind guards is served stale by the cache; the webhook ends that; protection is outermost."""
    from tests.degrade.test_degradation import Site as Shape

    well = {"sessions": True}
    broken = False
    parts = {
        "rules": [Rule("/p/{id}", ttl=10, stale_if_error="1h", tags=["product:{id}"])],
        "routes": [Route("/p/**", failures=2)],
        "webhook": Webhook(SECRET),
        "degradation": DegradeOptions(protected=["/api/protected"], sources={"sessions": lambda: well["sessions"]}),
    }
    cache = Cache(clock=clock)

    async def aapp(scope, receive, send):
        status = 500 if broken else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    def app(environ, start_response):
        start_response("500 Oops" if broken else "200 OK", [])
        return [b"page"]

    site = Shape(kind, None)
    site.app = AsgiKit(aapp, cache=cache, **parts) if kind == "asgi" else WsgiKit(app, cache=cache, **parts)

    def get(path: str, **more):
        if kind == "wsgi":
            from tests.degrade.test_guards import wcall

            return wcall(site.app, path)
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"host", b"e.example")], "scheme": "http",
        }  # fmt: skip
        sent = site.scope(scope)
        return sent[0]["status"], {n.decode(): v.decode() for n, v in sent[0]["headers"]}, sent[1].get("body", b"")

    assert get("/p/42")[0] == 200
    assert "hit" in get("/p/42")[1]["cache-status"]
    broken = True
    clock.advance(11)
    for _ in range(4):
        assert get("/p/42")[::2] == (200, b"page")  # two failures, then the breaker: stale all the time
    assert site.app.guards is not None
    assert site.app.guards.counts["/p/**"].failed == 2
    assert get("/-/webhook")[0] == 405
    cache.invalidate("product:42")
    assert get("/p/42")[0] == 503
    assert get("/api/protected")[0] == 500
    well["sessions"] = False
    assert get("/api/protected")[0] == 503
    assert "detail=sessions-away" in get("/other")[1]["cache-status"]
    assert json.loads(get("/-/health")[2])["state"] == "degraded"
    site.close()


def test_flask_takes_the_parts(clock) -> None:
    flask = pytest.importorskip("flask")
    from cachekit_flask import CacheKit

    app = flask.Flask("shop")
    CacheKit(
        app, cache=Cache(clock=clock), webhook=Webhook(SECRET), routes=[Route("/p", concurrency=4)],
        degradation=DegradeOptions(protected=["/account"], sources={"sessions": lambda: False}),
    )  # fmt: skip
    client = app.test_client()
    assert client.get("/account/orders").status_code == 503
    assert client.get("/-/health").json["state"] == "degraded"
    body = json.dumps({"event": "product.deleted", "data": {"id": 1, "category_id": 2}}).encode()
    answer = client.post("/-/webhook", data=body, headers=dict(sign(SECRET, body, delivery_id="d", now=clock())))
    assert answer.json["invalidated"] == ["product:1", "category:2", "search-results"]
