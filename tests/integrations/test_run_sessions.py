"""Sessions under ``cachekit run``: the table, where the secrets come from, and applications that were not changed."""

from __future__ import annotations

import re

import httpx
import pytest

from cachekit import ConfigError, Encryption
from cachekit.config import RunConfig, load
from tests.integrations.test_run import running

ENV = {
    "SESSION_SECRET": "a long text of tests, and random",
    "SESSION_SECRET_BEFORE": "the one before, as long as it",
    "SHORT": "short",
    "KEY": "k" * 43 + "=",
}
TABLE = """
[tool.cachekit]
url = "{url}"

[tool.cachekit.sessions]
secrets_env = ["SESSION_SECRET", "SESSION_SECRET_BEFORE"]
ttl = "2h"
counters = ["visits"]
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


def read(tmp_path, table: str, **options) -> RunConfig:
    file = tmp_path / "cachekit.toml"
    file.write_text(table)
    return load(file, options)


def test_the_table(tmp_path) -> None:
    more = 'url = "redis://h/1"\n[tool.cachekit.sessions.protection]\nkind = "encryption"\nkeys_env = "KEY"\n'
    found = read(tmp_path, TABLE.format(url="memory://") + more).visitors()
    assert found is not None
    url, options = found
    assert url == "redis://h/1"
    assert options.keys == (ENV["SESSION_SECRET"], ENV["SESSION_SECRET_BEFORE"])
    assert (options.life(remembered=False), options.counters) == (7200, ["visits"])
    assert isinstance(options.protection, Encryption)
    assert not [secret for secret in ENV.values() if secret in repr((found, read(tmp_path, TABLE)))]


SECRETS = '[tool.cachekit.sessions]\nsecrets_env = "SESSION_SECRET"\n'


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('[tool.cachekit.sessions]\nttl = "1h"', "sessions: secrets_env is missing"),
        ('[tool.cachekit.sessions]\nsecrets = "abc"', "sessions: secrets do not belong in a file"),
        (
            '[tool.cachekit.sessions]\nsecrets_env = "NOT_SET"',
            "sessions: secrets_env names .* NOT_SET, which is not set",
        ),
        ('[tool.cachekit.sessions]\nsecrets_env = "SHORT"', "sessions: secrets must be one or more strings"),
        (SECRETS + 'tll = "1h"', "did you mean 'ttl'"),
        (SECRETS + 'ttl = "soon"', "sessions: .*soon"),
        (SECRETS + 'codec = "json"', "no setting 'codec'"),
        (SECRETS + "url = 5", "sessions: url=5"),
        (SECRETS + 'same_site = "maybe"', "sessions: same_site='maybe'"),
        (SECRETS + '[tool.cachekit.sessions.protection]\nkind = "x"', "sessions.protection: kind='x'"),
        ("[tool.cachekit]\nworkers = 2\n" + SECRETS, "with 2 workers each would know other sessions"),
        (
            '[tool.cachekit]\nworkers = 2\nurl = "redis://h"\n' + SECRETS + 'url = "embedded://"',
            "with 2 workers each would know other sessions",
        ),
        ('[tool.cachekit]\nto = "http://127.0.0.1:1"\n' + SECRETS, "a proxy has none"),
        ('[tool.cachekit]\nsessions = "x"', "sessions='x' must be a table"),
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path, table: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(tmp_path, table)
    assert not [secret for secret in ENV.values() if len(secret) > 5 and secret in str(caught.value)]


def visit(client: httpx.Client, cookie: str = "") -> tuple[dict, str, httpx.Headers]:
    got = client.get("/visit", headers={"Cookie": cookie} if cookie else {})
    assert got.status_code == 200
    return got.json(), got.headers.get("set-cookie", "").partition(";")[0], got.headers


@pytest.mark.server
@pytest.mark.parametrize("app", ["visits_asgi", "visits_wsgi"])
def test_an_unchanged_application_has_sessions(tmp_path, valkey, app: str) -> None:
    with running(tmp_path, f"tests.apps.{app}:app", table=TABLE.format(url=valkey.url), env=ENV) as client:
        said, cookie, headers = visit(client)
        assert said["visits"] == 1
        assert cookie.startswith("__Host-session=")
        assert (headers["cache-control"], headers["vary"]) == ("private", "Cookie")
        assert visit(client, cookie)[0]["visits"] == 2
        assert visit(client)[0]["visits"] == 1, "somebody else"
        assert "set-cookie" not in client.get("/other").headers
        shown = client.log.read_text()
        assert re.search(r"sessions\s+__Host-session, kept 2h, where the cache is", shown)
        assert not [secret for secret in ENV.values() if len(secret) > 5 and secret in shown]


@pytest.mark.server
def test_workers_share_the_sessions_on_an_embedded_server(tmp_path) -> None:
    table, visits, pids = TABLE.format(url="tiered+embedded://"), 0, set()
    with running(tmp_path, "tests.apps.visits_asgi:app", "--workers", "2", table=table, env=ENV) as client:
        _, cookie, _ = visit(client)
        for visits in range(2, 62):
            with httpx.Client(base_url=client.base_url, trust_env=False) as one:
                said, _, _ = visit(one, cookie)
            assert said["visits"] == visits, "whichever worker answers"
            pids.add(said["pid"])
            if len(pids) == 2:
                break
    assert visits > 2
