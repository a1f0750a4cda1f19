"""Nothing meant for one user reaches another. Each row goes through both edges."""

from __future__ import annotations

import pytest

from cachekit.http.rules import Rule
from tests.http.conftest import Answer

CC = "Cache-Control"
ALICE, BOB = {"cookie": "session=alice"}, {"cookie": "session=bob"}
CREDENTIALS = [
    (ALICE, BOB),
    ({"authorization": "Bearer alice"}, {"authorization": "Bearer bob"}),
    ({"x-api-key": "alice"}, {"x-api-key": "bob"}),
]


def personal(headers):
    """Answer each user with a page of their own, as an application would that thought of no cache."""

    def respond(seen):
        names = ("cookie", "authorization", "x-api-key")
        who = next((value for name in names if (value := seen.get(name))), "stranger")
        return Answer(headers=headers, body=who.rpartition("=")[2].rpartition(" ")[2].encode())

    return respond


RULES = [
    ("ttl", Rule("/**", ttl=60)),
    ("s-maxage", Rule("/**", cache_control="s-maxage=60")),
    ("max-age", Rule("/**", cache_control="max-age=60")),
    ("surrogate", Rule("/**", surrogate_control="max-age=60")),
    ("ttl with override", Rule("/**", ttl=60, override=True)),
    ("shared=False beats public", Rule("/**", cache_control="public, max-age=60", shared=False)),
    ("deception", Rule("/**/*.css", ttl=60)),
]
SAYS = [
    ("nothing", []),
    ("max-age", [(CC, "max-age=60")]),
    ("Vary: Accept", [("Vary", "Accept")]),
    ("Expires", [("Expires", "Sat, 01 Jan 2050 00:00:00 GMT")]),
    ("private", [(CC, "private, max-age=60")]),
    ("no-store", [(CC, "no-store")]),
    ("no-cache", [(CC, "no-cache")]),
    ("Vary: Cookie", [(CC, "max-age=60"), ("Vary", "Cookie, Authorization, X-Api-Key")]),
    ("Vary: Cookie alone", [("Vary", "Cookie, Authorization, X-Api-Key")]),
]


@pytest.mark.parametrize("says", [s[1] for s in SAYS], ids=[s[0] for s in SAYS])
@pytest.mark.parametrize("rule", [r[1] for r in RULES], ids=[r[0] for r in RULES])
@pytest.mark.parametrize(("alice", "bob"), CREDENTIALS, ids=["cookie", "authorization", "api-key"])
def test_everyone_gets_their_own(site, rule, says, alice, bob):
    site.setup([rule], stale_if_error=3600, stale_while_revalidate=3600)
    site.answers = personal(says)
    target = "/account/x.css"
    for _ in range(2):
        for headers, who in ((alice, b"alice"), ({}, b"stranger"), (bob, b"bob"), (alice, b"alice")):
            got = site.request("GET", target, headers)
            assert got.body == who
            site.settle()
            if headers and got.get("surrogate-control"):
                pytest.fail("a shared cache further out was told to store a personal page")
            control = got.get("cache-control") or ""
            if headers and rule.control and not any(name == CC for name, _ in says):
                assert control == "" or "private" in control or any(name == "Expires" for name, _ in says)


def test_a_stranger_s_page_is_not_for_users_nor_theirs_for_strangers(site):
    site.setup([Rule("/**", ttl=60)])
    site.answers = personal([])
    assert site.get().body == b"stranger"
    assert site.get().hit
    got = site.request(headers=ALICE)
    assert (got.body, got.hit) == (b"alice", False)
    assert "fwd=bypass" in got.cache_status
    assert site.get().hit


SHARED = [
    ("shared=True", Rule("/**", ttl=60, shared=True), []),
    ("public in the rule", Rule("/**", cache_control="public, s-maxage=60"), []),
    ("public by the application", Rule("/**", ttl=60), [(CC, "public")]),
    ("s-maxage by the application", Rule("/none"), [(CC, "s-maxage=60")]),
    ("targeted by the application", Rule("/none"), [("CDN-Cache-Control", "max-age=60")]),
]


@pytest.mark.parametrize(("rule", "says"), [r[1:] for r in SHARED], ids=[r[0] for r in SHARED])
@pytest.mark.parametrize(("alice", "bob"), CREDENTIALS, ids=["cookie", "authorization", "api-key"])
def test_what_is_declared_for_everyone_is(site, rule, says, alice, bob):
    site.setup([rule]).answer(says)
    site.request(headers=alice)
    assert site.request(headers=bob).hit
    assert site.get().hit


