"""RFC 9111 sections 5.2.2.4 and 5.2.2.7: ``private`` and ``no-cache`` that are about some fields only."""

from __future__ import annotations

import pytest

from tests.http.conftest import Answer

CC = "Cache-Control"
NAMES = ("x-a", "x-b", "set-cookie")
FIELDS = [("X-A", "1"), ("X-B", "2"), ("Set-Cookie", "id=1")]

ROWS = [
    # name, Cache-Control, fields of FIELDS that it comes with, those that a hit has; None where there is no hit
    ("private", 'private="x-a"', "ab", "b"),
    ("a token", "private=x-a", "ab", "b"),
    ("several, any case", 'private=" X-A ,x-B"', "ab", ""),
    ("none of them there", 'private="x-c"', "ab", "ab"),
    ("one for each line", 'private="x-a", no-cache="x-b"', "ab", ""),
    ("twice", 'private="x-a", private="x-b"', "ab", ""),
    ("a cookie", 'private="set-cookie"', "as", "a"),
    ("a cookie that is to be asked about", 'no-cache="set-cookie"', "as", "a"),
    ("another cookie", 'private="set-cookie2"', "as", None),
    ("no-cache", 'no-cache="x-a"', "ab", "b"),
    ("escaped", 'private="x\\-a"', "ab", "b"),
    # about everything
    ("bare as well", 'private="x-a", private', "ab", None),
    ("bare as well, no-cache", 'no-cache, no-cache="x-a"', "ab", None),
    ("empty", 'private=""', "ab", None),
    ("nothing", "private=", "ab", None),
    ("only commas", 'private=" , "', "ab", None),
    ("no names", 'private="x a"', "ab", None),
    ("one that is none", 'private="x-a, @"', "ab", None),
    ("single quotes", "private='x-a'", "ab", None),
    ("spaces", 'private= "x-a"', "ab", None),
    ("what selects", 'private="x-a, vary"', "ab", None),
    ("what describes", 'no-cache="content-type"', "ab", None),
    ("what says how long", 'private="Cache-Control"', "ab", None),
    ("no-store all the same", 'private="x-a", no-store', "ab", None),
]  # fmt: skip


def fields(letters):
    return [pair for pair in FIELDS if pair[0][-1].lower() in letters or (pair[0] == "Set-Cookie" and "s" in letters)]


@pytest.mark.parametrize(("said", "sent", "kept"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_is_listed_is_not_stored_and_the_rest_is(site, said, sent, kept):
    check(site, CC, said, sent, kept)


@pytest.mark.parametrize(
    ("said", "kept"),
    [('private="x-a"', "b"), ('no-cache="x-a, x-b"', ""), ('private=""', None), ("private=1", "ab"), ("private", None)],
)
def test_the_same_in_a_targeted_field(site, said, kept):
    check(site, "CDN-Cache-Control", said, "ab", kept)


def check(site, by, said, sent, kept):
    site.answer([(by, f"{said}, max-age=60"), *fields(sent)])
    first, second = site.get(), site.get()
    assert [name for name in NAMES if first.get(name)] == lower(fields(sent))
    assert second.hit is (kept is not None)
    if kept is not None:
        assert [name for name in NAMES if second.get(name)] == lower(fields(kept))


def lower(pairs):
    return [name.lower() for name, _ in pairs]


def test_an_option_takes_them_to_be_about_everything(site):
    site.setup(field_lists=False)
    for said in ('private="x-a"', 'no-cache="x-a"'):
        site.says(f"{said}, max-age=60")
        site.get()
        assert not site.get().hit


@pytest.mark.parametrize("name", ["X-A", "Set-Cookie"])
def test_what_a_304_brings_is_sent_and_not_stored(site, clock, name):
    control = f'no-cache="{name.lower()}", max-age=60'
    site.answer(
        [(CC, control), ("ETag", '"a"'), (name, "1")],
        Answer(304, [(CC, control), ("ETag", '"a"'), (name, "2")], b""),
    )
    assert site.get().get(name) == "1"
    assert site.get().get(name) is None
    clock.advance(61)
    renewed = site.get()
    assert (renewed.status, renewed.get(name), renewed.body) == (200, "2", b"body")
    got = site.get()
    assert (got.hit, got.get(name)) == (True, None)


def test_a_list_forbids_nothing_stale(site, clock):
    site.answer([(CC, 'no-cache="x-a", max-age=1, stale-if-error=60'), ("X-A", "1")], Answer(503))
    site.get()
    clock.advance(2)
    got = site.get()
    assert (got.status, got.get("x-a")) == (200, None)


def test_users_get_what_was_stored_without_the_cookie_of_another(site):
    site.answer([(CC, 'public, max-age=60, private="set-cookie"'), ("Set-Cookie", "id=alice")])
    assert site.get(cookie="id=0").get("set-cookie") == "id=alice"
    for got in (site.get(cookie="id=bob"), site.get()):
        assert (got.hit, got.get("set-cookie")) == (True, None)


def test_a_rule_gives_no_lifetime_to_what_is_private_in_part(site):
    from cachekit.http.rules import Rule

    site.setup([Rule("/**", ttl=60)]).says('private="x-a"')
    site.get()
    assert not site.get().hit
