"""Frames as released versions wrote them: every later version must read these bytes.

The files are never written again. A new layout gets new files next to the old ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel

from cachekit.codecs.frame import open_frame, open_meta, seal
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.codecs.protection import Encryption, Signing

HERE = Path(__file__).parent


class Colour(Enum):
    RED = "r"


class Access(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclass(frozen=True)
class Product:
    id: int
    price: Decimal
    parts: tuple[Product, ...] = ()


class Owner(BaseModel):
    name: str
    age: int | None = None


CODEC = MsgpackCodec()
for cls in (Colour, Access, Point, Product, Owner):
    CODEC.register(cls, f"golden:{cls.__name__}")

CASES: dict[str, tuple[bytes, Any]] = {
    "plain": (b"\x01meta", {"id": 7, "name": "grüß", "tags": ["a", None, True, -1, 2.5, b"\x00\xff"]}),
    "compressed": (b"", {"rows": [{"id": index, "text": "lorem ipsum dolor"} for index in range(200)]}),
    "leaves": (
        b"m" * 300,
        [
            2**64,
            -(2**70),
            complex(1, -2),
            Decimal("-1.50E+7"),
            Fraction(1, 3),
            UUID(int=1),
            datetime(2024, 2, 29, 1, 2, 3, 4),
            datetime(2024, 1, 1, tzinfo=UTC),
            datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
            datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
            date(2024, 1, 1),
            datetime(2024, 1, 1, 12).time(),
            timedelta(days=-1, microseconds=1),
            PurePosixPath("/a"),
            ip_address("::1"),
        ],
    ),
    "containers": (b"", {"t": (1, (2,)), "s": {3}, "f": frozenset({4}), (5, 6): [()], None: {7: 8}}),
    "classes": (
        b"",
        [Colour.RED, Access.READ | Access.WRITE, Point(1, 2), Point(3, 4), Owner(name="ann")]
        + [Product(1, Decimal("9.99"), (Product(2, Decimal(0)),))],
    ),
}


def write_golden_frames() -> None:
    """Write the files that do not exist yet. Run by hand when a case is added, never by a test."""
    for name, (meta, value) in CASES.items():
        path = HERE / f"frame_v1_{name}.bin"
        if not path.exists():
            path.write_bytes(seal(meta, CODEC.encode(value), codec_id=CODEC.id))


@pytest.mark.parametrize("name", CASES)
def test_a_frame_of_version_1_is_read(name: str) -> None:
    data = (HERE / f"frame_v1_{name}.bin").read_bytes()
    meta, value = CASES[name]
    frame = open_frame(data)
    assert (frame.meta, frame.codec_id) == (meta, 1)
    assert open_meta(data) == meta
    decoded = CODEC.decode(frame.payload)
    assert decoded == value
    assert repr(decoded) == repr(value)


def test_every_file_has_a_case() -> None:
    assert {path.name for path in HERE.glob("frame_v1_*.bin")} == {f"frame_v1_{name}.bin" for name in CASES}


def test_the_flags_of_the_files() -> None:
    compressed = {name for name in CASES if (HERE / f"frame_v1_{name}.bin").read_bytes()[3] & 1}
    assert compressed == {"compressed"}


# -- version 2: protected -------------------------------------------------------------------------------------------------

KEY, CONTEXT = bytes(range(32)), b"golden:v:{key}"
PROTECTED = {"encrypted": Encryption([KEY]), "signed": Signing([KEY])}


def write_protected_frames() -> None:
    """Write the files of version 2 that do not exist yet. Run by hand, never by a test."""
    for name, protection in PROTECTED.items():
        path = HERE / f"frame_v2_{name}.bin"
        if not path.exists():
            meta, value = CASES["compressed"]
            payload = CODEC.encode(value)
            path.write_bytes(seal(meta, payload, codec_id=CODEC.id, protection=protection, context=CONTEXT))


@pytest.mark.parametrize("name", PROTECTED)
def test_a_frame_of_version_2_is_read(name: str) -> None:
    data = (HERE / f"frame_v2_{name}.bin").read_bytes()
    frame = open_frame(data, protection=PROTECTED[name], context=CONTEXT)
    assert (data[2], frame.meta, CODEC.decode(frame.payload)) == (2, *CASES["compressed"])


def test_every_file_of_version_2_has_a_case() -> None:
    assert {path.name for path in HERE.glob("frame_v2_*.bin")} == {f"frame_v2_{name}.bin" for name in PROTECTED}


@pytest.mark.parametrize("name", CASES)
def test_plain_frames_are_still_written_as_version_1(name: str) -> None:
    meta, value = CASES[name]
    assert seal(meta, CODEC.encode(value), codec_id=1)[:4] == (HERE / f"frame_v1_{name}.bin").read_bytes()[:4]