@pytest.mark.parametrize(
    "rule",
    [
        Rule("/**", cache_control="public, max-age=60", surrogate_control="max-age=60", tags=["t"]),
        Rule("/**", ttl=60, shared=True, override=True, cache_control="s-maxage=60"),
    ],
)
@pytest.mark.parametrize("says", [[("Set-Cookie", "session=1")], [(CC, "private")], [(CC, "no-store")]])
def test_no_rule_makes_a_personal_response_public(site, rule, says):
    site.setup([rule]).answer(says)
    for headers in ({}, ALICE):
        got = site.request(headers=headers)
        assert not got.hit
        assert got.get("cache-control") == next((v for n, v in says if n == CC), None)
        assert got.get("surrogate-control") is None
        assert got.get("cache-tag") is None


def test_a_session_that_begins_is_not_stored(site):
    """The first visit carries no cookie; the response sets one."""
    count = iter(range(10))
    site.setup([Rule("/**", ttl=60, shared=True)])
    site.answers = lambda seen: Answer(headers=[("Set-Cookie", f"session={next(count)}")])
    assert [site.get().all("set-cookie") for _ in range(3)] == [["session=0"], ["session=1"], ["session=2"]]


REFLECTED = [
    "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix", "x-host", "x-original-url", "x-rewrite-url",
    "forwarded", "x-http-method-override",
]  # fmt: skip


@pytest.mark.parametrize("name", REFLECTED)
def test_reflected_input_poisons_nobody(site, name):
    value = "host=evil.example" if name == "forwarded" else "evil.example"

    def respond(seen):
        return Answer(headers=[(CC, "public, max-age=60")], body=(seen.get(name) or "clean").encode())

    site.answers = respond
    assert site.request(headers={name: value}).body == value.encode()
    assert site.get().body == b"clean"
    assert site.request(headers={name: value}).body == value.encode()
    assert site.forwards == 2


@pytest.mark.parametrize("name", ["X_Forwarded_Host", "X_Forwarded-Prefix", "x_original_url"])
def test_an_underscore_may_mean_a_dash_to_the_application(site, name):
    """WSGI and CGI make one variable of both."""

    def respond(seen):
        wanted = name.lower().replace("_", "-")
        said = [value for field, value in seen.headers if field.lower().replace("_", "-") == wanted]
        return Answer(headers=[(CC, "public, max-age=60")], body=(said[0] if said else "clean").encode())

    site.answers = respond
    assert site.request(headers=[(name, "evil.example")]).body == b"evil.example"
    assert site.get().body == b"clean"


def test_credentials_with_an_underscore_are_credentials(site):
    site.says("max-age=60", body=b"alice")
    site.request(headers=[("X_Api_Key", "alice")])
    site.says("max-age=60", body=b"stranger")
    assert site.get().body == b"stranger"


def test_a_field_is_chosen_by_either_spelling(site):
    site.setup(key_headers=["X_Tenant"])
    site.answers = lambda seen: Answer(headers=[(CC, "max-age=60"), ("Vary", "X_Colour")])
    for asked in ([], [("x-tenant", "a")], [("x_tenant", "b")], [("x_colour", "red")], [("x-colour", "blue")]):
        assert not site.request(headers=asked).hit
    assert site.request(headers=[("x-tenant", "b")]).hit


def test_a_proxy_that_only_confirms_splits_nothing(site):
    site.says("max-age=60")
    site.get()
    assert site.get(x_forwarded_host="example.org", x_forwarded_proto="https", forwarded="for=1.2.3.4").hit


def test_the_target_cannot_forge_a_keyed_field(site):
    site.answers = lambda seen: Answer(headers=[(CC, "max-age=60")], body=str(seen.headers).encode())
    one = site.request(headers={"x-host": "a x-rewrite-url=b"})
    two = site.request(headers={"x-host": "a", "x-rewrite-url": "b"})
    assert one.body != two.body


def test_two_hosts_have_no_key(site):
    if site.kind != "asgi":
        pytest.skip("WSGI has one Host")
    site.says("max-age=60")
    for _ in range(2):
        got = site.request(headers=[("host", "a.example"), ("host", "b.example")])
        assert "fwd=bypass" in got.cache_status


@pytest.mark.parametrize("field", ["Surrogate-Control", "CDN-Cache-Control"])
@pytest.mark.parametrize("value", ["0", "unknown", "no-store-remote", 'content="ESI/1.0"', "unknown=1"])
def test_a_targeted_field_without_a_lifetime_declares_nobody_s_response_to_be_everyone_s(site, field, value):
    site.setup([Rule("/**", ttl=60)])
    site.answer(Answer(headers=[(field, value)], body=b"of one user"))
    site.get("/mine", authorization="Bearer one")
    got = site.get("/mine", authorization="Bearer two")
    assert not got.hit
