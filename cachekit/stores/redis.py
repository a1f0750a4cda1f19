"""The store on a Redis or Valkey server.

Tags are version stamps: an entry carries the stamps that its tags had *before* its load began and is served only while
all of them are still the same, so that dropping a tag is one command whatever it covers. The namespace itself is one
more tag, which makes ``clear`` immediate. Scripts decide on the server what depends on the server's state.

Keys: ``{ns}:v:{key}`` values, ``{ns}:l:{key}`` leases, ``{ns}:t:<tag>`` stamps; ``{key}`` keeps a value and its lease in
one slot. Must not know about first levels, breakers or loaders.
"""

from __future__ import annotations

import json
import math
from asyncio import CancelledError
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from cachekit._io import IO
from cachekit.clock import Clock, random_token, system_clock
from cachekit.codecs.base import Codec
from cachekit.errors import CodecError, ConfigError, StoreTimeout
from cachekit.events import Emit, Event, Kind
from cachekit.stores.base import AnyEntry, Change, Ticket
from cachekit.stores.link import Call, RedisLink, Script
from cachekit.stores.multiget import MultiGet
from cachekit.stores.record import Record, read_frame, read_record, write_frame

STAMP_LIFE: Final = 3_600_000
"""Milliseconds for which an invalidation is remembered; longer than any load may run."""

_NAMESPACE: Final = ""
_SWEEP: Final = 1000
_HINTS: Final = 10_000
_TRIES: Final = 1000
_BATCH: Final = 500


@cache
def _script(name: str) -> Script:
    return Script.load(name)


@dataclass(frozen=True, slots=True)
class _Proof:
    token: bytes
    stamps: dict[str, bytes]
    since: bytes

    def with_stamps(self, more: Iterable[tuple[str, bytes]]) -> _Proof | None:
        """Return the proof with the stamps of what was used besides; None when two of one tag differ."""
        stamps = dict(self.stamps)
        for tag, stamp in more:
            if stamps.setdefault(tag, stamp) != stamp:
                return None
        return replace(self, stamps=stamps)


