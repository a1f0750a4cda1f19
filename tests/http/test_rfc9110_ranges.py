"""RFC 9110 section 14: ranges of what is stored, If-Range, and ranges that are no more than work."""

from __future__ import annotations

from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.http.ranges import parse_range
from tests.http.conftest import Answer

BODY = b"0123456789"


def stored(site, *more, **changes):
    site.says("max-age=60", headers=[("Content-Type", "text/plain"), ("ETag", '"a"'), *more], body=BODY, **changes)
    site.get()
    return site


@pytest.mark.parametrize(
    ("asked", "status", "content", "stated"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, BODY, "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=9-9", 206, b"9", "bytes 9-9/10"),
        ("BYTES=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes= 0-1 ,", 206, b"01", "bytes 0-1/10"),
        ("bytes=0-3,99-", 206, b"0123", "bytes 0-3/10"),
        ("bytes=0-5,3-8", 206, b"012345678", "bytes 0-8/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=99-100,-0", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
        ("bytes=3-1", 200, BODY, None),
        ("bytes=0-1,3-2", 200, BODY, None),
        ("bytes=", 200, BODY, None),
        ("bytes", 200, BODY, None),
        ("bytes=a-b", 200, BODY, None),
        ("bytes=1", 200, BODY, None),
        ("bytes=-", 200, BODY, None),
        ("bytes=0-0x", 200, BODY, None),
        ("bytes=+0-1", 200, BODY, None),
        ("bytes=\u00b2-3", 200, BODY, None),
        ("lines=0-3", 200, BODY, None),
        ("", 200, BODY, None),
        ("bytes=" + ",".join(["0-"] * 17), 200, BODY, None),
        ("bytes=" + ",".join(["0-"] * 16), 206, BODY, "bytes 0-9/10"),
        ("bytes=0-" + "9" * 5000, 200, BODY, None),
    ],
)
def test_ranges_of_what_is_stored(site, asked, status, content, stated):
    stored(site)
    got = site.get(range=asked)
    assert (got.status, got.body, got.get("content-range")) == (status, content, stated)
    if status != 200 or got.get("content-length"):
        assert got.all("content-length") == [str(len(content))]
    assert got.hit
    assert site.forwards == 1
    if status == 206:
        assert got.get("etag") == '"a"'
        assert got.get("content-type") == "text/plain"
    if status == 416:
        assert got.get("cache-control") == "no-store"
    # A part is never taken for the whole.
    assert site.get().body == BODY


def test_several_ranges(site):
    stored(site)
    got = site.get(range="bytes=7-8, 0-1, -1")
    assert got.status == 206
    assert got.get("content-range") is None
    assert got.all("content-length") == [str(len(got.body))]
    whole = message_from_bytes(b"Content-Type: " + got.get("content-type").encode() + b"\r\n\r\n" + got.body)
    assert whole.get_content_type() == "multipart/byteranges"
    parts = [(part["content-range"], part.get_content_type(), part.get_payload()) for part in whole.get_payload()]
    assert parts == [
        ("bytes 7-8/10", "text/plain", "78"), ("bytes 0-1/10", "text/plain", "01"), ("bytes 9-9/10", "text/plain", "9"),
    ]  # fmt: skip


MODIFIED = ("Last-Modified", "Thu, 01 Jan 1998 00:00:00 GMT")


@pytest.mark.parametrize(
    ("condition", "more", "status"),
    [
        ('"a"', [], 206),
        ('"b"', [], 200),
        ('W/"a"', [], 200),
        ('"a", "b"', [], 200),
        ("*", [], 200),
        ("x", [], 200),
        ("Thu, 01 Jan 1998 00:00:00 GMT", [MODIFIED], 206),
        ("Thursday, 01-Jan-98 00:00:00 GMT", [MODIFIED], 206),
        ("Fri, 02 Jan 1998 00:00:00 GMT", [MODIFIED], 200),
        ("Thu, 01 Jan 1998 00:00:00 GMT", [], 200),
        ("Thu, 01 Jan 1998 00:00:00 GMT", [MODIFIED, ("Date", MODIFIED[1])], 200),
    ],
)
def test_if_range(site, condition, more, status):
    site.setup()
    stored(site, *more)
    headers = [("range", "bytes=0-3"), ("if-range", condition)]
    if more[1:]:
        site.clock.now = 883612800.0
        site.answer(Answer(headers=[("Cache-Control", "max-age=60"), *more], body=BODY))
        site.get("/y")
        got = site.request("GET", "/y", headers)
    else:
        got = site.request("GET", "/x", headers)
    assert (got.status, got.body) == (status, BODY[:4] if status == 206 else BODY)


