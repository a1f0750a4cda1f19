"""The part of a cache for those who make entries themselves, such as the HTTP cache: a ticket before, the entry after.

Must not know what the entries are, nor where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cachekit._io import IO
from cachekit.engine import Engine
from cachekit.jobs import Counters
from cachekit.policy import Duration, Policy
from cachekit.stores.base import AnyEntry, Store, Ticket
from cachekit.stores.memory import Memory, Tally


class Making:
    """What is done with entries one by one, in either world; ``Cache`` brings the rest."""

    store: Store
    engine: Engine
    l1: Memory | None
    _counted: list[tuple[str, str, Counters]]
    _uses: Tally
    """Takes the hits of the nodes made here, which are no lookups: one may take several nodes, and come to nothing."""

    def counting(self, name: str) -> Counters:
        """Return what the lookups of somebody who makes entries are counted on from now on, under *name*."""
        counters = Counters()
        self._counted.append((name, "", counters))
        self._uses.label = name
        return counters

    async def _set(
        self, io: IO, key: str, value: Any, *, ttl: Duration | Policy | None = None, tags: Sequence[str] = ()
    ) -> None:
        raise NotImplementedError

    def peek(self, key: str) -> AnyEntry | None:
        """Return the valid entry of *key* in this process, fresh or not, or None."""
        if self.l1 is None or (node := self.l1.peek(key)) is None:
            return None
        node.hits += 1  # a use, as far as the eviction policy is concerned
        return node.entry

    async def read(self, io: IO, key: str) -> AnyEntry | None:
        """Return the valid entry of *key*, fresh or not; None when there is none or the store is away."""
        entry = await self.engine.read(io, key)
        if entry is not None:
            self._set_apart(key)
        return entry

    async def begin(self, io: IO, key: str, tags: Sequence[str] = (), *, lease: float = 30.0) -> Ticket | None:
        """Take the right to keep what is made from now on; None when the store is away."""
        return await self.engine.begin(io, key, tags, lease=lease)

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> bool:
        """Keep *entry*. Returns False when it must not be kept, or the store is away."""
        kept = await self.engine.commit(io, ticket, entry)
        self._set_apart(ticket.key)
        return kept

    def _set_apart(self, key: str) -> None:
        if self.l1 is not None and (node := self.l1.peek(key)) is not None:
            self.l1.claim(node, self._uses)

    async def holds(
        self, io: IO, ticket: Ticket, tags: Sequence[str], stamps: Sequence[tuple[str, bytes]] = ()
    ) -> bool:
        """Say whether what is made with *ticket* would still be kept; False when that cannot be said."""
        return await self.engine.holds(io, ticket, tags, stamps)

    async def ended(self, io: IO, ticket: Ticket, poll: float) -> bool:
        """Wait until the lease that *ticket* did not get may have ended. Returns whether its value was kept.

        Where the store cannot tell, it waits for *poll* seconds.
        """
        return await self.engine.ended(io, ticket, poll)

    async def release(self, io: IO, ticket: Ticket) -> None:
        """Give a ticket back unused."""
        await self.engine.release(io, ticket)

    def forget(self, keys: Sequence[str]) -> bool:
        """Drop *keys* at once where everything lies in this process; False where a server has to be asked."""
        if self.l1 is None or self.store is not self.l1:
            return False
        self.l1.void(keys)
        return True

    @property
    def trail(self) -> bytearray | None:
        """Return the cells of what may be kept, by hashes; None where a server has to be asked."""
        return self.l1.trail if self.l1 is not None and self.store is self.l1 else None

    async def keep(self, io: IO, key: str, value: Any, ttl: Duration) -> None:
        """Keep *value* under *key* for *ttl*, as far as the store is there."""
        await self._set(io, key, value, ttl=ttl)

    async def drop(self, io: IO, *keys: str) -> None:
        """Drop *keys*."""
        await self.engine.drop(io, *keys)
