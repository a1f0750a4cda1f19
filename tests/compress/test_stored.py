"""The encoded forms of stored responses."""

from __future__ import annotations

import random

import pytest

from cachekit.compress.options import Compression
from cachekit.compress.response import asked
from cachekit.compress.stored import Encoded
from tests.compress.conftest import TEXT, decode


def test_each_body_is_encoded_once_per_coding() -> None:
    options = Compression()
    forms = Encoded(options)
    for name in ("gzip", "br"):
        wanted = asked(options, "GET", "/", [("accept-encoding", name)])
        assert forms.find(name, TEXT) is None
        made = forms.make(wanted, TEXT)
        assert decode(made, name) == TEXT
        assert forms.find(name, bytes(bytearray(TEXT))) is made, "by its bytes, not by its identity"
        assert forms.find(name, TEXT + b"!") is None


def test_what_does_not_grow_smaller_is_not_tried_again() -> None:
    options, noise = Compression(), random.Random(1).randbytes(3000)
    forms = Encoded(options)
    assert forms.make(asked(options, "GET", "/", [("accept-encoding", "gzip")]), noise) is noise
    assert forms.find("gzip", noise) is noise


def test_what_is_padded_is_made_anew_each_time() -> None:
    options = Compression(padding=True)
    forms = Encoded(options)
    wanted = asked(options, "GET", "/", [("accept-encoding", "gzip")])
    assert len({len(forms.make(wanted, TEXT)) for _ in range(10)}) > 3
    assert forms.find("gzip", TEXT) is None


def test_the_bound_in_bytes_holds() -> None:
    options = Compression(memo=40_000)
    forms = Encoded(options)
    wanted = asked(options, "GET", "/", [("accept-encoding", "gzip")])
    bodies = [b"%d" % number + TEXT for number in range(20)]
    for body in bodies:
        forms.make(wanted, body)
    kept = [body for body in bodies if forms.find("gzip", body) is not None]
    assert 1 <= len(kept) <= 40_000 // len(TEXT)
    assert bodies[-1] in kept
    huge = b"x" * 50_000
    forms.make(wanted, huge)
    assert forms.find("gzip", huge) is None


def test_a_compressor_that_fails_costs_nothing_but_its_coding(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = Compression()

    def fail(_: bytes) -> bytes:
        raise MemoryError

    monkeypatch.setattr(type(options.coding("gzip")), "whole", property(lambda _: fail))
    assert Encoded(options).make(asked(options, "GET", "/", [("accept-encoding", "gzip")]), TEXT) is TEXT
    assert "compression failed" in caplog.text
