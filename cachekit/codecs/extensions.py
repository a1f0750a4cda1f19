"""Values that msgpack has no type for and that hold no other values: how each becomes one extension, and back.

Owns the numbers of these extensions, which are part of the wire format: a number is never reused for another layout.
Must not know containers, user classes, registries or frames.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from msgpack import ExtType

from cachekit.errors import CodecError


class Leaf(IntEnum):
    """Extension numbers of single values; containers and classes use 32 and above."""

    INT = 1
    COMPLEX = 2
    DECIMAL = 3
    FRACTION = 4
    UUID = 5
    DATETIME = 6
    DATETIME_ZONED = 7
    DATE = 8
    TIME = 9
    TIME_ZONED = 10
    TIMEDELTA = 11
    ZONE = 12
    TEXT = 13


# Types whose text is exact: the first byte of a TEXT extension says which one.
_TEXT_TYPES: dict[int, type[Any]] = {
    1: PurePosixPath,
    2: PureWindowsPath,
    3: PosixPath,
    4: WindowsPath,
    5: ipaddress.IPv4Address,
    6: ipaddress.IPv6Address,
    7: ipaddress.IPv4Network,
    8: ipaddress.IPv6Network,
    9: ipaddress.IPv4Interface,
    10: ipaddress.IPv6Interface,
}
_DOUBLES = struct.Struct(">dd")
_DELTA = struct.Struct(">iII")
_ZONED = struct.Struct(">BH")


def _bytes_of_int(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


def _pack_int(number: int) -> ExtType:
    return ExtType(Leaf.INT, _bytes_of_int(number))


def _read_int(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _pack_complex(number: complex) -> ExtType:
    return ExtType(Leaf.COMPLEX, _DOUBLES.pack(number.real, number.imag))


def _read_complex(data: bytes) -> complex:
    return complex(*_DOUBLES.unpack(data))


def _pack_decimal(number: Decimal) -> ExtType:
    return ExtType(Leaf.DECIMAL, str(number).encode("ascii"))


def _read_decimal(data: bytes) -> Decimal:
    return Decimal(data.decode("ascii"))


def _pack_fraction(number: Fraction) -> ExtType:
    above = _bytes_of_int(number.numerator)
    return ExtType(Leaf.FRACTION, len(above).to_bytes(4, "big") + above + _bytes_of_int(number.denominator))


def _read_fraction(data: bytes) -> Fraction:
    end = 4 + int.from_bytes(data[:4], "big")
    return Fraction(_read_int(data[4:end]), _read_int(data[end:]))


def _pack_uuid(value: UUID) -> ExtType:
    return ExtType(Leaf.UUID, value.bytes)


def _read_uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _pack_timedelta(value: timedelta) -> ExtType:
    return ExtType(Leaf.TIMEDELTA, _DELTA.pack(value.days, value.seconds, value.microseconds))


def _read_timedelta(data: bytes) -> timedelta:
    return timedelta(*_DELTA.unpack(data))


def _is_plain(zone: tzinfo | None) -> bool:
    """Whether the text of a datetime says all of its *zone*: none, or a fixed offset without a name of its own.

    An offset with fractions of a second is not plain: CPython writes +00:00:00.000001, but reads it as UTC.
    """
    if zone is None or zone is UTC:
        return True
    if type(zone) is not timezone:
        return False
    offset = zone.utcoffset(None)
    return not offset.microseconds and zone.tzname(None) == timezone(offset).tzname(None)


def _bytes_of_zone(zone: tzinfo | None) -> bytes:
    if zone is None:
        return b""
    if type(zone) is ZoneInfo and zone.key:
        return b"z" + zone.key.encode()
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        named = b"" if name == timezone(offset).tzname(None) else b"=" + name.encode()
        return b"o" + _DELTA.pack(offset.days, offset.seconds, offset.microseconds) + named
    name = f"{type(zone).__module__}.{type(zone).__qualname__}"
    raise CodecError(
        f"a time zone of type {name} cannot be encoded: use zoneinfo.ZoneInfo(key) or datetime.timezone",
        type_name=name,
    )


def _read_zone(data: bytes) -> tzinfo | None:
    kind, rest = data[:1], data[1:]
    if kind == b"":
        return None
    if kind == b"z":
        return ZoneInfo(rest.decode())
    if kind != b"o":
        raise CodecError("unknown kind of time zone")
    offset = timedelta(*_DELTA.unpack(rest[: _DELTA.size]))
    name = rest[_DELTA.size :]
    return timezone(offset, name[1:].decode()) if name else timezone(offset)


def _pack_zone(zone: tzinfo) -> ExtType:
    return ExtType(Leaf.ZONE, _bytes_of_zone(zone))


def _split_zoned(data: bytes) -> tuple[int, tzinfo | None, str]:
    fold, length = _ZONED.unpack_from(data)
    end = _ZONED.size + length
    return fold, _read_zone(data[_ZONED.size : end]), data[end:].decode("ascii")


def _pack_datetime(moment: datetime) -> ExtType:
    zone = moment.tzinfo
    if _is_plain(zone) and not moment.fold:
        return ExtType(Leaf.DATETIME, moment.isoformat().encode("ascii"))
    spec = _bytes_of_zone(zone)
    text = moment.replace(tzinfo=None).isoformat().encode("ascii")
    return ExtType(Leaf.DATETIME_ZONED, _ZONED.pack(moment.fold, len(spec)) + spec + text)


def _read_datetime(data: bytes) -> datetime:
    return datetime.fromisoformat(data.decode("ascii"))


def _read_zoned_datetime(data: bytes) -> datetime:
    fold, zone, text = _split_zoned(data)
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _pack_time(moment: time) -> ExtType:
    if _is_plain(moment.tzinfo) and not moment.fold:
        return ExtType(Leaf.TIME, moment.isoformat().encode("ascii"))
    spec = _bytes_of_zone(moment.tzinfo)
    text = moment.replace(tzinfo=None).isoformat().encode("ascii")
    return ExtType(Leaf.TIME_ZONED, _ZONED.pack(moment.fold, len(spec)) + spec + text)


def _read_time(data: bytes) -> time:
    return time.fromisoformat(data.decode("ascii"))


def _read_zoned_time(data: bytes) -> time:
    fold, zone, text = _split_zoned(data)
    return time.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _pack_date(day: date) -> ExtType:
    return ExtType(Leaf.DATE, day.isoformat().encode("ascii"))


def _read_date(data: bytes) -> date:
    return date.fromisoformat(data.decode("ascii"))


def _text_packer(kind: int) -> Callable[[Any], ExtType]:
    prefix = bytes([kind])

    def pack(value: Any) -> ExtType:
        # File names that are no valid UTF-8 hold lone surrogates, which "surrogatepass" carries both ways.
        return ExtType(Leaf.TEXT, prefix + str(value).encode("utf-8", "surrogatepass"))

    return pack


def _read_text(data: bytes) -> Any:
    return _TEXT_TYPES[data[0]](data[1:].decode("utf-8", "surrogatepass"))


PACKERS: dict[type[Any], Callable[[Any], ExtType]] = {
    int: _pack_int,  # only reached for integers beyond 64 bits
    complex: _pack_complex,
    Decimal: _pack_decimal,
    Fraction: _pack_fraction,
    UUID: _pack_uuid,
    datetime: _pack_datetime,
    date: _pack_date,
    time: _pack_time,
    timedelta: _pack_timedelta,
    timezone: _pack_zone,
    ZoneInfo: _pack_zone,
    **{cls: _text_packer(kind) for kind, cls in _TEXT_TYPES.items()},
}
"""Encoders by exact type: a subclass is another type, and would come back as the wrong one."""

_READERS: dict[int, Callable[[bytes], Any]] = {
    Leaf.INT: _read_int,
    Leaf.COMPLEX: _read_complex,
    Leaf.DECIMAL: _read_decimal,
    Leaf.FRACTION: _read_fraction,
    Leaf.UUID: _read_uuid,
    Leaf.DATETIME: _read_datetime,
    Leaf.DATETIME_ZONED: _read_zoned_datetime,
    Leaf.DATE: _read_date,
    Leaf.TIME: _read_time,
    Leaf.TIME_ZONED: _read_zoned_time,
    Leaf.TIMEDELTA: _read_timedelta,
    Leaf.ZONE: _read_zone,
    Leaf.TEXT: _read_text,
}


def read_leaf(code: int, data: bytes) -> Any:
    """Return the value of one extension. Any exception means that the bytes are bad."""
    reader = _READERS.get(code)
    if reader is None:
        raise CodecError(f"unknown extension {code}: written by another program or a newer version")
    return reader(data)
