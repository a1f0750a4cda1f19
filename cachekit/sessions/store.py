"""The port of a session store, and the values that cross it.

A store keeps the bytes of each session under the hash of its id. What it promises, whatever the backend:

* ``write`` with a version replaces only what has that version, and never brings back what is gone;
* after ``destroy``, ``revoke`` or ``retire`` nobody reads the session under that key;
* ``retire`` leaves a note for a while, which says where the session went.

``cachekit.sessions.testing.SessionStoreContract`` checks it. Must not know cookies, values or requests.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

from cachekit._io import IO
from cachekit.clock import random_token
from cachekit.policy import FOREVER

SHARDS: Final = 64
"""In how many parts the sessions lie; each part is one hash slot of a cluster. Part of the layout, and of each id."""

ID_BYTES: Final = 32


class Key(NamedTuple):
    """Under what a session is kept: its shard and the SHA-256 of its id, from which the id cannot be told."""

    shard: str
    digest: str

    @classmethod
    def of(cls, session_id: str) -> Key:
        """Return the key of a session's id."""
        return cls(session_id[:2], _text(hashlib.sha256(session_id.encode()).digest()))

    def __str__(self) -> str:
        return f"{self.shard}.{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Key | None:
        """Return the key that ``str`` wrote, or None."""
        shard, _, digest = text.partition(".")
        return cls(shard, digest) if is_shard(shard) and len(digest) == 43 else None


class Parcel:
    """A body of which no bytes were made, for a store that keeps it as it is, in this process. Nobody changes it."""

    __slots__ = ()

    def __len__(self) -> int:
        """Return about how many bytes of memory it takes."""
        raise NotImplementedError


class Record(NamedTuple):
    """A session as it is stored.

    Attributes:
        body: what only the writer understands. A store whose ``takes_parcels`` is true is given a ``Parcel`` here.
        version: another one after each write.
        ttl: seconds that it lives after it was last used.
        created: when it was made, by the clock of the store.
        seen: when it was last noted as used, by the clock of the store.
        deadline: when it ends, however much it is used.
        owner: under what the sessions of one user are found; empty for nobody's.
    """

    body: bytes
    version: str
    ttl: float
    created: float = 0.0
    seen: float = 0.0
    deadline: float = FOREVER
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """The note that a session left behind when its id changed.

    Attributes:
        key: where it is now.
        owner: whose it is now.
    """

    key: Key
    owner: str


Found: TypeAlias = Record | Moved | None


class Verdict(Enum):
    """What became of a write."""

    DONE = "done"
    CONFLICT = "conflict"
    """Somebody else wrote meanwhile; the outcome holds what is there now."""
    GONE = "gone"
    """The session has ended."""
    MOVED = "moved"
    """Its id has changed; the outcome says where it is."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a write, and what was found instead."""

    verdict: Verdict
    found: Record | Moved | None = None


DONE: Final = Outcome(Verdict.DONE)
GONE: Final = Outcome(Verdict.GONE)


class SessionStore(Protocol):
    """Keeps sessions. Every method raises ``StoreError`` when the backend fails, and nothing else."""

    async def read(self, io: IO, key: Key, ttl: float) -> Found:
        """Return what is kept under *key*, which from now on lives for *ttl* seconds; with 0 for as long as it did."""
        ...

    async def write(self, io: IO, key: Key, record: Record, expected: str | None) -> Outcome:
        """Keep *record* in place of the version *expected*; None makes a new session.

        A new one whose ``created`` is 0 begins now, and its ``deadline`` counts from then, in seconds. Others keep both.
        """
        ...

    async def retire(self, io: IO, key: Key, record: Record, moved: Moved, grace: float) -> Outcome:
        """End *record* if it is still that version, and leave the note *moved* for *grace* seconds."""
        ...

    async def destroy(self, io: IO, key: Key, owner: str) -> Outcome:
        """End a session of *owner*."""
        ...

    async def touch(self, io: IO, key: Key, ttl: float) -> bool:
        """Note that a session is used, and lives for *ttl* seconds from now on; False when it has ended."""
        ...

    async def close(self, io: IO) -> None:
        """Give up connections."""
        ...


