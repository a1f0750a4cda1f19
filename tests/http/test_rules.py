"""Header rules: which paths, what they say, what they never do. Rows that need an application go through both edges."""

from __future__ import annotations

import pytest

from cachekit.errors import ConfigError
from cachekit.http.rules import Rule, Rules
from tests.http.conftest import Answer

CC = "Cache-Control"

PATHS = [
    # pattern, path, tags template, tags or None
    ("/product/{id}", "/product/42", ["product:{id}"], ("product:42",)),
    ("/product/{id}", "/product/", ["product:{id}"], None),
    ("/product/{id}", "/product/42/x", ["product:{id}"], None),
    ("/product/{id}", "/x/product/42", ["product:{id}"], None),
    ("/product/{id}.html", "/product/42.html", ["p:{id}"], ("p:42",)),
    ("/{a}-{b}", "/x-y", ["{b}:{a}", "all"], ("all", "y:x")),
    ("/static/*", "/static/a.css", [], ()),
    ("/static/*", "/static/", [], ()),
    ("/static/*", "/static/a/b.css", [], None),
    ("/static/*.css", "/static/a.css", [], ()),
    ("/static/*.css", "/static/acss", [], None),
    ("/static/**", "/static/a/b/c.css", [], ()),
    ("/static/**", "/static/", [], ()),
    ("/static/**", "/static", [], None),
    ("/static/**", "/statics/a", [], None),
    ("/**", "/", [], ()),
    ("/**", "/a/b", [], ()),
    ("/**/x.js", "/x.js", [], ()),
    ("/**/x.js", "/a/b/x.js", [], ()),
    ("/**/x.js", "/a/bx.js", [], None),
    ("/a.b", "/aXb", [], None),
    ("/(a|b)+", "/(a|b)+", [], ()),
    ("/", "/", [], ()),
    # paths that an application might resolve to another one hold for no rule
    ("/static/**", "/static/../account", [], None),
    ("/static/**", "/static/./a", [], None),
    ("/static/**", "/static//a", [], None),
    ("/static/**", "/static/..", [], None),
    ("/static/**", "/static/..\\account", [], None),
    ("/static/**", "/static/a\x00b", [], None),
    ("/static/**", "/static/a\nb", [], None),
    ("/static/**", "/static/..a", [], ()),
    # values that cannot be tags
    ("/p/{id}", "/p/" + "x" * 600, ["p:{id}"], None),
    ("/p/{id}", "/p/a\u200bb", ["p:{id}"], None),
    ("/p/{id}", "/p/a,b", ["p:{id}"], ("p:a,b",)),
]


@pytest.mark.parametrize(("pattern", "path", "tags", "expected"), PATHS)
def test_paths(pattern, path, tags, expected):
    found = Rules([Rule(pattern, tags=tags)]).candidates("GET", path)
    assert (found[0].tags if found else None) == expected


WRONG = [
    ({"path": "product"}, "path"),
    ({"shared": "yes"}, "shared='yes' must be True or False"),
    ({"store": None}, "store=None must be True or False"),
    ({"override": 1}, "override=1 must be True or False"),
    ({"path": 3}, "path"),
    ({"path": "/{a"}, "path"),
    ({"path": "/a}"}, "path"),
    ({"path": "/{a}/{a}"}, "path"),
    ({"path": "/{a b}"}, "path"),
    ({"path": "/{}"}, "path"),
    ({"path": "/a/<b>"}, "write {name}"),
    ({"path": "/a/<int:b>.html"}, "'<int:b>' .* write {name}"),
    ({"path": "/a//b"}, "path"),
    ({"path": "/a/../b"}, "path"),
    ({"path": "/a\r\nb"}, "path"),
    ({"path": "/**/**/**"}, "wildcards"),
    ({"cache_control": ""}, "cache_control"),
    ({"cache_control": "public\r\nSet-Cookie: a=b"}, "cache_control"),
    ({"cache_control": "publi\u00e7"}, "cache_control"),
    ({"cache_control": "max age=5"}, "cache_control"),
    ({"cache_control": "max-age=five"}, "max-age"),
    ({"cache_control": "max-age=5m"}, "max-age"),
    ({"cache_control": "max-age"}, "max-age"),
    ({"cache_control": "max-age=1, max-age=2"}, "cache_control"),
    ({"cache_control": "public, private"}, "cache_control"),
    ({"cache_control": "public, no-store"}, "cache_control"),
    ({"cache_control": "private", "ttl": 5}, "cache_control"),
    ({"cache_control": 5}, "cache_control"),
    ({"surrogate_control": "max-age=1\n"}, "surrogate_control"),
    ({"surrogate_control": "max-age=x"}, "surrogate_control"),
    ({"ttl": -1}, "ttl"),
    ({"ttl": 0}, "ttl"),
    ({"ttl": "soon"}, "ttl"),
    ({"ttl": 5, "store": False}, "store"),
    ({"stale_while_revalidate": "x"}, "stale_while_revalidate"),
    ({"stale_if_error": -5}, "stale_if_error"),
    ({"tags": "product:{id}"}, "tags"),
    ({"tags": ["a:{nope}"]}, "nope"),
    ({"tags": ["a\nb"]}, "tags"),
    ({"tags": [""]}, "tags"),
    ({"content_types": "text/html"}, "content_types"),
    ({"content_types": ["html"]}, "content_types"),
    ({"status": [99]}, "status"),
    ({"status": 200}, "status"),
    ({"methods": "GET"}, "methods"),
    ({"methods": ["G T"]}, "methods"),
]


