"""The wire frame: what goes in comes out, and nothing else is taken for a frame."""

from __future__ import annotations

import os
import struct
from zlib import crc32

import pytest
import snappy

from cachekit.codecs.frame import Frame, open_frame, open_meta, seal
from cachekit.errors import ConfigError, FrameError

TEXT = b"all work and no play makes jack a dull boy " * 100


def forge(*, flags: int = 0, version: int = 1, codec_id: int = 1, meta_length: int = 0, body: bytes = b"") -> bytes:
    """Return a frame with a checksum that matches, whatever it says."""
    head = struct.pack(">2sBBBI", b"\xfeK", version, flags, codec_id, meta_length)
    return head + struct.pack(">I", crc32(body, crc32(head))) + body


@pytest.mark.parametrize("meta", [b"", b"m", b"meta" * 500])
@pytest.mark.parametrize("payload", [b"", b"p", TEXT, os.urandom(5000)], ids=["empty", "byte", "text", "noise"])
@pytest.mark.parametrize("codec_id", [1, 255])
def test_round_trip(meta: bytes, payload: bytes, codec_id: int) -> None:
    data = seal(meta, payload, codec_id=codec_id)
    assert open_frame(data) == Frame(meta=meta, payload=payload, codec_id=codec_id)
    assert open_meta(data) == meta


def test_compression_starts_at_the_threshold() -> None:
    small = b"a" * 1023
    assert len(seal(b"", small, codec_id=1)) == 13 + 1023
    assert len(seal(b"", small + b"a", codec_id=1)) < 200
    assert len(seal(b"", small, codec_id=1, compress_from=1023)) < 200


def test_compression_must_be_worth_it() -> None:
    noise = os.urandom(5000)
    assert len(seal(b"", noise, codec_id=1)) == 13 + 5000
    almost = bytes(300) + os.urandom(4700)
    assert len(snappy.compress(almost)) < 5000
    assert seal(b"", almost, codec_id=1)[13:] == almost


def test_meta_is_never_compressed() -> None:
    assert TEXT in seal(TEXT, TEXT, codec_id=1)


def test_the_first_byte_is_no_digit_and_not_printable() -> None:
    first = seal(b"", b"", codec_id=1)[0]
    assert not chr(first).isdigit()
    assert not 32 <= first < 127


@pytest.mark.parametrize("codec_id", [0, -1, 256])
def test_the_id_of_a_codec_has_a_range(codec_id: int) -> None:
    with pytest.raises(ConfigError):
        seal(b"", b"", codec_id=codec_id)


@pytest.mark.parametrize("payload", [b"abc", TEXT], ids=["plain", "compressed"])
def test_truncation_at_any_point(payload: bytes) -> None:
    data = seal(b"meta", payload, codec_id=1)
    for end in range(len(data)):
        for opened in (open_frame, open_meta):
            with pytest.raises(FrameError):
                opened(data[:end])
    with pytest.raises(FrameError):
        open_frame(data + b"\0")


@pytest.mark.parametrize("payload", [b"abc", TEXT], ids=["plain", "compressed"])
def test_a_flip_of_any_bit(payload: bytes) -> None:
    data = seal(b"meta", payload, codec_id=1)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            open_frame(bytes(flipped))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\xfe", "truncated"),
        (b"\xfeX", "foreign"),
        (b"12345", "foreign"),
        (b'{"a": 1}', "foreign"),
        (b"\x80\x04\x95" + b"\0" * 20, "foreign"),
        (forge(version=2), "newer"),
        (forge(version=255), "newer"),
        (forge(version=0), "version 0"),
        (forge(flags=2), "flags"),
        (forge(codec_id=0), "codec"),
        (forge(meta_length=1), "longer"),
        (forge(meta_length=2**32 - 1, body=b"x"), "longer"),
        (forge(flags=1), "no length"),
        (forge(flags=1, body=b"\xff" * 9), "no length"),
        (forge(flags=1, body=b"\x05"), "decompressed"),
        (forge(flags=1, body=b"\x05\x00\x00\x00\x00"), "decompressed"),
        (forge(flags=1, body=b"\x80\x80\x40\x00"), "impossible"),
        (forge(flags=1, body=b"\xff\xff\xff\xff\x0f" + b"\0" * 50), "max_size"),
        (forge(body=b"x")[:-1] + b"y", "checksum"),
    ],
)
def test_what_is_no_frame_says_why(data: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        open_frame(data)


def test_sizes_are_bounded_before_decompression(monkeypatch: pytest.MonkeyPatch) -> None:
    data = seal(b"", bytes(100_000), codec_id=1)
    assert len(open_frame(data, max_size=100_000).payload) == 100_000
    monkeypatch.setattr(snappy, "decompress", None)
    with pytest.raises(FrameError, match="max_size=99999"):
        open_frame(data, max_size=99_999)
    with pytest.raises(FrameError, match="more than max_size"):
        open_frame(seal(b"", os.urandom(2000), codec_id=1), max_size=2000)
    assert open_meta(data) == b""


def test_the_most_compressible_payload_is_not_called_impossible() -> None:
    for size in (1024, 65_536, 5_000_000):
        payload = bytes(size)
        assert open_frame(seal(b"", payload, codec_id=1)).payload == payload


def test_a_length_that_snappy_does_not_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    data = seal(b"", TEXT, codec_id=1)
    monkeypatch.setattr(snappy, "decompress", lambda block: b"short")
    with pytest.raises(FrameError, match="another length"):
        open_frame(data)
