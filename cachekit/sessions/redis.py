"""Sessions on a Redis or Valkey server: a sliding read is one GETEX, everything else one script.

Owns the layout there. Must not know breakers, values or requests.

Keys: ``{ns}:s:{3f}:<digest>`` a session of shard 3f, ``{ns}:sl:{3f}`` the index of its live sessions,
``{ns}:su:{3f}:<owner>`` the sessions of one owner; both sorted by when they end. A shard is one hash slot, and an owner's
sessions all lie in the owner's shard, so that each script touches one slot. The value is a head of fixed width, which
scripts read and write without the rest, and the body.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Awaitable, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final, Protocol

from cachekit._io import BLOCKING, IO, drive
from cachekit.clock import Clock, system_clock
from cachekit.errors import ConfigError, StoreError, StoreTimeout, StoreUnavailable
from cachekit.policy import FOREVER
from cachekit.sessions.store import (
    ALL_SHARDS,
    DONE,
    GONE,
    HEAD_BYTES,
    Asked,
    Found,
    Key,
    Moved,
    Outcome,
    Record,
    Verdict,
    is_shard,
    shard_of,
)
from cachekit.stores.link import Call, Script
from cachekit.stores.node import Ahead

_SESSION: Final = b"CS1"
_MOVED: Final = b"CM1"
_HEAD: Final = 101
_NOBODY: Final = "-" * 22
_NOBODY_BYTES: Final = _NOBODY.encode()
_NO_TIME: Final = "0" * 15
_FIELDS: Final = struct.Struct("3s15s15s16s15s15s22s")
"""The head: what it is, created, seen, version, ttl, deadline, owner."""
_BATCH: Final = 500
_SWAPPED: Final = 512
"""Bytes of a body up to which what is there goes along to be compared, so that no script has to look."""


@cache
def _script(name: str) -> Script:
    source = resources.files("cachekit.sessions").joinpath("lua", f"{name}.lua").read_text("utf-8")
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class Server(Protocol):
    """What is asked of a link, whatever the topology behind it."""

    def command(self, io: IO, *args: Any) -> Awaitable[Any]:
        """Run one command. Raises ``StoreError``."""
        ...

    async def script(self, io: IO, script: Script, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run *script*. Raises ``StoreError``."""
        ...

    async def scripts(self, io: IO, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run *script* once for each of *calls*. Raises ``StoreError``."""
        ...

    def ask_ahead(self, name: str, *args: Any) -> Ahead | None:
        """Send the read *args* of *name*, and wait for nothing; None, with nothing sent, where it cannot be."""
        ...

    async def close(self, io: IO) -> None:
        """Give up connections."""
        ...


class RedisSessions:
    """Keeps sessions on a server.

    Args:
        link: the server.
        namespace: prefix of every key.
        slack: seconds by which the indexes may be behind, the interval of touches.
        clock: source of time, for the notes that changed ids leave.

    Raises:
        ConfigError: the namespace contains ``{``, ``}``, ``:`` or spaces.
    """

    def __init__(
        self, link: Server, *, namespace: str = "cachekit", slack: float = 60.0, clock: Clock = system_clock
    ) -> None:
        if not namespace or not namespace.isprintable() or any(char in "{}: *?[]^\\" for char in namespace):
            raise ConfigError(f"namespace={namespace!r} must be a word without spaces and without any of {{}}:*?[]^\\")
        self.link = link
        self.namespace = namespace
        self._slack = math.ceil(slack * 1000)
        self._clock = clock
        self._compares = True  # until the server says that it knows no IFEQ: those before Valkey 8.1 and Redis 8.4

    # -- names ----------------------------------------------------------------------------------------------------

    def name(self, key: Key) -> str:
        """Return the name of *key* on the server."""
        return f"{self.namespace}:s:{{{key.shard}}}:{key.digest}"

    def _live(self, shard: str) -> str:
        return f"{self.namespace}:sl:{{{shard}}}"

    def _owner(self, shard: str, owner: str) -> str:
        return f"{self.namespace}:su:{{{shard}}}:{owner}"

    def _keys(self, key: Key, owner: str) -> list[str]:
        keys = [self.name(key), self._live(key.shard)]
        return [*keys, self._owner(key.shard, owner)] if owner else keys

    # -- the port -------------------------------------------------------------------------------------------------

    async def read(self, io: IO, key: Key, ttl: float) -> Found:
        name = self.name(key)
        try:
            raw = await self.link.command(io, *_slide(name, ttl))
        except (StoreTimeout, StoreUnavailable):
            raise
        except StoreError:  # it answers, but does not write: what it has is still read
            raw = await self.link.command(io, "GET", name)
        if raw is None:
            return None
        found = _parse(raw)
        return found if self.counts(found) else await self.checked(io, key, ttl, raw, found)

    def ahead(self, key: Key, ttl: float) -> Asked | None:
        name = self.name(key)
        asked = self.link.ask_ahead(name, *_slide(name, ttl))
        return None if asked is None else _Ahead(self, key, ttl, asked)

    def counts(self, found: Found) -> bool:
        """Say whether *found* is a session that has not reached its absolute end by the clock of this process."""
        return type(found) is Record and (found.deadline == FOREVER or found.deadline > self._clock())

    async def checked(self, io: IO, key: Key, ttl: float, raw: bytes, found: Found) -> Found:
        """Return what counts of *found*, of which *raw* was made that was read under *key* to live for *ttl* seconds."""
        name = self.name(key)
        if isinstance(found, Moved):
            if ttl:
                await self.link.command(io, "PEXPIREAT", name, int(raw[3:18]))  # the read made it live on
            return found if int(raw[3:18]) > self._clock() * 1000 else None
        if found is None:
            return None
        try:  # a read knows no absolute end, and makes it live on beyond: the server says whether it is over
            lives = ttl or await self.link.command(io, "PTTL", name) / 1000
            return found if await self.touch(io, key, lives) else None
        except (StoreTimeout, StoreUnavailable):
            raise
        except StoreError:  # it answers, but does not write
            return None

    async def write(self, io: IO, key: Key, record: Record, expected: str | None) -> Outcome:
        owner = record.owner if record.owner and shard_of(record.owner) == key.shard else ""
        deadline = 0 if record.deadline == FOREVER else math.ceil(record.deadline * 1000)
        created = "" if not record.created else f"{int(record.created * 1000):015d}"
        ttl = math.ceil(record.ttl * 1000)
        head = f"CS1{_NO_TIME}{_NO_TIME}{record.version}{ttl:015d}{_NO_TIME}{owner or _NOBODY}"
        reply = await self.link.script(
            io,
            _script("write"),
            self._keys(key, owner),
            [expected or "", ttl, self._slack, created, deadline, owner, head.encode() + record.body],
        )
        return _outcome(reply)

    async def append(self, io: IO, key: Key, addition: bytes, version: str, expected: str) -> Outcome:
        reply = await self.link.script(
            io, _script("append"), (self.name(key),), (expected, version, self._slack, addition)
        )
        return DONE if reply == 1 else _outcome(reply)

    def swaps(self, was: Record) -> bool:
        if not self._compares or not 0 < len(was.body) <= _SWAPPED:
            return False
        now, slack = self._clock(), self._slack / 1000
        # Only where the indexes may stay as they are, and the end is not near: the script knows the time of the server.
        return 0 <= now - was.seen < slack and now + was.ttl + slack < was.deadline

    async def swap(self, io: IO, key: Key, was: Record, body: bytes, version: str) -> bool:
        ttl = round(was.ttl * 1000)
        deadline = 0 if was.deadline == FOREVER else round(was.deadline * 1000)
        begin = b"CS1%015d%015d" % (round(was.created * 1000), round(was.seen * 1000))
        rest = b"%015d%015d%b" % (ttl, deadline, was.owner.encode() or _NOBODY_BYTES)
        old, new = begin + was.version.encode() + rest + was.body, begin + version.encode() + rest + body
        try:
            return await self.link.command(io, "SET", self.name(key), new, "IFEQ", old, "PX", ttl) is not None
        except (StoreTimeout, StoreUnavailable):
            raise
        except StoreError as exc:
            self._compares = not _is_unknown(exc)
            return False

    async def retire(self, io: IO, key: Key, record: Record, moved: Moved, grace: float) -> Outcome:
        until = int((self._clock() + grace) * 1000)
        note = f"{_MOVED.decode()}{until:015d}{moved.key.shard}{moved.key.digest}{moved.owner}"
        reply = await self.link.script(
            io,
            _script("retire"),
            self._keys(key, record.owner),
            [record.version, key.digest, record.owner, math.ceil(grace * 1000), note],
        )
        return _outcome(reply)

    async def destroy(self, io: IO, key: Key, owner: str) -> Outcome:
        return _outcome(await self.link.script(io, _script("destroy"), self._keys(key, owner), [key.digest, owner]))

    async def touch(self, io: IO, key: Key, ttl: float) -> bool:
        alive = await self.link.script(
            io,
            _script("touch"),
            [self.name(key), self._live(key.shard)],
            [key.digest, math.ceil(ttl * 1000), self._slack, self._owner(key.shard, "")],
        )
        return bool(alive)

    async def close(self, io: IO) -> None:
        await self.link.close(io)

    # -- all sessions of a user, and of everybody -----------------------------------------------------------------

    async def _of(self, io: IO, owner: str, size: int, only: Key | None, keep: Key | None) -> Any:
        shard = shard_of(owner)
        return await self.link.script(
            io,
            _script("owner"),
            [self._owner(shard, owner), self._live(shard)],
            [
                f"{self.namespace}:s:{{{shard}}}:", size, "" if only is None else only.digest,
                "" if keep is None else keep.digest,
            ],
        )  # fmt: skip

    async def sessions(self, io: IO, owner: str) -> list[tuple[Key, Record]]:
        reply = await self._of(io, owner, _HEAD + HEAD_BYTES, None, None)
        found = []
        for member, raw in zip(reply[::2], reply[1::2], strict=True):
            record = _parse(raw)
            if isinstance(record, Record):
                found.append((Key(shard_of(owner), member.decode()), record))
        return found

    async def revoke(self, io: IO, owner: str, *, only: Key | None = None, keep: Key | None = None) -> int:
        ended: int = await self._of(io, owner, 0, only, keep)
        return ended

    async def count(self, io: IO) -> int:
        counts = await self.link.scripts(io, _script("count"), [([self._live(shard)], []) for shard in ALL_SHARDS])
        return sum(counts)

    async def clear(self, io: IO) -> int:
        ended, left = 0, list(ALL_SHARDS)
        while left:  # a batch of each shard at a time, so that no script runs for long
            calls: list[Call] = [([self._live(shard)], [f"{self.namespace}:s:{{{shard}}}:", _BATCH]) for shard in left]
            counts = await self.link.scripts(io, _script("clear"), calls)
            ended += sum(deleted for deleted, _ in counts)
            left = [shard for shard, (_, listed) in zip(left, counts, strict=True) if listed]
        return ended


class _Ahead:
    """A read whose reply nobody has waited for yet."""

    __slots__ = ("_asked", "_key", "_store", "_ttl", "drop")

    def __init__(self, store: RedisSessions, key: Key, ttl: float, asked: Any) -> None:
        self._store, self._key, self._ttl = store, key, ttl
        self._asked = asked
        self.drop = asked.drop

    def take(self) -> Found:
        store, key, ttl = self._store, self._key, self._ttl
        try:
            raw = self._asked.reply()
        except StoreTimeout:
            raise
        except StoreError:  # the connection was broken, the slot has moved, or the server does not write: without haste
            return drive(store.read(BLOCKING, key, ttl))
        if raw is None:
            return None
        found = _parse(raw)
        return found if store.counts(found) else drive(store.checked(BLOCKING, key, ttl, raw, found))


def _slide(name: str, ttl: float) -> tuple[Any, ...]:
    return ("GETEX", name, "PX", math.ceil(ttl * 1000)) if ttl else ("GET", name)


def _parse(raw: bytes) -> Record | Moved | None:
    """Return what *raw* is: a session, the note of one that moved, or None for what nobody here wrote."""
    try:
        if raw[:3] == _MOVED:
            shard, digest, owner = raw[18:20].decode(), raw[20:63].decode(), raw[63:].decode()
            return Moved(Key(shard, digest), owner) if is_shard(shard) and int(raw[3:18]) else None
        if len(raw) < _HEAD:
            return Record(b"", "", 0.0)  # unreadable, which is not absent: whoever opens the body will say so
        kind, created, seen, version, ttl, end, whose = _FIELDS.unpack_from(raw)
        if kind != _SESSION:
            return Record(b"", "", 0.0)
        deadline = int(end)
        return Record(
            raw[_HEAD:],
            version.decode("ascii"),
            int(ttl) / 1000,
            int(created) / 1000,
            int(seen) / 1000,
            deadline / 1000 if deadline else FOREVER,
            "" if whose == _NOBODY_BYTES else whose.decode("ascii"),
        )
    except (ValueError, UnicodeDecodeError):
        return Record(b"", "", 0.0)


def _is_unknown(error: StoreError) -> bool:
    """Say whether *error* means that the server does not know the command: a plain error, which has no code."""
    from redis.exceptions import ResponseError

    word = str(error.__cause__).split(" ", 1)[0]
    return type(error.__cause__) is ResponseError and (word == "ERR" or not word.isupper())


def _outcome(reply: list[bytes]) -> Outcome:
    verdict = Verdict(reply[0].decode())
    if verdict is Verdict.DONE:
        return DONE
    if verdict is Verdict.GONE:
        return GONE
    return Outcome(verdict, _parse(reply[1]))
