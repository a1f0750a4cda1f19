"""The bytes of a session: each top-level value by itself, so that what nobody looks at is neither decoded nor compared.

Owns the layout of a body. Must not know requests, cookies or stores.

A body is the length of *about* (2 bytes), *about* (who the session belongs to, for lists), one byte that says how the
rest is made, and the rest: groups of cells (3, see ``cells``); or, where sessions are protected, the protected frame of a
msgpack map from key to encoded value (17; 18 of zstd; 1 and 2 are the same without protection, which is still read).
A value that cannot be read (its class has changed) is passed on as it is: another release that still runs may read it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast
from uuid import UUID
from zlib import crc32

from msgpack import packb, unpackb

from cachekit.codecs.base import Codec
from cachekit.codecs.frame import opened, seal
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.errors import CodecError, ConfigError, FrameError, SessionTooLarge
from cachekit.sessions.cells import LARGE, MAP, Layout, Squeezed, plain_size, read_map, unstorable
from cachekit.sessions.memo import Memo
from cachekit.sessions.merge import ABSENT, Combine, merge, queue, total, union
from cachekit.sessions.options import SessionOptions
from cachekit.sessions.store import HEAD_BYTES, Parcel

FLASH: Final = "_flash"
CSRF: Final = "_csrf"

_LENGTH: Final = struct.Struct(">H")
_PLAIN, _ZSTD, _GROUPS, _SEALED = 1, 2, 3, 16
_SMALLEST: Final = 4
"""How many times what is there must be as large as an addition."""
_SMALL: Final = 512
"""Bytes of a body that is written as a whole at about the cost of a small addition."""
_MOST_ADDED: Final = 8
_EACH: Final = 1024
"""Bytes of memory that what is remembered takes beside its own."""
_REMEMBERED_BYTES: Final = 4096
"""Bytes of a body up to which its checksum is looked at too: it is as quickly made as the body is read."""
_LONGEST_UTF8: Final = 4
_OVERHEAD: Final = 10
"""Bytes that the layout takes for each key at most, beside the key and its value."""
_FOOTPRINT: Final = 512
"""Bytes of memory that a session in this process takes, beside its keys and values."""
_FOOTPRINT_OF_KEY: Final = 128
_LONGEST_USER: Final = 512
_LONGEST_AGENT: Final = 200

FROZEN: Final = frozenset({
    str, int, float, bool, bytes, type(None), Decimal, UUID, datetime, date, time, timedelta, complex
})  # fmt: skip
"""Types whose values cannot change in place."""
_SCALAR_BYTES: Final = 64
_SCALARS: Final = 1024
"""Cells whose values are remembered, and of how many bytes at most."""
_ONE_WAY: Final = frozenset((str, int, bool, type(None), bytes))
"""Types whose equal values are written in one way alone."""
_KNOWN: Final = frozenset((_PLAIN, _ZSTD, _GROUPS, _PLAIN + _SEALED, _ZSTD + _SEALED))
_GROUPS_BYTE: Final = bytes((_GROUPS,))
_OTHER_PROTECTION: Final = "this session was stored under other settings of `protection`"

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


NOBODYS: Final = About()
"""What is said of a session of which nothing is known."""


class Extent(NamedTuple):
    """How a body came about.

    Attributes:
        size: bytes that were written as a whole.
        added: bytes that were added since.
        times: how often.
        crc: of all of it, where it is small.
    """

    size: int
    added: int = 0
    times: int = 0
    crc: int = 0


class Content(NamedTuple):
    """What was read of a session.

    Attributes:
        about: whose it is.
        cells: its encoded values.
        extent: how it was written, where it can be added to.
    """

    about: About
    cells: Mapping[str, bytes]
    extent: Extent | None = None


class Unpacked(Parcel):
    """The content of a session that stays in this process: making bytes of it would be undone by whoever reads it next.

    Args:
        about: whose it is.
        cells: its encoded values.
        size: bytes of memory that it takes.
    """

    __slots__ = ("_size", "about", "cells")

    def __init__(self, about: About, cells: Mapping[str, bytes], size: int) -> None:
        self.about = about
        self.cells = cells
        self._size = size

    def __len__(self) -> int:
        return self._size


class Payloads:
    """Writes and reads the bodies of sessions.

    Args:
        options: codec, compression, encryption and bound.
    """

    def __init__(self, options: SessionOptions) -> None:
        self.codec: Codec = options.codec if options.codec is not None else MsgpackCodec()
        self._is_exact = type(self.codec) is MsgpackCodec  # whose plain values are read as they were written
        self._limit = options.max_bytes
        self._from = options.compress_from
        self._protection = options.protection
        self.protects = options.protection is not None
        self._squeezes = options.protection is None
        # Contents by version, and checksum or length: a visitor's requests come in bursts.
        self.memo = Memo(options.memo)
        self._layout = Layout(
            limit=options.max_bytes, compress_from=options.compress_from, zstd=options.compression == "zstd",
            memo=self.memo,
        )  # fmt: skip
        self.opened = self._layout.plain
        self.scalars: dict[bytes, Any] = {}
        """The values of some small cells, which cannot change: the same in all sessions."""
        self._combine: dict[str, Combine[bytes]] = {
            FLASH: self._on_values(queue),
            **{key: self._on_values(union) for key in options.sets},
            **{key: self._on_values(total) for key in options.counters},
        }

    # -- values ---------------------------------------------------------------------------------------------------

    def encode(self, value: Any) -> bytes:
        """Return the cell of one value. Raises ``CodecError``."""
        return self._cell(self.codec.encode(value))

    def decode(self, cell: bytes) -> Any:
        """Return the value in *cell*. Raises ``CodecError``."""
        return self.codec.decode(self.opened(cell))

    def learn(self, cell: bytes, value: Any) -> None:
        """Remember the *value*, which is ``FROZEN``, that was read from a small *cell*."""
        if len(cell) <= _SCALAR_BYTES and type(cell) is not Squeezed:  # in which little may stand for much
            if len(self.scalars) >= _SCALARS:
                self.scalars.clear()
            self.scalars[cell] = value

    def _cell(self, data: bytes) -> bytes:
        return self._layout.cell(data) if self._squeezes else data

    def same(self, before: bytes, value: Any, read: bytes | None = None) -> bytes | None:
        """Return the cell of *value*, or None when it is still what the cell *before* holds. Raises ``CodecError``.

        The order in which a set is written depends on how it was filled: it is compared with what *before* gives when
        it is read and written again.

        Args:
            before: a cell.
            value: what is there now.
            read: what ``opened(before)`` returned, where that is known.
        """
        now, exact = self.codec.encode(value), type(value) in _ONE_WAY
        if type(before) is not Squeezed:
            read = before
        try:
            if read is None:
                read = self.opened(before)
            if now == read:
                return None
            if not exact and self.codec.encode(self.codec.decode(read)) == now:
                return None
        except CodecError:
            pass
        if exact and self._is_exact:
            self.learn(now, value)
        return now if len(now) < LARGE else self._cell(now)

    def merge(self, base: Packed, mine: Packed, theirs: Packed, *, yielding: bool = False) -> dict[str, bytes]:
        """Return *theirs* with the changes of this side."""
        return merge(base, mine, theirs, self._combine, yielding=yielding)

    def _on_values(self, combine: Combine[Any]) -> Combine[bytes]:
        def on_bytes(base: Any, mine: Any, theirs: Any) -> Any:
            try:
                sides = [ABSENT if side is ABSENT else self.decode(side) for side in (base, mine, theirs)]
                made = combine(sides[0], sides[1], sides[2])
                return made if made is ABSENT else self.encode(made)
            except Exception:  # noqa: BLE001 - a key declared as what it is not, or unreadable: the later change holds
                return mine

        return on_bytes

    # -- bodies ---------------------------------------------------------------------------------------------------

    def _check(self, values: Packed) -> int:
        """Return about how many bytes *values* take here. Raises ``SessionTooLarge``."""
        cells = values.values()
        here = sum(map(len, cells)) + _LONGEST_UTF8 * len("".join(values)) + _OVERHEAD * len(values)
        for cell in cells:
            if type(cell) is Squeezed:
                break
        else:
            if here < self._limit:
                return here  # without looking at each
        size = sum(map(plain_size, values.values())) + sum(map(_key_size, values))
        if size > self._limit:
            largest = max(values, key=lambda key: plain_size(values[key]))
            raise SessionTooLarge(
                f"this session has {size} bytes, over the bound max_bytes={self._limit}; the largest value is {largest!r} "
                f"with {plain_size(values[largest])} bytes: keep large things elsewhere, and their key in the session",
                size=size, limit=self._limit,
            )  # fmt: skip
        return here

    def pack(self, about: About, values: Packed, context: bytes) -> bytes:
        """Return the body of *values*, bound to *context*. Raises ``SessionTooLarge``."""
        self._check(values)
        parts = (about.user, about.agent, about.remembered)
        head = cast("bytes", packb((*parts, about.life) if about.life else parts))
        if self._protection is None:
            return b"".join((_LENGTH.pack(len(head)), head, _GROUPS_BYTE, self._layout.group(values)))
        try:
            data = cast("bytes", packb({key: self.opened(cell) for key, cell in values.items()}))
        except UnicodeEncodeError as exc:
            raise unstorable(exc) from exc
        made = _PLAIN
        if self._layout.zstd is not None and len(data) >= self._from:
            data, made = self._layout.zstd.ZstdCompressor(level=3).compress(data), _ZSTD
        frame = seal(b"", data, codec_id=MAP, compress_from=self._from if made == _PLAIN else len(data) + 1)
        head = self._protection.protect(head, b"about " + context)
        frame = self._protection.protect(frame, b"values " + context)
        return b"".join((_LENGTH.pack(len(head)), head, bytes((made + _SEALED,)), frame))

    def parcel(self, about: About, values: Packed) -> Unpacked:
        """Return the body of *values* for a store that keeps it in this process as it is. Raises ``SessionTooLarge``."""
        size = self._check(values) + _FOOTPRINT + _FOOTPRINT_OF_KEY * len(values)
        if not (names := "".join(values)).isascii():
            try:
                names.encode()
            except UnicodeEncodeError as exc:
                raise unstorable(exc) from exc
        return Unpacked(about, values, size)

    def extent(self, body: bytes | Unpacked) -> Extent | None:
        """Return how *body*, just packed, came about; None for what cannot be added to."""
        return Extent(len(body), crc=_crc(body)) if self._squeezes and type(body) is bytes else None

    def addition(self, base: Packed, values: Packed, extent: Extent) -> tuple[bytes, Extent] | None:
        """Return what to add to a body that holds *base*, so that it holds *values*; and what it then is.

        None where it is better written as a whole: so much has been added that reading that costs more.

        Raises:
            SessionTooLarge: it would be.
        """
        if extent.times >= _MOST_ADDED:
            return None
        self._check(values)
        size = max(extent.size, _SMALL)
        changes: dict[str, bytes | None] = {}
        length = 0
        for key, cell in values.items():
            if (was := base.get(key)) is not cell and was != cell:
                changes[key] = cell
                length += len(cell)
        if length * _SMALLEST > size:
            return None
        if len(values) - len(changes) < len(base):
            changes.update(dict.fromkeys(base.keys() - values.keys()))
        made = self._layout.group(changes)
        # Each read carries what was added so far, each whole write all of it: about here their sum is least.
        if len(made) * _SMALLEST > size or extent.added**2 > 2 * size * len(made):
            return None
        added = extent.added + len(made)
        crc = crc32(made, extent.crc) if extent.size + added <= _REMEMBERED_BYTES else 0
        return made, Extent(extent.size, added, extent.times + 1, crc)

    def remember(self, version: str, content: Content) -> None:
        """Remember what is in the body that has *version*; others are given the same object."""
        if (extent := content.extent) is None:
            return
        size = extent.size + extent.added
        cells = content.cells  # which may take much more than a body in which they are compressed together
        room = sum(map(len, cells.values())) + len("".join(cells)) + _FOOTPRINT_OF_KEY * len(cells) + _EACH
        self.memo.put((version, extent.crc if size <= _REMEMBERED_BYTES else size), content, room)

    def content(self, version: str, body: bytes | Unpacked, context: bytes) -> Content:
        """Return what is in *body*, which has *version*; others may be given the same object. Raises ``CodecError``."""
        if isinstance(body, Unpacked):
            if self.protects:
                raise FrameError(_OTHER_PROTECTION)
            return Content(body.about, body.cells)
        size = len(body)
        known: Content | None = self.memo.get((version, crc32(body) if size <= _REMEMBERED_BYTES else size))
        if known is not None:
            return known
        content = self.unpack(body, context)
        self.remember(version, content)
        return content

    def unpack(self, body: bytes, context: bytes) -> Content:
        """Return what is in *body*. Raises ``CodecError``."""
        about, end, made = self._about(body, context)
        if made == _GROUPS:
            cells, count, first = self._layout.read(body, end + 1)
            return Content(about, cells, Extent(first, len(body) - first, count - 1, _crc(body)))
        frame: Any = memoryview(body)[end + 1 :]  # a large session is not copied on its way
        if made & _SEALED:
            frame = self._opened(bytes(frame), b"values " + context)
        _, data, codec_id = opened(frame, max_size=self._limit + HEAD_BYTES)
        if codec_id != MAP:
            raise FrameError("this is no session")
        if made & ~_SEALED == _ZSTD:
            data = self._layout.decompress(data)
        values = read_map(data)
        if not all(type(value) is bytes for value in values.values()):
            raise FrameError("these bytes hold no session")
        return Content(about, values)

    def about(self, body: bytes | Unpacked, context: bytes) -> About:
        """Return whose session *body* is, which may be cut after that. Raises ``CodecError``."""
        return self.content("", body, context).about if isinstance(body, Unpacked) else self._about(body, context)[0]

    def _about(self, body: bytes, context: bytes) -> tuple[About, int, int]:
        try:
            end = _LENGTH.size + _LENGTH.unpack_from(body)[0]
            made = body[end]
        except (struct.error, IndexError) as exc:
            raise FrameError("the session is truncated") from exc
        if made not in _KNOWN:
            raise FrameError("this session was written by a newer version")
        if (self._protection is not None) != bool(made & _SEALED):
            raise FrameError(_OTHER_PROTECTION)
        head = body[_LENGTH.size : end]
        if made & _SEALED:
            head = self._opened(head, b"about " + context)
        return _about(head), end, made

    def _opened(self, data: bytes, context: bytes) -> bytes:
        assert self._protection is not None
        try:
            return self._protection.reveal(data, context)
        except CodecError:
            raise
        except Exception as exc:
            raise CodecError(f"the protection failed: {type(exc).__name__}: {exc}") from exc


def _crc(body: bytes) -> int:
    return crc32(body) if len(body) <= _REMEMBERED_BYTES else 0


def checked_user(user: object) -> str:
    """Return *user* as the text that sessions are bound to. Raises ``ConfigError``."""
    text = str(user) if isinstance(user, (str, int)) and not isinstance(user, bool) else ""
    if not text or len(text) > _LONGEST_USER:
        raise ConfigError(f"a session is bound to a user's id, a text of 1 to {_LONGEST_USER} characters, not {user!r}")
    return text


def _key_size(key: str) -> int:
    return _OVERHEAD + (len(key) if key.isascii() else len(key.encode("utf-8", "surrogatepass")))


@lru_cache(maxsize=1024)
def _about(head: bytes) -> About:
    try:
        user, agent, remembered, *more = unpackb(head)
        life = float(more[0]) if more else 0.0
    except Exception as exc:
        raise FrameError("whose session this is cannot be read") from exc
    if type(user) is not str or type(agent) is not str or type(remembered) is not bool:
        raise FrameError("whose session this is cannot be read")
    return About(user, agent, remembered, life)