def test_a_weak_entity_tag_allows_no_part(site):
    site.says("max-age=60", headers=[("ETag", 'W/"a"')], body=BODY)
    site.get()
    assert site.request(headers=[("range", "bytes=0-3"), ("if-range", 'W/"a"')]).status == 200


def test_conditions_come_first(site):
    stored(site)
    assert site.request(headers=[("range", "bytes=0-3"), ("if-none-match", '"a"')]).status == 304
    assert site.request(headers=[("range", "bytes=0-3"), ("if-none-match", '"b"')]).status == 206


def test_if_range_alone_and_head_get_everything(site):
    stored(site)
    assert site.get(if_range='"b"').status == 200
    assert site.request("HEAD", headers=[("range", "bytes=0-3")]).status == 200


def test_only_a_200_has_ranges(site):
    stored(site, status=404)
    assert site.get(range="bytes=0-3").status == 404


def test_a_range_that_nothing_stored_answers_goes_to_the_application(site):
    part = Answer(206, [("Cache-Control", "max-age=60"), ("Content-Range", "bytes 0-3/10")], BODY[:4])
    site.answer(part, Answer(200, [("Cache-Control", "max-age=60")], BODY))
    got = site.get(range="bytes=0-3")
    assert (got.status, got.body, got.cache_status) == (206, BODY[:4], "cachekit; fwd=uri-miss; stored")
    assert site.seen[0].get("range") == "bytes=0-3"
    # Nothing was stored of it, and nobody remembers the URL as uncacheable.
    assert "stored" in site.get().cache_status
    assert site.get(range="bytes=2-3").body == b"23"
    assert site.forwards == 2


def test_a_stale_response_is_revalidated_for_a_part(site):
    stored(site)
    site.clock.advance(61)
    site.answer(Answer(304, [("Cache-Control", "max-age=60"), ("ETag", '"a"')], b""))
    got = site.request(headers=[("range", "bytes=0-3"), ("if-range", '"a"')])
    assert (got.status, got.body) == (206, BODY[:4])
    assert site.seen[-1].get("if-none-match") == '"a"'
    assert site.get().body == BODY
    assert site.forwards == 2


def test_whoever_asks_for_a_part_of_what_has_changed_gets_a_part(site):
    stored(site)
    site.clock.advance(61)
    new = [("Cache-Control", "max-age=60"), ("ETag", '"b"')]
    site.answer(Answer(206, [*new, ("Content-Range", "bytes 0-3/8")], b"NEWS"), Answer(200, new, b"NEWSNEWS"))
    got = site.get(range="bytes=0-3")
    assert (got.status, got.body, site.seen[-1].get("range")) == (206, b"NEWS", "bytes=0-3")
    for _ in range(2):
        assert site.get().body == b"NEWSNEWS", "what is stale is not taken for the new one"
    assert site.forwards == 3
    assert site.get(range="bytes=4-7").body == b"NEWS"


def test_a_range_that_is_no_longer_there_is_refused_by_the_application(site):
    stored(site)
    site.clock.advance(61)
    site.answer(Answer(416, [("Content-Range", "bytes */2")], b""))
    assert site.get(range="bytes=5-9").status == 416


def test_a_revalidation_behind_asks_for_everything(site):
    site.says("max-age=60, stale-while-revalidate=60", body=BODY)
    site.get()
    site.clock.advance(61)
    assert site.get(range="bytes=0-3").body == BODY[:4]
    site.settle()
    assert site.seen[-1].get("range") is None
    assert site.get().body == BODY


def test_stale_if_error_cuts_too(site):
    site.says("max-age=60, stale-if-error=60", body=BODY)
    site.get()
    site.clock.advance(61)
    site.answer(Answer(503))
    assert site.get(range="bytes=0-3").body == BODY[:4]


def test_ranges_of_strangers_stay_with_strangers(site):
    stored(site)
    site.says("max-age=60", body=b"of alice")
    got = site.request(headers=[("range", "bytes=0-3"), ("cookie", "a=1")])
    assert not got.hit
    assert got.body == b"of alice"


@given(st.one_of(st.text(max_size=20), st.lists(st.sampled_from(["0", "9", "-", ",", "5", " "]), max_size=24).map("".join)),
       st.integers(0, 12))  # fmt: skip
def test_spans_are_inside_apart_and_no_more_than_everything(text, length):
    spans = parse_range(f"bytes={text}", length)
    assert all(0 <= begin < end <= length for begin, end in spans or ())
    assert sum(end - begin for begin, end in spans or ()) <= length
