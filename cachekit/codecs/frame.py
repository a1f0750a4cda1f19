"""The envelope around every value that leaves the process: what it is, whether it is whole, how it is compressed.

Owns the bytes of a frame, versions 1 and 2. Must not know codecs, entries, stores or keys: meta and payload are opaque.

Layout, numbers in network byte order::

    0   2  magic  FE 4B
    2   1  version  1, or 2 where meta and payload are protected
    3   1  flags  bit 0: the payload is compressed with snappy (raw block format); in version 2 also one of
                  bit 1: encrypted, bit 2: signed; other bits must be 0
    4   1  id of the codec of the payload
    5   4  length of meta
    9   4  CRC-32 of everything else
    13     meta, never compressed
           payload

In version 2 both are one protected body (module ``protection``): 4 bytes that name the key, then 24 of nonce and the
ciphertext with its tag, or 32 of HMAC-SHA256 and the plain bytes. The first 9 bytes of the frame and the context in which
the value is kept are authenticated with it. What is not protected is written as version 1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import cast
from zlib import crc32

import snappy

from cachekit.codecs.protection import Protection
from cachekit.errors import AuthenticityError, ConfigError, FrameError

MAGIC = b"\xfeK"  # no text starts like this, nor does pickle, gzip, zlib or JSON
VERSION = 2
"""The newest version that is read."""
MAX_SIZE = 64 * 1024 * 1024

_PLAIN = 1
_PROTECTED = 2
_SNAPPY = 0x01
_ENCRYPTED = 0x02
_SIGNED = 0x04
_WAYS = {_ENCRYPTED: "encrypted", _SIGNED: "signed"}
_HEAD = struct.Struct(">2sBBBI")
_CRC = struct.Struct(">I")
_FRONT = struct.Struct(_HEAD.format + "I")
_HEAD_SIZE = _HEAD.size
_BODY = _FRONT.size
_VIEWED = 8192  # a copy of fewer bytes is made sooner than a view
# A snappy block grows by at most 64 bytes for each 3 bytes: a larger claim is a lie.
_SNAPPY_GROWTH = 32


@dataclass(frozen=True, slots=True)
class Frame:
    """An opened frame.

    Attributes:
        meta: what the writer stored about the value.
        payload: the bytes of the value, decompressed.
        codec_id: which codec made the payload.
    """

    meta: bytes
    payload: bytes
    codec_id: int


def seal(
    meta: bytes,
    payload: bytes,
    *,
    codec_id: int,
    compress_from: int = 1024,
    protection: Protection | None = None,
    context: bytes = b"",
) -> bytes:
    """Return the frame of *meta* and *payload*, protected by *protection* and bound to *context* where that is given.

    The payload is compressed when it has *compress_from* bytes or more and loses at least a tenth of its size by it.
    """
    if not 1 <= codec_id <= 255:
        raise ConfigError(f"the id of a codec must be 1 to 255, not {codec_id}")
    flags = 0
    if len(payload) >= compress_from:
        packed = snappy.compress(payload)
        if len(packed) * 10 <= len(payload) * 9:
            flags, payload = _SNAPPY, packed
    body = meta + payload if meta else payload
    if protection is None:
        head = _HEAD.pack(MAGIC, _PLAIN, flags, codec_id, len(meta))
    else:
        head = _HEAD.pack(MAGIC, _PROTECTED, flags | protection.flag, codec_id, len(meta))
        body = protection.protect(body, head + context)
    return b"".join((head, _CRC.pack(crc32(body, crc32(head))), body))


def open_frame(
    data: bytes, *, max_size: int = MAX_SIZE, protection: Protection | None = None, context: bytes = b""
) -> Frame:
    """Return what is in the frame *data*.

    Args:
        data: the bytes of a whole frame.
        max_size: most bytes that the frame, and its payload after decompression, may have.
        protection: how it must be protected; None for not at all.
        context: what it must be bound to.

    Raises:
        FrameError: the bytes are truncated, corrupt, foreign, too large or from a newer version.
        AuthenticityError: they are not protected as they must be, or were made with another key or for another context.
    """
    return Frame(*opened(data, max_size=max_size, protection=protection, context=context))


def opened(
    data: bytes, max_size: int = MAX_SIZE, protection: Protection | None = None, context: bytes = b""
) -> tuple[bytes, bytes, int]:
    """Return meta, payload and the codec's id of the frame *data*. Raises what ``open_frame`` raises."""
    flags, codec_id, end = _check(data, max_size)
    if protection is not None or flags & ~_SNAPPY:
        data = _revealed(data, flags, end, protection, context)
    if flags & _SNAPPY:
        packed = data[end:] if len(data) < _VIEWED else memoryview(data)[end:]
        return data[_BODY:end], _decompress(packed, max_size), codec_id
    return data[_BODY:end], data[end:], codec_id


