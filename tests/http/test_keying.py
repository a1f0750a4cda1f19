"""The key by choice: queries, headers, cookies, a function; what must not be confused stays apart."""

from __future__ import annotations

import pytest

from cachekit.errors import ConfigError
from cachekit.http.options import HttpOptions
from tests.http.conftest import Answer

PUBLIC = "public, max-age=60"


@pytest.mark.parametrize(
    ("options", "first", "second", "same"),
    [
        ({}, "/x?a=1&b=2", "/x?b=2&a=1", False),
        ({"sort_query": True}, "/x?a=1&b=2", "/x?b=2&a=1", True),
        ({"sort_query": True}, "/x?a=1&a=2", "/x?a=2&a=1", False),
        ({"sort_query": True}, "/x?a=1&%61=2", "/x?%61=2&a=1", False),
        ({"sort_query": True}, "/x?a=1", "/x", False),
        ({"ignore_query": ["utm_*"]}, "/x?utm_source=q", "/x", True),
        ({"ignore_query": ["utm_*"]}, "/x?a=1&utm_source=q&b=2", "/x?a=1&b=2", True),
        ({"ignore_query": ["utm_*"]}, "/x?utm%5Fsource=q", "/x", True),
        ({"ignore_query": ["utm_*"]}, "/x?utm_source=q;id=5", "/x?utm_source=q;id=6", False),
        ({"ignore_query": ["utm_*"]}, "/x?xutm_=1", "/x", False),
        ({"ignore_query": ["utm_*"]}, "/x?UTM_a=1", "/x", False),
        ({"ignore_query": ["a"], "sort_query": True}, "/x?c&a=1&b", "/x?b&c", True),
    ],
)
def test_queries(site, options, first, second, same):
    site.setup(**options)
    site.says(PUBLIC)
    site.get(first)
    site.get(second)
    assert site.forwards == (1 if same else 2)
    assert site.get(first).hit


def test_headers_and_cookies_of_the_key(site):
    site.setup(key_headers=["X-Tenant"], key_cookies=["currency"])
    site.says(PUBLIC)
    for asked in (
        [],
        [("x-tenant", "a")],
        [("x-tenant", "b")],
        [("cookie", "currency=EUR")],
        [("cookie", "currency=USD; b=1")],
    ):
        assert not site.request(headers=asked).hit
        assert site.request(headers=asked).hit
    assert site.request(headers=[("cookie", "other=1; currency=EUR")]).hit
    # The forwarded host is part of the key whatever else is.
    assert not site.request(headers=[("x-forwarded-host", "evil.org")]).hit


def test_an_unsafe_request_drops_what_every_cookie_selected(site):
    site.setup(key_cookies=["currency", "language"])
    site.says(PUBLIC)
    asked = [[], *([("cookie", f"language=de; currency={one}")] for one in ("EUR", "USD"))]
    for headers in asked:
        assert not site.request(headers=headers).hit
    for headers in asked:
        assert site.request(headers=headers).hit
    site.request(method="POST", headers=[("cookie", "currency=EUR")])
    assert [site.request(headers=headers).hit for headers in asked] == [False] * 3


def test_each_cookie_of_a_name_counts(site):
    site.setup(key_cookies=["currency"])
    site.says(PUBLIC)
    for cookie in (
        "currency=EUR",
        "currency=EUR; currency=USD",
        "currency=EUR,USD",
        "currency=USD; currency=EUR",
        "currency=",
    ):
        assert not site.request(headers=[("cookie", cookie)]).hit
        assert site.request(headers=[("cookie", f"a=b; {cookie}; c")]).hit


def test_what_was_stored_before_a_cookie_counted_is_not_served(site):
    site.says(PUBLIC)
    site.get()
    assert site.get().hit
    site.setup(key_cookies=["currency"])
    assert not site.request(headers=[("cookie", "currency=EUR")]).hit
    assert not site.get().hit
    assert site.get().hit


def test_a_cookie_that_counts_is_told_apart_beside_what_varies(site):
    site.setup(key_cookies=["currency"])
    site.says(PUBLIC, headers=[("vary", "accept-language")])
    asked = [
        [("accept-language", language), *more]
        for language in ("en", "de")
        for more in ([], [("cookie", "currency=EUR")])
    ]
    for headers in asked:
        assert not site.request(headers=headers).hit
    assert all(site.request(headers=headers).hit for headers in asked)


def test_a_function_makes_the_key(site):
    def key(request):
        agent = dict(request.headers).get("user-agent", "")
        if "broken" in agent:
            raise RuntimeError
        return None if "bot" in agent else ("mobile" if "Mobile" in agent else "desktop")

    site.setup(key=key)
    site.says(PUBLIC)
    for agent, hits in [
        ("A", False),
        ("B", True),
        ("Mobile", False),
        ("Mobile B", True),
        ("bot", False),
        ("bot", False),
    ]:
        assert site.request(headers=[("user-agent", agent)]).hit is hits
    assert "fwd=bypass" in site.request(headers=[("user-agent", "broken")]).cache_status


def test_a_deceptive_path_is_not_stored(site):
    from cachekit.http.rules import Rule

    site.setup(rules=[Rule("/**.css", ttl="1h")])
    site.answer(Answer(body=b"account of alice"))
    site.request(target="/account/x.css", headers=[("cookie", "session=alice")])
    got = site.request(target="/account/x.css")
    assert not got.hit
    assert site.forwards == 2
    assert not site.request(target="/account/x.css", headers=[("cookie", "session=bob")]).hit


@pytest.mark.parametrize(
    "options", [{"key": "x"}, {"ignore_query": "utm_*"}, {"key_cookies": [""]}, {"key_headers": ["a b"]}]
)
def test_wrong_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        HttpOptions(**options)
