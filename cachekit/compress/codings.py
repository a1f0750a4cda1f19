"""The content codings: zstd (RFC 8878), br (RFC 7932) and gzip (RFC 1952), whole or piece by piece.

Owns the compression libraries: gzip is always there, ``zstandard`` and ``brotli`` come with the extra ``compression``.
Compressors are kept per thread where making one costs as much as using it. Must not know HTTP.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Protocol

from cachekit.clock import random_token
from cachekit.errors import ConfigError

LEVELS: Final = {"zstd": 3, "br": 4, "gzip": 3}
"""Levels for responses that are made on request: within a few percent of the best ratio, many times faster."""

_RANGES: Final = {"zstd": (1, 19), "br": (0, 11), "gzip": (1, 9)}
_LIBRARIES: Final = {"zstd": "zstandard", "br": "brotli"}
_WBITS: Final = 31  # gzip, with the largest window
_GZIP_HEAD: Final = 10
_ZSTD_WINDOW: Final = 1 << 23
"""The largest window in bytes that a decoder must support (RFC 9659)."""


class Stream(Protocol):
    """One body on its way, piece by piece."""

    def feed(self, chunk: bytes, *, flush: bool) -> bytes:
        """Return what there is to send for *chunk*; with *flush*, all that was fed so far."""
        ...

    def finish(self) -> bytes:
        """Return the rest."""
        ...


@dataclass(frozen=True, slots=True)
class Coding:
    """One content coding.

    Attributes:
        name: as in Content-Encoding.
        whole: encodes a body at once.
        stream: begins a body that comes in pieces.
        padded: begins one with up to 256 bytes of random length that decoders pass over; None where decoders are not
            known to.
    """

    name: str
    whole: Callable[[bytes], bytes]
    stream: Callable[[], Stream]
    padded: Callable[[], Stream] | None = None


def installed() -> tuple[str, ...]:
    """Return the codings that can be offered here, the best first."""
    return tuple(name for name in LEVELS if name not in _LIBRARIES or find_spec(_LIBRARIES[name]) is not None)


def make(name: str, level: int | None = None) -> Coding:
    """Return the coding *name*.

    Raises:
        ConfigError: it is unknown, its library is missing, or it has no such level.
    """
    if name not in LEVELS:
        raise ConfigError(f"unknown coding {name!r}: use some of {', '.join(LEVELS)}")
    if name in _LIBRARIES and find_spec(_LIBRARIES[name]) is None:
        raise ConfigError(f"the coding {name!r} needs the package {_LIBRARIES[name]}: install the extra 'compression'")
    level = LEVELS[name] if level is None else level
    low, high = _RANGES[name]
    if type(level) is not int or not low <= level <= high:
        raise ConfigError(f"levels: {name}={level!r} must be a whole number from {low} to {high}")
    return _MAKERS[name](level)


# gzip


class _Gzip:
    __slots__ = ("_deflate",)

    def __init__(self, level: int) -> None:
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, _WBITS, 9)

    def feed(self, chunk: bytes, *, flush: bool) -> bytes:
        made = self._deflate.compress(chunk)
        return made + self._deflate.flush(zlib.Z_SYNC_FLUSH) if flush else made

    def finish(self) -> bytes:
        return self._deflate.flush()


class _PaddedGzip:
    """Puts a file name of random length into the header (RFC 1952 section 2.3): decoders read past it."""

    __slots__ = ("_begun", "_inner")

    def __init__(self, inner: _Gzip) -> None:
        self._inner = inner
        self._begun = b""

    def _named(self, made: bytes) -> bytes:
        if len(self._begun) >= _GZIP_HEAD:
            return made
        self._begun += made
        if len(self._begun) < _GZIP_HEAD:
            return b""
        head, rest = self._begun[:_GZIP_HEAD], self._begun[_GZIP_HEAD:]
        return head[:3] + b"\x08" + head[4:] + _noise(b"a") + b"\x00" + rest

    def feed(self, chunk: bytes, *, flush: bool) -> bytes:
        return self._named(self._inner.feed(chunk, flush=flush))

    def finish(self) -> bytes:
        return self._named(self._inner.finish())


def _gzip(level: int) -> Coding:
    return Coding(
        "gzip", lambda body: zlib.compress(body, level, _WBITS), lambda: _Gzip(level), lambda: _PaddedGzip(_Gzip(level))
    )


# br


class _Brotli:
    __slots__ = ("_compressor", "_pads")

    def __init__(self, compressor: Any, *, pads: bool = False) -> None:
        self._compressor = compressor
        self._pads = pads

    def feed(self, chunk: bytes, *, flush: bool) -> bytes:
        made: bytes = self._compressor.process(chunk)
        if flush or self._pads:
            made += self._compressor.flush()
        return made + self._padding() if self._pads else made

    def finish(self) -> bytes:
        return bytes(self._compressor.finish())

    def _padding(self) -> bytes:
        """Return a metadata block, which may stand between flushed parts (RFC 7932 section 9.2).

        ISLAST 0, MNIBBLES 11, reserved 0, MSKIPBYTES 01, MSKIPLEN - 1 in eight bits, two bits of nothing, then the bytes
        that are skipped.
        """
        self._pads = False
        noise = _noise(b"\x00")
        return struct.pack("<H", 0b010110 | (len(noise) - 1) << 6) + noise


def _brotli(level: int) -> Coding:
    import brotli  # type: ignore[import-untyped]

    return Coding(
        "br",
        lambda body: bytes(brotli.compress(body, quality=level)),
        lambda: _Brotli(brotli.Compressor(quality=level)),
        lambda: _Brotli(brotli.Compressor(quality=level), pads=True),
    )


# zstd


class _Zstd:
    __slots__ = ("_frame", "_library")

    def __init__(self, library: Any, compressor: Any) -> None:
        self._library = library
        self._frame = compressor.compressobj()

    def feed(self, chunk: bytes, *, flush: bool) -> bytes:
        made: bytes = self._frame.compress(chunk)
        return made + bytes(self._frame.flush(self._library.COMPRESSOBJ_FLUSH_BLOCK)) if flush else made

    def finish(self) -> bytes:
        return bytes(self._frame.flush())


def _zstd(level: int) -> Coding:
    import zstandard

    local = threading.local()

    def compressor() -> Any:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, window_log=min(23, max(10, zstandard.ZstdCompressionParameters.from_level(level).window_log))
        )
        return zstandard.ZstdCompressor(compression_params=parameters)

    def whole(body: bytes) -> bytes:
        try:
            compress = local.compress
        except AttributeError:
            compress = local.compress = compressor().compress
        made: bytes = compress(body)
        return made

    # A stream has a compressor of its own: two bodies of one thread may be under way at once. Skippable frames would
    # serve as padding (RFC 8878 section 3.1.2), but not every client reads a second frame.
    return Coding("zstd", whole, lambda: _Zstd(zstandard, compressor()))


_MAKERS: Final[dict[str, Callable[[int], Coding]]] = {"zstd": _zstd, "br": _brotli, "gzip": _gzip}


def _noise(byte: bytes) -> bytes:
    """Return 1 to 256 times *byte*: only the length matters."""
    return byte * (random_token(1)[0] + 1)
