"""RFC 9111 section 4.3.5: what the response to HEAD says about the stored response to GET."""

from __future__ import annotations

import pytest

from tests.http.conftest import Answer

STORED = [("Cache-Control", "max-age=60"), ("ETag", '"a"'), ("Content-Length", "4"), ("X-Old", "1")]

ROWS = [
    # name, status, headers, is the GET that follows a hit, what X-New says then
    ("the same", 200, [("ETag", '"a"'), ("Cache-Control", "max-age=60"), ("X-New", "2")], True, "2"),
    ("the same length", 200, [("ETag", '"a"'), ("Cache-Control", "max-age=60"), ("Content-Length", "4")], True, None),
    ("another length", 200, [("ETag", '"a"'), ("Cache-Control", "max-age=60"), ("Content-Length", "5")], False, None),
    ("another tag", 200, [("ETag", '"b"'), ("Cache-Control", "max-age=60")], False, None),
    ("a date that was not there", 200, [("Last-Modified", "Thu, 01 Jan 1998 00:00:00 GMT")], False, None),
    ("nothing to go by", 200, [("Cache-Control", "max-age=60")], False, None),
    ("gone", 410, [("Cache-Control", "max-age=60")], False, None),
    ("not to be stored any more", 200, [("ETag", '"a"'), ("Cache-Control", "no-store")], False, None),
]


@pytest.mark.parametrize(("status", "headers", "hit", "new"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_head(site, clock, status, headers, hit, new):
    site.answer(Answer(200, STORED), Answer(status, headers, b""), Answer(200, STORED))
    site.get()
    clock.advance(61)
    got = site.request("HEAD")
    assert (got.status, got.body, site.seen[1].method) == (status, b"", "HEAD")
    assert site.seen[1].get("if-none-match") is None
    got = site.get()
    assert (got.hit, got.body, got.get("x-new")) == (hit, b"body", new)
    assert got.get("x-old") == "1"
    if not hit:
        assert site.seen[2].get("if-none-match") is None


def test_an_error_says_nothing(site, clock):
    site.answer(Answer(200, STORED), Answer(403, [], b""), Answer(304, [("ETag", '"a"')], b""))
    site.get()
    clock.advance(61)
    assert site.request("HEAD").status == 403
    assert site.get().status == 200
    assert site.seen[2].get("if-none-match") == '"a"'


def test_a_head_of_a_user_changes_nothing_for_strangers(site, clock):
    site.answer(Answer(200, STORED), Answer(200, [("ETag", '"z"'), ("X-New", "of alice")], b""))
    site.get()
    site.request("HEAD", headers=[("cookie", "a=1"), ("cache-control", "no-cache")])
    got = site.get()
    assert got.hit
    assert got.get("x-new") is None


def test_nobody_waits_for_a_head(site, clock):
    site.answer(Answer(200, STORED), Answer(200, [], b""), Answer(200, STORED))
    site.get()
    clock.advance(61)
    site.request("HEAD")
    assert "stored" in site.get().cache_status
    assert site.get().hit
