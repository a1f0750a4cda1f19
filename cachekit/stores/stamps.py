"""How the stamps of tags travel: with the value in one step where all keys lie on one server, apart from it on a cluster.

``Together`` has one script for each operation, which reads, compares and writes values, leases and stamps in one step.
``Apart`` may not touch two slots in one step: it reads stamps where they lie, all primaries at once, and the value where
it lies. That is enough, because an entry carries the stamps that its tags had before its load began: one that was kept a
moment too late carries an old stamp, and is not served. Must not know about codecs, entries or first levels.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, Protocol, TypeAlias

from cachekit._io import IO
from cachekit.clock import random_token
from cachekit.stores.cluster import ClusterLink, Routed
from cachekit.stores.link import Arg, Call, Link, Runner, Script, replies_of
from cachekit.stores.names import NAMESPACE, Announcement, Names, portions
from cachekit.stores.node import Node
from cachekit.stores.record import write_head

STAMP_LIFE: Final = 3_600_000
"""Milliseconds for which an invalidation is remembered; longer than any load may run."""

SKEW: Final = 250_000
"""Microseconds by which the clocks of two primaries may differ, where only those can be compared."""

_OUTLIVES: Final = 60_000
_SEEN_LIFE: Final = 30 * 24 * 3_600_000
_CLOCKS: Final = 12
_BATCH: Final = 500
_BATCH_BYTES: Final = 1_000_000
_TIME: Final = struct.Struct(">Q")


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


class _Common:
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


class Together(_Common):
    """All keys lie on one server: every operation is one command."""

    async def begin(self, io: IO, asked: Asked) -> Begun:
        names = self._names
        leads, left, raw, since, *stamps = await self._link.script(
            io,
            script("begin"),
            [names.value(asked.key), names.lease(asked.key), *map(names.tag, asked.tags)],
            [asked.token, asked.lease, random_token(8), asked.lease + STAMP_LIFE, int(asked.take), int(asked.waits)],
        )
        return Begun(bool(leads), left, raw, dict(zip(asked.tags, stamps, strict=True)), since)

    async def keep(self, io: IO, keeping: Keeping) -> Sequence[bytes] | None:
        once = (
            keeping.mode == "swap"
        )  # when the reply is lost nobody knows, and a second try would take itself for another
        stamps = await self._link.script(io, script("keep"), *self._call(keeping), once=once)
        return stamps or None

    async def keep_all(self, io: IO, keepings: Sequence[Keeping]) -> None:
        if len(keepings) == 1:
            await self.keep(io, keepings[0])
            return
        if all(keeping.tags.keys() == keepings[0].tags.keys() for keeping in keepings):
            for batch in _batches(keepings):
                await self._link.script(io, script("keep_many"), *self._all(batch))
            return
        for start in range(0, len(keepings), _BATCH):
            calls = [self._call(keeping) for keeping in keepings[start : start + _BATCH]]
            await self._link.scripts(io, script("keep"), calls)

    def _all(self, keepings: Sequence[Keeping]) -> Call:
        names, first = self._names, keepings[0]
        told = replace(first.told, names=tuple(keeping.key for keeping in keepings))
        lives = [keeping.life for keeping in keepings]
        keys: list[Arg] = [names.of_key(first.key, told), *map(names.tag, first.tags)]
        values: list[Arg] = []
        for keeping in keepings:
            keys += (names.value(keeping.key), names.lease(keeping.key))
            values += (keeping.life, keeping.frame)
        longest = 0 if 0 in lives else max(lives)
        tags = [tag.encode() for tag in first.tags]
        return keys, [len(tags), random_token(8), longest, names.channel, *tags, *values]

    def _call(self, keeping: Keeping) -> Call:
        names, key = self._names, keeping.key
        per_tag = [part for tag, stamp in keeping.tags.items() for part in (tag.encode(), stamp)]
        return (
            [names.of_key(key, keeping.told), names.value(key), names.lease(key), *map(names.tag, keeping.tags)],
            [keeping.mode, keeping.proof, keeping.life, random_token(8), keeping.since or b"0", names.channel,
             keeping.frame, *per_tag],
        )  # fmt: skip

    async def alter(self, io: IO, altering: Altering) -> Sequence[Any]:
        keys, arguments = self._alter(altering)
        every = [*keys, *map(self._names.tag, altering.tags)]
        outcome: list[Any] = await self._link.script(io, script("alter"), every, arguments, once=altering.once)
        return outcome

    async def delete(self, io: IO, tell: Tell, keys: Sequence[str]) -> int:
        found = 0
        for portion in portions(keys):
            told = self._names.of_key("", tell("keys", portion))
            both = [name for key in portion for name in (self._names.value(key), self._names.lease(key))]
            found += await self._link.script(io, script("delete"), [told, *both], [self._names.channel])
        return found

    async def invalidate(self, io: IO, tell: Tell, kind: str, tags: Sequence[str]) -> None:
        told = tell(kind, tags if kind == "tags" else ())
        keys: list[Arg] = [self._names.of_tag("", told), *map(self._names.tag, tags)]
        await self._link.script(io, script("invalidate"), keys, [random_token(8), STAMP_LIFE, self._names.channel])


def _batches(keepings: Sequence[Keeping]) -> Iterator[list[Keeping]]:
    """Yield *keepings* in batches that do not keep a server from others for long."""
    batch: list[Keeping] = []
    size = 0
    for keeping in keepings:
        if batch and (len(batch) >= _BATCH or size + len(keeping.frame) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(keeping)
        size += len(keeping.frame)
    yield batch


@dataclass(frozen=True, slots=True)
class _Since:
    """When a load began, by the clocks of the primaries that were asked.

    Attributes:
        clocks: microseconds by primary.
        one: microseconds by the clock of one of them.
        moves: how many slots had moved by then: after another move nobody knows whose clock made a stamp.
    """

    clocks: dict[Node, int]
    one: int
    moves: int


class Apart(_Common):
    """Each stamp lies in a slot of its own: a cluster."""

    _link: ClusterLink

    def __init__(self, link: ClusterLink, names: Names) -> None:
        super().__init__(link, names)
        self._link = link

    async def begin(self, io: IO, asked: Asked) -> Begun:
        names, link = self._names, self._link
        own = [names.value(asked.key), names.lease(asked.key)]
        calls: list[tuple[Script, Call]] = [
            (script("begin"), (own, [asked.token, asked.lease, b"", 0, int(asked.take), int(asked.waits)]))
        ]
        calls += self._touch(asked.tags, asked.lease + STAMP_LIFE, extend=False)
        await link.prepare(io)
        moves = link.moves
        owners = [link.owner(keys[0]) for _, (keys, _) in calls]
        others = [node for node in link.settled(at_most=_CLOCKS) if node not in owners]
        times = [Routed(b"", ("TIME",), node) for node in others]
        replies, clocked = await link.evaluate(io, calls, besides=times)
        (leads, left, raw, since), *touched = replies
        clocks = {node: int(reply[0]) * 1_000_000 + int(reply[1]) for node, reply in zip(others, clocked, strict=True)
                  if isinstance(reply, list)}  # fmt: skip
        for node, us in zip(owners, (since, *(us for _, us in touched)), strict=True):
            if node is not None:
                clocks[node] = min(int(us), clocks.get(node, int(us)))
        stamps = {tag: stamp for tag, (stamp, _) in zip(asked.tags, touched, strict=True)}
        return Begun(bool(leads), left, raw, stamps, _Since(clocks, int(since), moves))

    def _touch(self, tags: Sequence[str], life: int, *, extend: bool) -> list[tuple[Script, Call]]:
        return [(script("touch"), ([self._names.tag(tag)], [random_token(8), life, int(extend)])) for tag in tags]

    async def keep(self, io: IO, keeping: Keeping) -> Sequence[bytes] | None:
        tags = list(keeping.tags)
        life = keeping.life + _OUTLIVES if keeping.life else 0
        touched, _ = await self._link.evaluate(io, self._touch(tags, life, extend=True))
        stamps = {tag: bytes(stamp) for tag, (stamp, _) in zip(tags, touched, strict=True)}
        if keeping.mode == "swap" and any(before and stamps[tag] != before for tag, before in keeping.tags.items()):
            return None
        if keeping.mode == "lease" and not all(
            stamps[tag] == before if before else not self._invalidated_since(keeping.since, tag, stamps[tag])
            for tag, before in keeping.tags.items()
        ):
            names = self._names
            lease = [names.of_key(keeping.key, keeping.told), names.lease(keeping.key)]
            await self._link.script(io, script("release"), lease, [keeping.proof, names.channel])
            return None
        once = keeping.mode == "swap"
        kept, _ = await self._link.evaluate(io, [(script("place"), self._place(keeping, stamps))], once=once)
        return list(stamps.values()) if kept[0] else None

    def _invalidated_since(self, since: _Since, tag: str, stamp: bytes) -> bool:
        """Say whether *stamp*, of a tag known only from the result, may be younger than the load."""
        made = _TIME.unpack_from(stamp)[0]
        owner = self._link.owner(self._names.tag(tag))
        began = since.clocks.get(owner) if owner is not None and self._link.moves == since.moves else None
        return bool(made >= (began if began is not None else since.one - SKEW))

    async def keep_all(self, io: IO, keepings: Sequence[Keeping]) -> None:
        for start in range(0, len(keepings), _BATCH):
            batch = keepings[start : start + _BATCH]
            lives: dict[str, int] = {}
            for keeping in batch:
                for tag in keeping.tags:
                    life = keeping.life + _OUTLIVES if keeping.life else math.inf
                    lives[tag] = int(min(max(lives.get(tag, 0), life), _FOR_EVER))
            calls = [
                call
                for tag, life in lives.items()
                for call in self._touch([tag], 0 if life == _FOR_EVER else life, extend=True)
            ]
            touched, _ = await self._link.evaluate(io, calls)
            stamps = {tag: bytes(stamp) for tag, (stamp, _) in zip(lives, touched, strict=True)}
            await self._link.evaluate(
                io,
                [(script("place"), self._place(one, {tag: stamps[tag] for tag in one.tags})) for one in batch],
            )

    def _place(self, keeping: Keeping, stamps: Mapping[str, bytes]) -> Call:
        names, key = self._names, keeping.key
        return (
            [names.of_key(key, keeping.told), names.value(key), names.lease(key)],
            [keeping.mode, keeping.proof, keeping.life, names.channel, write_head(stamps) + keeping.frame],
        )

    async def alter(self, io: IO, altering: Altering) -> Sequence[Any]:
        """Change the value and read the stamps at once: where they turn out to differ, what was changed is not served."""
        prolongs = altering.life is not None
        life = altering.life + _OUTLIVES if altering.life else 0 if prolongs else STAMP_LIFE
        touches = self._touch(altering.tags, life, extend=prolongs)
        settlings = self._link.settlings
        calls = [(script("alter"), self._alter(altering)), *touches]
        (outcome, *touched), _ = await self._link.evaluate(io, calls, once=altering.once)
        if outcome[0] != 1:
            return list(outcome)
        while self._link.settlings != settlings:  # the stamps may be from before a new primary changed the namespace's
            settlings = self._link.settlings
            touched, _ = await self._link.evaluate(io, touches)
        stamps = {tag: bytes(stamp) for tag, (stamp, _) in zip(altering.tags, touched, strict=True)}
        return list(outcome) if outcome[2].startswith(write_head(stamps)) else [-1]

    async def delete(self, io: IO, tell: Tell, keys: Sequence[str]) -> int:
        """Drop values and void their loads, which comes first: else one might keep its value in between.

        Each command has one key: those work while a slot is on its way too.
        """
        names, found = self._names, 0
        for portion in portions(keys):
            deleted: list[Routed] = []
            told: list[tuple[Script, Call]] = []
            for key in portion:
                deleted += [Routed(name, ("DEL", name)) for name in (names.lease(key), names.value(key))]
                told.append((script("tell"), ([names.of_key(key, tell("keys", (key,)))], [names.channel])))
            replies = replies_of(self._link, await self._link.run(io, deleted))
            found += sum(replies[1::2])
            await self._link.evaluate(io, told)
        return found

    async def invalidate(self, io: IO, tell: Tell, kind: str, tags: Sequence[str]) -> None:
        names = self._names
        life: list[Arg] = [random_token(8), STAMP_LIFE]
        await self._link.evaluate(io, [(script("stamp"), ([names.tag(tag)], life)) for tag in tags])
        told = [(tag, tell(kind, (tag,) if kind == "tags" else ())) for tag in tags]
        await self._link.evaluate(
            io, [(script("tell"), ([names.of_tag(tag, alone)], [names.channel])) for tag, alone in told]
        )


_FOR_EVER: Final = 2**62


def stamps_of(link: Link, namespace: str) -> tuple[Names, Stamps]:
    """Return the names and the way of stamps that *link* needs. Raises ``ConfigError`` for a namespace."""
    if isinstance(link, ClusterLink):
        names = Names(namespace, apart=True)
        return names, Apart(link, names)
    names = Names(namespace, apart=False)
    return names, Together(link, names)
