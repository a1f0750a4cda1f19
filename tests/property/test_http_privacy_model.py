"""Who may get a stored response: both edges against a model that is written plainly from the specifications.

The model knows nothing of the implementation. It looks at each response that was answered from the cache, at the forward
that it came from, and says whether RFC 9111 and the rules of docs/http.md let this requester have it. Run with
``CACHEKIT_SOAK=1 CACHEKIT_EXAMPLES=20000`` for other and more examples.
"""

# ruff: noqa: E501 - tables
from __future__ import annotations

import asyncio
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit import Cache
from cachekit.http import asgi, wsgi
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from cachekit.testing import ManualClock
from tests.http.conftest import Grammar, environ_of

EXAMPLES = int(os.environ.get("CACHEKIT_EXAMPLES") or (1000 if os.environ.get("CACHEKIT_SOAK") else 80))
CREDENTIALS = ("authorization", "cookie", "x-api-key")
WHO = st.sampled_from(
    [
        [], [], [], [("cookie", "session=alice")], [("cookie", "session=bob")], [("authorization", "Basic YWxpY2U=")],
        [("authorization", "Basic Ym9i")], [("x-api-key", "alice")], [("cookie", "a=1"), ("authorization", "Basic eA==")],
        [("Cookie", "")], [("cookie", "session=alice"), ("cookie", "b=2")],
    ]
)  # fmt: skip
MORE = st.lists(
    st.sampled_from(
        [("accept-language", "de"), ("accept-language", "en"), ("accept-language", "EN"), ("accept", "a"),
         ("range", "bytes=0-3"), ("range", "bytes=-1"), ("if-none-match", '"a"'), ("if-none-match", "*"), ("cache-control", "max-stale"),
         ("cache-control", "no-cache"), ("cache-control", "only-if-cached"), ("cache-control", "no-store"),
         ("if-modified-since", "Fri, 15 Jan 2027 08:00:00 GMT"), ("x-forwarded-host", "evil"), ("pragma", "no-cache"),
         ("x-original-url", "/evil"), ("x-forwarded-prefix", "/evil"), ("forwarded", "host=evil")]
    ),
    max_size=2,
)  # fmt: skip
CONTROLS = st.lists(
    st.sampled_from(
        ["max-age=60", "s-maxage=60", "public", "private", "no-store", "no-cache", "must-revalidate", "proxy-revalidate",
         "must-understand", "stale-while-revalidate=60", "stale-if-error=60", "max-age=0", 'private="x"', 'ext="public"',
         "immutable", "PRIVATE", "x=y", 'private="x-mine"', 'no-cache="x-mine"', 'private="Set-Cookie, x-mine"', 'no-cache="set-cookie"',
         'private=""', 'private="x mine"', 'private="x-mine, vary"', "private=x-mine"]
    ),
    max_size=3,
).map(", ".join)  # fmt: skip
FIELDS = st.lists(
    st.one_of(
        st.tuples(st.just("Cache-Control"), CONTROLS),
        st.tuples(st.just("CDN-Cache-Control"), CONTROLS),
        st.tuples(st.just("Surrogate-Control"), CONTROLS),
        st.sampled_from(
            [("Set-Cookie", "session=new"), ("Vary", "Cookie"), ("Vary", "Authorization"), ("Vary", "Accept-Language"),
             ("Vary", "*"), ("Vary", "Cookie, Authorization, X-Api-Key"), ("ETag", '"a"'), ("Last-Modified", "Thu, 14 Jan 2027 08:00:00 GMT"),
             ("Expires", "Sat, 01 Jan 2050 00:00:00 GMT"), ("Expires", "0"), ("Age", "30")]
        ),
    ),
    max_size=4,
)  # fmt: skip
FRESH = st.sampled_from(
    [("Cache-Control", "max-age=60"), ("Cache-Control", "public, max-age=60"), ("CDN-Cache-Control", "max-age=60"),
     ("Cache-Control", "s-maxage=60"), ("Surrogate-Control", "max-age=60"), ("Cache-Control", "max-age=60, must-revalidate"),
     ("Cache-Control", 'max-age=60, private="x-mine"'), ("Cache-Control", 'public, max-age=60, no-cache="set-cookie, x-mine"')]
)  # fmt: skip
FIELDS = st.one_of(FIELDS, st.builds(lambda one, more: [one, *more], FRESH, FIELDS.map(lambda more: more[:2])))
MORE = st.one_of(st.just([]), st.just([]), MORE)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*["GET"] * 9, "HEAD", "POST"]), st.sampled_from(["/a", "/a", "/b.css", "/a/x.css"]), WHO, MORE, FIELDS,
        st.sampled_from([*[200] * 8, 404, 206, 304, 503, 301]), st.sampled_from([0, 0, 0, 1, 61]),
    ),
    min_size=3, max_size=8,
)  # fmt: skip
RULES = st.sampled_from(
    [
        (), (Rule("/**", ttl=60),), (Rule("/**", ttl=60, shared=True),), (Rule("/**/*.css", cache_control="max-age=60"),),
        (Rule("/**", cache_control="public, max-age=60"),), (Rule("/**", ttl=60, override=True, stale_if_error=60),),
        (Rule("/a", store=False), Rule("/**", surrogate_control="max-age=60")),
    ]
)  # fmt: skip


