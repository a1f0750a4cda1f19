"""The quick ways of the codec give the same bytes and values as the others, or refuse."""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.codecs import msgpack as module
from cachekit.codecs import quick
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.errors import CodecError

pytestmark = pytest.mark.skipif(quick.write is None, reason="the extra `speedups` is not installed")

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Pair(NamedTuple):
    a: int
    b: int


class Text(str):
    pass


@dataclass
class Point:
    x: int


@given(PLAIN)
def test_plain_values_have_the_same_bytes_and_come_back(value: Any) -> None:
    data = quick.write(value)
    assert data == msgpack.packb(value, strict_types=True)
    assert repr(quick.read(data)) == repr(msgpack.unpackb(data, strict_map_key=False))


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1}, Colour.RED, Number.ONE, Pair(1, 2), Text("a"), Point(1), date(2024, 1, 1), datetime.now(UTC),
     UUID(int=1), OrderedDict(a=1), 2**64, {1: 2}, "\ud800"],
    ids=repr,
)  # fmt: skip
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    for nested in (value, [value], {"a": [value]}):
        with pytest.raises(TypeError):
            quick.write(nested)


@given(PLAIN, st.binary(min_size=1, max_size=40))
def test_bytes_after_a_value_are_noticed(value: Any, more: bytes) -> None:
    with pytest.raises((ValueError, CodecError)):
        quick.read(quick.write(value) + more)


@given(PLAIN, st.data())
def test_cut_bytes_are_noticed(value: Any, data: Any) -> None:
    whole = quick.write(value)
    with pytest.raises((ValueError, CodecError)):
        quick.read(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(PLAIN)
def test_with_and_without_the_library_it_is_the_same(value: Any) -> None:
    codec = MsgpackCodec()
    data = codec.encode([value, (value,)])
    plain = codec.encode(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_write", None)
        patch.setattr(module, "_read", None)
        assert codec.encode([value, (value,)]) == data
        assert codec.encode(value) == plain
        without = codec.decode(plain)
    assert repr(codec.decode(plain)) == repr(without)
