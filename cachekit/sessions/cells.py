"""The bytes of the values of a session: each by itself, large ones compressed by themselves, in groups one after another.

A *cell* is one encoded value. A large one is ``Squeezed``: compressed, with its checksum, and neither looked at nor copied
out until somebody asks for it; written again as it is. So what a request does not look at costs it nothing but its bytes
on the wire.

A *group* is a map from key to cell, followed by the squeezed ones. A later group changes what the groups before it said, so
that a small change is added to the end of a large session. Owns this layout. Must not know what a value is, or whose
session it is.

A group is a number of blocks; a block is its kind (1 byte), its length and its CRC-32 (4 bytes each, network byte order; the
CRC is 0 where the block is a frame, which has its own), and its bytes. The first block is a msgpack map, or its frame: key
to encoded value (bytes), to nil (deleted), or to n (the value is in the n-th block after this one). The others are values.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast
from zlib import crc32

from msgpack import packb, unpackb

from cachekit.codecs.frame import opened, seal
from cachekit.errors import CodecError, ConfigError, FrameError
from cachekit.sessions.memo import Memo

MAP: Final = 8
"""The id in the frame of a map of cells."""
_MAP_ZSTD: Final = 9
_VALUE: Final = 10
_VALUE_ZSTD: Final = 11

_BLOCK: Final = struct.Struct(">BII")
_PLAIN_MAP, _MAP_FRAME, _VALUE_FRAME = 0, 1, 2
_LENGTH: Final = struct.Struct(">I")
_KEYS: Final = {str}
_CELLS: Final = {bytes}
_NEVER: Final = 1 << 62
_CODEC_AT: Final = 4
_META_AT: Final = 13
_ROOM: Final = 1024
LARGE: Final = 4096
"""Bytes from which a value is compressed by itself: smaller ones compress better together."""


class Squeezed(bytes):
    """A cell that is compressed: the frame of a value. Equal to another one with the same bytes."""

    __slots__ = ()


def plain_size(cell: bytes) -> int:
    """Return the bytes of the value of *cell*, not compressed; without decompressing it."""
    if type(cell) is not Squeezed or len(cell) < _META_AT + _LENGTH.size:
        return len(cell)
    return cast("int", _LENGTH.unpack_from(cell, _META_AT)[0])


class Groups(NamedTuple):
    """What was read.

    Attributes:
        cells: of each key.
        times: the number of groups.
        first: where the first one ends.
    """

    cells: dict[str, bytes]
    times: int
    first: int


class Layout:
    """Writes and reads groups.

    Attributes:
        zstd: the package of that name, where it compresses.

    Args:
        limit: bound on the bytes of all values, not compressed.
        compress_from: bytes from which a value, or all small ones together, are compressed.
        zstd: compress with zstd, not snappy.
        memo: remembers what was in cells.

    Raises:
        ConfigError: zstd is wanted, and not installed.
    """

    def __init__(self, *, limit: int, compress_from: int, zstd: bool, memo: Memo) -> None:
        self._limit = limit
        self._most = limit + _ROOM
        self._from = compress_from
        self._alone = max(compress_from, LARGE)
        self.zstd: Any = zstandard() if zstd else None
        self._memo = memo  # by the identity of a cell: that cell, and its value

    # -- one value ------------------------------------------------------------------------------------------------

    def cell(self, data: bytes) -> bytes:
        """Return the cell of an encoded value."""
        if len(data) < self._alone:
            return data
        frame = self._frame(_LENGTH.pack(len(data)), data, _VALUE, _VALUE_ZSTD)
        if len(frame) >= len(data):
            return data
        made = Squeezed(frame)
        self._remember(made, data)
        return made

    def plain(self, cell: bytes) -> bytes:
        """Return the encoded value in *cell*. Raises ``CodecError`` for damaged bytes."""
        if type(cell) is not Squeezed:
            return cell
        if (known := self._memo.get(id(cell))) is not None and known[0] is cell:
            return cast("bytes", known[1])
        meta, data, codec_id = opened(cell, max_size=self._most)
        if codec_id == _VALUE_ZSTD:
            data = self.decompress(data)
        if codec_id not in (_VALUE, _VALUE_ZSTD) or meta != _LENGTH.pack(len(data)):
            raise FrameError("corrupt: this is no value of a session")
        self._remember(cell, data)
        return data

    def _remember(self, cell: bytes, data: bytes) -> None:
        """Remember what is in *cell*: where its session is remembered too, the next request need not open it again."""
        self._memo.put(id(cell), (cell, data), len(cell) + len(data))

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
        try:
            data = cast("bytes", packb(said))
        except UnicodeEncodeError as exc:
            raise unstorable(exc) from exc
        head = _BLOCK.pack(_PLAIN_MAP, len(data), crc32(data))
        if len(data) >= self._from:
            frame = self._frame(b"", data, MAP, _MAP_ZSTD)
            if len(frame) < len(data):
                data, head = frame, _BLOCK.pack(_MAP_FRAME, len(frame), 0)
        if not large:
            return head + data
        parts = [head, data]
        for cell in large:
            parts += (_BLOCK.pack(_VALUE_FRAME, len(cell), 0), cell)
        return b"".join(parts)

    def read(self, data: bytes, start: int) -> Groups:
        """Return what all groups in *data* say, from *start* on. Raises ``CodecError`` for damaged bytes, or newer ones."""
        cells: dict[str, bytes] = {}
        absent: dict[int, str] = {}
        view, at, end, number, count, first = memoryview(data), start, len(data), 0, 0, 0
        try:
            if (small := self._small(data, start)) is not None:
                return Groups(small, 1, end)
            while at < end:
                kind, size, crc = _BLOCK.unpack_from(data, at)
                begin = at + _BLOCK.size
                block = view[begin : begin + size]
                if len(block) != size:
                    raise FrameError("the session is truncated")
                if kind == _VALUE_FRAME:
                    number += 1
                    cells[absent.pop(number)] = Squeezed(block)
                else:
                    if absent:
                        raise FrameError("the session is truncated")
                    count, number = count + 1, 0
                    if count == 2:
                        first = at
                    whole = kind == _PLAIN_MAP and crc32(block) == crc
                    for key, cell in (unpackb(block) if whole else self._map(kind, block)).items():
                        if type(key) is not str:
                            raise FrameError("these bytes hold no session")
                        if type(cell) is bytes:
                            cells[key] = cell
                        elif cell is None:
                            cells.pop(key, None)
                        else:
                            absent[cell] = key
                            cells[key] = b""  # its place among the others
                at = begin + size
        except CodecError:
            raise
        except Exception as exc:
            raise FrameError(f"these bytes hold no session: {type(exc).__name__}: {exc}") from exc
        if absent:
            raise FrameError("the session is truncated")
        return Groups(cells, count, first or end)

    def _small(self, data: bytes, start: int) -> dict[str, bytes] | None:
        """Return the cells of the usual case, one group without large ones; else None."""
        kind, size, crc = _BLOCK.unpack_from(data, start)
        begin = start + _BLOCK.size
        if begin + size != len(data) or kind == _VALUE_FRAME:
            return None
        block = data[begin:]
        said = unpackb(block) if kind == _PLAIN_MAP and crc32(block) == crc else self._map(kind, block)
        plain = set(map(type, said)) == _KEYS and set(map(type, said.values())) == _CELLS
        return said if plain else None

    def _map(self, kind: int, block: bytes | memoryview) -> dict[str, Any]:
        if kind == _PLAIN_MAP:
            raise FrameError("corrupt: the checksum of the session does not match")
        if kind != _MAP_FRAME:
            raise FrameError("this session was written by a newer version")
        _, data, codec_id = opened(cast("bytes", block), max_size=self._most)
        if codec_id == _MAP_ZSTD:
            data = self.decompress(data)
        elif codec_id != MAP:
            raise FrameError("this session was written by a newer version")
        return cast("dict[str, Any]", unpackb(data))  # whether its keys are text, ``read`` sees

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


def unstorable(error: UnicodeEncodeError) -> CodecError:
    """Return what is said of a key that is no text which can be written."""
    return CodecError(f"a key of a session cannot be stored: {error}")


def read_map(data: Any) -> dict[str, Any]:
    """Return the map from keys that *data* holds. Raises ``FrameError``."""
    try:
        said = unpackb(data, strict_map_key=True)
    except Exception as exc:
        raise FrameError(f"these bytes hold no session: {type(exc).__name__}: {exc}") from exc
    if type(said) is not dict or (said and set(map(type, said)) != _KEYS):
        raise FrameError("these bytes hold no session")
    return said


def zstandard() -> Any:
    """Return the package of that name. Raises ``ConfigError`` where it is not installed."""
    try:
        import zstandard
    except ImportError as exc:
        raise ConfigError("compression='zstd' needs the extra `zstd` (the package zstandard), not installed") from exc
    return zstandard