@pytest.mark.parametrize(("options", "word"), WRONG)
def test_what_is_wrong_is_said_at_once(options, word):
    with pytest.raises(ConfigError, match=word):
        Rule(**{"path": "/x", **options})


def test_rules_must_be_rules():
    with pytest.raises(ConfigError, match="Rule"):
        Rules([{"path": "/x"}])


def test_a_rule_fills_in_what_the_application_left_unsaid(site):
    rule = Rule(
        "/product/{id}", cache_control="public, s-maxage=86400, stale-while-revalidate=600, stale-if-error=86400",
        surrogate_control="max-age=86400", tags=["product:{id}", "catalog"],
    )  # fmt: skip
    site.setup([rule]).answer(Answer())
    for got in (site.get("/product/42"), site.get("/product/42")):
        assert got.get("cache-control") == "public, s-maxage=86400, stale-while-revalidate=600, stale-if-error=86400"
        assert got.get("surrogate-control") == "max-age=86400"
        assert got.get("cache-tag") == "catalog,product:42"
    assert got.hit
    assert site.get("/other").get("cache-control") is None


def test_the_first_rule_that_suits_holds(site):
    rules = [
        Rule("/x", cache_control="max-age=1", content_types=["image/*"]),
        Rule("/x", cache_control="max-age=2", status=[404]),
        Rule("/x", cache_control="max-age=3", methods=["POST"]),
        Rule("/**", cache_control="max-age=4", content_types=["text/html"]),
        Rule("/**", cache_control="max-age=5"),
    ]
    site.setup(rules)
    table = [
        (Answer(headers=[("Content-Type", "image/png")]), "max-age=1"),
        (Answer(404), "max-age=2"),
        (Answer(headers=[("Content-Type", "Text/HTML; charset=utf-8")]), "max-age=4"),
        (Answer(headers=[("Content-Type", "text/htmlx")]), "max-age=5"),
        (Answer(500), None),
    ]
    for at, (answer, control) in enumerate(table):
        site.answer(answer)
        assert site.get(f"/x?{at}").get("cache-control") == control
    site.answer(Answer())
    assert site.request("POST").get("cache-control") == "max-age=3"


TTL = [
    # name, the application's fields, is it stored, what the client is told
    ("nothing", [], True, None),
    ("max-age of its own", [(CC, "max-age=10")], True, "max-age=10"),
    ("max-age=0 of its own", [(CC, "max-age=0")], False, "max-age=0"),
    ("private", [(CC, "private")], False, "private"),
    ("no-store", [(CC, "no-store")], False, "no-store"),
    ("no-cache", [(CC, "no-cache")], False, "no-cache"),
    ("Expires in the past", [("Expires", "0")], False, None),
    ("Set-Cookie", [("Set-Cookie", "a=b")], False, None),
    ("Vary: *", [("Vary", "*")], False, None),
    ("public without a number", [(CC, "public")], True, "public"),
]


@pytest.mark.parametrize(("headers", "stored", "control"), [r[1:] for r in TTL], ids=[r[0] for r in TTL])
def test_ttl(site, headers, stored, control):
    site.setup([Rule("/x", ttl="1h")]).answer(headers)
    got = site.get()
    assert got.get("cache-control") == control
    assert site.get().hit is stored


@pytest.mark.parametrize(("headers", "lifetime"), [([], 3600), ([(CC, "max-age=10")], 10), ([(CC, "s-maxage=20")], 20)])
def test_what_the_application_says_comes_before_the_ttl(site, clock, headers, lifetime):
    site.setup([Rule("/x", ttl="1h")]).answer(headers)
    site.get()
    clock.advance(lifetime - 1)
    assert site.get().hit
    clock.advance(1)
    assert not site.get().hit


