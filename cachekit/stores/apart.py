"""Stamps on a cluster: each is read where it lies, all primaries at once, because no step may touch two slots.

That is enough, because an entry carries the stamps that its tags had before its load began: one that was kept a moment too
late carries an old stamp, and is not served. Must not know about codecs, entries or first levels.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cachekit._io import IO
from cachekit.clock import random_token
from cachekit.stores.cluster import ClusterLink, Routed
from cachekit.stores.link import Arg, Call, Script, replies_of
from cachekit.stores.names import Names, portions
from cachekit.stores.node import Node
from cachekit.stores.record import write_head
from cachekit.stores.stamps import BATCH, STAMP_LIFE, Altering, Asked, Begun, Common, Keeping, Tell, script

SKEW: Final = 250_000
"""Microseconds by which the clocks of two primaries may differ, where only those can be compared."""

_OUTLIVES: Final = 60_000
_CLOCKS: Final = 12
_FOR_EVER: Final = 2**62
_TIME: Final = struct.Struct(">Q")


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


class Apart(Common):
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
            stamps[tag] == before if before else not self.invalidated_since(keeping.since, tag, stamps[tag])
            for tag, before in keeping.tags.items()
        ):
            names = self._names
            lease = [names.of_key(keeping.key, keeping.told), names.lease(keeping.key)]
            await self._link.script(io, script("release"), lease, [keeping.proof, names.channel])
            return None
        once = keeping.mode == "swap"
        kept, _ = await self._link.evaluate(io, [(script("place"), self._place(keeping, stamps))], once=once)
        return list(stamps.values()) if kept[0] else None

    def invalidated_since(self, since: _Since, tag: str, stamp: bytes) -> bool:
        made = _TIME.unpack_from(stamp)[0]
        owner = self._link.owner(self._names.tag(tag))
        began = since.clocks.get(owner) if owner is not None and self._link.moves == since.moves else None
        return bool(made >= (began if began is not None else since.one - SKEW))

    async def keep_all(self, io: IO, keepings: Sequence[Keeping]) -> None:
        for start in range(0, len(keepings), BATCH):
            batch = keepings[start : start + BATCH]
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
