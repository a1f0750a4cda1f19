"""By whatever field an application knows its visitor: what it made for that visitor reaches nobody else."""

from __future__ import annotations

import pytest

from cachekit.http.credentials import CREDENTIALS, KNOWN
from cachekit.http.rules import Rule
from tests.http.conftest import Answer

ALL_BUT_TWO = [name for name in CREDENTIALS if name not in ("authorization", "cookie")]


def personal(seen):
    """Answer as an application that thought of no cache."""
    return Answer(body=next((value for name, value in seen.headers if name in CREDENTIALS), "stranger").encode())


@pytest.mark.parametrize("name", ALL_BUT_TWO)
@pytest.mark.parametrize("answer", ["by rule", "by age"])
def test_what_somebody_was_given_is_theirs(site, name, answer):
    site.setup([Rule("/**", ttl=60)] if answer == "by rule" else [])
    site.answers = personal
    if answer == "by age":
        site.answers = lambda seen: Answer(headers=[("Cache-Control", "max-age=60")], body=personal(seen).body)
    for who in ("ann", "bob", "ann"):
        got = site.request(headers={name: who})
        assert (got.body, got.hit) == (who.encode(), False)
    assert [site.get().body for _ in range(2)] == [b"stranger"] * 2
    assert site.request(headers={name: "ann"}).body == b"ann", "nor is a stranger's page theirs"
    assert site.get().hit


@pytest.mark.parametrize("name", ["remote-user", "x-forwarded-user", "x-token"])
def test_what_is_the_same_for_everyone_is_given_to_them(site, name):
    site.says("public, max-age=60")
    site.get()
    assert site.request(headers={name: "ann"}).hit
    site.setup([Rule("/**", ttl=60, shared=True)])
    site.says("max-age=60")
    site.get("/shared")
    assert site.request("GET", "/shared", {name: "ann"}).hit
    site.setup(credentials=["cookie"])
    site.get("/listed")
    assert site.request("GET", "/listed", {name: "ann"}).hit


SERVERS = {
    "wsgi": [{"REMOTE_USER": "{}"}, {"SSL_CLIENT_S_DN": "CN={}"}],
    "asgi": [
        {"extensions": {"tls": {"client_cert_name": "CN={}"}}},
        {"extensions": {"tls": {"client_cert_name": "{}"}}},
    ],
}


def said(site, number, who):
    """Return what the server says of *who*: nobody for an empty text, as some servers do."""
    if site.kind == "asgi":
        shape = SERVERS["asgi"][number]["extensions"]["tls"]["client_cert_name"]
        return {"extensions": {"tls": {"client_cert_name": shape.format(who) if who else None}}}
    ((name, shape),) = SERVERS["wsgi"][number].items()
    return {name: shape.format(who) if who else ""}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("shared", [None, True])
def test_whom_the_server_knows_is_known(site, number, shared):
    """Kerberos, client certificates, Basic authentication in Apache: none of it need be in a field of the request."""
    site.setup([Rule("/**", ttl=60, shared=shared)])
    site.answers = lambda seen: Answer(body=site.who.encode())
    hits = []
    for who in ("ann", "bob", "", "", "ann"):
        site.who = who or "stranger"
        site.server = said(site, number, who)
        got = site.get()
        hits.append(got.hit)
        assert shared or got.body == site.who.encode()
    assert hits == ([False, True, True, True, True] if shared else [False, False, False, True, False])


def test_a_variation_by_such_a_field_is_one_for_each(site):
    site.answers = lambda seen: Answer(
        headers=[("Cache-Control", "max-age=60"), ("Vary", "X-Forwarded-User")],
        body=(seen.get("x-forwarded-user") or "stranger").encode(),
    )
    for who in ("ann", "bob"):
        assert site.request(headers={"x-forwarded-user": who}).body == who.encode()
    for who in ("ann", "bob"):
        got = site.request(headers={"x-forwarded-user": who})
        assert (got.body, got.hit) == (who.encode(), True)


class Ann:
    is_authenticated = True


class Nobody:
    is_authenticated = False


class Unready:
    @property
    def is_authenticated(self):
        raise ValueError("accessing the user before it is ready")


def recognised(site, monkeypatch, find, *, before=False):
    """Have something inside, or *before* the cache, find out who is asking, as *find* says by the path."""
    inner, outer = site._app, site.app

    def put(asked):
        asked.update(find(asked.get("path") or asked.get("PATH_INFO")))

    def wsgi(app):
        return lambda environ, start: (put(environ), app(environ, start))[1]

    def asgi(app):
        async def call(scope, receive, send):
            put(scope)
            await app(scope, receive, send)

        return call

    around = asgi if site.kind == "asgi" else wsgi
    if before:
        site.app = around(outer)
    else:
        monkeypatch.setattr(site, "_app", around(inner))
        site.setup(site.rules)


def user(site, who):
    """Return what a middleware leaves behind that has recognised *who*."""
    if who == KNOWN:
        return {KNOWN: True}
    if site.kind != "asgi":
        return {"REMOTE_USER": "ann"} if who is Ann else {"REMOTE_USER": ""} if who is Nobody else {}
    return {} if who is None else {"user": who()}


@pytest.mark.parametrize("before", [False, True])
def test_whom_the_application_recognises_is_somebody(site, monkeypatch, before):
    """By an address, a token in the path, a field of its own: no field of the request says so."""
    site.rules = [Rule("/**", ttl=60, cache_control="max-age=60")]
    site.setup(site.rules)
    site.answers = lambda seen: Answer(body=b"page")
    who = {
        "/ann": Ann,
        "/told": KNOWN,
        "/nobody": Nobody,
        "/unready": Unready if site.kind == "asgi" else None,
        "/shared": Ann,
    }
    recognised(site, monkeypatch, lambda path: user(site, who[path]), before=before)
    for path in ("/ann", "/told")[: 1 if before else 2]:
        got = [site.get(path) for _ in range(3)]
        assert [one.hit for one in got] == [False] * 3
        assert all("private" in (one.get("cache-control") or "") for one in got), "nor is it a CDN's"
    for path in ("/nobody", "/unready"):
        assert [site.get(path).hit for _ in range(2)] == [False, True]
    site.says("public, max-age=60")
    assert [site.get("/shared").hit for _ in range(2)] == [False, True]


def test_whoever_says_that_users_make_no_difference_is_believed(site, monkeypatch):
    site.rules = [Rule("/**", ttl=60)]
    site.setup(site.rules, credentials=["cookie"])
    site.answers = lambda seen: Answer(body=b"page")
    recognised(site, monkeypatch, lambda path: user(site, Ann), before=True)
    site.get("/x")
    assert site.get("/x").hit
