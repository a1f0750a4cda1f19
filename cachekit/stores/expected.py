"""How a value is read together with the stamps that it is expected to carry: nothing is taken apart where they are these.

Must not know how bytes are fetched, nor what they mean.
"""

from __future__ import annotations

from typing import TypeAlias

from cachekit.stores.record import Head

Stamped: TypeAlias = tuple[tuple[str, bytes], ...]
"""Tags with their stamps."""


class Expected:
    """How an entry is read, if it carries the tags that it carried last.

    Attributes:
        tags: those tags.
        names: what is asked for: the value, the stamp of the namespace, those of *tags*.
        stamped: the names of the stamps.
    """

    __slots__ = ("_form", "_latest", "names", "stamped", "tags")

    def __init__(self, tags: tuple[str, ...], every: tuple[str, ...], names: tuple[str | bytes, ...]) -> None:
        self.tags = tags
        self.names = names
        self.stamped = names[1:]
        self._form = Head(every)
        self._latest: tuple[list[bytes | None], bytes, Stamped] | None = None  # stamps seldom change between two reads

    def given(self, stamps: list[bytes | None]) -> tuple[bytes, Stamped] | None:
        """Return what the value begins with, and the stamp of each tag, if the *stamps* are these; None without some."""
        latest = self._latest
        if latest is None or latest[0] != stamps:
            found = [stamp for stamp in stamps if stamp is not None]
            if len(found) < len(stamps):
                return None
            latest = self._latest = stamps, self._form.of(found), tuple(zip(self.tags, found[1:], strict=True))
        return latest[1], latest[2]
