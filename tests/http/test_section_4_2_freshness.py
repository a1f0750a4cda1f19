"""RFC 9111 section 4.2: freshness and age. Each row goes through both edges."""

from __future__ import annotations

import pytest

from cachekit.http.headers import format_date
from tests.http.conftest import Answer

NOW = 1_800_000_000.0


def at(offset: float) -> str:
    return format_date(NOW + offset)


CC = "Cache-Control"

ROWS = [
    # name, headers, seconds that pass, reused
    ("max-age", [(CC, "max-age=60")], 59, True),
    ("max-age over", [(CC, "max-age=60")], 60, False),
    ("s-maxage", [(CC, "s-maxage=60")], 59, True),
    ("s-maxage wins, longer", [(CC, "max-age=1, s-maxage=60")], 59, True),
    ("s-maxage wins, shorter", [(CC, "max-age=60, s-maxage=1")], 30, False),
    ("max-age quoted", [(CC, 'max-age="60"')], 59, True),
    ("max-age in single quotes", [(CC, "max-age='60'")], 1, False),
    ("max-age upper case", [(CC, "MaX-aGe=60")], 59, True),
    ("max-age with a fraction", [(CC, "max-age=60.0")], 1, False),
    ("max-age negative", [(CC, "max-age=-60")], 1, False),
    ("max-age without a number", [(CC, "max-age=abc")], 1, False),
    ("max-age empty", [(CC, "max-age=")], 1, False),
    ("max-age bare", [(CC, "max-age")], 1, False),
    ("max-age zero", [(CC, "max-age=0")], 0, False),
    ("max-age huge", [(CC, "max-age=99999999999999999999")], 10**8, True),
    ("max-age with leading zeros", [(CC, "max-age=00000000000060")], 59, True),
    ("max-age with leading zeros, over", [(CC, "max-age=00000000000060")], 60, False),
    ("max-age in other digits", [(CC, "max-age=\xb2")], 1, False),
    ("max-age with a sign", [(CC, "max-age=+60")], 1, False),
    ("max-age quoted with an escape", [(CC, 'max-age="6\\0"')], 59, True),
    ("s-maxage=0 beats max-age", [(CC, "s-maxage=0, max-age=60")], 0, False),
    ("Expires in RFC 850", [("Expires", "Friday, 15-Jan-27 08:01:00 GMT")], 59, True),
    ("Expires in asctime", [("Expires", "Fri Jan 15 08:01:00 2027")], 59, True),
    ("Expires in RFC 850, in lower case", [("Expires", "friday, 15-jan-27 08:01:00 gmt")], 59, True),
    ("Expires in asctime, in upper case", [("Expires", "FRI JAN 15 08:01:00 2027")], 59, True),
    ("Expires with two digits, ahead", [("Expires", "Thursday, 14-Jan-77 08:00:00 GMT")], 10**9, True),
    ("Expires with two digits, behind", [("Expires", "Sunday, 17-Jan-77 08:00:00 GMT")], 0, False),
    ("Expires with two digits, long ago", [("Expires", "Friday, 15-Jan-99 08:01:00 GMT")], 0, False),
    ("Expires of a day that is none", [("Expires", "Fri, 32 Jan 2027 08:01:00 GMT")], 0, False),
    ("Expires with one digit", [("Expires", "Fri, 15 Jan 2027 8:01:00 GMT")], 0, False),
    ("Expires with a long day", [("Expires", "Friday, 15 Jan 2027 08:01:00 GMT")], 0, False),
    ("Expires with more behind", [("Expires", at(60) + " x")], 0, False),
    ("no-cache", [(CC, "no-cache, max-age=60")], 0, False),
    ("no-cache with fields", [(CC, 'no-cache="set-cookie", max-age=60')], 59, True),
    ("Pragma in a response says nothing", [(CC, "max-age=60"), ("Pragma", "no-cache")], 59, True),
    ("Warning says nothing", [(CC, "max-age=60"), ("Warning", '110 - "stale"')], 59, True),
    ("immutable is no freshness", [(CC, "immutable")], 0, False),
    ("immutable changes nothing", [(CC, "immutable, max-age=60")], 60, False),
    ("a leap second", [("Expires", "Fri, 15 Jan 2027 08:00:60 GMT")], 59, True),
    ("space before =", [(CC, "max-age =60")], 1, False),
    ("space after =", [(CC, "max-age= 60")], 1, False),
    ("first of two max-age counts", [(CC, "max-age=60, max-age=1")], 30, True),
    ("first of two max-age counts, over lines", [(CC, "max-age=1"), (CC, "max-age=60")], 30, False),
    ("unknown directives change nothing", [(CC, 'foo=bar, max-age=60, baz="a,b"')], 59, True),
    ("max-age inside a quoted string is none", [(CC, 'foo="max-age=60"')], 1, False),
    ("odd commas", [(CC, ", max-age=60,,")], 59, True),
    ("similar names are others", [(CC, "xmax-age=60")], 1, False),
    ("max-age beats Expires", [(CC, "max-age=60"), ("Expires", at(-10))], 59, True),
    ("max-age=0 beats Expires", [(CC, "max-age=0"), ("Expires", at(100))], 1, False),
    ("invalid s-maxage beats a valid max-age", [(CC, "s-maxage=x, max-age=60")], 1, False),
    ("Expires", [("Expires", at(60))], 59, True),
    ("Expires over", [("Expires", at(60))], 60, False),
    ("Expires in the past", [("Expires", at(-60))], 0, False),
    ("Expires: 0", [("Expires", "0")], 0, False),
    ("Expires: -1", [("Expires", "-1")], 0, False),
    ("Expires without GMT", [("Expires", at(60)[:-4])], 0, False),
    ("Expires in another zone", [("Expires", at(60)[:-3] + "UTC")], 0, False),
    ("Expires in lower case", [("Expires", at(60).lower())], 59, True),
    ("Expires counts from Date", [("Date", at(-10)), ("Expires", at(30))], 29, True),
    ("Expires counts from Date, and age too", [("Date", at(-10)), ("Expires", at(30))], 30, False),
    ("a first Expires counts", [("Expires", at(60)), ("Expires", at(-60))], 59, True),
    ("nothing", [], 0, False),
    ("an entity tag alone is no freshness", [("ETag", '"a"')], 0, False),
    ("Last-Modified is a guess", [("Last-Modified", at(-1000))], 99, True),
    ("Last-Modified is a guess, over", [("Last-Modified", at(-1000))], 100, False),
    ("Age", [(CC, "max-age=60"), ("Age", "30")], 29, True),
    ("Age over", [(CC, "max-age=60"), ("Age", "30")], 30, False),
    ("Age is all", [(CC, "max-age=60"), ("Age", "60")], 0, False),
    ("first Age counts", [(CC, "max-age=60"), ("Age", "0, 60")], 59, True),
    ("first Age line counts", [(CC, "max-age=60"), ("Age", "60"), ("Age", "0")], 0, False),
    ("negative Age is none", [(CC, "max-age=60"), ("Age", "-30")], 59, True),
    ("Age with a fraction is none", [(CC, "max-age=60"), ("Age", "59.5")], 30, True),
    ("huge Age", [(CC, "max-age=60"), ("Age", "9" * 30)], 0, False),
    ("old Date", [(CC, "max-age=60"), ("Date", at(-30))], 29, True),
    ("old Date over", [(CC, "max-age=60"), ("Date", at(-30))], 30, False),
    ("Date in the future", [(CC, "max-age=60"), ("Date", at(30))], 59, True),
    ("Date and Age: the greater", [(CC, "max-age=60"), ("Date", at(-10)), ("Age", "40")], 20, False),
    ("invalid Date is none", [(CC, "max-age=60"), ("Date", "yesterday")], 59, True),
    # RFC 9213 and Surrogate-Control
    ("CDN-Cache-Control", [("CDN-Cache-Control", "max-age=60")], 59, True),
    ("CDN-Cache-Control wins", [("CDN-Cache-Control", "max-age=1"), (CC, "max-age=60")], 30, False),
    ("CDN-Cache-Control wins over no-store", [("CDN-Cache-Control", "max-age=60"), (CC, "no-store")], 59, True),
    ("CDN-Cache-Control no-store", [("CDN-Cache-Control", "no-store"), (CC, "max-age=60")], 0, False),
    ("invalid CDN-Cache-Control is ignored", [("CDN-Cache-Control", "max-age=1, &&&"), (CC, "max-age=60")], 59, True),
    ("empty CDN-Cache-Control is ignored", [("CDN-Cache-Control", ""), (CC, "max-age=60")], 59, True),
    ("upper case is no key", [("CDN-Cache-Control", "Max-Age=1"), (CC, "max-age=60")], 59, True),
    ("a string is no number", [("CDN-Cache-Control", 'max-age="60"'), (CC, "max-age=60")], 1, False),
    ("parameters are ignored", [("CDN-Cache-Control", "max-age=60;a=b;c")], 59, True),
    ("the last of two keys counts", [("CDN-Cache-Control", "max-age=60, max-age=1")], 30, False),
    ("Surrogate-Control", [("Surrogate-Control", 'max-age=60, content="ESI/1.0"')], 59, True),
    ("Surrogate-Control first", [("Surrogate-Control", "max-age=1"), ("CDN-Cache-Control", "max-age=60")], 9, False),
    ("Surrogate-Control no-store", [("Surrogate-Control", "no-store"), (CC, "max-age=60")], 0, False),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "after", "reused"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_reuse(site, clock, headers, after, reused):
    site.answer(headers)
    assert site.get().status == 200
    clock.advance(after)
    got = site.get()
    assert (site.forwards == 1) is reused, got.cache_status
    assert got.hit is reused
    assert got.body == b"body"


GUESSES = [
    # name, status, headers, seconds that pass, reused
    ("a tenth", 200, [("Last-Modified", at(-1000))], 99, True),
    ("a tenth is over", 200, [("Last-Modified", at(-1000))], 100, False),
    ("five minutes at most", 200, [("Last-Modified", at(-10**8))], 299, True),
    ("five minutes at most, over", 200, [("Last-Modified", at(-10**8))], 300, False),
    ("no validator", 200, [], 0, False),
    ("an entity tag is exact", 200, [("Last-Modified", at(-1000)), ("ETag", '"a"')], 0, False),
    ("an entity tag says not since when", 200, [("ETag", '"a"')], 0, False),
    ("modified in the future", 200, [("Last-Modified", at(9))], 0, False),
    ("no date", 200, [("Last-Modified", "yesterday")], 0, False),
    ("201", 201, [("Last-Modified", at(-1000))], 0, False),
    ("302", 302, [("Last-Modified", at(-1000))], 0, False),
    ("404", 404, [("Last-Modified", at(-1000))], 99, True),
    ("410", 410, [("Last-Modified", at(-1000))], 99, True),
    ("503", 503, [("Last-Modified", at(-1000))], 0, False),
    ("599, public", 599, [("Last-Modified", at(-1000)), (CC, "public")], 99, True),
    ("no-store", 200, [("Last-Modified", at(-1000)), (CC, "no-store")], 0, False),
    ("private", 200, [("Last-Modified", at(-1000)), (CC, "private")], 0, False),
    ("explicit freshness comes first", 200, [("Last-Modified", at(-1000)), (CC, "max-age=1")], 1, False),
    ("Set-Cookie", 200, [("Last-Modified", at(-1000)), ("Set-Cookie", "a=1")], 0, False),
]  # fmt: skip


@pytest.mark.parametrize("fraction", [0, 0.1])
@pytest.mark.parametrize(
    ("status", "headers", "after", "reused"), [r[1:] for r in GUESSES], ids=[r[0] for r in GUESSES]
)
def test_heuristic_freshness(site, clock, status, headers, after, reused, fraction):
    site.setup(heuristic=fraction).answer(Answer(status, headers))
    site.get()
    clock.advance(after)
    assert site.get().hit is (reused and fraction > 0)


def test_nothing_is_guessed_for_users(site):
    site.answer([("Last-Modified", at(-1000)), ("Vary", "Cookie")])
    for _ in range(2):
        assert not site.get(cookie="a=1").hit


def test_what_was_guessed_is_not_for_users(site):
    site.answer([("Last-Modified", at(-1000))])
    site.get()
    assert site.get().hit
    assert not site.get(cookie="a=1").hit
    assert not site.get(authorization="Basic eA==").hit


def test_the_longest_guess_is_an_option(site, clock):
    site.setup(heuristic_max="1h").answer([("Last-Modified", at(-(10**8)))])
    site.get()
    clock.advance(3599)
    assert site.get().hit
    clock.advance(1)
    assert not site.get().hit


AGES = [
    ("none", [], 7.9, "7"),
    ("own Age goes on", [("Age", "30")], 5, "35"),
    ("Date", [("Date", at(-10))], 5, "15"),
    ("Date in the future", [("Date", at(100))], 5, "5"),
    ("the greater of both", [("Date", at(-10)), ("Age", "3")], 0, "10"),
]


@pytest.mark.parametrize(("headers", "after", "age"), [row[1:] for row in AGES], ids=[row[0] for row in AGES])
def test_age(site, clock, headers, after, age):
    site.answer([(CC, "max-age=600"), *headers])
    site.get()
    clock.advance(after)
    assert site.get().all("age") == [age]


def test_a_slow_application_ages_what_came_from_elsewhere(site, clock):
    site.answer(Answer(headers=[(CC, "max-age=60"), ("Age", "1")], before=lambda: clock.advance(4)))
    site.get()
    assert site.get().get("age") == "5"


def test_what_is_made_here_is_new_however_long_it_took(site, clock):
    site.answer(Answer(headers=[(CC, "max-age=5")], before=lambda: clock.advance(9)))
    site.get()
    assert site.get().get("age") == "0"


def test_targets_are_configurable(site, clock):
    site.setup(targets=["my-cache-control"]).answer(
        [("My-Cache-Control", "max-age=60"), ("Surrogate-Control", "no-store")]
    )
    site.get()
    assert site.get().hit
