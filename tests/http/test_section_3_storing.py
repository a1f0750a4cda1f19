"""RFC 9111 section 3: what may be stored. Each row goes through both edges."""

from __future__ import annotations

import msgpack
import pytest

from cachekit.http.headers import format_date
from tests.http.conftest import Answer

CC = "Cache-Control"
FRESH = (CC, "max-age=60")
COOKIE = ("cookie", "session=1")
AUTH = ("authorization", "Bearer x")

RESPONSES = [
    # name, status, headers, stored
    ("plain", 200, [FRESH], True),
    ("no-store", 200, [(CC, "max-age=60, no-store")], False),
    ("no-store upper case", 200, [(CC, "max-age=60, NO-STORE")], False),
    ("no-store on another line", 200, [FRESH, (CC, "no-store")], False),
    ("no-store behind a quote that never ends", 200, [(CC, 'max-age=60, x="a, no-store')], False),
    ("no-store in a quoted string is none", 200, [(CC, 'max-age=60, x="no-store"')], True),
    ("private", 200, [(CC, "private, max-age=60")], False),
    ("private with fields", 200, [(CC, 'private="x-a", max-age=60')], True),
    ("private wins over public", 200, [(CC, "public, private, max-age=60")], False),
    ("private wins over s-maxage", 200, [(CC, "s-maxage=60, private")], False),
    ("public alone has no freshness", 200, [(CC, "public")], False),
    ("Set-Cookie", 200, [FRESH, ("Set-Cookie", "a=b")], False),
    ("Set-Cookie and public", 200, [(CC, "public, max-age=60"), ("Set-Cookie", "a=b")], False),
    ("Set-Cookie and s-maxage", 200, [(CC, "s-maxage=60"), ("Set-Cookie", "a=b")], False),
    ("Set-Cookie and Surrogate-Control", 200, [("Surrogate-Control", "max-age=60"), ("Set-Cookie", "a=b")], False),
    ("Vary: *", 200, [FRESH, ("Vary", "*")], False),
    ("Vary: * among others", 200, [FRESH, ("Vary", "Accept"), ("Vary", "Accept-Language, *")], False),
    ("Vary with what is no name", 200, [FRESH, ("Vary", "a b")], False),
    ("201", 201, [FRESH], True),
    ("203", 203, [FRESH], True),
    ("301", 301, [FRESH, ("Location", "/y")], True),
    ("302", 302, [FRESH, ("Location", "/y")], True),
    ("404", 404, [FRESH], True),
    ("410", 410, [FRESH], True),
    ("418", 418, [FRESH], True),
    ("500", 500, [FRESH], True),
    ("503", 503, [FRESH], True),
    ("599", 599, [FRESH], True),
    *((f"{status}: RFC 6585", status, [(CC, "public, max-age=60")], False) for status in (428, 429, 431, 511)),
    ("429, must-understand", 429, [(CC, "public, max-age=60, must-understand")], False),
    ("404 without freshness", 404, [], False),
    ("206", 206, [FRESH, ("Content-Range", "bytes 0-3/9")], False),
    ("must-understand, known status", 200, [(CC, "max-age=60, no-store, must-understand")], True),
    ("must-understand, unknown status", 299, [(CC, "max-age=60, must-understand")], False),
    ("stale on arrival, no validator", 200, [(CC, "max-age=0")], False),
]


@pytest.mark.parametrize(("status", "headers", "stored"), [r[1:] for r in RESPONSES], ids=[r[0] for r in RESPONSES])
def test_response(site, status, headers, stored):
    site.answer(Answer(status, headers))
    first = site.get()
    assert first.status == status
    assert ("stored" in first.cache_status) is stored
    again = site.get()
    assert again.hit is stored
    assert again.status == status
    assert site.forwards == (1 if stored else 2)


def test_204_has_no_body_and_no_length(site):
    site.answer(Answer(204, [FRESH], b""))
    site.get()
    got = site.get()
    assert (got.status, got.hit, got.body, got.get("content-length")) == (204, True, b"", None)


METHODS = [("POST", False), ("PUT", False), ("DELETE", False), ("OPTIONS", False), ("PATCH", False), ("TRACE", False)]


@pytest.mark.parametrize("method", [m for m, _ in METHODS])
def test_other_methods_are_not_stored_nor_served(site, method):
    site.says("max-age=60")
    site.request(method)
    assert not site.get().hit
    got = site.request(method)
    assert "fwd=method" in got.cache_status
    assert site.forwards == 3


def test_methods_are_told_apart_by_case(site):
    site.says("max-age=60")
    site.get()
    assert site.get().hit


