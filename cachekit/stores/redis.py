"""The store on Redis or Valkey, be it one server, one that Sentinel names, or a cluster.

Tags are version stamps: an entry carries the stamps that its tags had *before* its load began and is served only while
all of them are still the same, so that dropping a tag is one command whatever it covers. The namespace itself is one
more tag, which makes ``clear`` immediate, and drops everything when a primary takes another's place. How stamps travel
is ``stamps.py``'s business. Must not know about first levels, breakers or loaders.
"""

from __future__ import annotations

import math
import weakref
from asyncio import CancelledError
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Final

from cachekit._fork import renew_in_child
from cachekit._io import IO
from cachekit.clock import Clock, random_token, system_clock
from cachekit.codecs.base import Codec
from cachekit.codecs.protection import Protection
from cachekit.entry import is_alive
from cachekit.errors import AuthenticityError, CodecError, StoreTimeout, StoreUnavailable
from cachekit.events import Emit, Event, Kind
from cachekit.stores.base import AnyEntry, Change, Ticket
from cachekit.stores.bus import Bus
from cachekit.stores.changes import EXACT, Added, Prolonged
from cachekit.stores.channel import Channel
from cachekit.stores.expected import Expected, Stamped
from cachekit.stores.lent import Lent, Proof
from cachekit.stores.link import Arg, Link, Runner
from cachekit.stores.links import stamps_of
from cachekit.stores.names import NAMESPACE, Announcement
from cachekit.stores.record import Record, is_whole, read_frame, read_record, write_frame, write_times
from cachekit.stores.stamps import Altering, Asked, Begun, Keeping

_HINTS: Final = 10_000
_TRIES: Final = 1000
_DONE, _ABSENT = 1, 0
_NONE: Final[Mapping[str, bytes]] = {}


