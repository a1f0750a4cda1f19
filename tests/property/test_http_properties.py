"""Properties of the HTTP grammar: what is printed reads back the same, and no bytes whatever raise."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from cachekit.http.directives import CacheControl, delta_seconds, parse_surrogate, parse_targeted
from cachekit.http.exchange import Exchange, not_modified
from cachekit.http.freshness import declared, initial_age
from cachekit.http.headers import (
    ETag,
    end_to_end,
    format_date,
    members,
    parse_date,
    parse_etag,
    parse_etags,
    parse_tags,
    parse_vary,
    print_tags,
    print_vary,
)
from cachekit.http.message import Request, StoredResponse, content_length, key_of
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule, Rules
from cachekit.http.selecting import nominated

TOKENS = st.text("!#$%&'*+-.^_`|~" + string.digits + string.ascii_lowercase, min_size=1, max_size=12)
LATIN = st.text(st.characters(max_codepoint=255), max_size=60)
NAMES = st.sampled_from(
    ["cache-control", "cdn-cache-control", "surrogate-control", "expires", "date", "age", "vary", "etag", "set-cookie",
     "content-length", "last-modified", "connection", "if-none-match", "if-modified-since", "authorization", "cookie",
     "host", "pragma", "accept-encoding", "cache-tag", "surrogate-key", "location", "forwarded", "x-forwarded-host"]
)  # fmt: skip
DIRECTIVES = st.lists(
    st.sampled_from(["max-age=60", "s-maxage=5", "no-store", "private", "public", "no-cache", "must-revalidate", '"',
                     ",", "=", " ", "max-age", "stale-if-error=9", "stale-while-revalidate=9", "max-stale", "\\", "*"]),
    max_size=6,
).map(", ".join)  # fmt: skip
HEADERS = st.lists(st.tuples(NAMES, st.one_of(LATIN, DIRECTIVES)), max_size=8)


@given(st.lists(st.tuples(TOKENS, st.one_of(st.none(), st.text(st.characters(min_codepoint=32, max_codepoint=126))))))
def test_cache_control_reads_back(pairs):
    control = CacheControl(tuple(pairs))
    assert CacheControl.parse(str(control)) == control


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool), unique=True))
def test_tags_read_back(tags):
    for separator in (",", " "):
        text = print_tags(tags, separator)
        assert parse_tags(text, separator) == tuple(tags)
        assert all(" " <= char <= "~" for char in text)


@given(st.lists(TOKENS.filter(lambda name: name != "*"), unique=True))
def test_vary_reads_back(names):
    assert parse_vary([("Vary", print_vary(names))]) == tuple(sorted(names))


@given(st.integers(0, 253402300799))
def test_dates_read_back(at):
    assert parse_date(format_date(at)) == at


@given(st.lists(st.builds(ETag, st.text("!#abc,0\x80", max_size=5), st.booleans())))
def test_entity_tags_read_back(tags):
    assert parse_etags(", ".join(map(str, tags))) == tuple(tags)
    for tag in tags:
        assert parse_etag(str(tag)) == tag


@given(LATIN)
def test_no_text_raises(text):
    headers = [("cache-control", text), ("surrogate-control", text), ("cdn", text), ("vary", text), ("age", text)]
    members(text)
    CacheControl.parse(text)
    parse_surrogate(headers)
    parse_targeted(headers, "cdn")
    parse_date(text)
    parse_etag(text)
    parse_etags(text)
    parse_tags(text)
    parse_vary(headers)
    delta_seconds(text)
    nominated(headers, "vary")
    end_to_end([("connection", text)])
    content_length([("content-length", text)])
    declared(headers, ("surrogate-control", "cdn"), 1e9)
    assert initial_age(headers, 0.0, 1.0) >= 0.0


@given(
    HEADERS,
    HEADERS,
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from([200, 304, 404, 503]),
    st.integers(0, 99),
)
def test_no_exchange_raises(asked, answered, method, status, later):
    rules = Rules([Rule("/**", ttl=60, stale_if_error=9, tags=["t"], cache_control="s-maxage=5")])
    options = HttpOptions(emit_tags="all", status_key=True, status_detail=True)
    request = Request(method, "https", "example.org", "/x", "/x", asked)
    stored = {}
    for now in (1e9, 1e9 + later):
        exchange = Exchange(request, rules, options)
        while (key := exchange.wants()) is not None:
            exchange.supply(stored.get(key))
        decision = exchange.decision(now)
        if hasattr(decision, "body"):
            continue
        answer = exchange.start(status, "", answered, now, {"used"})
        exchange.recording.feed(b"body")
        outcome = exchange.finish("nonce", {"used"})
        assert answer.status >= 200
        if hasattr(outcome, "entry"):
            kept = outcome.entry
            stored[outcome.key] = kept
            packed = StoredResponse.unpack(kept.value)
            assert packed is not None
            assert kept.created_at <= kept.fresh_until <= kept.swr_until <= kept.dead_at
            names = {name.lower() for name, _ in [*packed.headers, *packed.added]}
            assert not names & {"set-cookie", "connection", "age"}
            if "authorization" in {name for name, _ in asked}:
                assert any(word in str(answered) for word in ("public", "s-maxage", "must-revalidate", "max-age"))


@given(HEADERS, HEADERS)
def test_conditions_never_raise(request, response):
    assert not_modified(request, response) in (True, False)


@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.tuples(NAMES, LATIN), max_size=4))
def test_keys_are_bounded_and_plain(host, target, headers):
    key = key_of(Request("GET", "http", host, target, target, headers), ("x-forwarded-host",))
    assert key is None or (len(key.encode()) <= 200 and key.isprintable())


@given(
    st.lists(st.sampled_from(["/", "a", "b.css", "**", "*", "{x}", "..", "%", "//", "-"]), max_size=6),
    st.text(max_size=30),
)
def test_no_path_raises(pattern, path):
    from cachekit.errors import ConfigError

    try:
        rule = Rule("/" + "".join(pattern))
    except ConfigError:
        return
    Rules([rule]).candidates("GET", path)
