"""RFC 9111 section 4.1: responses that vary. Each row goes through both edges."""

from __future__ import annotations

import pytest

from tests.http.conftest import Answer

ROWS = [
    # name, Vary, first request, second request, hit
    ("same", "Accept", {"accept": "a"}, {"accept": "a"}, True),
    ("other", "Accept", {"accept": "a"}, {"accept": "b"}, False),
    ("absent now", "Accept", {"accept": "a"}, {}, False),
    ("absent before", "Accept", {}, {"accept": "a"}, False),
    ("absent twice", "Accept", {}, {}, True),
    ("empty is not absent", "Accept", {}, {"accept": ""}, False),
    ("not named", "Accept", {"accept": "a", "foo": "1"}, {"accept": "a", "foo": "2"}, True),
    ("case of the name", "aCCept", {"Accept": "a"}, {"accept": "a"}, True),
    ("case of the value", "Accept", {"accept": "a"}, {"accept": "A"}, False),
    ("white space", "Accept-Language", {"accept-language": "en, de"}, {"accept-language": " en ,de "}, True),
    ("order matters", "Accept-Language", {"accept-language": "en, de"}, {"accept-language": "de, en"}, False),
    ("order of codings", "Accept-Encoding", {"accept-encoding": "gzip, br"}, {"accept-encoding": "BR,gzip"}, True),
    ("weights", "Accept-Encoding", {"accept-encoding": "gzip, br;q=0"}, {"accept-encoding": "gzip, br"}, False),
    ("two names, one differs", "Accept, Foo", {"accept": "a", "foo": "1"}, {"accept": "a", "foo": "2"}, False),
    ("two names, same", "Accept, Foo", {"accept": "a", "foo": "1"}, {"foo": "1", "accept": "a"}, True),
    ("Cookie", "Cookie", {"cookie": "a=1"}, {"cookie": "a=2"}, False),
    ("Cookie, same", "Cookie", {"cookie": "a=1"}, {"cookie": "a=1"}, True),
    ("Cookie, stranger", "Cookie", {"cookie": "a=1"}, {}, False),
    ("Origin", "Origin", {"origin": "https://a"}, {"origin": "https://b"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("vary", "one", "two", "hit"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_selection(site, vary, one, two, hit):
    site.says("max-age=60", headers=[("Vary", vary)])
    site.request(headers=one)
    got = site.request(headers=two)
    assert got.hit is hit
    if not hit:
        assert "fwd=vary-miss" in got.cache_status or "fwd=bypass" in got.cache_status


def by_language(seen):
    language = seen.get("accept-language") or ""
    headers = [("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")]
    return Answer(headers=headers, body=language.encode())


def test_several_variants_are_stored(site):
    site.answers = by_language
    languages = ["en", "de", "fr", "es", "it", "pt", "nl", "sv", "fi", "pl", "cs", "da"]
    for _ in range(2):
        for language in languages:
            assert site.get(accept_language=language).body == language.encode()
    assert site.forwards == len(languages)
    assert site.get(accept_language="en").hit


def test_variants_may_vary_by_different_fields(site):
    def answers(seen):
        names = "Accept-Language, Accept" if seen.get("accept-language") == "de" else "Accept-Language"
        body = f"{seen.get('accept-language')} {seen.get('accept')}"
        return Answer(headers=[("Cache-Control", "max-age=60"), ("Vary", names)], body=body.encode())

    site.answers = answers
    requests = [("en", "a"), ("de", "a"), ("de", "b"), ("en", "b")]
    bodies = [site.get(accept_language=language, accept=accept).body for language, accept in requests]
    assert bodies == [b"en a", b"de a", b"de b", b"en a"]
    assert [site.get(accept_language=language, accept=accept).body for language, accept in requests] == bodies
    assert site.forwards == 3


def test_a_response_that_no_longer_varies_is_for_all(site, clock):
    site.answers = by_language
    site.get(accept_language="en")
    site.get(accept_language="de")
    clock.advance(60)
    site.says("max-age=60", body=b"all")
    assert site.get(accept_language="en").body == b"all"
    assert site.get(accept_language="fr").body == b"all"


def test_variants_share_the_fate_of_their_url(site):
    """After an unsafe method no variant of the old page comes back, though only one key was dropped."""
    site.answers = by_language
    for language in ("en", "de", "fr"):
        site.get(accept_language=language)
    site.request("POST")
    assert not site.get(accept_language="en").hit
    for language in ("de", "fr"):
        assert not site.get(accept_language=language).hit
    assert site.get(accept_language="de").hit


def test_a_variant_is_refreshed_in_its_place(site, clock):
    site.answers = by_language
    site.get(accept_language="en")
    clock.advance(30)
    site.get(accept_language="de")
    clock.advance(30)
    assert "fwd=stale" in site.get(accept_language="en").cache_status or site.forwards == 3
    assert site.get(accept_language="en").hit
    assert site.get(accept_language="de").hit


def test_a_chain_of_ever_new_fields_ends(build, fake):
    """An application that varies by another field each time fills a bounded chain, and is never wrong."""
    site = build(fake)
    names = [f"x-{n}" for n in range(20)]

    def answers(seen):
        n = int(seen.get("n") or 0)
        return Answer(headers=[("Cache-Control", "max-age=60"), ("Vary", f"n, {names[n]}")], body=str(n).encode())

    site.answers = answers
    for n in range(20):
        assert site.get(n=str(n)).body == str(n).encode()
    reads = len([1 for name, _ in fake.log if name == "read"])
    assert reads <= 20 * 8
    for n in range(20):
        assert site.get(n=str(n)).body == str(n).encode()