class Forward:
    """One answer of the application, and what it was asked."""

    def __init__(self, number, method, path, asked, status, fields):
        self.number, self.method, self.path, self.asked = number, method, path, asked
        self.status, self.fields = status, fields


# The model


def lines(headers, name):
    return [value for own, value in headers if own.lower() == name]


def words(value):
    """Return the directives of a field value, what is quoted left out."""
    plain = re.sub(r'"[^"]*"', '""', value)
    return {
        part.strip().partition("=")[0].lower(): part.strip().partition("=")[2]
        for part in plain.split(",")
        if part.strip()
    }


def said(fields):
    """Return the directives that count for a shared cache, and whether they are from a field addressed to it."""
    for name in ("surrogate-control", "cdn-cache-control"):
        if any(value.strip() for value in lines(fields, name)):
            if name == "cdn-cache-control" and any(
                re.search(r"[A-Z]", re.sub(r'"[^"]*"', "", value)) for value in lines(fields, name)
            ):
                continue  # no Structured Field: ignored as a whole
            return words(", ".join(lines(fields, name))), True
    return words(", ".join(lines(fields, "cache-control"))), False


def about(fields, name):
    """Return the fields that the directive *name* is about: None when it is absent, ``{"*"}`` when it is about everything."""
    counts = "cache-control"
    if said(fields)[1]:
        surrogate = any(value.strip() for value in lines(fields, "surrogate-control"))
        counts = "surrogate-control" if surrogate else "cdn-cache-control"
    text = ", ".join(lines(fields, counts))
    found = re.findall(rf'(?:^|,)\s*{name}(?:=(?:"([^"]*)"|([^,]*)))?\s*(?=,|$)', text, re.IGNORECASE)
    if counts == "cdn-cache-control":
        found = found[-1:]  # a Dictionary: the last of two keys
    if not found:
        return None
    names = set()
    for quoted, bare in found:
        listed = {one.strip().lower() for one in (quoted or bare).split(",")}
        if not all(re.fullmatch(r"[a-z-]+", one) for one in listed) or listed & {"vary"}:
            return {"*"}
        names |= listed
    return names


def for_everyone(forward, rules):
    found, targeted = said(forward.fields)
    if targeted:
        declared = "public" in found or "s-maxage" in found or "max-age" in found
    else:
        declared = "public" in found or "s-maxage" in found
    rule = next(
        (r for r in rules if r.match("GET", forward.path) is not None and forward.status in (*r.status, 206)), None
    )
    return declared or (rule is not None and rule.is_shared)


