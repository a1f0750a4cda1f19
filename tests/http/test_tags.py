"""One tag, every layer: where the tags of a response come from, what they drop, and who is told. Through both edges."""

from __future__ import annotations

import asyncio

import pytest

from cachekit.http.rules import Rule
from cachekit.tags import tag as add_tags
from tests.http.conftest import Answer

CC = "Cache-Control"
FRESH = (CC, "max-age=60")


def invalidate(site, tag):
    if site.kind == "asgi":
        site.loop.run_until_complete(site.cache.ainvalidate(tag))
    else:
        site.cache.invalidate(tag)


@pytest.mark.parametrize("tag", ["product:42", "catalog", "used:1", "own-1", "own-2", "s-1", "s-2", "x-1"])
def test_every_tag_drops_the_response(site, tag):
    site.setup([Rule("/product/{id}", tags=["product:{id}", "catalog"])])
    own = [("Cache-Tag", "own-1, own-2"), ("Surrogate-Key", "s-1  s-2"), ("xkey", "x-1")]
    site.answer(Answer(headers=[FRESH, *own], before=lambda: add_tags("used:1")))
    site.get("/product/42")
    assert site.get("/product/42").hit
    invalidate(site, "unrelated")
    assert site.get("/product/42").hit
    invalidate(site, tag)
    assert not site.get("/product/42").hit


@pytest.mark.parametrize("kept", [{}, {"exceptions": {LookupError: "1h"}}], ids=["raised", "kept"])
def test_a_page_made_without_what_is_not_there_is_dropped_once_it_is(site, kept):
    known: dict[int, str] = {}

    @site.cache.cached(ttl=600, tags=["product:{number}"])
    def row(number: int) -> str:
        return known[number]

    @site.cache.cached(ttl=600, **kept)
    def product(number: int) -> str:
        return row(number)

    def look():
        try:
            found.append(product(7))
        except LookupError:
            found.append("none")

    found: list[str] = []
    site.answer(Answer(status=404, headers=[FRESH], before=look))
    assert site.get("/a").get("cache-tag") == "product:7"
    assert site.get("/a").hit
    site.get("/b")  # which gets the kept failure, where one is kept
    known[7] = "saw"
    invalidate(site, "product:7")
    site.get("/a")
    site.get("/b")
    assert found == ["none", "none", "saw", "saw"]


def test_the_tags_of_a_revalidation_are_told_as_well(site, clock):
    """They drop what is stored here, so a CDN has to know them."""
    site.setup([Rule("/product/{id}", tags=["product:{id}"])])
    fields = [(CC, "max-age=10"), ("ETag", '"a"')]
    site.answer(Answer(headers=fields, before=lambda: add_tags("body", "a,b")))
    assert site.get("/product/1").get("cache-tag") == "product:1,a%2Cb,body"
    clock.advance(11)
    site.answer(Answer(status=304, headers=fields, body=b"", before=lambda: add_tags("version")))
    told = [site.get("/product/1").get("cache-tag") for _ in range(2)]
    assert told == ["product:1,a%2Cb,body,version"] * 2
    invalidate(site, "version")
    assert not site.get("/product/1").hit


@pytest.mark.parametrize("when", ["before", "during"])
def test_what_is_made_of_data_that_is_rolled_back_is_kept_for_nobody(site, when):
    cache = site.cache

    def undo():
        with pytest.raises(LookupError), cache.transaction():
            cache.set("stock", 4)
            assert cache.get("stock") == 4
            raise LookupError

    site.answer(Answer(headers=[FRESH], body=[b"a", b"b"], **{when: undo}))
    first = site.get()
    assert when == "during" or first.get("cache-status") == "cachekit; fwd=uri-miss"
    assert not site.get().hit


def test_tags_used_while_the_body_streams_count(site):
    site.answer(Answer(headers=[FRESH], body=[b"a", b"b"], during=lambda: add_tags("late")))
    site.get()
    assert site.get().hit
    invalidate(site, "late")
    assert not site.get().hit


def test_tags_of_a_cached_function(site):
    cached = site.cache.cached(ttl=600, tags=["product:{number}"])

    @cached
    def product(number: int) -> str:
        return "data"

    site.answer(Answer(headers=[FRESH], before=lambda: product(7)))
    site.get("/a")
    site.get("/b")
    assert site.get("/a").hit
    assert site.get("/b").hit
    invalidate(site, "product:7")
    assert not site.get("/a").hit
    assert not site.get("/b").hit


def test_tags_survive_revalidation(site, clock):
    tagged = Answer(headers=[FRESH, ("ETag", '"a"')], before=lambda: add_tags("used"))
    site.answer(tagged, Answer(304, [("ETag", '"a"')], b""))
    site.get()
    clock.advance(61)
    site.get()
    assert site.get().hit
    invalidate(site, "used")
    assert not site.get().hit


def test_an_invalidation_while_the_response_is_made_wins(site):
    if site.kind == "asgi":
        pytest.skip("the application of this site is synchronous inside one loop")
    site.answer(Answer(headers=[FRESH], before=lambda: (add_tags("t"), site.cache.invalidate("t"))))
    assert site.get().status == 200
    assert not site.get().hit


def test_tags_of_one_request_do_not_reach_another(site):
    site.answer(Answer(headers=[FRESH], before=lambda: add_tags("a")), Answer(headers=[FRESH]))
    site.get("/a")
    site.get("/b")
    invalidate(site, "a")
    assert not site.get("/a").hit
    assert site.get("/b").hit