OVERRIDE = [
    ("no-cache", [(CC, "no-cache")], True, "public, max-age=60"),
    ("max-age=0", [(CC, "max-age=0, must-revalidate")], True, "public, max-age=60"),
    ("Expires", [("Expires", "0")], True, "public, max-age=60"),
    ("private stands", [(CC, "private")], False, "private"),
    ("no-store stands", [(CC, "no-store")], False, "no-store"),
    ("Set-Cookie stands", [("Set-Cookie", "a=b")], False, None),
]


@pytest.mark.parametrize(("headers", "stored", "control"), [r[1:] for r in OVERRIDE], ids=[r[0] for r in OVERRIDE])
@pytest.mark.parametrize("ttl", [None, "1h"])
def test_override(site, headers, stored, control, ttl):
    site.setup([Rule("/x", cache_control="public, max-age=60", override=True, ttl=ttl)]).answer(headers)
    got = site.get()
    assert got.get("cache-control") == control
    if stored:
        assert got.get("expires") is None
    assert site.get().hit is stored


def test_ttl_and_no_cache_for_clients(site, clock):
    """The usual pair for pages that are invalidated by tag: clients ask each time, this cache answers."""
    site.setup([Rule("/x", ttl="1d", cache_control="no-cache", stale_while_revalidate="1m")]).answer(Answer())
    site.get()
    got = site.get()
    assert (got.hit, got.get("cache-control")) == (True, "no-cache")
    assert site.get(if_none_match=got.get("etag")).status == 304
    clock.advance(86400)
    assert site.get().hit
    site.settle()
    assert site.forwards == 2


def test_windows_of_a_rule(site, clock):
    site.setup([Rule("/x", ttl=60, stale_while_revalidate=30, stale_if_error=90)]).answer(Answer())
    site.get()
    clock.advance(89)
    assert site.get().hit
    site.settle()
    site.answer(Answer(503))
    clock.advance(60 + 89)
    assert site.get().status == 200
    clock.advance(2)
    assert site.get().status == 503


def test_store_false(site):
    site.setup([Rule("/x", store=False)]).says("max-age=60")
    site.get()
    assert not site.get().hit


def test_a_304_of_the_application_tells_what_a_200_would(site):
    site.setup([Rule("/x", cache_control="max-age=60", tags=["t"])]).answer(Answer(304, [("ETag", '"a"')], b""))
    got = site.get(if_none_match='"a"')
    assert (got.status, got.get("cache-control"), got.get("cache-tag")) == (304, "max-age=60", "t")


def test_rules_do_not_become_the_application_s_word_by_a_304(site, clock):
    """A rule that is not shared stays so through revalidation."""
    site.setup([Rule("/x", cache_control="s-maxage=60")])
    site.answer(Answer(headers=[("ETag", '"a"')]), Answer(304, [("ETag", '"a"')], b""), Answer(body=b"mine"))
    site.get()
    clock.advance(61)
    got = site.get()
    assert (got.body, got.all("cache-control")) == (b"body", ["s-maxage=60"])
    assert site.get().hit
    assert site.get(cookie="session=1").body == b"mine"


def test_nothing_is_injected_through_a_path(site):
    site.setup([Rule("/p/{id}", ttl=60, tags=["p:{id}"])], tag_header="Cache-Tag").answer(Answer())
    got = site.get("/p/1%2Cadmin")
    assert got.all("cache-tag") == ["p:1%2Cadmin"]
    for target in ("/p/a%0D%0ASet-Cookie:x", "/p/a%00b"):
        got = site.get(target)
        assert got.get("cache-tag") is None
        assert got.get("set-cookie") is None
    site.setup([Rule("/p/{id}", ttl=60, tags=["p:{id}"])], tag_header="Surrogate-Key")
    assert site.get("/p/1%20admin").all("surrogate-key") == ["p:1%20admin"]