class RedisStore(Lent):
    """Keeps entries on Redis or Valkey.

    Args:
        link: the servers.
        codec: turns values into bytes.
        namespace: prefix of every key; caches with the same namespace share their entries.
        emit: receives events.
        clock: source of time.
        compress_from: bytes from which values are compressed.
        max_value_bytes: bound on a value, decompressed; a larger one is not kept.
        protection: encrypts or signs values, or None.

    Raises:
        ConfigError: the namespace contains ``{``, ``}``, ``:`` or characters that cannot be printed.
    """

    def __init__(
        self,
        link: Link,
        codec: Codec,
        *,
        namespace: str = "cachekit",
        emit: Emit,
        clock: Clock = system_clock,
        compress_from: int = 1024,
        max_value_bytes: int = 64 * 1024 * 1024,
        protection: Protection | None = None,
    ) -> None:
        names, self._stamps = stamps_of(link, namespace)
        channel = Channel(
            lambda on_message, on_live, on_lost: Bus(
                link, names, on_message=on_message, on_live=on_live, on_lost=on_lost
            )
        )
        super().__init__(link, names, channel, clock)
        weakref.finalize(self, self.channel.stop).atexit = False
        link.settle_by(weakref.WeakMethod(self._settle))
        self._codec = codec
        self._codecs = {codec.id: codec}
        self._emit = emit
        self._compress_from = compress_from
        self._max_value_bytes = max_value_bytes
        self._protection = protection
        self._hints: dict[str, tuple[str, ...]] = {}
        self._known: dict[tuple[str, tuple[str, ...]], Expected] = {}
        self._renew()
        renew_in_child(self, RedisStore._renew)

    def _renew(self) -> None:
        """A forked child is another process: with its parent's name, it would pass over what its siblings tell it."""
        self.origin = random_token(8).hex()

    @property
    def namespace(self) -> str:
        """Return the prefix of every key."""
        return self.names.namespace

    def told(self, kind: str, names: Iterable[str] = ()) -> Announcement:
        """Return what the other processes are told of a change."""
        return Announcement(self.origin, kind, tuple(names))

    async def _settle(self, run: Runner, history: bytes) -> None:
        await self._stamps.settle(run, history, Announcement("", "all"))

    # -- reading --------------------------------------------------------------------------------------------------

    async def get(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:
        tags = tuple(tags)
        read = self._known.get((key, tags)) or self._expect(key, tags)
        raw, *stamps = await self.link.read(io, read.names)
        if raw is None:
            return None
        if (given := read.given(stamps)) is not None and raw.startswith(given[0]):
            return self._opened(key, raw[len(given[0]) :], read.tags, given[1])
        return await self._checked(io, key, raw, tags, read.tags, stamps)

    async def _look(self, io: IO, key: str) -> tuple[bytes | None, AnyEntry | None]:
        """Return what is kept under *key*, and the entry that it is, if it holds."""
        read = self._known.get((key, ())) or self._expect(key, ())
        raw, *stamps = await self.link.read(io, read.names)
        return raw, None if raw is None else await self._checked(io, key, raw, (), read.tags, stamps)

    async def _checked(
        self,
        io: IO,
        key: str,
        raw: bytes,
        tags: tuple[str, ...],
        expected: tuple[str, ...],
        stamps: Sequence[bytes | None],
    ) -> AnyEntry | None:
        """Return the entry in *raw*, whatever tags it carries; the *stamps* of the *expected* ones are there."""
        record = self._read(key, raw)
        if record is None:
            return None
        known = dict(zip((NAMESPACE, *expected), stamps, strict=True))
        if not record.stamps.keys() <= known.keys():
            self._hint(key, record)
            self._known.pop((key, tags), None)
            names = list(record.stamps)
            known = dict(zip(names, await self._mget(io, [*map(self.names.tag, names)]), strict=True))
        return self._entry(key, record) if _current(record, known) else None

    async def get_many(self, io: IO, keys: Sequence[str]) -> dict[str, AnyEntry]:
        if not keys:
            return {}
        reads = {key: self._known.get((key, ())) or self._expect(key, ()) for key in keys}
        stamped = list({name: None for read in reads.values() for name in read.stamped})
        found = await self._mget(io, [*(read.names[0] for read in reads.values()), *stamped])
        known = dict(zip(stamped, found[len(reads) :], strict=True))
        entries: dict[str, AnyEntry | None] = {}
        others: dict[str, Record] = {}  # carry other tags than they did
        latest, given = None, None  # most of them carry the same tags
        for (key, read), raw in zip(reads.items(), found, strict=False):
            if raw is None:
                continue
            if read.stamped != latest:
                latest = read.stamped
                given = read.given([known[name] for name in latest])
            if given is not None and raw.startswith(given[0]):
                entries[key] = self._opened(key, raw[len(given[0]) :], read.tags, given[1])
            elif (record := self._read(key, raw)) is not None:
                others[key] = record
        if others:
            entries |= await self._found(io, others)
        return {key: entry for key, entry in entries.items() if entry is not None}

    async def _found(self, io: IO, records: Mapping[str, Record]) -> dict[str, AnyEntry | None]:
        """Return the entries in *records*, and remember which tags they carry."""
        names = list({name for record in records.values() for name in record.stamps})
        known = dict(zip(names, await self._mget(io, [*map(self.names.tag, names)]), strict=True)) if names else {}
        for key, record in records.items():
            self._hint(key, record)
            self._known.pop((key, ()), None)
        return {key: self._entry(key, record) for key, record in records.items() if _current(record, known)}

    def _mget(self, io: IO, names: Sequence[str | bytes]) -> Awaitable[list[bytes | None]]:
        return self.link.read(io, names)

    def _read(self, key: str, raw: bytes) -> Record | None:
        try:
            return read_record(raw)
        except CodecError as exc:
            self._emit(Event(Kind.UNREADABLE, key, detail=str(exc), error=exc))
            return None

    def _entry(self, key: str, record: Record) -> AnyEntry | None:
        stamps = tuple((tag, stamp) for tag, stamp in record.stamps.items() if tag)
        return self._opened(key, record.frame, tuple(tag for tag, _ in stamps), stamps)

    def _opened(self, key: str, frame: bytes, tags: tuple[str, ...], stamps: Stamped) -> AnyEntry | None:
        """Return the entry in *frame*, whose *tags* have these *stamps*; None for what cannot be read."""
        try:
            context = b"" if self._protection is None else self.names.value(key)
            entry = read_frame(frame, tags, stamps, self._codecs, self._max_value_bytes, self._protection, context)
        except CodecError as exc:
            kind = Kind.UNAUTHENTIC if isinstance(exc, AuthenticityError) else Kind.UNREADABLE
            self._emit(Event(kind, key, detail=str(exc), error=exc))
            return None
        return entry if is_alive(entry, self._clock()) else None

    def _expect(self, key: str, tags: tuple[str, ...]) -> Expected:
        """Return how *key* is read, and remember it."""
        carried = self._hints.get(key, tags)
        every = (NAMESPACE, *carried)
        read = Expected(carried, every, (self.names.value(key), *map(self.names.tag, every)))
        if len(self._known) >= _HINTS:
            self._known.clear()
        self._known[key, tags] = read
        return read

    def _hint(self, key: str, record: Record) -> None:
        if len(self._hints) >= _HINTS:
            self._hints.clear()
        self._hints[key] = tuple(tag for tag in record.stamps if tag)

    # -- writing --------------------------------------------------------------------------------------------------

    async def set_many(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:
        await self._stamps.keep_all(
            io, [self._keeping(key, entry, self._frame(key, entry), "force") for key, entry in entries.items()]
        )

    async def update(self, io: IO, key: str, change: Change) -> AnyEntry | None:
        known: tuple[bytes | None, AnyEntry | None] | None = None
        if isinstance(change, (Prolonged, Added)) and (altering := self._altering(key, change)) is not None:
            outcome, *found = await self._stamps.alter(io, altering)
            if outcome == _DONE and isinstance(change, Prolonged):
                return change.times
            if outcome == _DONE and isinstance(change, Added) and is_whole(found[1]):
                return change.made(found[0])
            known = (None, None) if outcome == _ABSENT else None
        for _ in range(_TRIES):
            raw, old = known or await self._look(io, key)
            known = None
            new = change(old)
            if new is old:
                return old
            if new is None:
                await self.delete(io, [key])
                return None
            made_of = read_record(raw).stamps if raw is not None and old is not None else {}
            keeping = self._keeping(key, new, self._frame(key, new), "swap", raw or b"", made_of)
            if await self._stamps.keep(io, keeping) is not None:
                return new
        raise StoreTimeout(f"{key!r} was changed by others {_TRIES} times in a row: give up")

    def _altering(self, key: str, change: Prolonged | Added) -> Altering | None:
        """Return how the server makes *change* by itself; None where it cannot: it has no keys, and counts in floats."""
        if self._protection is not None:
            return None
        arguments: tuple[str, str, Arg, Arg, Arg]
        life = None
        if isinstance(change, Prolonged):
            life = self._life(change.times)
            times, register = write_times(change.times)
            arguments = "touch", repr(change.times.created_at), times, life, register
        elif abs(change.delta) >= EXACT or not getattr(self._codec, "counts_as_msgpack", False):
            return None
        else:
            arguments = "add", repr(change.now), change.delta, self._codec.id, ""
        read = self._known.get((key, ())) or self._expect(key, ())
        return Altering(key, (NAMESPACE, *read.tags), arguments, life, self.told("keys", (key,)))

    async def delete(self, io: IO, keys: Sequence[str]) -> int:
        return await self._stamps.delete(io, self.told, keys)

    async def invalidate(self, io: IO, tags: Sequence[str]) -> None:
        await self._stamps.invalidate(io, self.told, "tags", tags)

    async def clear(self, io: IO) -> None:
        await self._stamps.invalidate(io, self.told, "all", (NAMESPACE,))
        await self.link.sweep(io, self.names.values)  # nothing old is served any more; this gives the memory back

    async def scan(self, io: IO, pattern: str, cursor: bytes | None) -> tuple[bytes | None, list[str]]:
        following, names = await self.link.scan(io, self.names.matching(pattern), cursor)
        return following, [self.names.key(bytes(name)) for name in names]

    async def begin(self, io: IO, key: str, tags: Sequence[str], lease: float, *, exclusive: bool = True) -> Ticket:
        token = random_token()
        ended = self.channel.expect(key) if exclusive else None  # before the server is asked: no end may be missed
        leads = True
        try:
            begun = await self._stamps.begin(
                io,
                Asked(key, (NAMESPACE, *tags), token, math.ceil(lease * 1000), not exclusive, ended is not None),
            )
            found = await self._found_at(io, key, begun)
            leads = begun.leads
        except (StoreTimeout, StoreUnavailable, CancelledError):
            self.owe_token(token, key, lease)  # it may have been granted, though nobody heard of it
            raise
        finally:
            if leads and ended is not None:
                self.channel.forget(key, ended)
                ended = None
        proof = Proof(token, begun.stamps, begun.since, lease, ended)
        return Ticket(key, leads, found, max(0.0, begun.left / 1000), proof)

    async def _found_at(self, io: IO, key: str, begun: Begun) -> AnyEntry | None:
        """Return what was there when a load began, if it holds."""
        if not begun.raw or (record := self._read(key, begun.raw)) is None:
            return None
        known: dict[str, bytes | None] = {**begun.stamps}
        if not record.stamps.keys() <= known.keys():
            more = list(record.stamps)
            known = dict(zip(more, await self._mget(io, [*map(self.names.tag, more)]), strict=True))
        return self._entry(key, record) if _current(record, known) else None

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> AnyEntry | None:
        if not ticket.leads:
            return None
        proof = ticket.proof.with_stamps(entry.stamps)
        if proof is None:  # two things that it was made of contradict each other: one of them was old
            await self.release(io, ticket)
            return None
        keeping = self._keeping(ticket.key, entry, self._frame(ticket.key, entry), "lease", proof, proof.stamps)
        stamps = await self._stamps.keep(io, keeping)
        return None if stamps is None else entry._replace(stamps=tuple(zip(entry.tags, stamps[1:], strict=True)))

    async def holds(
        self, io: IO, ticket: Ticket, tags: Sequence[str], stamps: Sequence[tuple[str, bytes]] = ()
    ) -> bool:
        if not ticket.leads or (proof := ticket.proof.with_stamps(stamps)) is None:
            return False
        names = list(dict.fromkeys((NAMESPACE, *proof.stamps, *tags)))
        token, *found = await self._mget(io, [self.names.lease(ticket.key), *map(self.names.tag, names)])
        if token != proof.token:
            return False
        for name, stamp in zip(names, found, strict=True):
            expected = proof.stamps.get(name)
            if expected is not None:
                if stamp != expected:
                    return False
            elif stamp is not None and self._stamps.invalidated_since(proof.since, name, stamp):
                return False
        return True

    async def close(self, io: IO) -> None:
        await io.call(self.channel.close, None)
        await self.link.close(io)

    def _frame(self, key: str, entry: AnyEntry) -> bytes:
        return write_frame(
            entry,
            self._codec,
            compress_from=self._compress_from,
            max_size=self._max_value_bytes,
            protection=self._protection,
            context=b"" if self._protection is None else self.names.value(key),
        )

    def _keeping(
        self,
        key: str,
        entry: AnyEntry,
        frame: bytes,
        mode: str,
        proof: Proof | bytes = b"",
        stamps: Mapping[str, bytes] = _NONE,
    ) -> Keeping:
        loaded = isinstance(proof, Proof)
        return Keeping(
            key,
            mode,
            proof.token if isinstance(proof, Proof) else proof,
            self._life(entry),
            proof.since if isinstance(proof, Proof) else None,
            Announcement("", "kept", (key,)) if loaded else self.told("keys", (key,)),
            {tag: stamps.get(tag, b"") for tag in (NAMESPACE, *entry.tags)},
            frame,
        )

    def _life(self, entry: AnyEntry) -> int:
        """Return the milliseconds after which the server drops *entry*, 0 for never."""
        return 0 if entry.dead_at == math.inf else max(1, math.ceil((entry.dead_at - self._clock()) * 1000))


def _current(record: Record, known: Mapping[str, bytes | None]) -> bool:
    return all(known[tag] == stamp for tag, stamp in record.stamps.items())
