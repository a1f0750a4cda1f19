"""RFC 9111 sections 4, 4.2.4 and 5.2.1, RFC 5861: what is served, fresh and stale. Each row goes through both edges."""

from __future__ import annotations

import pytest

from tests.http.conftest import Answer

CC = "Cache-Control"


def test_head_is_served_from_get(site):
    site.says("max-age=60")
    get = site.get()
    head = site.request("HEAD")
    assert head.hit
    assert (head.status, head.body, head.get("content-length")) == (200, b"", "4")
    assert {n.lower() for n, _ in head.headers} >= {n.lower() for n, _ in get.headers}
    assert site.forwards == 1


def test_head_is_not_stored(site):
    site.says("max-age=60")
    assert site.request("HEAD").body == b""
    assert site.seen[0].method == "HEAD"
    assert not site.get().hit


def test_the_query_is_part_of_the_key(site):
    site.says("max-age=60")
    site.get("/x?a=1")
    assert not site.get("/x?a=2").hit
    assert not site.get("/x").hit
    assert site.get("/x?a=1").hit


@pytest.mark.parametrize(
    ("host", "hit"),
    [
        ("example.org", True),
        ("EXAMPLE.org", True),
        ("example.org:443", True),
        ("example.org:80", False),
        ("other", False),
    ],
)
def test_the_host_is_part_of_the_key(site, host, hit):
    site.says("max-age=60")
    site.get()
    assert site.get(host=host).hit is hit


def test_escapes_are_told_apart(site):
    site.says("max-age=60")
    site.get("/a/b")
    got = site.get("/a%2Fb")
    assert got.hit is (site.kind != "asgi"), "a WSGI application cannot tell them apart, an ASGI application can"


def test_a_hash_in_the_target_has_no_key(site):
    if site.kind != "asgi":
        pytest.skip("WSGI servers escape it")
    site.says("max-age=60")
    site.get("/x#y")
    assert "fwd=bypass" in site.get("/x#y").cache_status


def test_long_urls(site):
    site.answers = lambda seen: Answer(headers=[(CC, "max-age=60")], body=seen.query.encode())
    one, two = "/x?" + "a" * 500 + "1", "/x?" + "a" * 500 + "2"
    assert site.get(one).body != site.get(two).body
    assert site.get(one).hit
    assert site.get(one).body.endswith(b"1")


def test_cache_status_of_others_stays_in_front(site):
    site.answer([(CC, "max-age=60"), ("Cache-Status", "origin; hit")])
    site.get()
    assert site.get().all("cache-status") == ["origin; hit", "cachekit; hit; ttl=60"]


# Section 5.2.1: directives of the request

REQUESTS = [
    # name, response, seconds, request, status, forwards
    ("no-cache", "max-age=60", 0, "no-cache", 200, 2),
    ("no-store", "max-age=60", 0, "no-store", 200, 1),
    ("no-store, stale", "max-age=60", 60, "no-store", 200, 2),
    ("no-store, stale-while-revalidate", "max-age=60, stale-while-revalidate=60", 70, "no-store", 200, 2),
    ("no-store, no-cache", "max-age=60", 0, "no-store, no-cache", 200, 2),
    ("max-age more than its age", "max-age=60", 5, "max-age=10", 200, 1),
    ("max-age equal to its age", "max-age=60", 10, "max-age=10", 200, 1),
    ("max-age less than its age", "max-age=60", 11, "max-age=10", 200, 2),
    ("max-age=0", "max-age=60", 1, "max-age=0", 200, 2),
    ("min-fresh met", "max-age=60", 10, "min-fresh=50", 200, 1),
    ("min-fresh not met", "max-age=60", 11, "min-fresh=50", 200, 2),
    ("max-stale", "max-age=60", 10**3, "max-stale", 200, 1),
    ("max-stale enough", "max-age=60", 70, "max-stale=10", 200, 1),
    ("max-stale too little", "max-age=60", 71, "max-stale=10", 200, 2),
    ("max-stale without number", "max-age=60", 70, "max-stale=x", 200, 2),
    ("max-stale, must-revalidate", "max-age=60, must-revalidate", 61, "max-stale", 200, 2),
    ("max-stale, proxy-revalidate", "max-age=60, proxy-revalidate", 61, "max-stale", 200, 2),
    ("max-stale, s-maxage", "s-maxage=60", 61, "max-stale", 200, 2),
    ("max-stale, no-cache", "max-age=60, no-cache", 1, "max-stale", 200, 2),
    ("only-if-cached", "max-age=60", 1, "only-if-cached", 200, 1),
    ("only-if-cached, stale", "max-age=60", 60, "only-if-cached", 504, 1),
    ("only-if-cached, max-stale", "max-age=60", 60, "only-if-cached, max-stale", 200, 1),
    ("only-if-cached, nothing there", "no-store", 0, "only-if-cached", 504, 1),
    ("unknown", "max-age=60", 1, "foo, bar=1", 200, 1),
    ("no-cache quoted away", "max-age=60", 1, 'x="no-cache"', 200, 1),
]


