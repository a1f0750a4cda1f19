"""What becomes of a response, through both edges: RFC 9110 sections 8.4, 8.8.3, 12.5.3, 12.5.5 and 14."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cachekit.compress.options import Compression
from cachekit.compress.response import TEXT as WORDS
from cachekit.compress.response import asked, judge
from tests.compress.conftest import TEXT

SIZE = str(len(TEXT))


@pytest.mark.parametrize("coding", ["zstd", "br", "gzip"])
def test_a_body_is_encoded(edge: Any, coding: str) -> None:
    edge.headers.append(("Content-Length", SIZE))
    got = edge.ask(coding)
    assert got.coding == coding
    assert got.body == TEXT
    assert got.all("content-length") == [str(len(got.raw))]
    assert len(got.raw) < len(TEXT) // 5
    assert got.get("vary") == "Accept-Encoding"


@pytest.mark.parametrize("coding", ["zstd", "br", "gzip"])
def test_a_stream_is_encoded_piece_by_piece(edge: Any, coding: str) -> None:
    edge.pieces = [b"first " * 40, b"second " * 40, b"third"]
    got = edge.ask(coding)
    assert got.coding == coding
    assert got.get("content-length") is None
    assert got.body == b"".join(edge.pieces)
    assert len([piece for piece in got.pieces if piece]) >= 3, "each piece is sent when it comes"


def test_what_was_sent_can_be_read_at_once(edge: Any) -> None:
    import zlib

    edge.answers(b"data: 1\n\n", b"data: 2\n\n", content_type="text/event-stream")
    got = edge.ask("gzip")
    reader = zlib.decompressobj(31)
    assert reader.decompress(got.pieces[0]) == b"data: 1\n\n"
    assert reader.decompress(got.pieces[1]) == b"data: 2\n\n"


def test_a_body_of_stated_length_in_one_piece_is_taken_as_whole(edge: Any) -> None:
    edge.headers.append(("Content-Length", SIZE))
    edge.pieces = [TEXT, b""]
    got = edge.ask()
    assert got.get("content-length") == str(len(got.raw))
    assert got.body == TEXT


def test_a_stream_of_stated_length_loses_it(edge: Any) -> None:
    edge.headers.append(("Content-Length", SIZE))
    edge.pieces = [TEXT[:1000], TEXT[1000:]]
    got = edge.ask()
    assert got.get("content-length") is None
    assert got.body == TEXT


@pytest.mark.parametrize("accept", [None, "", "gzip;q=0", "x-gzipped", "deflate"])
def test_who_accepts_no_coding_gets_none_and_is_told_that_others_may(edge: Any, accept: str | None) -> None:
    got = edge.ask(accept)
    assert (got.coding, got.raw, got.get("vary")) == (None, TEXT, "Accept-Encoding")


def test_a_small_body_is_left_alone(edge: Any) -> None:
    edge.pieces = [b"x" * 499]
    assert edge.ask().coding is None
    assert edge.ask().get("vary") == "Accept-Encoding"
    edge.pieces = [b"x" * 500]
    assert edge.ask().coding == "gzip"


def test_a_body_that_would_grow_is_left_alone(edge: Any) -> None:
    noise = random.Random(1).randbytes(2000)
    edge.pieces = [noise]
    edge.headers.append(("ETag", '"1"'))
    got = edge.ask()
    assert (got.coding, got.raw, got.get("etag"), got.get("vary")) == (None, noise, '"1"', "Accept-Encoding")


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        ("text/html; charset=utf-8", True),
        ("TEXT/HTML", True),
        ("application/problem+json", True),
        ("image/svg+xml", True),
        ("image/png", False),
        ("video/mp4", False),
        ("application/zip", False),
        ("application/octet-stream", False),
        ("font/woff2", False),
    ],
)
def test_what_is_compressed_already_is_left_alone(edge: Any, kind: str, encoded: bool) -> None:
    edge.answers(TEXT, content_type=kind)
    got = edge.ask()
    assert got.coding == ("gzip" if encoded else None)
    assert got.get("vary") == ("Accept-Encoding" if encoded else None)


def test_without_a_content_type_nothing_is_known(edge: Any) -> None:
    if edge.kind == "wsgi":
        pytest.skip("wsgiref.validate requires a Content-Type")
    edge.answers(TEXT)
    assert edge.ask().coding is None


def test_what_is_encoded_already_is_left_alone(edge: Any) -> None:
    edge.answers(b"\x1f\x8b" + TEXT, content_type="text/plain", content_encoding="br", etag='"1"')
    got = edge.ask("gzip")
    assert (got.raw, got.all("content-encoding"), got.get("etag")) == (b"\x1f\x8b" + TEXT, ["br"], '"1"')


def test_identity_is_no_coding(edge: Any) -> None:
    edge.answers(TEXT, content_type="text/plain", content_encoding="identity")
    assert edge.ask().all("content-encoding") == ["gzip"]


@pytest.mark.parametrize("control", ["no-transform", "public, No-Transform , max-age=60"])
def test_no_transform_is_obeyed(edge: Any, control: str) -> None:
    edge.answers(TEXT, content_type="text/plain", cache_control=control)
    assert edge.ask().coding is None


def test_no_transform_in_a_request_is_obeyed(edge: Any) -> None:
    assert edge.ask(cache_control="no-transform").coding is None


def test_words_that_only_look_like_no_transform(edge: Any) -> None:
    edge.answers(TEXT, content_type="text/plain", cache_control="x-no-transform-y")
    assert edge.ask().coding == "gzip"


@pytest.mark.parametrize("status", [200, 201, 404, 500])
def test_every_status_with_a_body_may_be_encoded(edge: Any, status: int) -> None:
    edge.status = status
    got = edge.ask()
    assert (got.status, got.coding) == (status, "gzip")


def test_a_part_of_a_body_is_left_alone(edge: Any) -> None:
    edge.answers(TEXT, status=206, content_type="text/plain", content_range=f"bytes 0-{len(TEXT) - 1}/{len(TEXT)}")
    got = edge.ask()
    assert (got.coding, got.raw) == (None, TEXT)


def test_a_part_needs_no_content_range_to_be_one(edge: Any) -> None:
    edge.answers(TEXT, status=206, content_type="text/plain")
    assert edge.ask().coding is None


def test_an_encoded_body_offers_no_ranges(edge: Any) -> None:
    edge.headers += [("Accept-Ranges", "bytes"), ("Content-MD5", "x"), ("Repr-Digest", "sha-256=:x:")]
    got = edge.ask()
    assert [got.get(name) for name in ("accept-ranges", "content-md5", "repr-digest")] == [None] * 3
    assert edge.ask(None).get("accept-ranges") == "bytes"


@pytest.mark.parametrize("status", [204, 304])
def test_no_body_no_coding(edge: Any, status: int) -> None:
    edge.answers(status=status, etag='"1"')
    got = edge.ask()
    assert (got.status, got.raw, got.coding) == (status, b"", None)
    assert got.get("vary") == ("Accept-Encoding" if status == 304 else None)


@pytest.mark.parametrize(
    ("more", "vary"),
    [
        ({}, "Accept-Encoding"),
        ({"vary": "Cookie"}, "Cookie, Accept-Encoding"),
        ({"cache_control": "max-age=5, no-transform"}, None),
    ],
)
def test_a_304_has_the_vary_of_the_200(edge: Any, more: dict[str, str], vary: str | None) -> None:
    """RFC 9110 section 15.4.5."""
    edge.answers(b"", status=304, etag='"1"', **more)
    assert edge.ask(if_none_match='W/"1"').get("vary") == vary
    assert edge.ask(None, if_none_match='"1"').get("vary") == vary
    edge.answers(TEXT, content_type="text/html", etag='"1"', **more)
    assert edge.ask().get("vary") == vary


@pytest.mark.parametrize(("kind", "varies"), [("text/html", True), ("image/png", False)])
def test_a_304_that_tells_its_type(kind: str, varies: bool) -> None:
    options = Compression()
    known = asked(options, "GET", "/", [("accept-encoding", "gzip")])
    found = judge(WORDS, options, known, 304, [("Content-Type", kind)], 0, last=True)
    assert (("Vary", "Accept-Encoding") in found.headers) is varies


def test_an_empty_body_is_left_alone(edge: Any) -> None:
    edge.pieces = [b""]
    assert (edge.ask().coding, edge.ask("gzip, identity;q=0").coding) == (None, None)


def test_head_says_what_get_would_say(edge: Any) -> None:
    edge.headers += [("Content-Length", SIZE), ("ETag", '"1"')]
    got = edge.ask(method="HEAD")
    assert (got.raw, got.coding, got.get("content-length")) == (b"", "gzip", None)
    assert (got.get("etag"), got.get("vary")) == ('W/"1"', "Accept-Encoding")
    edge.headers = [("Content-Type", "text/plain"), ("Content-Length", "12")]
    assert edge.ask(method="HEAD").get("content-length") == "12"


class TestEtag:
    def test_a_strong_one_is_weakened(self, edge: Any) -> None:
        edge.headers.append(("ETag", '"v1"'))
        assert edge.ask().get("etag") == 'W/"v1"'
        assert edge.ask(None).get("etag") == '"v1"'

    def test_a_weak_one_stays(self, edge: Any) -> None:
        edge.headers.append(("ETag", 'W/"v1"'))
        assert edge.ask().get("etag") == 'W/"v1"'

    def test_it_is_suffixed_by_choice(self, edge: Any) -> None:
        edge.options = Compression(etag="suffix")
        edge.headers.append(("ETag", '"v1"'))
        assert edge.ask("br").get("etag") == '"v1-br"'

    @pytest.mark.parametrize("field", ["if_none_match", "if_match"])
    def test_the_application_is_asked_for_the_one_it_knows(self, edge: Any, field: str) -> None:
        edge.options = Compression(etag="suffix")
        edge.ask("br", **{field: '"v1-br", "v0"'})
        assert edge.seen[field.replace("_", "-")] == '"v1-br", "v0", "v1"'

    @pytest.mark.parametrize(("form", "known"), [("suffix", '"v1-gzip"'), ("weaken", 'W/"v1"')])
    def test_a_304_names_the_one_that_the_client_has(self, edge: Any, form: str, known: str) -> None:
        edge.options = Compression(etag=form)
        edge.answers(status=304, etag='"v1"')
        assert edge.ask(if_none_match=known).get("etag") == known
        assert edge.ask(if_none_match='"v1"').get("etag") == '"v1"'


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("Cookie", "Cookie, Accept-Encoding"),
        ("accept-encoding", "accept-encoding"),
        ("Cookie, Accept-Encoding", "Cookie, Accept-Encoding"),
        ("*", "*"),
    ],
)
def test_vary_is_added_to(edge: Any, given: str, sent: str) -> None:
    edge.headers.append(("Vary", given))
    assert edge.ask().get("vary") == sent
    assert edge.ask(None).get("vary") == sent


class TestAPlainResponseIsRefused:
    def test_even_what_is_small_is_encoded_then(self, edge: Any) -> None:
        edge.answers(b"tiny", content_type="image/png")
        got = edge.ask("gzip, identity;q=0")
        assert (got.coding, got.body) == ("gzip", b"tiny")

    def test_without_a_coding_it_is_406_before_the_application_runs(self, edge: Any) -> None:
        got = edge.ask("identity;q=0")
        assert (got.status, got.coding, edge.calls) == (406, None, 0)
        assert got.get("content-length") == str(len(got.raw))
        assert "Accept-Encoding" in (got.get("vary") or "")

    def test_the_application_may_know_a_coding_that_we_do_not(self, edge: Any) -> None:
        edge.answers(b"...", content_type="text/plain", content_encoding="compress")
        assert edge.ask("compress, *;q=0").raw == b"..."
        edge.answers(b"...", b"...", content_type="text/plain", set_cookie="secret=1")
        got = edge.ask("compress, *;q=0")
        assert (got.status, got.get("set-cookie"), edge.calls) == (406, None, 2)
        assert b"..." not in got.raw


class TestPadding:
    @pytest.mark.parametrize("coding", ["br", "gzip"])
    @pytest.mark.parametrize("pieces", [[TEXT], [TEXT, TEXT]], ids=["whole", "stream"])
    def test_the_length_says_little(self, edge: Any, coding: str, pieces: list[bytes]) -> None:
        edge.options = Compression(padding=True)
        edge.pieces = pieces
        answers = [edge.ask(coding) for _ in range(12)]
        assert {got.body for got in answers} == {b"".join(pieces)}
        assert len({len(got.raw) for got in answers}) > 6

    def test_zstd_is_not_offered_then(self, edge: Any) -> None:
        edge.options = Compression(padding=True)
        assert edge.ask("zstd, gzip;q=0.1").coding == "gzip"

    def test_it_may_be_for_some_paths(self, edge: Any) -> None:
        edge.options = Compression(padding=["/account/**"])
        assert len({len(edge.ask(path="/account/7").raw) for _ in range(12)}) > 6
        assert len({len(edge.ask(path="/about").raw) for _ in range(12)}) == 1
        assert edge.ask("zstd", path="/about").coding == "zstd"


class TestACompressorThatFails:
    @pytest.fixture(autouse=True)
    def broken(self, edge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> bytes:
            raise MemoryError("no room")

        coding = edge.options.coding("gzip")
        monkeypatch.setattr(type(coding), "whole", property(lambda _: fail))
        monkeypatch.setattr(type(coding), "stream", property(lambda _: fail))

    @pytest.mark.parametrize("kind", ["text/plain", "text/event-stream"])
    def test_a_stream_travels_as_it_is(self, edge: Any, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        edge.answers(b"one " * 200, b"two " * 200, content_type=kind, etag='"1"')
        got = edge.ask()
        assert (got.coding, got.raw, got.get("etag")) == (None, b"".join(edge.pieces), '"1"')
        assert got.get("vary") == "Accept-Encoding"
        assert "compression failed" in caplog.text

    def test_the_body_travels_as_it_is(self, edge: Any, caplog: pytest.LogCaptureFixture) -> None:
        edge.headers += [("Content-Length", SIZE), ("ETag", '"1"')]
        got = edge.ask()
        assert (got.coding, got.raw, got.get("etag"), got.get("content-length")) == (None, TEXT, '"1"', SIZE)
        assert "compression failed" in caplog.text


@pytest.mark.parametrize(
    "headers", [[("Content-Type", "text/plain"), ("Content-Length", "many")], [("Content-Type", "")]]
)
def test_odd_heads_pass(edge: Any, headers: list[tuple[str, str]]) -> None:
    if edge.kind == "wsgi" and not headers[0][1]:
        pytest.skip("wsgiref.validate requires a Content-Type")
    edge.headers = headers
    assert edge.ask().body == TEXT