def may_have(forward, asked, rules):
    """Say why the requester with the fields *asked* must not have the response *forward*; empty when it may."""
    found, targeted = said(forward.fields)
    if "no-store" in found and "must-understand" not in found:
        return "no-store"
    private = about(forward.fields, "private") or set()
    if "*" in private:
        return "private"
    if lines(forward.fields, "set-cookie") and "set-cookie" not in private | (
        about(forward.fields, "no-cache") or set()
    ):
        return "set-cookie"
    vary = {name.strip().lower() for value in lines(forward.fields, "vary") for name in value.split(",")}
    if "*" in vary:
        return "vary: *"
    for name in vary - {""}:
        if spelled(lines(asked, name)) != spelled(lines(forward.asked, name)):
            return f"vary: {name}"
    if for_everyone(forward, rules):
        return ""
    for name in CREDENTIALS:
        here, there = lines(asked, name), lines(forward.asked, name)
        if not here and not there:
            continue
        if name == "authorization":
            if "must-revalidate" in found:
                continue
            return "authorization"
        if name not in vary:
            return f"{name} without a declaration"
    return ""


def spelled(values):
    if not values:
        return None
    return [part.strip().lower() for value in values for part in value.split(",")]


def reflected(asked):
    """Return what many applications put into links, without saying so in Vary."""
    names = ("x-forwarded-host", "x-original-url", "x-forwarded-prefix", "forwarded")
    return " ".join(value for name in names for value in lines(asked, name))


def merged(forwards):
    """Return the response that the first of *forwards* is after the 304s that follow it (RFC 9111 section 3.2)."""
    fields = []
    for forward in forwards:
        new = {name.lower() for name, _ in forward.fields}
        fields = [pair for pair in fields if pair[0].lower() not in new] + list(forward.fields)
    last = forwards[-1]
    return Forward(last.number, last.method, last.path, last.asked, forwards[0].status, fields)


# The world


class World:
    def __init__(self, edge, rules, options):
        self.clock = ManualClock()
        self.clock.now = 1_800_000_000.0
        self.forwards = []
        self.answer = (200, [])
        kind = asgi if edge == "asgi" else wsgi
        app = self.asgi_app if edge == "asgi" else self.wsgi_app
        self.edge = edge
        self.cache = Cache(clock=self.clock)
        self.site = kind.HttpCache(app, self.cache, rules=rules, options=options)

    def respond(self, method, path, headers):
        status, fields = self.answer
        ranged = any(name == "range" for name, _ in headers)
        if status == 206 and not ranged:
            status = 200
        if status == 304 and not any(name in ("if-none-match", "if-modified-since") for name, _ in headers):
            status = 200
        number = len(self.forwards)
        body = f"{number:08}".encode()
        fields = [*fields, ("X-Forward", str(number)), ("X-Mine", str(number)), ("X-Reflected", reflected(headers))]
        fields.append((f"X-Via-{number}", "1"))
        if status == 206:
            body = body[:4]
            fields.append(("Content-Range", "bytes 0-3/8"))
        self.forwards.append(Forward(number, method, path, headers, status, fields))
        return status, fields, b"" if status == 304 or method == "HEAD" else body

    async def asgi_app(self, scope, receive, send):
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        status, fields, body = self.respond(scope["method"], scope["path"], headers)
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

    def wsgi_app(self, environ, start_response):
        headers = [(n[5:].replace("_", "-").lower(), v) for n, v in environ.items() if n.startswith("HTTP_")]
        status, fields, body = self.respond(environ["REQUEST_METHOD"], environ["PATH_INFO"], headers)
        start_response(f"{status} Word", fields)
        return [body]

    def ask(self, runner, method, path, headers):
        if self.edge == "asgi":
            scope = {"type": "http", "method": method, "scheme": "https", "path": path, "raw_path": path.encode(), "query_string": b"",
                     "headers": [(b"host", b"a"), *((n.lower().encode(), v.encode("latin-1")) for n, v in headers)]}  # fmt: skip
            sent = Grammar()

            async def call():
                await self.site(scope, None, sent)
                while tasks := [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]:
                    await asyncio.wait(tasks)

            runner.run(call())
            got = sent.got()
            return got.status, got.headers, got.body
        heads = []
        body = b"".join(
            self.site(environ_of(method, path, list(headers)), lambda s, h, e=None: heads.append((int(s[:3]), h)))
        )
        return *heads[-1], body


