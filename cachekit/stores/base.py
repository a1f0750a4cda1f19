"""The port of a store: what a backend keeps, and the promises that invalidation rests on.

A store keeps entries under keys. Besides plain reads and writes it has to win four races, whatever the backend:

* an entry is returned only if none of its tags was invalidated after its load *began*;
* a load that began before ``invalidate``, ``delete``, ``set`` or ``clear`` of what it produces is not kept;
* a load that another process took over is not kept;
* a tag that the store has forgotten counts as invalidated.

``cachekit.testing.StoreContract`` checks all of this in both worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from cachekit._io import IO
from cachekit.entry import Entry

AnyEntry: TypeAlias = Entry[Any]

Change: TypeAlias = Callable[[AnyEntry | None], AnyEntry | None]
"""Receives the current entry (None when absent) and returns the new one, the same object to leave it, None to delete."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to keep the result of one load, taken before the loader runs.

    Attributes:
        key: the key that is being loaded.
        leads: whether this caller may store; otherwise another process is loading the key.
        found: an entry that appeared since the caller looked, which makes the load needless.
        retry_in: seconds until the other process's lease ends, where *leads* is False.
        proof: the store's own evidence (stamps, sequence numbers, token).
    """

    key: str
    leads: bool
    found: AnyEntry | None = None
    retry_in: float = 0.0
    proof: Any = field(default=None, repr=False)


class Store(Protocol):
    """Keeps entries. Every method raises ``StoreError`` when the backend fails, and nothing else."""

    async def get(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:
        """Return the entry of *key* unless it is absent, dead or invalidated; *tags* are those it is expected to carry."""
        ...

    async def get_many(self, io: IO, keys: Sequence[str]) -> dict[str, AnyEntry]:
        """Return the entries of those *keys* that are present, in one round trip where the backend can."""
        ...

    async def set_many(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:
        """Keep *entries*, and void the loads of their keys that are running."""
        ...

    async def delete(self, io: IO, keys: Sequence[str]) -> int:
        """Drop *keys*, void their running loads, and return how many were there."""
        ...

    async def update(self, io: IO, key: str, change: Change) -> AnyEntry | None:
        """Replace the entry of *key* by ``change(entry)`` atomically; *change* may be called several times."""
        ...

    async def begin(self, io: IO, key: str, tags: Sequence[str], lease: float, *, exclusive: bool = True) -> Ticket:
        """Take the right to load *key* for at most *lease* seconds, with the state of *tags* as it is now.

        Where *exclusive* is False the caller takes the lease even from another holder, whose result is then refused.
        """
        ...

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> AnyEntry | None:
        """Keep *entry*, whose tags may be more than ``begin`` was told. Returns it as kept, None when it must not be.

        ``entry.stamps`` are the stamps that some tags had when what *entry* was made of was read: they must hold still.
        """
        ...

    async def release(self, io: IO, ticket: Ticket) -> None:
        """Give the right back without storing, so that the next caller may load at once."""
        ...

    async def invalidate(self, io: IO, tags: Sequence[str]) -> None:
        """Drop every entry that carries one of *tags*, those still being loaded included."""
        ...

    async def clear(self, io: IO) -> None:
        """Drop every entry of this store's namespace, those still being loaded included."""
        ...

    async def close(self, io: IO) -> None:
        """Give up connections and threads. A closed store may be used again: it then opens anew."""
        ...


class Vouching(Protocol):
    """A capability of stores: to say in the middle of a load whether its result would still be kept."""

    async def holds(
        self, io: IO, ticket: Ticket, tags: Sequence[str], stamps: Sequence[tuple[str, bytes]] = ()
    ) -> bool:
        """Say whether nothing invalidated *ticket* yet, nor *tags*, nor what was read with *stamps*."""
        ...


@runtime_checkable
class Listening(Protocol):
    """A capability of stores: hearing what other processes change, which takes a moment at the first time."""

    async def listen(self, io: IO) -> None:
        """Begin to listen, and wait until that is so, or cannot be."""
        ...


@runtime_checkable
class SharedLeases(Protocol):
    """A capability of stores whose leases other processes hold: learning that one ended, and holding one longer."""

    async def ended(self, io: IO, ticket: Ticket, poll: float) -> bool:
        """Wait until the lease that *ticket* did not get may have ended. Returns whether its value was kept.

        Where the store cannot be told, it waits for *poll* seconds.
        """
        ...

    async def renew(self, io: IO, ticket: Ticket, lease: float) -> bool:
        """Hold the lease of *ticket* for *lease* seconds from now. Returns False when another has it, or nobody."""
        ...


@runtime_checkable
class Lending(Protocol):
    """A capability of stores whose leases lie elsewhere: the end of one that could not be told there is told later."""

    @property
    def owes(self) -> bool:
        """Return whether leases have ended that may still be held there."""
        ...

    def owe(self, ticket: Ticket) -> None:
        """Note that *ticket* is to be given back."""
        ...

    async def give_back(self, io: IO) -> None:
        """Give back what is owed. Raises ``StoreError``; what is left is owed still."""
        ...


@runtime_checkable
class Scannable(Protocol):
    """A capability of stores: listing keys, a page at a time."""

    async def scan(self, io: IO, pattern: str, cursor: bytes | None) -> tuple[bytes | None, list[str]]:
        """Return some of the keys that match *pattern*, valid or not, and the next cursor: None after the last page."""
        ...
