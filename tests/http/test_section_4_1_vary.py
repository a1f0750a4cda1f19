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
    ("repeated codings", "Accept-Encoding", {"accept-encoding": "gzip, gzip"}, {"accept-encoding": "gzip"}, True),
    ("weight of one", "Accept-Encoding", {"accept-encoding": "gzip;q=1.000"}, {"accept-encoding": "gzip ; Q=1"}, True),
    ("weight spelled", "Accept-Encoding", {"accept-encoding": "a;q=0.50"}, {"accept-encoding": "a; q=0.5"}, True),
    ("a weight that is none", "Accept-Encoding", {"accept-encoding": "a;q=2.5"}, {"accept-encoding": "a"}, False),
    ("no coding is not absent", "Accept-Encoding", {"accept-encoding": ""}, {}, False),
    ("case of languages", "Accept-Language", {"accept-language": "en, de"}, {"accept-language": "eN, De"}, True),
    ("weights of languages", "Accept-Language", {"accept-language": "en;q=1, de;q=0.5"},
     {"accept-language": "en,de; q=0.500"}, True),
    ("other weights", "Accept-Language", {"accept-language": "en, de;q=0.5"}, {"accept-language": "en, de"}, False),
    ("languages, each with its weight below 1", "Accept-Language", {"accept-language": "en;q=0.5, de;q=0.9"},
     {"accept-language": "de;q=0.9,en;q=0.50"}, True),
    ("languages, one without weight", "Accept-Language", {"accept-language": "en;q=0.5, de"},
     {"accept-language": "de, en;q=0.5"}, False),
    ("languages, weights alike", "Accept-Language", {"accept-language": "en;q=0.5, de;q=0.5"},
     {"accept-language": "de;q=0.5, en;q=0.5"}, False),
    ("languages, weights exchanged", "Accept-Language", {"accept-language": "en;q=0.5, de;q=0.9"},
     {"accept-language": "en;q=0.9, de;q=0.5"}, False),
    ("lines are combined", "Foo", [("foo", "1"), ("foo", "2")], {"foo": "1, 2"}, True),
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


CODINGS = [
    # name, first request, second request, hit
    ("others make no difference", "gzip, deflate, br, zstd", "br, gzip", True),
    ("order makes none", "br;q=0.5, gzip", "gzip, br;q=0.1", True),
    ("preference does", "br;q=0.5, gzip", "br, gzip;q=0.5", False),
    ("what is ruled out", "br;q=0, gzip", "gzip", True),
    ("one less", "gzip", "br, gzip", False),
    ("anything", "*", "br, gzip", True),
    ("identity ruled out", "gzip, identity;q=0", "gzip", False),
    ("an old name", "x-gzip", "gzip", True),
    ("none of them", "zstd", "compress", True),
]


@pytest.mark.parametrize(("one", "two", "hit"), [r[1:] for r in CODINGS], ids=[r[0] for r in CODINGS])
def test_only_the_codings_that_the_application_has_make_variants(site, one, two, hit):
    site.setup(codings=["br", "gzip"]).says("max-age=60", headers=[("Vary", "Accept-Encoding")])
    site.get(accept_encoding=one)
    assert site.get(accept_encoding=two).hit is hit
    assert site.get(accept_encoding=one).hit


def test_the_order_of_languages_may_be_left_out(site):
    for any_order in (True, False):
        site.setup(any_language_order=any_order).says("max-age=60", headers=[("Vary", "Accept-Language")])
        target = f"/{any_order}"
        site.get(target, accept_language="en, de;q=0.5, fr")
        assert site.get(target, accept_language="fr, en, de;q=0.5").hit is any_order
        assert not site.get(target, accept_language="fr;q=0.5, en, de").hit


def test_what_was_stored_under_other_options_is_compared_as_it_was(site):
    site.setup(any_language_order=True).says("max-age=60", headers=[("Vary", "Accept-Language")])
    site.get(accept_language="en, de")
    site.setup(any_language_order=False)
    assert site.get(accept_language="de, en").hit