@pytest.mark.parametrize(
    ("response", "after", "request_", "status", "forwards"), [r[1:] for r in REQUESTS], ids=[r[0] for r in REQUESTS]
)
def test_request_directives(site, clock, response, after, request_, status, forwards):
    site.says(response, headers=[("ETag", '"a"')])
    site.get()
    clock.advance(after)
    got = site.get(cache_control=request_)
    assert (got.status, site.forwards) == (status, forwards), got.cache_status


def test_pragma(site):
    site.says("max-age=60")
    site.get()
    assert "fwd=request" in site.get(pragma="no-cache").cache_status
    assert site.get(pragma="no-cache", cache_control="max-stale").hit


def test_a_reload_is_stored(site):
    site.answer(Answer(headers=[(CC, "max-age=60")], body=b"old"), Answer(headers=[(CC, "max-age=60")], body=b"new"))
    site.get()
    assert site.get(cache_control="no-cache").body == b"new"
    got = site.get()
    assert (got.hit, got.body) == (True, b"new")


def test_request_directives_can_be_ignored(site):
    site.setup(request_directives=False).says("max-age=60")
    site.get()
    assert site.get(cache_control="no-cache", pragma="no-cache").hit


@pytest.mark.parametrize("control", ["no-cache, max-age=60", "no-cache", "no-cache, must-revalidate"])
def test_no_cache_asks_each_time(site, control):
    site.answer(
        Answer(headers=[(CC, control), ("ETag", '"a"')]),
        Answer(304, [("ETag", '"a"'), (CC, control)], b""),
    )
    site.get()
    for _ in range(2):
        got = site.get()
        assert (got.status, got.body) == (200, b"body")
        assert site.seen[-1].get("if-none-match") == '"a"'
        assert "fwd=stale" in got.cache_status
    assert site.forwards == 3


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, [(CC, "no-cache")]),
        (200, [(CC, "no-cache, private"), ("ETag", '"a"')]),
        (200, [(CC, "no-cache, no-store"), ("ETag", '"a"')]),
        (200, [(CC, 'no-cache="x-a"'), ("ETag", '"a"')]),
        (200, [(CC, "no-cache"), ("ETag", '"a"'), ("Set-Cookie", "a=b")]),
        (404, [(CC, "no-cache"), ("ETag", '"a"')]),
    ],
)
def test_no_cache_is_not_stored_without_a_use(site, status, headers):
    site.answer(Answer(status, headers))
    assert "stored" not in site.get().cache_status
    site.get()
    assert site.seen[1].get("if-none-match") is None


@pytest.mark.parametrize("control", ["no-cache", "no-cache, must-revalidate", "no-cache, public"])
@pytest.mark.parametrize("credential", [{"cookie": "a=b"}, {"authorization": "Basic YTpi"}])
def test_no_cache_for_one_user_is_not_stored(site, control, credential):
    """An application may compare no more than the version of a page that is another for each user."""
    site.answer(Answer(headers=[(CC, control), ("ETag", '"a"')]))
    assert "stored" not in site.get(**credential).cache_status
    assert "stored" in site.get().cache_status
    if control == "no-cache":  # the others let everybody be answered with what strangers got (RFC 9111 section 3.5)
        site.get(**credential)
        assert site.seen[2].get("if-none-match") is None


