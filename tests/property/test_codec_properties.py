"""Properties of codec and frame: exact round trips, and no bytes that crash or come back wrong."""

from __future__ import annotations

import math
import zoneinfo
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from datetime import timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cachekit.codecs.frame import Frame, open_frame, open_meta, seal
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.errors import CodecError, FrameError


class Colour(Enum):
    RED = "r"
    BLUE = "b"


class Access(Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Box:
    content: Any
    colour: Colour = Colour.RED


@dataclass
class Loose:
    content: Any


class Model(BaseModel):
    content: Any = None
    other: int = 0


CODEC = MsgpackCodec(Colour, Access, Pair, Box, Loose, Model)


def picture(value: Any) -> Any:
    """Return a comparable picture of *value* with all of its types, in which NaN equals NaN but 0.0 not -0.0."""
    cls = type(value)
    if cls is float:
        return cls, "nan" if math.isnan(value) else repr(value)
    if cls is complex:
        return cls, picture(value.real), picture(value.imag)
    if cls is Decimal:
        return cls, str(value)
    if isinstance(value, Box):
        return cls, picture(value.content), value.colour
    if isinstance(value, Loose | Model):
        return cls, picture(value.__dict__), picture(getattr(value, "__pydantic_fields_set__", None))
    if isinstance(value, dict):
        return cls, [(picture(key), picture(item)) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return cls, sorted(repr(picture(item)) for item in value)
    if isinstance(value, list | tuple | deque):
        return cls, getattr(value, "maxlen", None), [picture(item) for item in value]
    if hasattr(value, "tzinfo"):
        return cls, value.isoformat(), value.fold, picture(value.tzinfo)
    if cls is timezone:
        return cls, value.utcoffset(None), value.tzname(None)
    return cls, value


zones = st.one_of(
    st.none(),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]).map(zoneinfo.ZoneInfo),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.builds(
        timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.text(st.characters(codec="utf-8"))
    ),
)
text = st.text(st.characters(codec="utf-8"), max_size=20)
hashable_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    text,
    st.binary(max_size=20),
    st.complex_numbers(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals().filter(lambda number: not number.is_snan()),  # a signalling NaN has no hash
    st.fractions(),
    st.uuids(),
    st.ip_addresses(),
    st.sampled_from([PurePosixPath("/a/b"), PureWindowsPath("C:/x"), *Colour, Access(0), Access(5), Access.RUN]),
)
leaves = hashable_leaves | st.just(Decimal("-sNaN7"))
hashables = st.recursive(
    hashable_leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Box, inner, st.sampled_from(Colour)),
    ),
    max_leaves=5,
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashables, inner, max_size=4),
        st.dictionaries(text, inner, max_size=4).map(OrderedDict),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
        st.dictionaries(hashables, st.integers(), max_size=3).map(Counter),
        st.builds(deque, st.lists(inner, max_size=3), st.none() | st.integers(3, 9)),
        st.builds(Pair, inner, inner),
        st.builds(Box, inner, st.sampled_from(Colour)),
        st.builds(Loose, inner),
        st.builds(Model, content=inner),
    ),
    max_leaves=15,
)


@given(values)
def test_every_value_comes_back_with_the_same_types(value: Any) -> None:
    assert picture(CODEC.decode(CODEC.encode(value))) == picture(value)


@given(values, st.data())
def test_a_truncated_payload_is_a_codec_error(value: Any, data: st.DataObject) -> None:
    encoded = CODEC.encode(value)
    end = data.draw(st.integers(0, len(encoded) - 1))
    try:
        CODEC.decode(encoded[:end])
    except CodecError:
        return
    raise AssertionError(f"{encoded[:end]!r} was read as a value")


def decodes_or_raises_codec_error(data: bytes) -> None:
    try:
        CODEC.decode(data)
    except CodecError:
        pass


@given(st.binary(max_size=200))
def test_random_bytes_never_crash(data: bytes) -> None:
    decodes_or_raises_codec_error(data)
    decodes_or_raises_codec_error(b"\xc1" + data)


@given(values, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_payloads_never_crash(value: Any, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(CODEC.encode(value))
    for place, byte in changes:
        damaged[place % len(damaged)] = byte
    decodes_or_raises_codec_error(bytes(damaged))


@given(st.integers(0, 60), st.binary(max_size=40), st.lists(st.integers(0, 5), max_size=3))
def test_any_extension_never_crashes(code: int, content: bytes, rest: list[int]) -> None:
    extension = msgpack.ExtType(code, content)
    decodes_or_raises_codec_error(msgpack.packb(extension))
    decodes_or_raises_codec_error(b"\xc1" + msgpack.packb([extension, *rest]))
    decodes_or_raises_codec_error(b"\xc1" + msgpack.packb([extension, {"a": 1}]))


payloads = st.one_of(st.binary(max_size=100), st.binary(min_size=1, max_size=20).map(lambda part: part * 200))


@given(st.binary(max_size=50), payloads, st.integers(1, 255), st.integers(0, 5000))
def test_frames_round_trip(meta: bytes, payload: bytes, codec_id: int, compress_from: int) -> None:
    data = seal(meta, payload, codec_id=codec_id, compress_from=compress_from)
    assert open_frame(data) == Frame(meta, payload, codec_id)
    assert open_meta(data) == meta
    assert len(data) <= 13 + len(meta) + len(payload)


def refuses(data: bytes) -> None:
    for opened in (open_frame, open_meta):
        try:
            opened(data)
        except FrameError:
            continue
        raise AssertionError(f"{data!r} was taken for a frame")


@given(st.binary(max_size=50), payloads, st.data())
def test_a_truncated_frame_is_refused(meta: bytes, payload: bytes, data: st.DataObject) -> None:
    frame = seal(meta, payload, codec_id=1)
    refuses(frame[: data.draw(st.integers(0, len(frame) - 1))])


@given(st.binary(max_size=50), payloads, st.data())
def test_a_frame_with_a_flipped_bit_is_refused(meta: bytes, payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(seal(meta, payload, codec_id=1))
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    refuses(bytes(frame))


@given(st.binary(max_size=100))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    refuses(data)
    refuses(b"\xfeK\x01" + data)
