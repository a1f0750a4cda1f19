"""The port of a codec: values to bytes and back. A codec knows nothing of keys, times or stores."""

from __future__ import annotations

from typing import Any, Protocol


class Codec(Protocol):
    """Turns values into bytes and back.

    The ``id`` (1 to 255) is written into each frame, so that values of several codecs can live side by side during a
    roll-out; cachekit uses 1 to 15.
    """

    @property
    def id(self) -> int:
        """Number of this codec in the frame header."""
        ...

    def encode(self, value: Any) -> bytes:
        """Return the bytes of *value*. Raises ``CodecError`` with the path and type of what cannot be encoded."""
        ...

    def decode(self, data: bytes) -> Any:
        """Return the value of *data*. Raises ``CodecError`` for bytes that this codec did not make."""
        ...

    def learn(self, annotation: Any) -> None:
        """Allow the types that *annotation* (a function's return annotation) names to be built when decoding."""
        ...
