"""The short way answers as the long way does: the same bytes over random requests and stored responses, or nothing."""

from __future__ import annotations

import asyncio
import string
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit import Cache
from cachekit.http import asgi, wsgi
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from cachekit.testing import ManualClock
from tests.http.conftest import environ_of

ASKED = st.lists(
    st.one_of(
        st.sampled_from(
            [("accept-encoding", "gzip"), ("accept-encoding", "br, gzip"), ("accept-language", "de"), ("cookie", "a=1"),
             ("cookie", "b=2"), ("authorization", "Basic eA=="), ("x-api-key", "k"), ("x-forwarded-host", "evil.org"),
             ("x-forwarded-proto", "https"), ("x-forwarded-proto", "http"), ("forwarded", "host=evil.org"),
             ("cache-control", "no-cache"), ("cache-control", "max-age=1"), ("pragma", "no-cache"), ("range", "bytes=0-1"),
             ("if-none-match", '"a"'), ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT"), ("if-range", '"a"'),
             ("content-length", "0"), ("content-length", "4"), ("transfer-encoding", "chunked"), ("x-tenant", "t")]
        ),
        st.tuples(st.text(string.ascii_lowercase + "-", min_size=1, max_size=6).map("x-".__add__),
                  st.text("ab,", max_size=4)),
    ),
    max_size=4,
)  # fmt: skip
ANSWERED = st.lists(
    st.sampled_from(
        [("cache-control", "max-age=60"), ("cache-control", "public, max-age=60"), ("cache-control", "no-store"),
         ("cache-control", "s-maxage=3, stale-while-revalidate=60"), ("cache-control", "private"), ("age", "59"),
         ("cache-control", "no-cache, max-age=60"), ("cdn-cache-control", "max-age=60"), ("set-cookie", "id=1"),
         ("vary", "accept-encoding"), ("vary", "cookie"), ("vary", "accept-language, x-tenant"), ("vary", "*"),
         ("etag", '"a"'), ("content-type", "text/html"), ("expires", "0"), ("location", "/y"), ("x-latin", "\xe9"),
         ("cache-control", "no-store, must-understand, max-age=9")]
    ),
    max_size=4,
)  # fmt: skip
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS"]),
        st.sampled_from(["/x", "/x", "/x", "/x?a=1&utm_b=2", "/x?utm_b=2&a=1", "/%C3%A9", "/a//b"]),
        st.one_of(st.just([]), ASKED),
        st.one_of(st.just([("cache-control", "max-age=60")]), ANSWERED),
        st.sampled_from([200, 200, 200, 404, 302, 500]),
        st.sampled_from([0.0, 0.3, 0.7, 1.0, 4.0, 59.0, 61.0]),
    ),
    min_size=1,
    max_size=8,
)
OPTIONS = st.builds(
    HttpOptions,
    request_directives=st.booleans(),
    cache_status=st.booleans(),
    status_key=st.booleans(),
    status_detail=st.booleans(),
    emit_tags=st.sampled_from(["none", "rules", "all"]),
    allow_cookies=st.booleans(),
    key_headers=st.sampled_from([(), ("x-tenant",)]),
    key_cookies=st.sampled_from([(), ("a",)]),
    sort_query=st.booleans(),
    ignore_query=st.sampled_from([(), ("utm_*",)]),
)
RULES = st.sampled_from(
    [
        (),
        (Rule("/x", ttl=9, tags=["t"]),),
        (Rule("/**", cache_control="max-age=5", shared=True, methods=["GET", "POST"]),),
    ]
)


class World:
    """One application behind one edge, with or without the short way."""

    def __init__(self, rules, options, *, short):
        self.clock = ManualClock()
        self.answer = (200, [])
        self.asked = 0
        self.site = self.wrap(Cache(clock=self.clock), rules, options)
        self.shorts = 0
        if not short:
            self.site._read = lambda request: (None, 0)
            self.site._driver.past.plain = False  # nor beside the cache for other methods
        else:
            warm, past = self.site._warm.answer, self.site._goes_past

            def answering(*args):
                found = warm(*args)
                self.shorts += found is not None
                return found

            def passing(*args):
                found = past(*args)
                self.shorts += bool(found)
                return found

            self.site._warm.answer, self.site._goes_past = answering, passing


class Asgi(World):
    def wrap(self, cache, rules, options):
        return asgi.HttpCache(self.app, cache, rules=rules, options=options)

    async def app(self, scope, receive, send):
        self.asked += 1
        status, headers = self.answer
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": b"body"})

    def call(self, runner, method, target, headers):
        path, _, query = target.partition("?")
        from urllib.parse import unquote

        scope = {
            "type": "http", "method": method, "scheme": "https", "path": unquote(path), "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in [("host", "example.org"), *headers]],
        }  # fmt: skip
        sent = []

        async def send(message):
            sent.append(message)

        runner.run(self.site(scope, None, send))
        return [{**m, "headers": [tuple(p) for p in m["headers"]]} if "headers" in m else m.get("body") for m in sent]


class Wsgi(World):
    def wrap(self, cache, rules, options):
        return wsgi.HttpCache(self.app, cache, rules=rules, options=options)

    def app(self, environ, start_response):
        self.asked += 1
        status, headers = self.answer
        start_response(f"{status} Word", list(headers))
        return [b"body"]

    def call(self, runner, method, target, headers):
        sent = []
        body = self.site(
            environ_of(method, target, headers), lambda status, fields, exc_info=None: sent.extend([status, fields])
        )
        sent.append(b"".join(body))
        return sent


@pytest.mark.parametrize("fickle", [True, False], ids=["fickle", "steady"])
@pytest.mark.parametrize("edge", [Asgi, Wsgi])
def test_the_short_way_is_the_long_way(edge, fickle):
    """A steady application answers always the same.

    With a fickle one nothing is remembered as uncacheable: what is remembered goes past, and so is stored one forward
    later than by an exchange.
    """
    short = 0

    @settings(deadline=None, max_examples=300)
    @given(RULES, OPTIONS, REQUESTS)
    def same(rules, options, requests):
        nonlocal short
        options = replace(options, uncacheable_for=0 if fickle else 10)
        quick, plain = edge(rules, options, short=True), edge(rules, options, short=False)
        steady = requests[0][3:5]
        for method, target, asked, *answered, later in requests:
            headers, status = answered if fickle else steady
            got = []
            for world in (quick, plain):
                world.answer = (status, headers)
                world.clock.advance(later)
                got.append((world.call(runner, method, target, asked), world.asked))
            assert got[0] == got[1]
        short += quick.shorts

    with asyncio.Runner() as runner:
        same()
    assert short > 10


PARTS = st.lists(
    st.sampled_from(["/", "a", "Z9", ".", "..", "~", "-", "_", "%41", "\xe9", "?", "#", " ", "\n", "x" * 60]),
    max_size=5,
)


@given(
    st.sampled_from(["http", "https"]), st.sampled_from([b"a", b"A:80", b"b:443", b"b:8080", b"", b"a b", b"x" * 90]),
    PARTS, st.one_of(st.none(), PARTS), PARTS,
)  # fmt: skip
def test_a_key_is_the_same_however_it_was_made(scheme, host, path, raw, query):
    options = HttpOptions()
    path = "/" + "".join(path)
    scope = {
        "scheme": scheme, "path": path, "query_string": "".join(query).encode(), "method": "GET",
        "raw_path": path.encode() if raw is None else "".join(raw).encode("latin-1"), "headers": [(b"host", host)],
    }  # fmt: skip
    key, _ = asgi.Reader(options).read(scope)
    assert key == options.keying.key(asgi.request_of(scope))
