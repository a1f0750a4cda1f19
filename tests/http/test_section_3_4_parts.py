"""RFC 9111 sections 3.3 and 3.4: partial responses. Each row goes through both edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit import Cache
from cachekit.http.message import StoredResponse
from cachekit.http.parts import Part, combined, content_range, cut_part, part_key
from tests.http.conftest import Answer

CC = "Cache-Control"
WHOLE = b"0123456789"


def part(begin, end, *more, control="max-age=60", etag='"a"', whole=10, status=206):
    """Return the answer that is the bytes *begin* to *end* (not included)."""
    headers = [(CC, control), ("Content-Range", f"bytes {begin}-{end - 1}/{whole}"), *more]
    if etag:
        headers.append(("ETag", etag))
    return Answer(status, headers, WHOLE[begin:end])


SERVED = [
    # name, what is stored, what is asked for, what comes, of what
    ("the same", (4, 9), "bytes=4-8", b"45678", "bytes 4-8/10"),
    ("less", (4, 9), "bytes=5-6", b"56", "bytes 5-6/10"),
    ("to its end", (4, 10), "bytes=6-", b"6789", "bytes 6-9/10"),
    ("suffix", (4, 10), "bytes=-2", b"89", "bytes 8-9/10"),
    ("beyond the whole", (4, 10), "bytes=6-99", b"6789", "bytes 6-9/10"),
    ("more", (4, 9), "bytes=4-9", None, None),
    ("before it", (4, 9), "bytes=0-1", None, None),
    ("to an end that is not there", (4, 9), "bytes=6-", None, None),
    ("suffix that is not there", (4, 9), "bytes=-2", None, None),
    ("rubbish", (4, 9), "bytes=x", None, None),
    ("beyond everything", (4, 9), "bytes=20-", None, None),
    ("all of it, in parts", (0, 10), "bytes=0-9", WHOLE, "bytes 0-9/10"),
]


@pytest.mark.parametrize(("stored", "asked", "body", "where"), [r[1:] for r in SERVED], ids=[r[0] for r in SERVED])
def test_ranges_of_a_stored_part(site, stored, asked, body, where):
    site.answer(part(*stored))
    first = site.get(range=f"bytes={stored[0]}-{stored[1] - 1}")
    assert "stored" in first.cache_status
    site.answer(part(0, 1))
    got = site.get(range=asked)
    assert got.hit is (body is not None)
    if body is not None:
        assert (got.status, got.body, got.all("content-range")) == (206, body, [where])
        assert got.all("content-length") == [str(len(body))]


def test_several_ranges_of_a_part(site):
    site.answer(part(2, 9))
    site.get(range="bytes=2-8")
    got = site.get(range="bytes=2-3,6-7")
    assert (got.status, got.hit) == (206, True)
    assert b"Content-Range: bytes 2-3/10\r\n\r\n23\r\n" in got.body
    assert b"Content-Range: bytes 6-7/10\r\n\r\n67\r\n" in got.body


def test_a_part_is_never_the_whole(site):
    """Not even when every byte of it is there."""
    site.answer(part(0, 10))
    site.get(range="bytes=0-9")
    site.answer(Answer(headers=[(CC, "max-age=60")], body=b"whole"))
    for method, headers in (
        ("GET", {}),
        ("HEAD", {}),
        ("GET", {"if-none-match": '"a"'}),
        ("GET", {"cache-control": "max-stale"}),
    ):
        site.setup()
        site.answer(part(0, 5))
        site.get("/z", range="bytes=0-4")
        site.answer(Answer(headers=[(CC, "no-store")], body=b"whole"))
        got = site.request(method, "/z", headers)
        assert not got.hit
        assert got.status == 200


REFUSED = [
    ("no Content-Range", Answer(206, [(CC, "max-age=60")], b"01234")),
    ("of unknown length", Answer(206, [(CC, "max-age=60"), ("Content-Range", "bytes 0-4/*")], b"01234")),
    ("another unit", Answer(206, [(CC, "max-age=60"), ("Content-Range", "lines 0-4/10")], b"01234")),
    ("more than it says", Answer(206, [(CC, "max-age=60"), ("Content-Range", "bytes 0-3/10")], b"01234")),
    ("less than it says", Answer(206, [(CC, "max-age=60"), ("Content-Range", "bytes 4-9/10")], b"01234")),
    ("backwards", Answer(206, [(CC, "max-age=60"), ("Content-Range", "bytes 4-0/10")], b"01234")),
    ("beyond the whole", Answer(206, [(CC, "max-age=60"), ("Content-Range", "bytes 0-4/3")], b"01234")),
    ("two of them", part(0, 5, ("Content-Range", "bytes 0-4/9"))),
    ("multipart", Answer(206, [(CC, "max-age=60"), ("Content-Type", "multipart/byteranges; boundary=a")], b"01234")),
    ("broken off", Answer(206, [(CC, "max-age=60"), ("Content-Range", "bytes 0-9/10"), ("Content-Length", "10")], b"01234")),
    ("no-store", part(0, 5, control="no-store")),
    ("private", part(0, 5, control="private, max-age=60")),
    ("no freshness", part(0, 5, control="public")),
    ("a cookie", part(0, 5, ("Set-Cookie", "a=b"))),
    ("the whole", part(0, 5, status=200)),
]  # fmt: skip


@pytest.mark.parametrize("answer", [r[1] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_is_not_stored(site, answer):
    site.answer(answer)
    got = site.get(range="bytes=0-4")
    assert got.body == answer.body
    assert not site.get(range="bytes=0-4").hit


def test_a_part_that_nobody_asked_for_is_not_stored(site):
    site.answer(part(0, 5))
    assert "stored" not in site.get().cache_status
    assert not site.get(range="bytes=0-4").hit
    assert not site.get("/x").hit


def test_it_can_be_turned_off(site):
    site.setup(store_parts=False).answer(part(0, 5))
    for _ in range(2):
        assert not site.get(range="bytes=0-4").hit


def test_freshness_and_conditions_hold_for_parts(site, clock):
    site.answer(part(0, 5))
    site.get(range="bytes=0-4")
    assert site.get(range="bytes=0-1", if_range='"a"').hit
    assert not site.get(range="bytes=0-1", if_range='"b"').hit
    assert not site.get(range="bytes=0-1", if_none_match='"a"').hit
    assert site.get(range="bytes=0-1").hit
    clock.advance(60)
    assert not site.get(range="bytes=0-1").hit


def test_users_get_no_part_of_a_stranger(site):
    site.answer(part(0, 5))
    site.get(range="bytes=0-4")
    assert not site.get(range="bytes=0-4", cookie="a=1").hit
    site.get("/y", range="bytes=0-4", cookie="a=1")
    assert not site.get("/y", range="bytes=0-4").hit


def test_parts_vary(site):
    site.answer(part(0, 5, ("Vary", "Accept")))
    site.get(range="bytes=0-4", accept="a")
    site.answer(part(5, 10, ("Vary", "Accept")))
    assert not site.get(range="bytes=0-4", accept="b").hit
    assert site.get(range="bytes=0-4", accept="a").body == b"01234"
    assert site.get(range="bytes=5-9", accept="b").body == b"56789"
    assert site.forwards == 2


@pytest.mark.parametrize(("headers", "target"), [([], "/x"), ([("Location", "/x")], "/other")])
def test_unsafe_methods_drop_parts_too(site, headers, target):
    site.answer(part(0, 5))
    site.get(range="bytes=0-4")
    site.answer(Answer(200, headers))
    site.request("POST", target)
    site.answer(part(0, 5))
    assert not site.get(range="bytes=0-4").hit


def test_the_whole_comes_first(site):
    site.answer(part(0, 5))
    site.get(range="bytes=0-4")
    site.answer(Answer(headers=[(CC, "max-age=60"), ("ETag", '"n"')], body=b"abcdefghij"))
    site.get()
    assert site.get(range="bytes=0-4").body == b"abcde"


COMBINED = [
    # name, first, second, asked, body or None
    ("adjacent", part(0, 5), part(5, 10), "bytes=3-6", b"3456"),
    ("adjacent, before", part(5, 10), part(0, 5), "bytes=0-9", WHOLE),
    ("overlapping", part(0, 6), part(4, 10), "bytes=0-9", WHOLE),
    ("inside", part(0, 10), part(3, 5), "bytes=0-9", WHOLE),
    ("around", part(3, 5), part(0, 10), "bytes=0-9", WHOLE),
    ("apart", part(0, 3), part(6, 9), "bytes=0-2", None),
    ("apart, the last", part(0, 3), part(6, 9), "bytes=6-8", b"678"),
    ("another tag", part(0, 5), part(5, 10, etag='"b"'), "bytes=3-6", None),
    ("weak tags", part(0, 5, etag='W/"a"'), part(5, 10, etag='W/"a"'), "bytes=3-6", None),
    ("no tags", part(0, 5, etag=None), part(5, 10, etag=None), "bytes=3-6", None),
    ("another length", part(0, 5), part(5, 9, whole=9), "bytes=3-6", None),
]


@pytest.mark.parametrize(("one", "two", "asked", "body"), [r[1:] for r in COMBINED], ids=[r[0] for r in COMBINED])
def test_parts_are_combined(site, one, two, asked, body):
    site.answer(one, two, Answer(416, [], b""))
    for answer in (one, two):
        site.get(
            range=dict(answer.headers)["Content-Range"].replace(" ", "=").partition("/")[0], cache_control="no-cache"
        )
    got = site.get(range=asked)
    assert got.hit is (body is not None)
    if body is not None:
        assert got.body == body


def test_new_fields_replace_old_ones(site):
    site.answer(part(0, 5, ("X-A", "1"), ("X-B", "1")), part(5, 10, ("X-A", "2")))
    site.get(range="bytes=0-4")
    site.get(range="bytes=5-9")
    got = site.get(range="bytes=4-5")
    assert (got.body, got.get("x-a"), got.get("x-b")) == (b"45", "2", "1")


def test_what_is_combined_is_bounded(site):
    site.setup(max_body=8).answer(part(0, 5), part(5, 10))
    site.get(range="bytes=0-4")
    site.get(range="bytes=5-9")
    assert not site.get(range="bytes=0-9").hit
    assert site.get(range="bytes=5-9").body == b"56789"


def test_keys_of_parts_are_bounded():
    assert part_key("http:http://a/x") == "http:http://a/x ~part"
    assert len(part_key("x" * 200)) <= 200
    assert part_key("x" * 199) != part_key("x" * 200)


@given(st.text(max_size=40))
def test_no_content_range_raises(text):
    found = content_range([("content-range", text)])
    assert found is None or 0 <= found.begin < found.end <= found.whole


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=6),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_whatever_is_combined_its_bytes_are_those_of_the_whole(parts, begin, last):
    content = bytes(range(40))
    stored = None
    for at, size in parts:
        headers = [("ETag", '"a"'), ("Content-Range", str(Part(at, at + size, 40))), ("Content-Length", str(size))]
        fields, body = combined(stored, headers, content[at : at + size], 1000)
        held = content_range(fields)
        assert held is not None
        assert body == content[held.begin : held.end]
        stored = StoredResponse(206, "", fields, body, 0.0, 0.0, 60.0)
    made = cut_part([("range", f"bytes={begin}-{last}")], stored, list(stored.headers))
    if made is not None:
        assert made[2] == content[begin : last + 1]


# Parts that are the whole (RFC 9110 section 15.3.7.3)


def whole(status=200, **more):
    return Answer(status, [(CC, "max-age=60")], WHOLE, **more)


JOINED = [
    # name, the parts that come, whether they are the whole
    ("two", [(0, 6), (6, 10)], True),
    ("two that overlap", [(0, 8), (2, 10)], True),
    ("backwards", [(6, 10), (0, 6)], True),
    ("three", [(0, 3), (3, 5), (5, 10)], True),
    ("one that is all", [(0, 10)], True),
    ("not the end", [(0, 4), (4, 9)], False),
    ("not the beginning", [(1, 4), (4, 10)], False),
    ("a gap", [(0, 4), (5, 10)], False),
]


@pytest.mark.parametrize(("parts", "is_whole"), [row[1:] for row in JOINED], ids=[row[0] for row in JOINED])
def test_parts_that_are_all_of_it_together_are_the_whole(site, parts, is_whole):
    for begin, end in parts:
        site.answer(part(begin, end))
        site.get(range=f"bytes={begin}-{end - 1}")
    site.answer(Answer(headers=[(CC, "max-age=60")], body=b"anew"))
    got = site.get()
    assert (got.status, got.body, got.hit) == (200, WHOLE if is_whole else b"anew", is_whole)
    assert got.all("content-range") == []
    assert got.all("content-length") in ([str(len(got.body))], [])
    if is_whole:
        got = site.get(range="bytes=3-6")
        assert (got.status, got.body, got.all("content-range"), got.hit) == (206, b"3456", ["bytes 3-6/10"], True)


@pytest.mark.server
@pytest.mark.parametrize("parts", [[(0, 6), (6, 10)], [(0, 10)]])
@pytest.mark.parametrize("level", ["", "tiered+"])
def test_they_are_on_a_server_too(build, server, clock, parts, level):
    cache = Cache(level + server.url, clock=clock, timeout=5.0)
    site = build(cache)
    for begin, end in parts:
        site.answer(part(begin, end))
        site.get(range=f"bytes={begin}-{end - 1}")
    site.answer(Answer(headers=[(CC, "max-age=60")], body=b"anew"))
    got = site.get()
    assert (got.status, got.body, got.hit) == (200, WHOLE, True)
    site.request("POST")
    assert site.get().body == b"anew", "and are dropped with the URL"
    if hasattr(site, "loop"):
        site.loop.run_until_complete(cache.aclose())
    else:
        cache.close()


@pytest.mark.parametrize("tags", [('W/"a"', 'W/"a"'), ('"a"', '"b"'), (None, None)])
def test_parts_of_what_may_be_different_are_no_whole(site, tags):
    for (begin, end), etag in zip([(0, 6), (6, 10)], tags, strict=True):
        site.answer(part(begin, end, etag=etag))
        site.get(range=f"bytes={begin}-{end - 1}")
    site.says("max-age=60")
    assert not site.get().hit


def test_all_of_it_in_answer_to_a_range_is_stored_as_the_whole(site):
    site.answer(whole())
    assert "stored" in site.get(range="bytes=0-4").cache_status
    assert site.get().body == WHOLE
    got = site.get(range="bytes=2-3")
    assert (got.status, got.body, got.hit) == (206, b"23", True)
    assert site.forwards == 1


@pytest.mark.parametrize("status", [203, 404, 301])
def test_other_answers_to_a_range_are_not(site, status):
    site.answer(whole(status))
    site.get(range="bytes=0-4")
    assert not site.get().hit


def test_each_variant_is_a_whole_of_its_own(site):
    for language, etag in (("de", '"d"'), ("en", '"e"')):
        for begin, end in ((0, 6), (6, 10)):
            site.answer(part(begin, end, ("Vary", "accept-language"), etag=etag))
            site.get(range=f"bytes={begin}-{end - 1}", accept_language=language)
    for language, etag in (("de", '"d"'), ("en", '"e"')):
        got = site.get(accept_language=language)
        assert (got.hit, got.get("etag"), got.body) == (True, etag, WHOLE)
    assert not site.get(accept_language="fr").hit


@pytest.mark.parametrize("answer", ["the rest", "all of it"])
@pytest.mark.parametrize("when", ["before", "during"])
def test_what_changes_while_the_rest_comes_is_no_whole(site, answer, when):
    """The right to store the whole is taken late: nothing may have been dropped since the part was asked for."""

    def change():
        site.cache.invalidate("t")

    from cachekit.http.rules import Rule

    site.setup([Rule("/x", tags=["t"], status=[200])])
    site.answer(part(0, 6))
    site.get(range="bytes=0-5")
    made = part(6, 10) if answer == "the rest" else whole()
    setattr(made, when, change)
    site.answer(made, Answer(headers=[(CC, "max-age=60")], body=b"anew"))
    site.get(range="bytes=6-9")
    assert site.get().body == b"anew"


def test_an_unsafe_method_meanwhile_leaves_no_whole(site):
    import threading

    from tests.http.conftest import AsgiSite

    other = AsgiSite(site.cache, site.clock)
    other.says("no-store")

    def change():
        worker = threading.Thread(target=other.request, args=("POST", "/x"))
        worker.start()
        worker.join(10)

    site.answer(whole(before=change), Answer(headers=[(CC, "max-age=60")], body=b"anew"))
    site.get(range="bytes=6-9")
    assert site.get().body == b"anew"
    other.close()


def test_nothing_is_joined_where_no_parts_are_stored(site):
    site.setup(store_parts=False).answer(whole())
    site.get(range="bytes=0-4")
    assert not site.get().hit
