"""Accept-Encoding, RFC 9110 section 12.5.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.compress.negotiate import Choice, choose

ALL = ("zstd", "br", "gzip")


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("br;q=0.5, gzip", "gzip"),
        ("br;q=0.5, gzip;q=0.501", "gzip"),
        ("gzip;q=1.0,zstd;q=0.9", "gzip"),
        ("gzip ; q=0.4 ,\tbr;Q=0.3", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("*", "zstd"),
        ("*;q=0.1", "zstd"),
        ("zstd;q=0, *", "br"),
        ("*;q=0", None),
        ("*;q=0, gzip", "gzip"),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("x-gzipped", None),
        ("gzipped, brotli", None),
        ("gzip;level=1", None),
        ("gzip;q=high", None),
        ("gzip;q=2", None),
        ("gzip;q=-1, br", "br"),
        ("", None),
        (",,gzip,", "gzip"),
        ("deflate, compress", None),
        (None, None),
    ],
)
def test_what_a_client_gets(accept: str | None, coding: str | None) -> None:
    assert choose(accept, ALL).coding == coding


@pytest.mark.parametrize(
    ("accept", "choice"),
    [
        ("identity;q=0", Choice(None, identity=False)),
        ("*;q=0", Choice(None, identity=False)),
        ("*;q=0, identity;q=0.1", Choice(None)),
        ("compress, *;q=0", Choice(None, identity=False, others=True)),
        ("gzip, identity;q=0", Choice("gzip", identity=False)),
        ("deflate;q=0, identity;q=0", Choice(None, identity=False)),
    ],
)
def test_a_client_may_refuse_a_plain_response(accept: str, choice: Choice) -> None:
    assert choose(accept, ALL) == choice


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["gzip", "br", "*", "identity", ";q=", "0", ".5", ",", " "])).map("".join)
)
def test_whatever_is_sent_has_an_answer(accept: str) -> None:
    found = choose(accept, ALL)
    assert found.coding in {*ALL, None}
    if "gzip" not in accept.lower() and "*" not in accept:
        assert found.coding != "gzip"