# RFC 5861: stale-while-revalidate

SWR = "max-age=60, stale-while-revalidate=30"


def test_stale_while_revalidate(site, clock):
    site.answer(Answer(headers=[(CC, SWR)], body=b"one"), Answer(headers=[(CC, SWR)], body=b"two"))
    site.get()
    clock.advance(89)
    got = site.get()
    assert (got.body, got.hit) == (b"one", True)
    assert "ttl=-29" in got.cache_status
    site.settle()
    assert site.forwards == 2
    got = site.get()
    assert (got.body, got.hit, got.get("age")) == (b"two", True, "0")
    assert site.forwards == 2


def test_stale_while_revalidate_is_over(site, clock):
    site.answer(Answer(headers=[(CC, SWR)], body=b"one"), Answer(headers=[(CC, SWR)], body=b"two"))
    site.get()
    clock.advance(90)
    assert site.get().body == b"two"


def test_the_revalidation_is_conditional_and_plain(site, clock):
    site.answer(Answer(headers=[(CC, SWR), ("ETag", '"a"')]), Answer(304, [(CC, "max-age=100"), ("ETag", '"a"')], b""))
    site.get()
    clock.advance(61)
    got = site.request("HEAD", headers={"if-none-match": '"zzz"', "accept": "x"})
    assert got.status == 200
    site.settle()
    assert site.forwards == 2
    behind = site.seen[1]
    assert (behind.method, behind.get("if-none-match"), behind.get("accept")) == ("GET", '"a"', "x")
    got = site.get()
    assert (got.body, got.hit, got.get("cache-control")) == (b"body", True, "max-age=100")


def test_a_failed_revalidation_changes_nothing(site, clock):
    site.answer(Answer(headers=[(CC, SWR)]), Answer(500), Answer(headers=[(CC, SWR)], body=b"new"))
    site.get()
    clock.advance(61)
    assert site.get().body == b"body"
    site.settle()
    assert site.get().body == b"body"
    site.settle()
    assert site.get().body == b"new"


def test_a_revalidation_that_finds_the_page_gone_drops_it(site, clock):
    site.answer(Answer(headers=[(CC, SWR)]), Answer(404))
    site.get()
    clock.advance(61)
    assert site.get().status == 200
    site.settle()
    assert site.get().status == 404


@pytest.mark.parametrize("more", ["must-revalidate", "proxy-revalidate", "no-cache"])
def test_stale_while_revalidate_is_forbidden(site, clock, more):
    site.says(f"{SWR}, {more}")
    site.get()
    clock.advance(61)
    assert not site.get().hit


def test_stale_while_revalidate_by_option_yields_to_s_maxage(site, clock):
    site.setup(stale_while_revalidate=30).says("max-age=60")
    site.get("/a")
    site.says("s-maxage=60")
    site.get("/b")
    site.says("s-maxage=60, stale-while-revalidate=30")
    site.get("/c")
    clock.advance(61)
    assert site.get("/a").hit
    site.settle()
    assert not site.get("/b").hit
    assert site.get("/c").hit


# RFC 5861: stale-if-error

SIE = "max-age=60, stale-if-error=30"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_stale_if_error(site, clock, status):
    site.answer(Answer(headers=[(CC, SIE)], body=b"good"), Answer(status, body=b"bad"))
    site.get()
    clock.advance(89)
    got = site.get()
    assert (got.status, got.body) == (200, b"good")
    assert f"fwd=stale; fwd-status={status}" in got.cache_status
    clock.advance(1)
    assert site.get().body == b"bad"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 501])
def test_other_errors_are_answers(site, clock, status):
    site.answer(Answer(headers=[(CC, SIE)], body=b"good"), Answer(status, body=b"bad"))
    site.get()
    clock.advance(61)
    assert site.get().status == status


def test_too_many_requests_of_one_client_take_nothing_from_others(site, clock):
    site.answer(Answer(headers=[(CC, "max-age=60"), ("ETag", '"1"')], body=b"good"), Answer(429))
    site.get()
    clock.advance(61)
    assert site.get().status == 429
    got = site.get(cache_control="max-stale=100")
    assert (got.hit, got.body) == (True, b"good")