def open_meta(
    data: bytes, *, max_size: int = MAX_SIZE, protection: Protection | None = None, context: bytes = b""
) -> bytes:
    """Return only the meta of the frame *data*: checked like ``open_frame`` does, but nothing is decompressed."""
    flags, _, end = _check(data, max_size)
    if protection is not None or flags & ~_SNAPPY:
        data = _revealed(data, flags, end, protection, context)
    return data[_BODY:end]


def _revealed(data: bytes, flags: int, end: int, protection: Protection | None, context: bytes) -> bytes:
    """Return the frame *data* with the body as it was before it was protected."""
    way = flags & ~_SNAPPY
    if protection is None:
        raise AuthenticityError(f"the value is {_WAYS[way]}, and this cache has no keys: give it protection=")
    if way != protection.flag:
        found = _WAYS.get(way, "not protected")
        raise AuthenticityError(f"the value is {found}, and this cache takes only what is {_WAYS[protection.flag]}")
    plain = data[:_BODY] + protection.reveal(data[_BODY:], data[: _HEAD.size] + context)
    if end > len(plain):
        raise FrameError(f"corrupt: meta of {end - _BODY} bytes is longer than the frame")
    return plain


def _check(data: bytes, max_size: int) -> tuple[int, int, int]:
    """Return the flags, the codec's id, and where meta ends once the body is plain."""
    size = len(data)
    if _BODY <= size <= max_size:
        magic, version, flags, codec_id, meta_length, checksum = _FRONT.unpack_from(data)
        end = _BODY + meta_length
        if version == _PLAIN:
            known = flags <= _SNAPPY and end <= size
        else:
            known = version == _PROTECTED and flags & ~_SNAPPY in _WAYS
        if known and magic == MAGIC and codec_id:
            body = data[_BODY:] if size < _VIEWED else memoryview(data)[_BODY:]
            if crc32(body, crc32(data[:_HEAD_SIZE])) == checksum:
                return flags, codec_id, end
    raise _fault(data, max_size)


def _fault(data: bytes, max_size: int) -> FrameError:
    """Return what is wrong with *data*."""
    if not data:
        return FrameError("empty: not a frame of cachekit")
    if data[:2] != MAGIC[: len(data)]:
        return FrameError("foreign bytes: not a frame of cachekit. Does another program use this key prefix?")
    if len(data) < _BODY:
        return FrameError(f"truncated: a frame has at least {_BODY} bytes, this has {len(data)}")
    if len(data) > max_size:
        return FrameError(f"the frame has {len(data)} bytes, more than max_size={max_size}")
    _, version, flags, codec_id, meta_length = _HEAD.unpack_from(data)
    if version > VERSION:
        return FrameError(f"version {version} of the frame: this cachekit reads {VERSION}. Written by a newer one?")
    if version < 1:
        return FrameError("corrupt: there is no version 0 of the frame")
    if flags & ~_SNAPPY not in ((0,) if version == _PLAIN else _WAYS):
        return FrameError(f"unknown flags {flags:#04x} in the frame: corrupt, or written by a newer cachekit")
    if version == _PLAIN and _BODY + meta_length > len(data):
        return FrameError(f"corrupt: meta of {meta_length} bytes is longer than the frame")
    if codec_id == 0:
        return FrameError("corrupt: 0 is no id of a codec")
    return FrameError("truncated or corrupt: the checksum of the frame does not match")


def _claimed_length(block: bytes | memoryview) -> int:
    """Return the length that a raw snappy block says it will have: a varint of up to 5 bytes at its start."""
    length = 0
    for index, byte in enumerate(block[:5]):
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return length
    raise FrameError("corrupt: the compressed payload has no length")


def _decompress(block: bytes | memoryview, max_size: int) -> bytes:
    length = _claimed_length(block)
    if length > max_size:
        raise FrameError(f"the payload has {length} bytes when decompressed, more than max_size={max_size}")
    if length > len(block) * _SNAPPY_GROWTH:
        raise FrameError("corrupt: the compressed payload claims an impossible length")
    try:
        payload = cast("bytes", snappy.decompress(block))
    except snappy.UncompressError as exc:
        raise FrameError("corrupt: the payload cannot be decompressed") from exc
    if len(payload) != length:
        raise FrameError("corrupt: the payload has another length than it claims")
    return payload
