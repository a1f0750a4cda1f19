"""How the keys on a server are called, and what an announcement says. Pure.

``{ns}:v:{key}`` values, ``{ns}:l:{key}`` leases, ``{ns}:t:<tag>`` stamps, ``{ns}:i:{slot}...`` announcements, which exist
only inside of the script that makes them. What stands in braces decides the slot on a cluster: a value and its lease share
one, and each stamp has its own. Must not know who reads or writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cachekit.errors import ConfigError

NAMESPACE: Final = ""
"""The tag that every entry carries: its stamp is that of the whole namespace."""

ANNOUNCED_AT_ONCE: Final = 1000
"""Names in one announcement, at most."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one process tells the others.

    Attributes:
        origin: who tells it; empty where it does not matter.
        kind: ``tags``, ``keys`` or ``all`` were changed; the lease of keys ended, their values ``kept`` or not (``free``).
        names: the tags or keys.
    """

    origin: str
    kind: str
    names: tuple[str, ...] = ()

    def payload(self) -> bytes:
        """Return it as it travels."""
        return json.dumps((self.origin, self.kind, *self.names)).encode()

    @classmethod
    def read(cls, payload: bytes) -> Announcement | None:
        """Return what *payload* says, None for what nobody here wrote."""
        try:
            origin, kind, *names = json.loads(payload)
        except ValueError:
            return None
        return cls(str(origin), str(kind), tuple(map(str, names)))


class Names:
    """The names of one namespace.

    Args:
        namespace: prefix of every key.
        apart: whether stamps need slots of their own.

    Raises:
        ConfigError: the namespace contains ``{``, ``}``, ``:`` or characters that cannot be printed.
    """

    def __init__(self, namespace: str, *, apart: bool) -> None:
        if not namespace or not namespace.isprintable() or any(char in "{}: *?[]^\\" for char in namespace):
            raise ConfigError(f"namespace={namespace!r} must be a word without spaces and without any of {{}}:*?[]^\\")
        self.namespace = namespace
        self.apart = apart
        self.channel = f"{namespace}:bus"
        self.announcements = f"{namespace}:i:"
        self.values = f"{namespace}:v:*"
        self.seen = f"{namespace}:h:{{{namespace}}}"
        """The primaries that were seen so far; in the slot of the namespace's stamp."""

    def value(self, key: str) -> bytes:
        return f"{self.namespace}:v:{{{_slot(key)}}}".encode("utf-8", "surrogatepass")

    def matching(self, pattern: str) -> str:
        """Return the pattern over names of values that *pattern* over keys is."""
        return f"{self.namespace}:v:{{{_slot(pattern)}}}"

    def key(self, name: bytes) -> str:
        """Return the key of the value called *name*."""
        text = name[len(self.namespace) + 4 : -1].decode("utf-8", "surrogatepass")
        return text.replace("%7D", "}").replace("%25", "%") if "%" in text else text

    def lease(self, key: str) -> bytes:
        return f"{self.namespace}:l:{{{_slot(key)}}}".encode("utf-8", "surrogatepass")

    def tag(self, tag: str) -> str:
        if not self.apart:
            return f"{self.namespace}:t:{tag}"
        return f"{self.namespace}:t:{{{_slot(tag)}}}" if tag else f"{self.namespace}:n:{{{self.namespace}}}"

    def of_key(self, key: str, told: Announcement) -> bytes:
        """Return the name of an announcement that lies where *key* does."""
        return self._announcement(_slot(key) if self.apart else "", told)

    def of_tag(self, tag: str, told: Announcement) -> bytes:
        """Return the name of an announcement that lies where the stamp of *tag* does."""
        return self._announcement((_slot(tag) or self.namespace) if self.apart else "", told)

    def _announcement(self, slot: str, told: Announcement) -> bytes:
        return f"{self.announcements}{{{slot}}}".encode("utf-8", "surrogatepass") + told.payload()

    @staticmethod
    def payload(announcement: bytes) -> bytes:
        """Return the payload in the name of an announcement."""
        return announcement.partition(b"}")[2]


def _slot(key: str) -> str:
    """Return *key* without the characters that would end a hash tag early."""
    if "}" in key or "%" in key:
        return key.replace("%", "%25").replace("}", "%7D")
    return key


def portions(names: Iterable[str]) -> list[Sequence[str]]:
    """Return *names* in portions that fit into one announcement each."""
    listed = list(names)
    return [listed[at : at + ANNOUNCED_AT_ONCE] for at in range(0, len(listed), ANNOUNCED_AT_ONCE)]