@pytest.mark.parametrize("edge", ["asgi", "wsgi"])
def test_nobody_gets_what_the_model_forbids(edge):
    answered = left_out = 0
    options = st.builds(
        HttpOptions, cache_status=st.booleans(), generate_etag=st.booleans(), store_parts=st.booleans(),
        heuristic=st.sampled_from([0, 0.1]), stale_if_error=st.sampled_from([0, 60]), emit_tags=st.sampled_from(["all", "none"]),
        collapse=st.booleans(), uncacheable_for=st.sampled_from([0, 10]), any_language_order=st.booleans(),
        stale_while_revalidate=st.just(0) if edge == "wsgi" else st.sampled_from([0, 60]),
    )  # fmt: skip

    @settings(deadline=None, max_examples=EXAMPLES)
    @given(RULES, options, STEPS)
    def check(rules, chosen, steps):
        nonlocal answered, left_out
        world = World(edge, rules, chosen)
        for method, path, who, more, fields, status, later in steps:
            if edge == "wsgi" and any("stale-while" in value for _, value in fields):
                fields = []  # its thread would answer at any time
            world.answer = (status, fields)
            world.clock.advance(later)
            before = len(world.forwards)
            asked = [*who, *more]
            got_status, got, body = world.ask(runner, method, path, asked)
            source = next((int(v) for n, v in got if n.lower() == "x-forward"), None)
            if source is None:
                assert got_status in (416, 504) or (got_status == 200 and method == "HEAD"), (got_status, got)
                continue
            if body and got_status in (200, 206, 404, 301) and b"Content-Range" not in body:
                updated = world.forwards[source].status == 304  # it tells new fields of an older body
                bodies = [b"%08d" % number for number in range(source + 1)] if updated else [b"%08d" % source]
                assert any(body in one for one in bodies)
            if source >= before:
                continue  # it was made for this request
            answered += 1
            chain = sorted(int(name[6:]) for name, _ in got if name.lower().startswith("x-via-"))
            assert chain[-1] == source
            forward = merged([world.forwards[number] for number in chain])
            assert forward.path == path
            assert method in ("GET", "HEAD")
            reason = may_have(forward, asked, rules)
            assert not reason, (reason, forward.asked, forward.fields, asked)
            assert lines(got, "x-reflected") == [reflected(asked)], "poisoned"
            assert not lines(got, "set-cookie")
            listed = (about(forward.fields, "private") or set()) | (about(forward.fields, "no-cache") or set())
            if "x-mine" in listed:
                assert not lines(got, "x-mine"), "a field was sent that is private, or to be asked about"
                left_out += 1
            # What is kept apart by what it reflects is dropped by who sends the same.
            changed = [
                f
                for f in world.forwards[source:before]
                if f.method == "POST"
                and f.path == path
                and f.status < 400
                and (not reflected(asked) or reflected(f.asked) == reflected(asked))
            ]
            assert not changed, "an unsafe method dropped it"
            if got_status == 200 and method == "GET":
                assert len(body) == 8, "a part was passed off as the whole"
            if "*" in (about(forward.fields, "no-cache") or set()) and before == len(world.forwards):
                ruled = any(rule.override for rule in rules)
                assert ruled, "no-cache was not asked again"

    with asyncio.Runner() as runner:
        check()
    assert answered > 20
    assert left_out > 0 or EXAMPLES < 500


JUNK = st.text(st.characters(max_codepoint=255), max_size=40)
NAMES = st.one_of(
    st.sampled_from(
        ["cache-control", "vary", "expires", "date", "age", "etag", "last-modified", "content-length", "content-range", "connection",
         "location", "content-location", "cdn-cache-control", "surrogate-control", "cache-tag", "surrogate-key", "content-type",
         "range", "if-range", "if-none-match", "if-modified-since", "accept-encoding", "accept-language", "host", "forwarded",
         "x-forwarded-host", "authorization", "cookie", "pragma", "transfer-encoding", "if-match", "set-cookie"]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=255), min_size=1, max_size=8),
)  # fmt: skip
ODD = st.one_of(
    JUNK,
    st.lists(
        st.sampled_from(
            ["max-age=", "60", '"', "\\", ",", ";", "=", "*", "bytes", "-", "0-0", "/", "W/", '"a"', "q=", "0.5", "no-store", "\x00", "\t",
             "Sun, 06 Nov 1994 08:49:37 GMT", "99999999999999999999", "-1", "é", "public", " ", "{", "?0", ":"]
        ),
        max_size=8,
    ).map("".join),
)  # fmt: skip