class RedisStore:
    """Keeps entries on a Redis or Valkey server.

    Args:
        link: the server.
        codec: turns values into bytes.
        namespace: prefix of every key; caches with the same namespace share their entries.
        emit: receives events.
        clock: source of time.
        compress_from: bytes from which values are compressed.
        max_value_bytes: bound on a value, decompressed; a larger one is not kept.

    Raises:
        ConfigError: the namespace contains ``{``, ``}``, ``:`` or characters that cannot be printed.
    """

    def __init__(
        self,
        link: RedisLink,
        codec: Codec,
        *,
        namespace: str = "cachekit",
        emit: Emit,
        clock: Clock = system_clock,
        compress_from: int = 1024,
        max_value_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        if not namespace or not namespace.isprintable() or any(char in "{}: *?[]^\\" for char in namespace):
            raise ConfigError(f"namespace={namespace!r} must be a word without spaces and without any of {{}}:*?[]^\\")
        self.link = link
        self._reads = MultiGet(link)
        self.namespace = namespace
        self.channel = f"{namespace}:bus"
        self._codec = codec
        self._codecs = {codec.id: codec}
        self._emit = emit
        self._clock = clock
        self._compress_from = compress_from
        self._max_value_bytes = max_value_bytes
        self._hints: dict[str, tuple[str, ...]] = {}
        self._orphans: dict[bytes, str] = {}
        self.origin = random_token(8).hex()

    # -- names ----------------------------------------------------------------------------------------------------

    def _value(self, key: str) -> bytes:
        return f"{self.namespace}:v:{{{_slot(key)}}}".encode("utf-8", "surrogatepass")

    def _lease(self, key: str) -> bytes:
        return f"{self.namespace}:l:{{{_slot(key)}}}".encode("utf-8", "surrogatepass")

    def _tag(self, tag: str) -> str:
        return f"{self.namespace}:t:{tag}"

    def message(self, kind: str, names: Iterable[str]) -> bytes:
        """Return the announcement of a change: who, what (``tags``, ``keys`` or ``all``), and the names."""
        return json.dumps((self.origin, kind, *names)).encode()

    # -- reading --------------------------------------------------------------------------------------------------

    async def get(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:
        expected = self._hints.get(key, tags)
        raw, *stamps = await self._mget(io, [self._value(key), *map(self._tag, (_NAMESPACE, *expected))])
        if raw is None:
            return None
        record = self._read(key, raw)
        if record is None:
            return None
        known = dict(zip((_NAMESPACE, *expected), stamps, strict=True))
        if not record.stamps.keys() <= known.keys():
            self._hint(key, record)
            names = list(record.stamps)
            known = dict(zip(names, await self._mget(io, [*map(self._tag, names)]), strict=True))
        return self._entry(key, record) if _current(record, known) else None

    async def get_many(self, io: IO, keys: Sequence[str]) -> dict[str, AnyEntry]:
        if not keys:
            return {}
        raws = await self._mget(io, [*map(self._value, keys)])
        records = {
            key: record
            for key, raw in zip(keys, raws, strict=True)
            if raw is not None and (record := self._read(key, raw)) is not None
        }
        names = list({name for record in records.values() for name in record.stamps})
        if not names:
            return {}
        known = dict(zip(names, await self._mget(io, [*map(self._tag, names)]), strict=True))
        entries = {key: self._entry(key, record) for key, record in records.items() if _current(record, known)}
        return {key: entry for key, entry in entries.items() if entry is not None}

    async def _mget(self, io: IO, names: Sequence[str | bytes]) -> list[bytes | None]:
        return await self._reads.read(io, names)

    def _read(self, key: str, raw: bytes) -> Record | None:
        try:
            return read_record(raw)
        except CodecError as exc:
            self._emit(Event(Kind.UNREADABLE, key, detail=str(exc), error=exc))
            return None

    def _entry(self, key: str, record: Record) -> AnyEntry | None:
        try:
            entry = read_frame(record, self._codecs, max_size=self._max_value_bytes)
        except CodecError as exc:
            self._emit(Event(Kind.UNREADABLE, key, detail=str(exc), error=exc))
            return None
        return entry if self._clock() < entry.dead_at else None

    def _hint(self, key: str, record: Record) -> None:
        if len(self._hints) >= _HINTS:
            self._hints.clear()
        self._hints[key] = tuple(tag for tag in record.stamps if tag)

    # -- writing --------------------------------------------------------------------------------------------------

    async def set_many(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:
        calls = [self._keeping(key, entry, self._frame(entry), "force") for key, entry in entries.items()]
        if len(calls) == 1:
            await self.link.script(io, _script("keep"), *calls[0])
            return
        for start in range(0, len(calls), _BATCH):
            await self.link.scripts(io, _script("keep"), calls[start : start + _BATCH])

    async def update(self, io: IO, key: str, change: Change) -> AnyEntry | None:
        for _ in range(_TRIES):
            raw = await self.link.command(io, "GET", self._value(key))
            old = None
            if raw is not None and (record := self._read(key, raw)) is not None:
                names = list(record.stamps)
                known = dict(zip(names, await self._mget(io, [*map(self._tag, names)]), strict=True)) if names else {}
                old = self._entry(key, record) if _current(record, known) else None
            new = change(old)
            if new is old:
                return old
            if new is None:
                await self.delete(io, [key])
                return None
            if await self._keep(io, key, new, self._frame(new), mode="swap", proof=raw or b"") is not None:
                return new
        raise StoreTimeout(f"{key!r} was changed by others {_TRIES} times in a row: give up")

    async def delete(self, io: IO, keys: Sequence[str]) -> int:
        names = [name for key in keys for name in (self._value(key), self._lease(key))]
        found: int = await self.link.script(io, _script("delete"), names, [self.channel, self.message("keys", keys)])
        return found

    async def invalidate(self, io: IO, tags: Sequence[str]) -> None:
        await self.link.script(
            io,
            _script("invalidate"),
            [*map(self._tag, tags)],
            [random_token(8), STAMP_LIFE, self.channel, self.message("tags", tags)],
        )

    async def clear(self, io: IO) -> None:
        await self.link.script(
            io,
            _script("invalidate"),
            [self._tag(_NAMESPACE)],
            [random_token(8), STAMP_LIFE, self.channel, self.message("all", ())],
        )
        # From here on nothing old is served; what follows gives the memory back.
        cursor = b"0"
        while True:
            cursor, names = await self.link.command(
                io, "SCAN", cursor, "MATCH", f"{self.namespace}:v:*", "COUNT", _SWEEP
            )
            if names:
                await self.link.command(io, "UNLINK", *names)
            if cursor in (b"0", 0, "0"):
                return

    async def scan(self, io: IO, pattern: str, cursor: bytes | None) -> tuple[bytes | None, list[str]]:
        match = f"{self.namespace}:v:{{{_slot(pattern)}}}"
        following, names = await self.link.command(io, "SCAN", cursor or b"0", "MATCH", match, "COUNT", _SWEEP)
        start = len(self._value("")) - 1
        keys = [_unslot(bytes(name)[start:-1].decode("utf-8", "surrogatepass")) for name in names]
        return (None if following in (b"0", 0, "0") else following), keys

    async def begin(self, io: IO, key: str, tags: Sequence[str], lease: float, *, exclusive: bool = True) -> Ticket:
        token = random_token()
        names = (_NAMESPACE, *tags)
        life = math.ceil(lease * 1000)
        if self._orphans:
            await self._give_back(io)
        try:
            leads, left, raw, since, *stamps = await self.link.script(
                io,
                _script("begin"),
                [self._value(key), self._lease(key), *map(self._tag, names)],
                [token, life, random_token(8), life + STAMP_LIFE, "0" if exclusive else "1"],
            )
        except (StoreTimeout, CancelledError) as exc:
            self._orphans[token] = key
            if isinstance(exc, CancelledError):
                io.spawn(self._give_back(io))
            raise
        found = None
        known = dict(zip(names, stamps, strict=True))
        if raw and (record := self._read(key, raw)) is not None:
            if not record.stamps.keys() <= known.keys():
                more = list(record.stamps)
                known_now = dict(zip(more, await self._mget(io, [*map(self._tag, more)]), strict=True))
            else:
                known_now = known
            found = self._entry(key, record) if _current(record, known_now) else None
        return Ticket(key, bool(leads), found, max(0.0, left / 1000), _Proof(token, known, since))

    async def _give_back(self, io: IO) -> None:
        """Release the leases that were asked for in vain: the server may have granted them after their callers had gone."""
        for token, key in list(self._orphans.items()):
            await self.link.script(io, _script("release"), [self._lease(key)], [token])
            self._orphans.pop(token, None)

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> AnyEntry | None:
        if not ticket.leads:
            return None
        proof = ticket.proof.with_stamps(entry.stamps)
        if proof is None:  # two things that it was made of contradict each other: one of them was old
            await self.release(io, ticket)
            return None
        stamps = await self._keep(io, ticket.key, entry, self._frame(entry), mode="lease", proof=proof)
        return None if stamps is None else replace(entry, stamps=stamps)

    async def release(self, io: IO, ticket: Ticket) -> None:
        if ticket.leads:
            await self.link.script(io, _script("release"), [self._lease(ticket.key)], [ticket.proof.token])

    async def close(self, io: IO) -> None:
        await self.link.close(io)

    def _frame(self, entry: AnyEntry) -> bytes:
        frame = write_frame(entry, self._codec, compress_from=self._compress_from)
        if len(frame) > self._max_value_bytes:
            raise CodecError(f"the encoded value has {len(frame)} bytes, over the bound of {self._max_value_bytes}")
        return frame

    async def _keep(
        self, io: IO, key: str, entry: AnyEntry, frame: bytes, *, mode: str, proof: _Proof | bytes = b""
    ) -> tuple[tuple[str, bytes], ...] | None:
        """Return the stamps that the entry was kept with, None when it was not."""
        keys, args = self._keeping(key, entry, frame, mode, proof)
        stamps = await self.link.script(io, _script("keep"), keys, args)
        return None if not stamps else tuple(zip(entry.tags, stamps[1:], strict=True))

    def _keeping(self, key: str, entry: AnyEntry, frame: bytes, mode: str, proof: _Proof | bytes = b"") -> Call:
        """Return the keys and arguments with which ``keep.lua`` keeps *entry*."""
        life = 0
        if entry.dead_at != math.inf:
            life = max(1, math.ceil((entry.dead_at - self._clock()) * 1000))
        names = (_NAMESPACE, *entry.tags)
        stamps: dict[str, bytes] = proof.stamps if isinstance(proof, _Proof) else {}
        evidence = proof.token if isinstance(proof, _Proof) else proof
        since: Any = proof.since if isinstance(proof, _Proof) else b"0"
        announced = b"" if mode == "lease" else self.message("keys", [key])
        per_tag = [part for name in names for part in (name.encode(), stamps.get(name, b""))]
        return (
            [self._value(key), self._lease(key), *map(self._tag, names)],
            [mode, evidence, life, random_token(8), since, self.channel, announced, frame, *per_tag],
        )


def _slot(key: str) -> str:
    """Return *key* without the characters that would end a hash tag early."""
    if "}" in key or "%" in key:
        return key.replace("%", "%25").replace("}", "%7D")
    return key


def _unslot(text: str) -> str:
    return text.replace("%7D", "}").replace("%25", "%") if "%" in text else text


def _current(record: Record, known: Mapping[str, bytes | None]) -> bool:
    return all(known[tag] == stamp for tag, stamp in record.stamps.items())
