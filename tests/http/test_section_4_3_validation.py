"""RFC 9111 sections 3.2 and 4.3, RFC 9110 section 13: conditional requests. Each row goes through both edges."""

from __future__ import annotations

import pytest

from cachekit.http.headers import format_date
from tests.http.conftest import Answer

CC = "Cache-Control"
NOW = 1_800_000_000.0
MODIFIED = format_date(NOW - 1000)

# Section 4.3.2: conditions of clients, answered from what is stored

CONDITIONS = [
    # name, validators, request, status
    ("same", [("ETag", '"a"')], {"if-none-match": '"a"'}, 304),
    ("other", [("ETag", '"a"')], {"if-none-match": '"b"'}, 200),
    ("list", [("ETag", '"a"')], {"if-none-match": '"b", "a"'}, 304),
    ("list without spaces", [("ETag", '"a"')], {"if-none-match": '"b","a","c"'}, 304),
    ("list with rubbish", [("ETag", '"a"')], {"if-none-match": 'a, b", "a"'}, 304),
    ("comma inside", [("ETag", '"a,b"')], {"if-none-match": '"a,b"'}, 304),
    ("comma inside, other", [("ETag", '"b"')], {"if-none-match": '"a,b"'}, 200),
    ("weak condition", [("ETag", '"a"')], {"if-none-match": 'W/"a"'}, 304),
    ("weak tag", [("ETag", 'W/"a"')], {"if-none-match": '"a"'}, 304),
    ("both weak", [("ETag", 'W/"a"')], {"if-none-match": 'W/"a"'}, 304),
    ("w is not W", [("ETag", 'W/"a"')], {"if-none-match": 'w/"a"'}, 200),
    ("star", [("ETag", '"a"')], {"if-none-match": "*"}, 304),
    ("star, no tag", [("Last-Modified", MODIFIED)], {"if-none-match": "*"}, 304),
    ("unquoted", [("ETag", "a")], {"if-none-match": "a"}, 304),
    ("unquoted in a list", [("ETag", "a")], {"if-none-match": 'b, "c", a'}, 304),
    ("unquoted, asked with quotes", [("ETag", "a")], {"if-none-match": '"a"'}, 304),
    ("quoted, asked without", [("ETag", '"a"')], {"if-none-match": "a"}, 304),
    ("unquoted, another", [("ETag", "a")], {"if-none-match": "aa"}, 200),
    ("half a quote", [("ETag", '"a')], {"if-none-match": '"a'}, 200),
    ("empty tag", [("ETag", '""')], {"if-none-match": '""'}, 304),
    ("since then", [("Last-Modified", MODIFIED)], {"if-modified-since": MODIFIED}, 304),
    ("since later", [("Last-Modified", MODIFIED)], {"if-modified-since": format_date(NOW)}, 304),
    ("since before", [("Last-Modified", MODIFIED)], {"if-modified-since": format_date(NOW - 1001)}, 200),
    ("since no date", [("Last-Modified", MODIFIED)], {"if-modified-since": "yesterday"}, 200),
    ("since Date", [("Date", format_date(NOW))], {"if-modified-since": format_date(NOW)}, 304),
    ("since before Date", [("Date", format_date(NOW))], {"if-modified-since": format_date(NOW - 1)}, 200),
    ("tag comes before date", [("ETag", '"a"'), ("Last-Modified", MODIFIED)],
     {"if-none-match": '"b"', "if-modified-since": MODIFIED}, 200),
    ("tag comes before date, same", [("ETag", '"a"'), ("Last-Modified", MODIFIED)],
     {"if-none-match": '"a"', "if-modified-since": format_date(0)}, 304),
    ("rfc 850", [("Last-Modified", "Sunday, 06-Nov-94 08:49:37 GMT")],
     {"if-modified-since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 304),
    ("asctime", [("Last-Modified", "Sun Nov  6 08:49:37 1994")],
     {"if-modified-since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 304),
]  # fmt: skip


@pytest.mark.parametrize(
    ("validators", "request_", "status"), [r[1:] for r in CONDITIONS], ids=[r[0] for r in CONDITIONS]
)
def test_conditions_of_clients(site, validators, request_, status):
    site.setup(generate_etag=False).says("max-age=60", headers=[*validators, ("Content-Type", "text/x"), ("X-A", "1")])
    site.get()
    got = site.request(headers=request_)
    assert (got.status, site.forwards) == (status, 1)
    assert got.hit
    assert got.get("x-a") == "1"
    if status == 304:
        assert got.body == b""
        assert got.get("content-length") is None
        assert got.get("content-type") is None
        assert got.get("cache-control") == "max-age=60"
    else:
        assert got.body == b"body"


def test_head_with_a_condition(site):
    site.says("max-age=60", headers=[("ETag", '"a"')])
    site.get()
    assert site.request("HEAD", headers={"if-none-match": '"a"'}).status == 304


def test_a_404_knows_no_condition(site):
    site.answer(Answer(404, [(CC, "max-age=60"), ("ETag", '"a"')]))
    site.get()
    assert site.get(if_none_match='"a"').status == 404


def test_an_etag_is_made(site):
    site.says("max-age=60")
    assert site.get().get("etag") is None
    etag = site.get().get("etag")
    assert (etag or "").startswith('"')
    assert site.get(if_none_match=etag).status == 304
    assert site.get(if_none_match='"other"').status == 200
    site.setup(generate_etag=False)
    site.get("/y")
    assert site.get("/y").get("etag") is None


def test_equal_bodies_have_equal_etags(site, clock):
    site.says("max-age=60")
    site.get()
    before = site.get().get("etag")
    clock.advance(60)
    site.get()
    assert site.get().get("etag") == before


def test_a_condition_that_nothing_stored_answers_goes_through(site):
    site.answer(Answer(304, [("ETag", '"a"')], b""), Answer(headers=[(CC, "max-age=60"), ("ETag", '"a"')]))
    assert site.get(if_none_match='"a"').status == 304
    assert site.seen[0].get("if-none-match") == '"a"'
    assert site.get().status == 200
    assert site.get(if_none_match='"a"').hit


# Section 4.3.1: validation with what is stored

STORED = [(CC, "max-age=60"), ("ETag", '"a"'), ("Last-Modified", MODIFIED), ("X-Old", "1"), ("X-Both", "old")]


def test_validation(site, clock):
    site.answer(Answer(headers=STORED), Answer(304, [("ETag", '"a"'), ("X-Both", "new"), ("X-New", "2")], b""))
    site.get()
    clock.advance(60)
    got = site.get()
    assert (site.seen[1].get("if-none-match"), site.seen[1].get("if-modified-since")) == ('"a"', MODIFIED)
    assert (got.status, got.body, got.get("age")) == (200, b"body", "0")
    assert "fwd=stale; fwd-status=304; stored" in got.cache_status
    again = site.get()
    assert again.hit
    for response in (got, again):
        fields = [response.get(name) for name in ("x-old", "x-both", "x-new", "cache-control", "content-length")]
        assert fields == ["1", "new", "2", "max-age=60", "4"]
    assert site.forwards == 2


UPDATES = [
    # name, fields of the 304, name, value afterwards
    ("replaced", [("X-Both", "new")], "x-both", ["new"]),
    ("replaced by two", [("X-Both", "1"), ("X-Both", "2")], "x-both", ["1", "2"]),
    ("kept", [], "x-old", ["1"]),
    ("added", [("X-New", "1")], "x-new", ["1"]),
    ("Cache-Control", [(CC, "max-age=9")], "cache-control", ["max-age=9"]),
    ("Content-Length stays", [("Content-Length", "999")], "content-length", ["4"]),
    ("Content-Encoding stays", [("Content-Encoding", "gzip")], "content-encoding", []),
    ("Content-Range stays", [("Content-Range", "bytes 0-1/2")], "content-range", []),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "name", "after"), [r[1:] for r in UPDATES], ids=[r[0] for r in UPDATES])
def test_update_by_304(site, clock, fields, name, after):
    site.answer(Answer(headers=STORED), Answer(304, fields, b""))
    site.get()
    clock.advance(60)
    assert site.get().all(name) == after
    assert site.get().all(name) == after
    assert site.forwards == 2


def test_the_type_is_updated_too(site, clock, edge):
    if edge == "wsgi-validated":
        pytest.skip("the validator refuses a 304 with Content-Type, which RFC 9110 section 15.4.5 allows")
    site.answer(
        Answer(headers=[*STORED, ("Content-Type", "text/plain")]), Answer(304, [("Content-Type", "text/css")], b"")
    )
    site.get()
    clock.advance(60)
    for _ in range(2):
        assert site.get().all("content-type") == ["text/css"]
    assert site.forwards == 2


def test_a_tag_without_quotes_is_sent_back_as_it_came(site, clock):
    stored = [(CC, "max-age=60"), ("ETag", "abc")]
    site.answer(Answer(headers=stored), Answer(304, [("ETag", "abc")], b""))
    site.get()
    clock.advance(60)
    got = site.get()
    assert (got.status, got.body, got.get("etag")) == (200, b"body", "abc")
    assert site.seen[1].get("if-none-match") == "abc"
    assert site.get().hit


def test_the_new_response_replaces_the_old(site, clock):
    site.answer(Answer(headers=STORED), Answer(headers=[(CC, "max-age=60"), ("ETag", '"b"')], body=b"new"))
    site.get()
    clock.advance(60)
    assert site.get().body == b"new"
    got = site.get()
    assert (got.hit, got.body, got.get("etag"), got.get("x-old")) == (True, b"new", '"b"', None)


def test_the_client_s_condition_is_answered_after_validation(site, clock):
    site.answer(Answer(headers=STORED), Answer(304, [("ETag", '"a"')], b""))
    site.get()
    clock.advance(60)
    got = site.get(if_none_match='"a"')
    assert (got.status, got.body) == (304, b"")
    clock.advance(60)
    assert site.get(if_none_match='"zzz"').status == 200
    assert site.seen[2].get("if-none-match") == '"a"'


def test_the_client_s_condition_is_answered_from_a_new_response(site, clock):
    new = Answer(headers=[(CC, "max-age=60"), ("ETag", '"b"')], body=[b"ne", b"w"])
    site.answer(Answer(headers=STORED), new)
    site.get()
    clock.advance(60)
    got = site.get(if_none_match='"b"')
    assert (got.status, got.body) == (304, b"")
    assert "fwd-status=200; stored" in got.cache_status
    got = site.get()
    assert (got.hit, got.body) == (True, b"new")


def test_an_etag_of_ours_is_not_sent_to_the_application(site, clock):
    site.says("max-age=60, stale-if-error=60")
    site.get()
    clock.advance(60)
    assert not site.get(if_none_match='"x"').hit
    assert site.seen[1].get("if-none-match") is None


def test_a_304_that_withdraws_the_response(site, clock):
    site.answer(Answer(headers=STORED), Answer(304, [(CC, "no-store")], b""), Answer(headers=STORED, body=b"new"))
    site.get()
    clock.advance(60)
    assert site.get().body == b"body"
    assert site.get().body == b"new"


def test_a_304_of_another_response(site, clock):
    site.answer(Answer(headers=STORED), Answer(304, [("ETag", '"z"')], b""), Answer(headers=STORED, body=b"new"))
    site.get()
    clock.advance(60)
    site.get()
    assert site.get().body == b"new"


def test_a_cookie_on_a_304_is_for_one(site, clock):
    site.answer(Answer(headers=STORED), Answer(304, [("ETag", '"a"'), ("Set-Cookie", "s=1")], b""))
    site.get()
    clock.advance(60)
    got = site.get()
    assert (got.status, got.body, got.all("set-cookie")) == (200, b"body", ["s=1"])
    site.answer(Answer(304, [("ETag", '"a"')], b""))
    assert site.get().all("set-cookie") == []


def test_last_modified_alone(site, clock):
    site.answer(Answer(headers=[(CC, "max-age=60"), ("Last-Modified", MODIFIED)]), Answer(304, [], b""))
    site.get()
    clock.advance(60)
    assert site.get().status == 200
    assert site.seen[1].get("if-modified-since") == MODIFIED
    assert site.seen[1].get("if-none-match") is None
    assert site.get().hit


def test_what_is_kept_for_validation_ends(site, clock):
    site.setup(keep_stale=100).answer(Answer(headers=STORED))
    site.get()
    clock.advance(161)
    site.get()
    assert site.seen[1].get("if-none-match") is None


@pytest.mark.parametrize(
    ("before", "after", "stays"),
    [
        ('"a"', '"a"', True),
        ('"a"', 'W/"a"', True),
        ('W/"a"', 'W/"a"', True),
        ('W/"a"', '"a"', False),
        ('"a"', '"b"', False),
    ],
)
def test_a_304_updates_only_what_it_speaks_of(site, clock, before, after, stays):
    """A strong entity tag identifies what is updated by strong comparison (RFC 9111 section 4.3.4)."""
    site.answer(Answer(headers=[(CC, "max-age=60"), ("ETag", before)]), Answer(304, [("ETag", after)], b""))
    site.get()
    clock.advance(60)
    assert site.get().status == 200
    site.says("max-age=60")
    assert site.get().hit is stays