class UserIndex(Protocol):
    """What a store knows about all the sessions of a user, and of everybody."""

    async def sessions(self, io: IO, owner: str) -> list[tuple[Key, Record]]:
        """Return the live sessions of *owner*; their bodies may be cut after the part that describes them."""
        ...

    async def revoke(self, io: IO, owner: str, *, only: Key | None = None, keep: Key | None = None) -> int:
        """End the sessions of *owner*: *only* that one, or all but the one to *keep*. Returns how many ended."""
        ...

    async def count(self, io: IO) -> int:
        """Return the number of live sessions, off by those that ended within one touch interval at most."""
        ...

    async def clear(self, io: IO) -> int:
        """End the sessions of everybody. Returns how many ended."""
        ...


@runtime_checkable
class Instant(Protocol):
    """What a store in this process may also do, where its ``in_process`` is true: nobody waits for it."""

    def read_now(self, key: Key, ttl: float) -> Found:
        """Do what ``read`` does. Fails never."""
        ...

    def replace_now(self, key: Key, body: bytes, version: str, ttl: float, expected: str) -> Record | Outcome:
        """Keep *body*, which lives for *ttl* seconds, as *version* in place of the version *expected*.

        Returns what is kept now, or why it is not. Fails never.
        """
        ...


@runtime_checkable
class Appending(Protocol):
    """What a store may also do: take in a small change of a large session without the rest of it."""

    async def append(self, io: IO, key: Key, addition: bytes, version: str, expected: str) -> Outcome:
        """Add *addition* to the body of the version *expected*, which becomes *version*; else like ``write``.

        What it lives, when it was made, when it ends and whose it is stays.
        """
        ...


@runtime_checkable
class Swapping(Protocol):
    """What a store may also do: put a small session in place of itself as it was read, in one plain command."""

    def swaps(self, was: Record) -> bool:
        """Say whether ``swap`` is worth a try in place of *was*, which was read."""
        ...

    async def swap(self, io: IO, key: Key, was: Record, body: bytes, version: str) -> bool:
        """Keep *body* as *version* if *was* is there, byte for byte; else return False, with nothing done.

        What it lives, when it was made, when it ends and whose it is stays. Whoever is told False asks in another way, and
        learns why.
        """
        ...


class Asked(Protocol):
    """A read that is under way: its outcome is taken once, or it is dropped."""

    def take(self) -> Found:
        """Wait for what was found, here. Raises ``StoreError``."""
        ...

    def drop(self) -> None:
        """Need nothing of it. Waits for nobody."""
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """What a store may also do: begin to read before anybody waits for it."""

    def ahead(self, key: Key, ttl: float) -> Asked | None:
        """Begin what ``read`` does, from a thread that may block; None, and nothing begun, where it cannot be."""
        ...


class FullStore(SessionStore, UserIndex, Protocol):
    """Both: what sessions need."""


HEAD_BYTES: Final = 1024
"""Bytes of a body within which the part that describes a session ends."""


def new_id(shard: str | None = None) -> str:
    """Return a new id that nobody can guess, in *shard* or in any."""
    if shard is None:
        shard = f"{random_token(1)[0] % SHARDS:02x}"
    return shard + _text(random_token(ID_BYTES))


def is_id(text: str) -> bool:
    """Say whether *text* has the form of an id."""
    return len(text) == 45 and is_shard(text[:2]) and text.isascii()


def is_shard(text: str) -> bool:
    """Say whether *text* names a shard."""
    return text in _SHARDS


@lru_cache(maxsize=1024)
def owner_of(user: str) -> str:
    """Return under what the sessions of *user* are found: a digest, so that no store lists who they are."""
    return _text(hashlib.sha256(b"user:" + user.encode("utf-8", "surrogatepass")).digest()[:16])


@lru_cache(maxsize=1024)
def shard_of(owner: str) -> str:
    """Return the shard in which all sessions of an *owner* lie."""
    return f"{hashlib.sha256(owner.encode()).digest()[0] % SHARDS:02x}"


def new_version() -> str:
    """Return a version that was never used."""
    return random_token(8).hex()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


ALL_SHARDS: Final = tuple(f"{number:02x}" for number in range(SHARDS))
_SHARDS: Final = frozenset(ALL_SHARDS)