REQUESTS = [
    # name, request headers, response Cache-Control, more response headers, stored
    ("Authorization", [AUTH], "max-age=60", [], False),
    ("Authorization, public", [AUTH], "max-age=60, public", [], True),
    ("Authorization, s-maxage", [AUTH], "s-maxage=60", [], True),
    ("Authorization, must-revalidate", [AUTH], "max-age=60, must-revalidate", [], True),
    ("Authorization, proxy-revalidate", [AUTH], "max-age=60, proxy-revalidate", [], False),
    ("Authorization, Vary names it", [AUTH], "max-age=60", [("Vary", "Authorization")], False),
    ("Cookie", [COOKIE], "max-age=60", [], False),
    ("Cookie, must-revalidate", [COOKIE], "max-age=60, must-revalidate", [], False),
    ("Cookie, public", [COOKIE], "max-age=60, public", [], True),
    ("Cookie, s-maxage", [COOKIE], "s-maxage=60", [], True),
    ("Cookie, targeted", [COOKIE], "private", [("Surrogate-Control", "max-age=60")], True),
    ("Cookie, Vary names it", [COOKIE], "max-age=60", [("Vary", "Cookie")], True),
    ("X-Api-Key", [("x-api-key", "k")], "max-age=60", [], False),
    ("no-store in the request", [("cache-control", "no-store")], "max-age=60", [], False),
    ("a body", [("content-length", "4")], "max-age=60", [], False),
    ("a body of unknown length", [("transfer-encoding", "chunked")], "max-age=60", [], False),
    ("an empty body", [("content-length", "0")], "max-age=60", [], True),
    ("Range", [("range", "bytes=0-1")], "max-age=60", [], True),
    ("If-Match", [("if-match", '"a"')], "max-age=60", [], False),
    ("a host that is none", [("host", "a b")], "max-age=60", [], False),
]


@pytest.mark.parametrize(
    ("request_", "control", "more", "stored"), [r[1:] for r in REQUESTS], ids=[r[0] for r in REQUESTS]
)
def test_request(site, request_, control, more, stored):
    site.says(control, headers=more)
    body = b"data" if ("content-length", "4") in request_ else b""
    site.request("GET", "/x", request_, body)
    site.request("GET", "/x", [pair for pair in request_ if pair[0] != "cache-control"], body)
    assert site.forwards == (1 if stored else 2)


OPTIONS = [
    ("allow_set_cookie", [], [FRESH, ("Set-Cookie", "a=b")]),
    ("allow_authorization", [AUTH], [FRESH]),
    ("allow_cookies", [COOKIE], [FRESH]),
]


@pytest.mark.parametrize(("option", "request_", "headers"), OPTIONS, ids=[r[0] for r in OPTIONS])
def test_what_is_explicitly_allowed(site, option, request_, headers):
    site.setup(**{option: True}).answer(headers)
    site.request(headers=request_)
    assert site.request(headers=request_).hit


# Section 3.3: incomplete responses

BODIES = [
    # name, Content-Length, chunks, stored
    ("right", "8", [b"body", b"body"], True),
    ("absent", None, [b"body", b"body"], True),
    ("too short", "9", [b"body", b"body"], False),
    ("too long", "7", [b"body", b"body"], False),
    ("too long after the end", "4", [b"body", b"body"], False),
    ("no number", "x", [b"body"], False),
    ("contradictory", "4, 5", [b"body"], False),
    ("twice the same", "4, 4", [b"body"], True),
    ("empty", "0", [b""], True),
]


@pytest.mark.parametrize(("length", "chunks", "stored"), [r[1:] for r in BODIES], ids=[r[0] for r in BODIES])
def test_length(site, length, chunks, stored):
    site.answer(Answer(headers=[FRESH, *([("Content-Length", length)] if length else [])], body=chunks))
    assert site.get().body == b"".join(chunks)
    got = site.get()
    assert got.hit is stored
    assert got.body == b"".join(chunks)


def test_a_response_that_breaks_off_is_not_stored(site):
    site.answer(Answer(headers=[FRESH], body=[b"a", b"b"], breaks=OSError("gone")), Answer(headers=[FRESH]))
    with pytest.raises(OSError, match="gone"):
        site.get()
    got = site.get()
    assert (got.hit, got.body) == (False, b"body")
    assert site.get().hit