EMIT = [
    ({}, "catalog,product:1,user:7"),
    ({"emit_tags": "rules"}, "catalog,product:1"),
    ({"emit_tags": "all"}, "catalog,product:1,user:7"),
    ({"emit_tags": "none"}, None),
    ({"tag_header": "Surrogate-Key"}, "catalog product:1 user:7"),
]


@pytest.mark.parametrize(("options", "value"), EMIT)
def test_who_is_told(site, options, value):
    site.setup([Rule("/p/{id}", tags=["product:{id}", "catalog"])], **options)
    site.answer(Answer(headers=[FRESH], before=lambda: add_tags("user:7")))
    name = options.get("tag_header", "Cache-Tag")
    for _ in range(2):
        got = site.get("/p/1")
        assert got.get(name) == value
    assert got.hit


def test_the_application_s_own_tags_are_left_alone(site):
    site.answer([FRESH, ("Cache-Tag", "a,b"), ("Surrogate-Key", "c d")])
    for _ in range(2):
        got = site.get()
        assert (got.all("cache-tag"), got.all("surrogate-key")) == (["a,b"], ["c d"])


def test_odd_tags_of_the_application_do_no_harm(site):
    site.answer(
        [FRESH, ("Cache-Tag", ",, ,\x01,ok," + "x" * 2000)]
        if site.kind != "wsgi-validated"
        else [FRESH, ("Cache-Tag", ",, ,ok," + "x" * 2000)]
    )
    site.get()
    assert site.get().hit
    invalidate(site, "ok")
    assert not site.get().hit


def test_both_worlds_share_one_cache(cache, clock):
    """The same response is served by a WSGI and by an ASGI edge, and one invalidation drops it for both."""
    from tests.http.conftest import AsgiSite, WsgiSite

    one, two = AsgiSite(cache, clock), WsgiSite(cache, clock)
    one.says("max-age=60", headers=[("Cache-Tag", "t")])
    one.get()
    assert two.get().hit
    cache.invalidate("t")
    assert not one.get().hit
    one.close()
    assert asyncio.run(cache.aget("nothing")) is None


@pytest.mark.parametrize(("name", "separator"), [("Cache-Tag", ","), ("Surrogate-Key", " "), ("xkey", " ")])
def test_tags_keep_to_what_cdns_take(site, name, separator, caplog):
    tags = [f"tag-{number:04}-{'x' * 40}" for number in range(600)]
    site.setup(rules=[Rule("/x", ttl="1h", tags=tags)], tag_header=name)
    for got in (site.get(), site.get()):
        lines = got.all(name)
        assert all(len(line) <= 8000 for line in lines)
        assert sum(map(len, lines)) <= 16384
        told = [tag for line in lines for tag in line.split(separator)]
        assert told == tags[: len(told)]
        assert len(told) > 300
    assert "no place for" in caplog.text
    # What is not told further out still drops it here.
    site.cache.invalidate(tags[-1])
    assert not site.get().hit


def test_a_tag_that_is_too_long_is_left_out_alone():
    from cachekit.http.headers import tag_lines

    assert tag_lines(["a", "\xe9" * 200, "b"]) == (["a,b"], ["\xe9" * 200])
    assert tag_lines([]) == ([], [])


def test_tags_are_told_past_the_cache_too(site):
    """What is not stored here may be stored further out."""
    site.answer(Answer(before=lambda: add_tags("a")))
    for _ in range(3):
        assert site.get("/nothing-said").get("Cache-Tag") == "a"
    site.answer(Answer(headers=[("Cache-Control", "no-store")], before=lambda: add_tags("a")))
    for _ in range(3):
        assert site.get("/not-stored").get("Cache-Tag") is None


# Freshness follows what was used


@pytest.fixture
def using(cache):
    """A page that uses a function of 20 seconds, through one of 100."""

    @cache.cached(ttl=20)
    def price(n):
        return n

    @cache.cached(ttl=100)
    def product(n):
        return price(n) * 2

    def install(site, use=lambda: product(1), **headers):
        def respond(seen):
            use()
            return Answer(headers=[("Cache-Control", "max-age=60"), *headers.items()])

        site.answers = respond
        return site

    install.price, install.product = price, product
    return install


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("warm", [0, 15])
def test_freshness_follows_the_shortest_function(site, clock, using, follow, warm):
    site.setup(follow_functions=follow)
    using(site)
    if warm:
        using.product(1)  # a hit then: what is left of it counts
        clock.advance(warm)
    site.get()
    left = 20 - warm
    clock.advance(left - 1)
    assert site.get().hit
    clock.advance(1)
    assert site.get().hit is not follow


def test_a_function_that_lives_longer_changes_nothing(site, clock, cache, using):
    @cache.cached(ttl="1h")
    def other():
        return 1

    site.setup(follow_functions=True)
    using(site, other)
    site.get()
    clock.advance(59)
    assert site.get().hit
    clock.advance(1)
    assert not site.get().hit


def test_what_is_served_stale_leaves_nothing(site, clock, cache, using):
    @cache.cached(ttl=10, stale_while_revalidate=1000)
    def slow():
        return 1

    slow()
    clock.advance(20)
    site.setup(follow_functions=True)
    using(site, slow)
    site.get()
    assert site.forwards == 1
    assert not site.get().hit


def test_a_304_follows_too(site, clock, cache, using):
    site.setup(follow_functions=True)
    using(site, ETag='"a"')
    site.get()
    clock.advance(20)
    calls = []

    def respond(seen):
        calls.append(using.product(1))
        return Answer(304, [("ETag", '"a"')], b"")

    site.answers = respond
    clock.advance(100)
    assert site.get().status == 200
    clock.advance(19)
    assert site.get().hit
    clock.advance(1)
    site.get()
    assert len(calls) == 2
