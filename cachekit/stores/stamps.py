"""How the stamps of tags travel with the values that carry them: what is asked of each way, and what they share.

There are two, ``together`` and ``apart``. Must not know about codecs, entries or first levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol, TypeAlias

from cachekit._io import IO
from cachekit.clock import random_token
from cachekit.stores.link import Arg, Call, Link, Runner, Script
from cachekit.stores.names import NAMESPACE, Announcement, Names

STAMP_LIFE: Final = 3_600_000
"""Milliseconds for which an invalidation is remembered; longer than any load may run."""

BATCH: Final = 500
"""How many values are kept in one go."""

_SEEN_LIFE: Final = 30 * 24 * 3_600_000


Tell: TypeAlias = Callable[[str, Sequence[str]], Announcement]
"""Returns what the others are told, from a kind and names."""


@cache
def script(name: str) -> Script:
    """Return the script *name*."""
    return Script.load(name)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for the right to load.

    Attributes:
        key: what is to be loaded.
        tags: the tags known before, that of the namespace first.
        token: who asks.
        lease: how long in milliseconds.
        take: whether to take the lease from whoever has it.
        waits: whether to have the end of another's lease announced.
    """

    key: str
    tags: Sequence[str]
    token: bytes
    lease: int
    take: bool
    waits: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """The answer: who leads, what is there, and the evidence for the commit."""

    leads: bool
    left: int
    raw: bytes
    stamps: dict[str, bytes]
    since: Any


@dataclass(frozen=True, slots=True)
class Keeping:
    """A value to be kept.

    Attributes:
        key: its key.
        mode: ``lease``, ``force`` or ``swap``, as in ``keep.lua``.
        proof: the token, or the value that must still be there.
        life: in milliseconds, 0 for ever.
        since: when its load began, as ``Begun`` said.
        told: what the others are told.
        tags: the tags with the stamps that they had before the load, or when what is changed was read; empty for those
            known only from the result.
        frame: the value.
    """

    key: str
    mode: str
    proof: bytes
    life: int
    since: Any
    told: Announcement
    tags: Mapping[str, bytes]
    frame: bytes


@dataclass(frozen=True, slots=True)
class Altering:
    """A change that is made to a value where it lies.

    Attributes:
        key: its key.
        tags: the tags that it is expected to carry, that of the namespace first.
        arguments: what is to be done, and the time, as in ``alter.lua``.
        life: in milliseconds, 0 for ever; None where it stays as it is.
        told: what the others are told.
    """

    key: str
    tags: Sequence[str]
    arguments: tuple[str, str, Arg, Arg, Arg]
    life: int | None
    told: Announcement

    @property
    def once(self) -> bool:
        """Say whether doing it twice would be wrong: when the reply is lost nobody knows whether it was done."""
        return self.arguments[0] == "add"


class Stamps(Protocol):
    """Reads and writes values, leases and stamps. Every method raises ``StoreError``."""

    async def begin(self, io: IO, asked: Asked) -> Begun:
        """Ask for the right to load, and for the stamps as they are now."""
        ...

    def invalidated_since(self, since: Any, tag: str, stamp: bytes) -> bool:
        """Say whether *stamp*, of a tag known only from the result, may be younger than a load that began at *since*."""
        ...

    async def keep(self, io: IO, keeping: Keeping) -> Sequence[bytes] | None:
        """Keep a value. Returns the stamps of its tags, None when it must not be kept."""
        ...

    async def keep_all(self, io: IO, keepings: Sequence[Keeping]) -> None:
        """Keep values by force."""
        ...

    async def alter(self, io: IO, altering: Altering) -> Sequence[Any]:
        """Change a value where it lies. Returns 1, the sum and what was there, or else 0 or -1, as ``alter.lua``."""
        ...

    async def delete(self, io: IO, tell: Tell, keys: Sequence[str]) -> int:
        """Drop values and void their loads. Returns how many were there."""
        ...

    async def invalidate(self, io: IO, tell: Tell, kind: str, tags: Sequence[str]) -> None:
        """Give *tags* new stamps."""
        ...

    async def settle(self, run: Runner, history: bytes, told: Announcement) -> None:
        """Drop everything if the primary with this *history* was never seen before; *run* runs a command."""
        ...


class Common:
    """What both ways have in common.

    Args:
        link: the servers.
        names: the names of the namespace.
    """

    def __init__(self, link: Link, names: Names) -> None:
        self._link = link
        self._names = names

    async def settle(self, run: Runner, history: bytes, told: Announcement) -> None:
        names, stamp = self._names, self._names.tag(NAMESPACE)
        if await run(names.seen, ("SISMEMBER", names.seen, history)):
            return
        await run(stamp, script("stamp").whole([stamp], [random_token(8), STAMP_LIFE]))
        announcement = names.of_tag(NAMESPACE, told)
        await run(announcement, script("tell").whole([announcement], [names.channel]))
        await run(names.seen, ("SADD", names.seen, history))  # last, so that whoever is interrupted begins again
        await run(names.seen, ("PEXPIRE", names.seen, _SEEN_LIFE))

    def _alter(self, altering: Altering) -> Call:
        names, key = self._names, altering.key
        what, now, *more = altering.arguments
        return (
            [names.of_key(key, altering.told), names.value(key), names.lease(key)],
            [what, names.channel, now, *more, *(tag.encode() for tag in altering.tags)],
        )
