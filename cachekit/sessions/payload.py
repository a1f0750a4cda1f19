"""The bytes of a session: each top-level value by itself, so that what nobody looks at is neither decoded nor compared.

Owns the layout of a body. Must not know requests, cookies or stores.

A body is the length of *about* (2 bytes), *about* (who the session belongs to, for lists), one byte that says how the
rest is made (1: a frame, 2: a frame of zstd, +16: sealed), and the frame of a msgpack map from key to encoded value.
A value that cannot be read (its class has changed) is passed on as it is: another release that still runs may read it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from msgpack import packb, unpackb

from cachekit.codecs.base import Codec
from cachekit.codecs.frame import opened, seal
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.errors import CodecError, ConfigError, FrameError, SessionTooLarge
from cachekit.sessions.merge import ABSENT, Combine, merge, queue, total, union
from cachekit.sessions.options import SessionOptions
from cachekit.sessions.store import HEAD_BYTES

FLASH: Final = "_flash"
CSRF: Final = "_csrf"

MAP_CODEC: Final = 8
"""The id in the frame of a map of encoded values."""

_LENGTH: Final = struct.Struct(">H")
_PLAIN, _ZSTD, _SEALED = 1, 2, 16
_LONGEST_USER: Final = 512
_LONGEST_AGENT: Final = 200

Packed = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class About:
    """Whose session it is.

    Attributes:
        user: the user it is bound to, or empty.
        agent: what the browser called itself, shortened.
        remembered: whether it outlives the browser.
        life: seconds that it lives after its last use, where that is not what the options say; 0.0 otherwise.
    """

    user: str = ""
    agent: str = ""
    remembered: bool = False
    life: float = 0.0

    def lasting_as(self, other: About) -> About:
        """Return the same with the lifetime of *other*."""
        return replace(self, remembered=other.remembered, life=other.life)

    def on(self, agent: str) -> About:
        """Return the same for a browser that calls itself *agent*."""
        return replace(self, agent=agent[:_LONGEST_AGENT])


class Payloads:
    """Writes and reads the bodies of sessions.

    Args:
        options: codec, compression, encryption and bound.
    """

    def __init__(self, options: SessionOptions) -> None:
        self.codec: Codec = options.codec if options.codec is not None else MsgpackCodec()
        self._limit = options.max_bytes
        self._from = options.compress_from
        self._protection = options.protection
        self._zstd = _zstandard() if options.compression == "zstd" else None
        self._combine: dict[str, Combine[bytes]] = {
            FLASH: self._on_values(queue),
            **{key: self._on_values(union) for key in options.sets},
            **{key: self._on_values(total) for key in options.counters},
        }

    # -- values ---------------------------------------------------------------------------------------------------

    def encode(self, value: Any) -> bytes:
        """Return the bytes of one value. Raises ``CodecError``."""
        return self.codec.encode(value)

    def decode(self, data: bytes) -> Any:
        """Return the value of *data*. Raises ``CodecError``."""
        return self.codec.decode(data)

    def same(self, before: bytes, value: Any) -> bytes | None:
        """Return the bytes of *value*, or None when it is still what *before* holds. Raises ``CodecError``.

        The order in which a set is written depends on how it was filled: it is compared with what *before* gives when
        it is read and written again.
        """
        now = self.codec.encode(value)
        if now == before:
            return None
        try:
            if self.codec.encode(self.codec.decode(before)) == now:
                return None
        except CodecError:
            pass
        return now

    def merge(self, base: Packed, mine: Packed, theirs: Packed, *, yielding: bool = False) -> dict[str, bytes]:
        """Return *theirs* with the changes of this side."""
        return merge(base, mine, theirs, self._combine, yielding=yielding)

    def _on_values(self, combine: Combine[Any]) -> Combine[bytes]:
        def on_bytes(base: Any, mine: Any, theirs: Any) -> Any:
            try:
                sides = [ABSENT if side is ABSENT else self.codec.decode(side) for side in (base, mine, theirs)]
                made = combine(sides[0], sides[1], sides[2])
                return made if made is ABSENT else self.codec.encode(made)
            except Exception:  # noqa: BLE001 - a key declared as what it is not, or unreadable: the later change holds
                return mine

        return on_bytes

    # -- bodies ---------------------------------------------------------------------------------------------------

    def pack(self, about: About, values: Packed, context: bytes) -> bytes:
        """Return the body of *values*, bound to *context*. Raises ``SessionTooLarge``."""
        data = cast("bytes", packb(values))
        if len(data) > self._limit:
            largest = max(values, key=lambda key: len(values[key]))
            raise SessionTooLarge(
                f"this session has {len(data)} bytes, over the bound max_bytes={self._limit}; the largest value is "
                f"{largest!r} with {len(values[largest])} bytes: keep large things elsewhere, and their key in the session",
                size=len(data), limit=self._limit,
            )  # fmt: skip
        made = _PLAIN
        if self._zstd is not None and len(data) >= self._from:
            data, made = self._zstd.ZstdCompressor(level=3).compress(data), _ZSTD
        frame = seal(b"", data, codec_id=MAP_CODEC, compress_from=self._from if made == _PLAIN else len(data) + 1)
        parts = (about.user, about.agent, about.remembered)
        head = cast("bytes", packb((*parts, about.life) if about.life else parts))
        if self._protection is not None:
            head = self._protection.protect(head, b"about " + context)
            frame = self._protection.protect(frame, b"values " + context)
            made += _SEALED
        return b"".join((_LENGTH.pack(len(head)), head, bytes((made,)), frame))

    def unpack(self, body: bytes, context: bytes) -> tuple[About, dict[str, bytes]]:
        """Return what is in *body*. Raises ``CodecError``."""
        about, end, made = self._about(body, context)
        frame: Any = memoryview(body)[end + 1 :]  # a large session is not copied on its way
        if made & _SEALED:
            frame = self._opened(bytes(frame), b"values " + context)
        _, data, codec_id = opened(frame, max_size=self._limit + HEAD_BYTES)
        if codec_id != MAP_CODEC:
            raise FrameError("this is no session")
        if made & ~_SEALED == _ZSTD:
            data = self._decompress(data)
        try:
            values = unpackb(data, strict_map_key=True)
        except Exception as exc:
            raise CodecError(f"these bytes hold no session: {type(exc).__name__}: {exc}") from exc
        if type(values) is not dict:
            raise CodecError("these bytes hold no session")
        for key, value in values.items():
            if type(key) is not str or type(value) is not bytes:
                raise CodecError("these bytes hold no session")
        return about, values

    def about(self, body: bytes, context: bytes) -> About:
        """Return whose session *body* is, which may be cut after that. Raises ``CodecError``."""
        return self._about(body, context)[0]

    def _about(self, body: bytes, context: bytes) -> tuple[About, int, int]:
        try:
            end = _LENGTH.size + _LENGTH.unpack_from(body)[0]
            made = body[end]
        except (struct.error, IndexError) as exc:
            raise FrameError("the session is truncated") from exc
        if made & ~_SEALED not in (_PLAIN, _ZSTD):
            raise FrameError("this session was written by a newer version")
        if (self._protection is not None) != bool(made & _SEALED):
            raise FrameError("this session was stored under other settings of `protection`")
        head = body[_LENGTH.size : end]
        if made & _SEALED:
            head = self._opened(head, b"about " + context)
        try:
            user, agent, remembered, *more = unpackb(head)
            life = float(more[0]) if more else 0.0
        except Exception as exc:
            raise FrameError("whose session this is cannot be read") from exc
        if type(user) is not str or type(agent) is not str or type(remembered) is not bool:
            raise FrameError("whose session this is cannot be read")
        return About(user, agent, remembered, life), end, made

    def _opened(self, data: bytes, context: bytes) -> bytes:
        assert self._protection is not None
        try:
            return self._protection.reveal(data, context)
        except CodecError:
            raise
        except Exception as exc:
            raise CodecError(f"the protection failed: {type(exc).__name__}: {exc}") from exc

    def _decompress(self, data: bytes) -> bytes:
        zstd = self._zstd if self._zstd is not None else _zstandard()
        try:
            plain: bytes = zstd.ZstdDecompressor().decompress(data, max_output_size=self._limit)
        except Exception as exc:
            raise FrameError(f"corrupt, or larger than max_bytes={self._limit}: {exc}") from exc
        return plain


def checked_user(user: object) -> str:
    """Return *user* as the text that sessions are bound to. Raises ``ConfigError``."""
    text = str(user) if isinstance(user, (str, int)) and not isinstance(user, bool) else ""
    if not text or len(text) > _LONGEST_USER:
        raise ConfigError(f"a session is bound to a user's id, a text of 1 to {_LONGEST_USER} characters, not {user!r}")
    return text


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as exc:
        raise ConfigError("compression='zstd' needs the extra `zstd` (the package zstandard), not installed") from exc
    return zstandard
