"""The bytes of the values of a session: each by itself, large ones compressed by themselves, in groups that follow each other.

A *cell* is one encoded value. A large one is ``Squeezed``: compressed, with its checksum, and neither looked at nor copied
out until somebody asks for it; written again as it is. So what a request does not look at costs it nothing but its bytes
on the wire.

A *group* is a map from key to cell, followed by the squeezed ones. A later group changes what the groups before it said, so
that a small change is added to the end of a large session. Owns this layout. Must not know what a value is, or whose
session it is.

A group is a number of blocks; a block is its length (4 bytes) and a frame. The first holds a msgpack map: key to encoded value
(bytes), to nil (deleted), or to n (the value is in the n-th block after this one).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final, cast

from msgpack import packb, unpackb

from cachekit.codecs.frame import opened, seal
from cachekit.errors import ConfigError, FrameError

MAP: Final = 8
"""The id in the frame of a map of cells."""
_MAP_ZSTD: Final = 9
_VALUE: Final = 10
_VALUE_ZSTD: Final = 11

_LENGTH: Final = struct.Struct(">I")
_NEVER: Final = 1 << 62
_CODEC_AT: Final = 4
_META_AT: Final = 13
_ROOM: Final = 1024


class Squeezed(bytes):
    """A cell that is compressed: the frame of a value. Equal to another one with the same bytes."""

    __slots__ = ()


def plain_size(cell: bytes) -> int:
    """Return the bytes of the value of *cell*, not compressed; without decompressing it."""
    if type(cell) is not Squeezed or len(cell) < _META_AT + _LENGTH.size:
        return len(cell)
    return cast("int", _LENGTH.unpack_from(cell, _META_AT)[0])


class Layout:
    """Writes and reads groups.

    Attributes:
        zstd: the package of that name, where it compresses.

    Args:
        limit: bound on the bytes of all values, not compressed.
        compress_from: bytes from which a value, or all small ones together, are compressed.
        zstd: compress with zstd, not snappy.

    Raises:
        ConfigError: zstd is wanted, and not installed.
    """

    def __init__(self, *, limit: int, compress_from: int, zstd: bool) -> None:
        self._limit = limit
        self._most = limit + _ROOM
        self._from = compress_from
        self.zstd: Any = zstandard() if zstd else None

    # -- one value ------------------------------------------------------------------------------------------------

    def cell(self, data: bytes) -> bytes:
        """Return the cell of an encoded value."""
        if len(data) < self._from:
            return data
        frame = self._frame(_LENGTH.pack(len(data)), data, _VALUE, _VALUE_ZSTD)
        return Squeezed(frame) if len(frame) < len(data) else data

    def plain(self, cell: bytes) -> bytes:
        """Return the encoded value in *cell*. Raises ``CodecError`` for damaged bytes."""
        if type(cell) is not Squeezed:
            return cell
        meta, data, codec_id = opened(cell, max_size=self._most)
        if codec_id == _VALUE_ZSTD:
            data = self.decompress(data)
        if codec_id not in (_VALUE, _VALUE_ZSTD) or meta != _LENGTH.pack(len(data)):
            raise FrameError("corrupt: this is no value of a session")
        return data

    # -- groups ---------------------------------------------------------------------------------------------------

    def group(self, cells: Mapping[str, bytes | None]) -> bytes:
        """Return the blocks of *cells*, None for what is deleted."""
        said: dict[str, Any] = {}
        large: list[bytes] = []
        for key, cell in cells.items():
            if type(cell) is Squeezed:
                large.append(cell)
                said[key] = len(large)
            else:
                said[key] = cell
        data = cast("bytes", packb(said))
        frame = self._frame(b"", data, MAP, _MAP_ZSTD)
        if not large:
            return _LENGTH.pack(len(frame)) + frame
        return b"".join([part for block in (frame, *large) for part in (_LENGTH.pack(len(block)), block)])

    def read(self, data: bytes, start: int) -> tuple[dict[str, bytes], int]:
        """Return the cells of all groups in *data* from *start* on, and where the first group ends.

        Raises:
            FrameError: damaged, cut, or from a newer version.
        """
        cells: dict[str, bytes] = {}
        absent: dict[int, str] = {}
        view, at, end, number, groups, first = memoryview(data), start, len(data), 0, 0, 0
        try:
            while at < end:
                size = _LENGTH.unpack_from(data, at)[0]
                at += _LENGTH.size
                if size > end - at or size < _META_AT:
                    raise FrameError("the session is truncated")
                codec_id = data[at + _CODEC_AT]
                if codec_id in (_VALUE, _VALUE_ZSTD):
                    number += 1
                    if (key := absent.pop(number, None)) is not None:
                        cells[key] = Squeezed(view[at : at + size])
                else:
                    if absent:
                        raise FrameError("the session is truncated")
                    groups += 1
                    if groups == 2:
                        first = at - _LENGTH.size
                    number = 0
                    for key, cell in self._map(view[at : at + size]).items():
                        if type(cell) is bytes:
                            cells[key] = cell
                        elif cell is None:
                            cells.pop(key, None)
                        elif type(cell) is int:
                            absent[cell] = key
                        else:
                            raise FrameError("corrupt: this is no session")
                at += size
        except struct.error as exc:
            raise FrameError("the session is truncated") from exc
        if absent:
            raise FrameError("the session is truncated")
        return cells, first or end

    def _map(self, frame: memoryview) -> dict[str, Any]:
        _, data, codec_id = opened(cast("bytes", frame), max_size=self._most)
        if codec_id == _MAP_ZSTD:
            data = self.decompress(data)
        elif codec_id != MAP:
            raise FrameError("this session was written by a newer version")
        return read_map(data)

    # -- compression ----------------------------------------------------------------------------------------------

    def _frame(self, meta: bytes, data: bytes, codec_id: int, zstd_id: int) -> bytes:
        if self.zstd is not None and len(data) >= self._from:
            squeezed = self.zstd.ZstdCompressor(level=3).compress(data)
            if len(squeezed) < len(data):
                return seal(meta, squeezed, codec_id=zstd_id, compress_from=_NEVER)
        return seal(meta, data, codec_id=codec_id, compress_from=self._from if self.zstd is None else _NEVER)

    def decompress(self, data: bytes) -> bytes:
        """Return what zstd made *data* of, whether or not it is what is written now. Raises ``FrameError``."""
        try:
            zstd = self.zstd if self.zstd is not None else zstandard()
            plain: bytes = zstd.ZstdDecompressor().decompress(data, max_output_size=self._most)
        except Exception as exc:
            raise FrameError(f"corrupt, or larger than max_bytes={self._limit}: {exc}") from exc
        return plain


def read_map(data: Any) -> dict[str, Any]:
    """Return the map from keys that *data* holds. Raises ``FrameError``."""
    try:
        said = unpackb(data, strict_map_key=True)
    except Exception as exc:
        raise FrameError(f"these bytes hold no session: {type(exc).__name__}: {exc}") from exc
    if type(said) is not dict:
        raise FrameError("these bytes hold no session")
    for key in said:
        if type(key) is not str:
            raise FrameError("these bytes hold no session")
    return said


def zstandard() -> Any:
    """Return the package of that name. Raises ``ConfigError`` where it is not installed."""
    try:
        import zstandard
    except ImportError as exc:
        raise ConfigError("compression='zstd' needs the extra `zstd` (the package zstandard), not installed") from exc
    return zstandard
