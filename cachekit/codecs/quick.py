"""Quicker ways for plain values, where the extra ``speedups`` is installed: the same bytes and values, or an error.

Owns how the library is kept from being lax: what it refuses, the codec does by itself. Must not know tagged payloads,
classes, frames or stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cachekit.clock import random_token
from cachekit.codecs.extensions import read_leaf
from cachekit.errors import CodecError

_END_BYTES: Final = 16


def _ways() -> tuple[Callable[[Any], bytes] | None, Callable[[bytes], Any] | None]:
    try:
        import ormsgpack as library
    except ImportError:
        return None, None
    pack, unpack = library.packb, library.unpackb
    # What is not exactly a type of msgpack is refused: it would come back as something else.
    exact = (
        library.OPT_PASSTHROUGH_DATACLASS
        | library.OPT_PASSTHROUGH_DATETIME
        | library.OPT_PASSTHROUGH_ENUM
        | library.OPT_PASSTHROUGH_SUBCLASS
        | library.OPT_PASSTHROUGH_TUPLE
        | library.OPT_PASSTHROUGH_UUID
    )
    # The library does not look at what follows a value. So the value is read as the first of two, and the second, which
    # nobody else knows, must come right after it.
    end = random_token(_END_BYTES)
    last = b"\xc4" + bytes((_END_BYTES,)) + end

    def write(value: Any) -> bytes:
        return pack(value, None, exact)

    def read(data: bytes) -> Any:
        value, found = unpack(b"\x92" + data + last, ext_hook=read_leaf)
        if found != end:
            raise CodecError("these bytes hold more than one value")
        return value

    return write, read


write, read = _ways()
"""Return the bytes of a plain value, and the value of an untagged payload; both raise for others, or are None."""