QUERIES = [
    # tags, path, query, expected
    (["carrier:{query.carrier}"], "/x/1", "carrier=AA", ("carrier:AA",)),
    (["carrier:{query.carrier}", "all"], "/x/1", "", ("all",)),
    (["carrier:{query.carrier}"], "/x/1", "carrier=AA&carrier=UA&carrier=AA", ("carrier:AA", "carrier:UA")),
    (["carrier:{query.carrier}"], "/x/1", "carrier=A+B%20C", ("carrier:A B C",)),
    (["carrier:{query.carrier}"], "/x/1", "carrier=%C3%A9", ("carrier:\xe9",)),
    (["carrier:{query.carrier}"], "/x/1", "%63arrier=AA", ("carrier:AA",)),
    (["carrier:{query.carrier}"], "/x/1", "carrier=AA;carrier=UA", ("carrier:AA;carrier=UA",)),
    (["carrier:{query.carrier}"], "/x/1", "carrier=a,b", ("carrier:a,b",)),
    (["c:{query.carrier}"], "/x/1", "carrier={id}{query.x}", ("c:{id}{query.x}",)),
    (["c:{id}:{query.a}:{query.b}"], "/x/1", "a=1&b=2&b=3", ("c:1:1:2", "c:1:1:3")),
    (["c:{query.a}"], "/x/1", "a=", ("c:",)),
    (["c:{query.a}"], "/x/1", "a=%0d%0aSet-Cookie:x", None),
    (["c:{query.a}"], "/x/1", "a=%00", None),
    (["c:{query.a}"], "/x/1", "a=%E2%80%8B", None),
    (["c:{query.a}"], "/x/1", "a=" + "x" * 600, None),
    (["c:{query.a}"], "/x/1", "&".join(f"a={n}" for n in range(9)), None),
    (["c:{query.a}:{query.b}"], "/x/1", "&".join(f"a={n}&b={n}" for n in range(5)), None),
    (["c:{query.a}"], "/x/1", "z=" + "x" * 3000, None),
]


@pytest.mark.parametrize(("tags", "path", "query", "expected"), QUERIES)
def test_tags_from_the_query(tags, path, query, expected):
    found = Rules([Rule("/x/{id}", tags=tags)]).candidates("GET", path, query)
    assert (tuple(sorted(found[0].tags)) if found else None) == (
        expected if expected is None else tuple(sorted(expected))
    )


@pytest.mark.parametrize(
    "tag", ["{query.a}", "{query.a}:b", "a:{query.}", "a:{query.b c}", "a:{query.a.b!r}", "a:{query}"]
)
def test_query_tags_that_are_wrong_are_said_at_once(tag):
    if tag == "a:{query.a.b!r}":
        tag = "a:{query.a!x}"
    with pytest.raises(ConfigError):
        Rule("/x/{id}", tags=[tag])


def test_a_purge_reaches_what_was_asked_for_by_query(site):
    site.setup([Rule("/flights", ttl=60, tags=["carrier:{query.carrier}"])]).answer([])
    for carrier in ("AA", "UA"):
        site.get(f"/flights?carrier={carrier}")
    if site.kind == "asgi":
        site.loop.run_until_complete(site.cache.ainvalidate("carrier:AA"))
    else:
        site.cache.invalidate("carrier:AA")
    assert not site.get("/flights?carrier=AA").hit
    assert site.get("/flights?carrier=UA").hit


def test_no_value_of_a_query_makes_a_header_line(site):
    site.setup([Rule("/x", ttl=60, tags=["c:{query.a}"])]).answer([])
    got = site.get("/x?a=b,c%20d%C3%A9")
    assert got.all("cache-tag") == ["c:b%2Cc%20d%C3%A9"]
    got = site.get("/x?a=%0d%0aX-Evil:1")
    assert got.get("x-evil") is None
    assert got.get("cache-tag") is None


@pytest.mark.parametrize("said", ["private", "no-store", 'private="x-a"', "no-store, max-age=60"])
@pytest.mark.parametrize("field", ["CDN-Cache-Control", "Surrogate-Control"])
@pytest.mark.parametrize("override", [False, True])
def test_no_rule_speaks_against_a_targeted_field_that_keeps_a_response_from_others(site, said, field, override):
    more = {"ttl": 60, "cache_control": "public, max-age=60", "surrogate_control": "max-age=60", "tags": ["t"]}
    for name, value in more.items():
        site.setup([Rule("/x", **{name: value}, override=override)]).answer([(field, said)])
        got = site.get()
        assert (got.all("surrogate-control"), got.all("cache-control")) == ([said] if field[0] == "S" else [], [])
        assert not site.get().hit


def test_what_a_rule_adds_for_caches_hides_no_no_cache(site):
    site.setup([Rule("/x", surrogate_control="max-age=60")])
    site.says("no-cache, max-age=60", headers=[("ETag", '"a"')])
    site.get()
    assert not site.get().hit
    site.setup([Rule("/y", surrogate_control="max-age=60")])
    site.says('no-cache="x-a", max-age=60', headers=[("X-A", "1")])
    assert site.get("/y").get("x-a") == "1"
    got = site.get("/y")
    assert (got.hit, got.get("x-a")) == (True, None)


@pytest.mark.parametrize(("control", "served"), [("max-age=1", True), ("max-age=1, must-revalidate", False)])
def test_what_a_rule_adds_for_caches_hides_no_must_revalidate(site, clock, control, served):
    site.setup([Rule("/x", surrogate_control="max-age=60", stale_if_error=60)])
    site.answer([("Cache-Control", control)], Answer(503))
    site.get()
    clock.advance(61)
    assert (site.get().status == 200) is served
