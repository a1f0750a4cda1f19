"""RFC 9111 section 4.4: unsafe methods. Each row goes through both edges."""

from __future__ import annotations

import pytest

from tests.http.conftest import Answer

FRESH = ("Cache-Control", "max-age=60")

ROWS = [
    # name, method, status, headers, is /x dropped, is /y dropped
    ("POST", "POST", 200, [], True, False),
    ("PUT", "PUT", 204, [], True, False),
    ("DELETE", "DELETE", 200, [], True, False),
    ("PATCH", "PATCH", 200, [], True, False),
    ("redirect", "POST", 303, [], True, False),
    ("client error", "POST", 400, [], False, False),
    ("server error", "POST", 500, [], False, False),
    ("OPTIONS", "OPTIONS", 200, [], False, False),
    ("Location", "POST", 201, [("Location", "/y")], True, True),
    ("Content-Location", "POST", 200, [("Content-Location", "https://example.org/y")], True, True),
    ("relative Location", "POST", 201, [("Location", "y")], True, True),
    ("absolute Location, port", "POST", 201, [("Location", "https://EXAMPLE.org:443/y")], True, True),
    ("Location elsewhere", "POST", 201, [("Location", "https://other.org/y")], True, False),
    ("Location by http", "POST", 201, [("Location", "http://example.org/y")], True, False),
    ("Location that is none", "POST", 201, [("Location", "http://[::1")], True, False),
    ("Location on error", "POST", 409, [("Location", "/y")], False, False),
]


@pytest.mark.parametrize(
    ("method", "status", "headers", "own", "other"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_invalidation(site, method, status, headers, own, other):
    site.answer([FRESH])
    site.get("/x")
    site.get("/y")
    site.get("/x?q")
    site.answer(Answer(status, headers, b"" if status == 204 else b"done"))
    assert site.request(method, "/x", {"content-length": "1"}, b"d").status == status
    site.answer([FRESH])
    assert site.get("/x").hit is not own
    assert site.get("/y").hit is not other
    assert site.get("/x?q").hit


def test_it_is_dropped_before_the_client_hears_of_it(build, fake):
    site = build(fake)
    site.answer([FRESH])
    site.get()
    entries = []
    site.answer(Answer(200, during=lambda: entries.append(len(fake.entries))))
    site.request("POST", "/x")
    assert not fake.entries


def test_what_is_being_loaded_meanwhile_is_not_kept(site):
    """A page that was computed before a change must not be stored after it."""

    def change():
        site.answer(Answer(200))
        inner = site.request if site.kind != "asgi" else None
        if inner is not None:
            inner("POST", "/x")

    if site.kind == "asgi":
        pytest.skip("one loop cannot nest requests; see the collapsing tests")
    site.answer(Answer(headers=[FRESH], body=b"old", before=change))
    assert site.get().body == b"old"
    site.answer(Answer(headers=[FRESH], body=b"new"))
    assert site.get().body == b"new"


@pytest.mark.parametrize("name", ["x-forwarded-host", "x-original-url", "forwarded"])
@pytest.mark.parametrize("more", [[], [("Location", "/elsewhere")]])
def test_what_sets_responses_apart_keeps_no_change_from_the_url(site, name, more):
    site.says("max-age=60")
    value = "host=other.org" if name == "forwarded" else "other.org"
    for headers in ([], [(name, value)]):
        site.request("GET", "/x", headers)
    site.answer(Answer(headers=more))
    site.request("POST", "/x", [(name, value)])
    site.says("max-age=60")
    for headers in ([], [(name, value)]):
        assert not site.request("GET", "/x", headers).hit