@pytest.mark.parametrize("edge", ["asgi", "wsgi"])
def test_no_header_whatever_raises_out_of_the_middleware(edge):
    """What the application answers arrives, whatever fields there are on either side; and no line grows another one."""
    rules = [Rule("/**", ttl=60, shared=True, tags=["t", "a:{query.a}"], cache_control="public, max-age=9")]

    @settings(deadline=None, max_examples=EXAMPLES)
    @given(
        st.sampled_from(["GET", "HEAD", "POST", "get", "M-SEARCH"]), st.one_of(st.just("/x"), JUNK.map("/".__add__)), JUNK,
        st.lists(st.tuples(NAMES, ODD), max_size=6), st.lists(st.tuples(NAMES, ODD), max_size=6),
        st.sampled_from([200, 206, 304, 404, 500]), st.booleans(),
    )  # fmt: skip
    def check(method, path, query, asked, fields, status, ruled):
        clock = ManualClock()
        options = HttpOptions(
            status_key=True, status_detail=True, codings=["br"], key_cookies=["a"], ignore_query=["b"]
        )
        cache = Cache(clock=clock)
        if edge == "asgi":

            async def app(scope, receive, send):
                pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
                await send({"type": "http.response.start", "status": status, "headers": pairs})
                await send({"type": "http.response.body", "body": b"body"})

            site = asgi.HttpCache(app, cache, rules=rules if ruled else (), options=options)
            scope = {"type": "http", "method": method, "scheme": "http", "path": path, "raw_path": path.encode("latin-1"),
                     "query_string": query.encode("latin-1"),
                     "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in asked]}  # fmt: skip
            for _ in range(2):
                sent = []

                async def send(message):
                    sent.append(message)

                runner.run(site(scope, None, send))
                assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
                added = [
                    pair for pair in sent[0]["headers"] if pair[0] in (b"cache-tag", b"cache-status", b"age", b"etag")
                ]
                given = {value.encode("latin-1") for _, value in fields}
                assert not any(set(b"\r\n\x00") & set(value) for _, value in added if value not in given)
        else:

            def app(environ, start_response):
                start_response(f"{status} Word", list(fields))
                return [b"body"]

            site = wsgi.HttpCache(app, cache, rules=rules if ruled else (), options=options)
            environ = environ_of(method, "/", [])
            environ.update({"PATH_INFO": path, "QUERY_STRING": query})
            environ.update({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in asked})
            for _ in range(2):
                heads = []
                body = site(dict(environ), lambda s, h, e=None: heads.append((s, h)))
                content = b"".join(body)
                assert len(heads) == 1
                assert content in (b"body", b"") or len(content) < 9000
                added = [value for name, value in heads[0][1] if name in ("Cache-Tag", "Cache-Status", "Age", "ETag")]
                given = {value for _, value in fields}
                assert not any(set("\r\n\x00") & set(value) for value in added if value not in given)

    with asyncio.Runner() as runner:
        check()


@given(
    st.lists(st.one_of(st.tuples(st.integers(0, 2000), st.integers(0, 2000)).map(lambda p: f"{p[0]}-{p[1]}"),
                       st.integers(0, 2000).map("{}-".format), st.integers(0, 2000).map("-{}".format)), max_size=40)
)  # fmt: skip
def test_no_range_costs_more_than_twice_the_whole(specs):
    from cachekit.http.message import StoredResponse
    from cachekit.http.ranges import cut

    body = bytes(1000)
    found = StoredResponse(200, "", [("Content-Type", "text/plain")], body, 0.0, 0.0, 60.0)
    made = cut([("range", "bytes=" + ",".join(specs))], found, list(found.headers))
    if made is not None and made[0] == 206:
        assert len(made[2]) <= 1000 + 17 * 200