def test_stale_if_the_application_raises(site, clock):
    site.answer(Answer(headers=[(CC, SIE)], body=b"good"), Answer(error=KeyError("x")))
    site.get()
    clock.advance(89)
    assert site.get().body == b"good"
    assert site.get().get("age") == "89"
    clock.advance(1)
    with pytest.raises(KeyError):
        site.get()


@pytest.mark.parametrize("more", ["must-revalidate", "proxy-revalidate", "no-cache"])
def test_stale_if_error_is_forbidden(site, clock, more):
    site.answer(Answer(headers=[(CC, f"{SIE}, {more}"), ("ETag", '"a"')]), Answer(503))
    site.get()
    clock.advance(61)
    assert site.get().status == 503


def test_stale_if_error_in_the_request(site, clock):
    site.answer(Answer(headers=[(CC, "max-age=60"), ("ETag", '"a"')]), Answer(503))
    site.get()
    clock.advance(69)
    assert site.get().status == 503
    assert site.get(cache_control="stale-if-error=10").status == 200


def test_an_error_is_no_reason_to_forget(site, clock):
    site.setup(stale_if_error=100).answer(
        Answer(headers=[(CC, "max-age=60")]), Answer(503, [(CC, "max-age=60")]), Answer(headers=[(CC, "max-age=60")])
    )
    site.get()
    clock.advance(61)
    assert site.get().status == 200
    assert site.get().status == 200
    assert site.forwards == 3


def caused(error):
    made = RuntimeError("wrapped")
    made.__cause__ = error
    return made


UNREACHED = [
    # name, what the application does, is the stale response served
    ("502", Answer(502), True),
    ("504", Answer(504), True),
    ("500", Answer(500), False),
    ("503", Answer(503), False),
    ("refused", Answer(error=ConnectionRefusedError()), True),
    ("timed out", Answer(error=TimeoutError()), True),
    ("caused by one", Answer(error=caused(ConnectionResetError())), True),
    ("another error", Answer(error=OSError("disk")), False),
    ("caused by another", Answer(error=caused(KeyError())), False),
]


@pytest.mark.parametrize(("answer", "served"), [row[1:] for row in UNREACHED], ids=[row[0] for row in UNREACHED])
@pytest.mark.parametrize("window", [0, 100])
def test_stale_if_disconnected(site, clock, answer, served, window):
    """RFC 9111 section 4.2.4: a cache that is disconnected may serve stale responses that nobody allowed; asked for only."""
    site.setup(stale_if_disconnected=window).answer(Answer(headers=[(CC, "max-age=60")], body=b"good"), answer)
    site.get()
    clock.advance(159)
    if served and window:
        got = site.get()
        assert (got.status, got.body, got.get("age")) == (200, b"good", "159")
        clock.advance(1)
    if answer.error is None:
        assert site.get().status == answer.status
    else:
        with pytest.raises(type(answer.error)):
            site.get()


@pytest.mark.parametrize("more", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
def test_what_forbids_stale_forbids_it_to_the_disconnected(site, clock, more):
    site.setup(stale_if_disconnected=100)
    site.answer(Answer(headers=[(CC, f"max-age=60, {more}"), ("ETag", '"a"')]), Answer(504))
    site.get()
    clock.advance(61)
    assert site.get().status == 504


def test_the_application_s_exception_comes_through(site):
    error = ValueError("mine")
    site.answer(Answer(error=error))
    with pytest.raises(ValueError, match="mine") as caught:
        site.get()
    assert caught.value is error


def test_the_age_is_that_of_what_is_stored_now(site):
    """What is said of one second is kept for the next hits, but not for another response with the same fields."""
    site.setup(generate_etag=False)
    site.says("max-age=60")
    site.get()
    site.clock.advance(5.5)
    assert (site.get().get("age"), site.get().get("age")) == ("5", "5")
    site.request("POST")
    site.get()
    site.clock.advance(0.2)
    got = site.get()
    assert (got.get("age"), got.cache_status) == ("0", "cachekit; hit; ttl=59")
    site.clock.advance(0.9)
    assert site.get().get("age") == "1"
    site.clock.advance(-0.9)
    assert site.get().get("age") == "0"
