"""RFC 9211: Cache-Status on each response. Each row goes through both edges."""

from __future__ import annotations

import pytest

from cachekit.errors import ConfigError
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from tests.http.conftest import Answer

CC = "Cache-Control"


def test_words(site, clock):
    answer = Answer(headers=[(CC, "max-age=60"), ("ETag", '"a"'), ("Vary", "Accept")])
    site.answer(answer)
    table = [
        ("GET", {}, 0, "cachekit; fwd=uri-miss; stored"),
        ("GET", {}, 0, "cachekit; hit; ttl=60"),
        ("HEAD", {}, 10, "cachekit; hit; ttl=50"),
        ("GET", {"accept": "x"}, 0, "cachekit; fwd=vary-miss; stored"),
        ("GET", {"cache-control": "no-cache"}, 0, "cachekit; fwd=request; stored"),
        ("GET", {"cache-control": "no-store"}, 0, "cachekit; hit; ttl=60"),
        ("GET", {"range": "bytes=0-1"}, 0, "cachekit; hit; ttl=60"),
        ("GET", {"if-match": '"a"'}, 0, "cachekit; fwd=bypass"),
        ("GET", {"cookie": "a=b"}, 0, "cachekit; fwd=bypass"),
        ("GET", {}, 60, "cachekit; fwd=stale; stored"),
        ("GET", {"cache-control": "max-stale"}, 70, "cachekit; hit; ttl=-10"),
        ("GET", {"cache-control": "only-if-cached"}, 0, "cachekit"),
        ("OPTIONS", {}, 0, "cachekit; fwd=method"),
        ("POST", {}, 0, "cachekit; fwd=method"),
    ]
    for method, headers, after, expected in table:
        clock.advance(after)
        assert site.request(method, "/x", headers).cache_status == expected
    assert site.get("/y", cache_control="only-if-cached").status == 504


def test_off(site):
    site.setup(cache_status=False).says("max-age=60")
    for method in ("GET", "GET", "POST"):
        assert site.request(method).cache_status == ""


def test_name_key_and_detail(site):
    site.setup(status_name="ExampleCache", status_key=True, status_detail=True).says("no-store")
    assert site.get('/x?"q"').cache_status == (
        r'ExampleCache; fwd=uri-miss; key="http:https://example.org/x?\"q\""; detail=no-store'
    )


DETAILS = [
    ([], {}, "no-freshness"),
    ([(CC, "max-age=60"), ("Set-Cookie", "a=b")], {}, "set-cookie"),
    ([(CC, "max-age=60, private")], {}, "private"),
    ([(CC, "max-age=60"), ("Vary", "*")], {}, "vary-any"),
    ([(CC, "max-age=60")], {"cookie": "a=b"}, "cookie"),
    ([(CC, "max-age=60")], {"authorization": "x"}, "authorization"),
    ([(CC, "max-age=60"), ("Content-Length", "9")], {}, "size"),
]


@pytest.mark.parametrize(("says", "request_", "detail"), DETAILS)
def test_why_a_response_is_not_stored(site, says, request_, detail):
    site.setup(status_detail=True, max_body=8).answer(Answer(headers=says, body=b"x" * 9))
    assert f"detail={detail}" in site.request(headers=request_).cache_status


def test_a_rule_that_forbids(site):
    site.setup([Rule("/x", store=False)], status_detail=True).says("max-age=60")
    assert "detail=rule" in site.get().cache_status


WRONG = [
    ({"status_name": "a b"}, "status_name"),
    ({"status_name": "1"}, "status_name"),
    ({"status_name": 'a"\r\nX: y'}, "status_name"),
    ({"tag_header": "Cache Tag"}, "tag_header"),
    ({"tag_header": "X\r\nY"}, "tag_header"),
    ({"allow_authorization": "no"}, "allow_authorization='no' must be True or False, False when"),
    ({"collapse": 0}, "collapse"),
    ({"max_body": -1}, "max_body"),
    ({"max_body": "5MB"}, "max_body"),
    ({"max_body": True}, "max_body"),
    ({"credentials": "cookie"}, "credentials"),
    ({"credentials": ["a b"]}, "credentials"),
    ({"targets": [1]}, "targets"),
    ({"emit_tags": "some"}, "emit_tags"),
    ({"keep_stale": -1}, "keep_stale"),
    ({"stale_if_error": "soon"}, "stale_if_error"),
    ({"collapse_timeout": "x"}, "collapse_timeout"),
]


@pytest.mark.parametrize(("options", "word"), WRONG)
def test_wrong_options_are_named(options, word):
    with pytest.raises(ConfigError, match=word):
        HttpOptions(**options)
