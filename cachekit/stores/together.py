"""Stamps and values on one server: one script for each operation reads, compares and writes all of them in one step.

Must not know about codecs, entries or first levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from cachekit._io import IO
from cachekit.clock import random_token
from cachekit.stores.link import Arg, Call
from cachekit.stores.names import portions
from cachekit.stores.stamps import BATCH, STAMP_LIFE, Altering, Asked, Begun, Common, Keeping, Tell, script

_BATCH_BYTES: Final = 1_000_000


class Together(Common):
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

    def invalidated_since(self, since: Any, tag: str, stamp: bytes) -> bool:  # noqa: ARG002 - one clock makes them all
        return int.from_bytes(stamp[:8]) >= int(since)  # as keep.lua has it: a stamp begins with its time

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
        for start in range(0, len(keepings), BATCH):
            calls = [self._call(keeping) for keeping in keepings[start : start + BATCH]]
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
        if batch and (len(batch) >= BATCH or size + len(keeping.frame) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(keeping)
        size += len(keeping.frame)
    yield batch
