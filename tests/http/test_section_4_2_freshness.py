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
    ("Expires in lower case", [("Expires", at(60).lower())], 0, False),
    ("Expires counts from Date", [("Date", at(-10)), ("Expires", at(30))], 29, True),
    ("Expires counts from Date, and age too", [("Date", at(-10)), ("Expires", at(30))], 30, False),
    ("a first Expires counts", [("Expires", at(60)), ("Expires", at(-60))], 59, True),
    ("nothing", [], 0, False),
    ("validators alone are no freshness", [("ETag", '"a"'), ("Last-Modified", at(-10**6))], 0, False),
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