@pytest.mark.parametrize("known", [True, False])
def test_more_than_the_bound_passes_by(site, known):
    chunks = [b"x" * 10] * 11
    length = [("Content-Length", "110")] if known else []
    site.setup(max_body=100).answer(Answer(headers=[FRESH, *length], body=chunks))
    for _ in range(2):
        got = site.get()
        assert not got.hit
        assert got.body == b"".join(chunks)
    site.answer(Answer(headers=[FRESH], body=chunks[:10]))
    site.get()
    assert site.get().hit


def test_bodies_are_not_buffered(site):
    site.says("max-age=60", body=[b"a", b"b", b"c"])
    assert [chunk for chunk in site.get().chunks if chunk] == [b"a", b"b", b"c"]


# Section 3.1: what of the header is stored


def test_fields_of_the_connection_are_not_stored(build, fake):
    site = build(fake)
    if site.kind == "wsgi-validated":
        pytest.skip("WSGI forbids hop-by-hop fields, and the validator says so")
    hop = [
        ("Connection", "close, X-Hop, , x-other"), ("X-Hop", "1"), ("X-Other", "1"), ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"), ("Proxy-Connection", "close"), ("TE", "trailers"), ("Trailer", "X"),
        ("Upgrade", "h2c"), ("Proxy-Authentication-Info", "x"),
    ]  # fmt: skip
    site.answer([FRESH, *hop, ("X-Kept", "1")])
    first = site.get()
    assert first.get("x-hop") == "1"  # what passes through is the server's business
    got = site.get()
    assert got.hit
    assert got.get("x-kept") == "1"
    assert not [name for name, _ in got.headers if name.lower() in {name.lower() for name, _ in hop}]


def test_two_cookies_stay_two(site):
    site.answer([("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT")])
    expected = ["a=1; Path=/", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT"]
    assert site.get().all("set-cookie") == expected
    site.setup(allow_set_cookie=True).answer([FRESH, *(("Set-Cookie", value) for value in expected)])
    site.get("/y")
    assert site.get("/y").all("set-cookie") == expected


def test_the_next_request_hits_before_the_last_byte_is_out(site):
    if site.kind != "asgi":
        pytest.skip("the order of messages can be seen in ASGI alone")
    site.says("max-age=60", body=[b"a", b"b"])
    inner, events = site.app, []

    async def app(scope, receive, send):
        async def spy(message):
            if message["type"] == "http.response.body" and not message.get("more_body"):
                events.append(len(site.cache.events.counts) and site.cache.events.counts["stored"])
            await send(message)

        await inner(scope, receive, spy)

    site.app = app
    site.get()
    assert events == [1]


def test_a_body_is_stored_once_its_announced_length_is_there(site, clock):
    """The client of a response with Content-Length knows that it is whole before the application has returned."""
    seen = []
    site.answer(Answer(headers=[FRESH, ("Content-Length", "4")], body=[b"bo", b"dy", b""]))
    inner = site.app
    if site.kind == "asgi":

        async def app(scope, receive, send):
            async def spy(message):
                if message.get("body") == b"dy":
                    seen.append(site.cache.events.counts["stored"])
                await send(message)

            await inner(scope, receive, spy)
    else:

        def app(environ, start_response):
            result = inner(environ, start_response)
            for chunk in result:
                if chunk == b"dy":
                    seen.append(site.cache.events.counts["stored"])
                yield chunk
            if hasattr(result, "close"):
                result.close()

    site.app = app
    site.get()
    assert seen == [1]


def test_stored_values_are_plain(build, fake):
    site = build(fake)
    site.answer([FRESH, ("Vary", "Accept")])
    site.get()
    (entry,) = fake.entries.values()
    packed = msgpack.unpackb(msgpack.packb(entry.value))
    fake.entries = {key: entry._replace(value=packed) for key in fake.entries}
    assert site.get().hit


@pytest.mark.parametrize(
    "value", [None, 1, "text", (), (99, 200), (1,) * 14, {"a": 1}, (1, 200, "", 5, b"") + (0,) * 9]
)
def test_what_cannot_be_read_is_a_miss(build, fake, value):
    site = build(fake)
    site.says("max-age=60")
    site.get()
    key = next(iter(fake.entries))
    entry = fake.entries[key]
    fake.entries[key] = type(entry)(value, entry.created_at, entry.fresh_until, entry.swr_until, entry.dead_at)
    assert not site.get().hit
    assert fake.events.counts["unreadable"] == 1
    assert site.get().hit


def test_a_date_is_not_invented(site):
    site.says("max-age=60")
    site.get()
    assert site.get().get("date") is None
    site.answer([FRESH, ("Date", format_date(site.clock.now))])
    site.get("/y")
    assert len(site.get("/y").all("date")) == 1
