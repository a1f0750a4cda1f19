"""How an entry lies in a byte store: the stamps of its tags, its times, its value.

Owns the layout; must not know how bytes are fetched. The stamps stand outside of the checksummed frame, because the
server's script writes them (on a cluster ``write_head`` does): damage there can only make a stamp differ, which is a miss.

Layout: ``CA 01``, number of tags (2 bytes), then for each tag the length of its name (2 bytes), its name and its stamp
(16 bytes: 8 of server time in microseconds, 0 if the tag was never invalidated, and 8 random), then the frame, whose
meta part holds the times: five of them, and a sixth where the value was made of other cached values.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final
from zlib import crc32

from cachekit.codecs.base import Codec
from cachekit.codecs.frame import open_meta, opened, seal
from cachekit.codecs.protection import Protection
from cachekit.entry import Entry
from cachekit.errors import CodecError, FrameError
from cachekit.stores.base import AnyEntry

_MAGIC: Final = b"\xca\x01"
_TIMES: Final = struct.Struct(">5d")
_SIX_TIMES: Final = struct.Struct(">6d")
_TIMES_SIZE: Final = _TIMES.size
_U16: Final = struct.Struct(">H")
STAMP: Final = 16


@dataclass(frozen=True, slots=True)
class Record:
    """The stamps read from a store, and the frame that has not been opened yet."""

    stamps: dict[str, bytes]
    frame: bytes


def write_frame(
    entry: AnyEntry,
    codec: Codec,
    *,
    compress_from: int,
    max_size: int,
    protection: Protection | None = None,
    context: bytes = b"",
) -> bytes:
    """Return the frame of *entry*, stamps excluded; *protection* binds it to *context*, the name it is kept under.

    Raises:
        CodecError: the value cannot be encoded, or takes more than *max_size* bytes, compressed or not.
    """
    five = entry.created_at, entry.fresh_until, entry.swr_until, entry.dead_at, entry.delta
    times = _TIMES.pack(*five) if entry.uses_until == math.inf else _SIX_TIMES.pack(*five, entry.uses_until)
    payload = codec.encode(entry.value)
    if len(payload) > max_size:  # before compression: it could not be read again
        raise CodecError(f"the encoded value has {len(payload):,} bytes, over the bound of {max_size:,}")
    frame = seal(times, payload, codec_id=codec.id, compress_from=compress_from, protection=protection, context=context)
    if len(frame) > max_size:
        raise CodecError(f"the frame of the value has {len(frame):,} bytes, over the bound of {max_size:,}")
    return frame


def write_times(entry: AnyEntry) -> tuple[bytes, int]:
    """Return the times that ``alter.lua`` writes over those of another entry, and the register of CRC-32 after them.

    They are the first four of the meta. A register that begins at 0 is what zlib inverts before and after.
    """
    times = _TIMES.pack(entry.created_at, entry.fresh_until, entry.swr_until, entry.dead_at, 0.0)[:-8]
    return times, crc32(times, 0xFFFFFFFF) ^ 0xFFFFFFFF


def write_head(stamps: Mapping[str, bytes]) -> bytes:
    """Return what stands in front of the frame: *stamps*, by tag."""
    parts = [_MAGIC, _U16.pack(len(stamps))]
    for tag, stamp in stamps.items():
        name = tag.encode()
        parts += (_U16.pack(len(name)), name, stamp)
    return b"".join(parts)


def read_record(data: bytes) -> Record:
    """Split *data* into stamps and frame. Raises ``FrameError`` for truncated or foreign bytes."""
    if data[:2] != _MAGIC or len(data) < 4:
        raise FrameError("these bytes were not written by cachekit, or by a newer version")
    stamps: dict[str, bytes] = {}
    at = 4
    try:
        for _ in range(_U16.unpack_from(data, 2)[0]):
            size = _U16.unpack_from(data, at)[0]
            at += 2
            name, stamp = data[at : at + size], data[at + size : at + size + STAMP]
            at += size + STAMP
            if len(stamp) != STAMP:
                raise FrameError("the stamps are truncated")
            stamps[name.decode()] = stamp
    except (struct.error, UnicodeDecodeError) as exc:
        raise FrameError(f"the stamps are damaged: {exc}") from exc
    return Record(stamps, data[at:])


def is_whole(data: bytes) -> bool:
    """Say whether the frame in *data* is what was written, by its checksum."""
    try:
        open_meta(read_record(data).frame)
    except CodecError:
        return False
    return True


class Head:
    """What a value begins with whose tags have certain stamps: compared as a whole, nothing need be taken apart."""

    __slots__ = ("_form",)

    def __init__(self, tags: Sequence[str]) -> None:
        parts = [_MAGIC + _U16.pack(len(tags))]
        for tag in tags:
            name = tag.encode()
            parts[-1] += _U16.pack(len(name)) + name
            parts.append(b"")
        self._form = b"%b".join(part.replace(b"%", b"%%") for part in parts)

    def of(self, stamps: Sequence[bytes]) -> bytes:
        """Return the head with these *stamps*."""
        return self._form % tuple(stamps)


def read_frame(
    frame: bytes,
    tags: tuple[str, ...],
    stamps: tuple[tuple[str, bytes], ...],
    codecs: dict[int, Codec],
    max_size: int,
    protection: Protection | None = None,
    context: bytes = b"",
) -> AnyEntry:
    """Return the entry in *frame*, whose *tags* have these *stamps*.

    Raises:
        CodecError: it cannot be read; as ``AuthenticityError`` where it is not what *protection* made for *context*.
    """
    meta, payload, codec_id = opened(frame, max_size, protection, context)
    codec = codecs.get(codec_id)
    if codec is None:
        raise FrameError(f"codec {codec_id} of this value is not configured here")
    uses_until = math.inf
    size = len(meta)
    if size == _TIMES_SIZE:
        created_at, fresh_until, swr_until, dead_at, delta = _TIMES.unpack(meta)
    elif size == _SIX_TIMES.size:
        created_at, fresh_until, swr_until, dead_at, delta, uses_until = _SIX_TIMES.unpack(meta)
    else:
        raise FrameError("the times of this value are damaged")
    if not created_at <= fresh_until <= swr_until <= dead_at or isnan(delta) or isnan(uses_until):
        raise FrameError("the times of this value contradict each other")
    value = codec.decode(payload)
    # As Entry(...) does, without the step in Python that a named tuple takes in between.
    fields = (value, created_at, fresh_until, swr_until, dead_at, tags, delta, stamps, uses_until)
    return tuple.__new__(Entry, fields)
