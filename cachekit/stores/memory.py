"""The in-process store: live objects, bounded by entries and bytes, with a hit that takes no lock.

Every change of the world has a number in one sequence. A node remembers the number at which its load *began*; a tag
(or a key, or the whole store) remembers the number of its last invalidation; a node whose tag has the greater number
is not served. ``epoch`` is the number of the last invalidation of anything: while a node carries the current epoch no
tag needs to be looked at, so that dropping a tag costs the same whatever it covers and a hit pays one comparison.

The same class is the first level in front of a server (``stores/tiered.py``). It must not know about servers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from cachekit._fork import renew_in_child
from cachekit._io import IO
from cachekit.clock import Clock, system_clock
from cachekit.entry import MAX_AHEAD, is_alive, quiet_until
from cachekit.errors import ConfigError
from cachekit.stores._size import estimate
from cachekit.stores.base import AnyEntry, Change, Ticket
from cachekit.stores.eviction import Resident, S3Fifo
from cachekit.stores.glob import glob

TRAIL: Final = 1 << 16
_KEY: Final = "\0"
_SUSPENDED: Final = -2
_NODE_BYTES: Final = 400


class Tally:
    """Hits of nodes that are gone, by whoever they belonged to; the living still carry theirs."""

    __slots__ = ("hits", "label")

    def __init__(self, label: str = "") -> None:
        self.label = label
        self.hits = 0


class Node:
    """An entry in memory, laid out for the hit path: what a hit reads stands in slots of its own."""

    __slots__ = (
        "aliases",
        "alive",
        "born",
        "entry",
        "epoch",
        "hits",
        "in_main",
        "k0",
        "k1",
        "key",
        "kinds",
        "mark",
        "owner",
        "quiet_until",
        "size",
        "tags",
        "value",
    )  # fmt: skip

    def __init__(self, key: str, entry: AnyEntry, born: int, epoch: int, owner: Tally, beta: float) -> None:
        self.key = key
        self.entry = entry
        self.value = entry.value
        self.tags = entry.evidence
        self.quiet_until = quiet_until(entry, beta)
        self.born = born
        self.epoch = epoch
        self.hits = 0
        self.mark = 0
        self.in_main = False
        self.alive = True
        self.owner = owner
        self.size = 0
        self.k0: type | None = None
        self.k1: type | None = None
        self.kinds: tuple[type, ...] = ()
        self.aliases: tuple[dict[Hashable, Any], Hashable] | None = None


class Memory:
    """Keeps entries in this process.

    Args:
        max_entries: bound on the number of entries.
        max_bytes: bound on their estimated size in bytes; a larger value is not kept.
        clock: source of time.
        max_marks: bound on remembered invalidations; a tag that was forgotten counts as invalidated.

    Raises:
        ConfigError: a bound is not positive.
    """

    def __init__(
        self,
        *,
        max_entries: int = 100_000,
        max_bytes: int = 256 * 1024 * 1024,
        clock: Clock = system_clock,
        max_marks: int = 100_000,
    ) -> None:
        for name, bound in (("max_entries", max_entries), ("max_bytes", max_bytes), ("max_marks", max_marks)):
            if type(bound) is not int or bound < 1:
                raise ConfigError(f"{name}={bound!r} must be a positive whole number")
        self._max_bytes = max_bytes
        self._max_marks = max_marks
        self._clock = clock
        self._lock = threading.RLock()
        self._nodes: dict[str, Node] = {}
        self._queue = S3Fifo(max_entries, max_bytes)
        self._marks: dict[str, int] = {}
        self._floor = 0
        self._cleared = 0
        self._latest = -math.inf
        self.unclaimed = Tally()
        self.evictions = 0
        self.sequence = 1
        self.epoch = 1
        self.suspended = False
        self.trail = bytearray(TRAIL)
        """For whoever keeps things here by paths: a cell for each hash of one, 1 once something may be kept there."""
        renew_in_child(self, _renew)

    # -- the hit path and the first level use these directly ------------------------------------------------------

    def peek(self, key: str) -> Node | None:
        """Return the valid node of *key*, fresh or not, without touching its counters."""
        node = self._nodes.get(key)
        if node is None or (node.epoch != self.epoch and not self._revalidate(node)):
            return None
        return node

    def _revalidate(self, node: Node) -> bool:
        if self.suspended:
            return False
        return self._is_valid(node)

    def _is_valid(self, node: Node) -> bool:
        epoch = self.epoch
        if node.born >= self._cleared:
            marks, born = self._marks, node.born
            for tag in node.entry.tags:
                mark = marks.get(tag)
                if (
                    self._floor if mark is None else mark
                ) > born:  # in this order: a mark that goes raises the floor first
                    break
            else:
                if epoch != _SUSPENDED:
                    node.epoch = epoch
                return node.alive
        with self._lock:
            self._drop(node)
        return False

    def _watch(self, now: float) -> None:
        """Drop what is from the future after the clock was set back: it would live until the clock is there again."""
        if now >= self._latest:
            self._latest = now
        elif now < self._latest - MAX_AHEAD:
            with self._lock:
                self._latest = now
                for node in list(self._nodes.values()):
                    if not is_alive(node.entry, now):
                        self._drop(node)

    def fill(
        self, key: str, entry: AnyEntry, since: int, *, owner: Tally | None = None, beta: float = 0.0
    ) -> Node | None:
        """Keep *entry*, whose making began at sequence number *since*. Returns None when it must not be kept."""
        self._watch(self._clock())
        size = estimate(entry.value) + _NODE_BYTES + len(key)
        with self._lock:
            if self._is_void(key, entry.tags, since):
                return None
            old = self._nodes.get(key)
            if old is not None:
                if old.born > since:
                    return None
                self._drop(old)
            node = Node(key, entry, since, 0, owner or (old.owner if old else self.unclaimed), beta)
            if size > self._max_bytes:
                node.alive = False
                return node
            node.size = size
            self._nodes[key] = node
            self._queue.admit(node)
            while (victim := self._queue.victim()) is not None:
                self._evict(victim)
            return node

    def alias(self, node: Node, memo: dict[Hashable, Any], arguments: Hashable, kinds: tuple[type, ...]) -> None:
        """Let *node* also be found in *memo* under *arguments*, for as long as it is alive."""
        with self._lock:
            if not node.alive or node.aliases is not None:
                return
            node.kinds = kinds
            node.k0 = kinds[0] if kinds else None
            node.k1 = kinds[1] if len(kinds) > 1 else None
            node.aliases = (memo, arguments)
            memo[arguments] = node

    def claim(self, node: Node, owner: Tally) -> None:
        """Count the hits of *node* for *owner* from now on, unless somebody else has it."""
        if node.owner is not self.unclaimed or owner is self.unclaimed:
            return
        with self._lock:  # the hits so far stay where they were counted: no count ever goes down
            self.unclaimed.hits += node.hits
            node.mark -= node.hits
            node.hits = 0
            node.owner = owner

    def mark(self, names: Sequence[str]) -> None:
        """Note that each of *names* (a tag, or a key behind NUL) was invalidated now."""
        with self._lock:
            self.sequence += 1
            for name in names:
                self._marks.pop(name, None)
                self._marks[name] = self.sequence
            if len(self._marks) > self._max_marks:
                for name in list(islice(self._marks, len(self._marks) // 2)):
                    self._floor = max(self._floor, self._marks[name])
                    del self._marks[name]
            self._advance()

    def _advance(self) -> None:
        self.epoch = _SUSPENDED if self.suspended else self.sequence

    def suspend(self) -> None:
        """Serve nothing until ``resume``; what is held is kept for ``last_known``."""
        with self._lock:
            self.suspended = True
            self._advance()

    def resume(self) -> None:
        """Start anew, empty."""
        with self._lock:
            self.suspended = False
            self.flush()

    def last_known(self, key: str) -> AnyEntry | None:
        """Return what is held under *key* and was not invalidated in this process, although nothing may be served."""
        node = self._nodes.get(key)
        return node.entry if node is not None and self._is_valid(node) else None

    def forget(self, keys: Sequence[str]) -> int:
        """Drop *keys*, and refuse what began before now for them. Returns how many were there."""
        with self._lock:
            now = self._clock()
            found = 0
            for key in keys:
                node = self._nodes.get(key)
                if node is not None:
                    found += self.peek(key) is not None and now < node.entry.dead_at
                    self._drop(node)
            self.mark([_KEY + key for key in keys])
            return found

    def void(self, keys: Sequence[str]) -> None:
        """Drop *keys*, and refuse what began before now for them: ``forget`` for who needs no count."""
        nodes, marks = self._nodes, self._marks
        with self._lock:
            self.sequence = now = self.sequence + 1
            for key in keys:
                if (node := nodes.get(key)) is not None:
                    self._drop(node)
                name = _KEY + key
                marks.pop(name, None)
                marks[name] = now
            if len(marks) > self._max_marks:
                self.mark(())
            self.epoch = _SUSPENDED if self.suspended else self.sequence

    def flush(self) -> None:
        """Drop everything, and refuse whatever began before now."""
        with self._lock:
            self.sequence += 1
            self._cleared = self._floor = self.sequence
            self._advance()
            self._marks.clear()
            nodes = list(self._nodes.values())
            self._queue.clear()
            self._nodes.clear()
            for node in nodes:
                self._bury(node)

    def hits(self) -> dict[Tally, int]:
        """Return all hits of the owners of living nodes, those of nodes that are gone included.

        Both are read in one step: hits that move from a node to its owner meanwhile would be counted twice, and the
        next reading would be lower, which an exporter takes for a restart.
        """
        total: dict[Tally, int] = {}
        with self._lock:
            for node in self._nodes.values():
                if node.hits:
                    total[node.owner] = total.get(node.owner, node.owner.hits) + node.hits
        return total

    def uses(self) -> list[tuple[str, Tally, int]]:
        """Return the key, the owner and the hits of every entry that served one."""
        with self._lock:
            return [(node.key, node.owner, node.hits) for node in self._nodes.values() if node.hits]

    def sizes(self) -> tuple[int, int]:
        """Return the number of entries and their estimated bytes."""
        return self._queue.entries, self._queue.bytes

    def keys(self) -> list[str]:
        """Return the keys that are present, valid or not."""
        with self._lock:
            return list(self._nodes)

    def _is_void(self, key: str, tags: Sequence[str], since: int) -> bool:
        marks, floor = self._marks, self._floor
        return (
            since < self._cleared
            or marks.get(_KEY + key, floor) > since
            or any(marks.get(tag, floor) > since for tag in tags)
        )

    def _drop(self, node: Node) -> None:
        if node.alive:
            if self._nodes.get(node.key) is node:
                del self._nodes[node.key]
            self._bury(node)
            self._queue.forget(node)

    def _bury(self, node: Node) -> None:
        node.alive = False
        node.epoch = -1
        node.owner.hits += node.hits
        node.hits = 0
        if node.aliases is not None:
            memo, arguments = node.aliases
            if memo.get(arguments) is node:
                del memo[arguments]
            node.aliases = None

    def _evict(self, victim: Resident) -> None:
        node = self._nodes[victim.key]
        assert node is victim
        self.evictions += 1
        self._drop(node)

    # -- the Store port -------------------------------------------------------------------------------------------

    def _find(self, key: str) -> AnyEntry | None:
        node = self.peek(key)
        if node is None:
            return None
        if not is_alive(node.entry, self._clock()):
            with self._lock:
                self._drop(node)
            return None
        return node.entry

    async def get(self, io: IO, key: str, tags: Sequence[str] = ()) -> AnyEntry | None:  # noqa: ARG002 - nodes carry their tags
        return self._find(key)

    async def get_many(self, io: IO, keys: Sequence[str]) -> dict[str, AnyEntry]:  # noqa: ARG002 - no I/O here
        return {key: entry for key in keys if (entry := self._find(key)) is not None}

    async def set_many(self, io: IO, entries: Mapping[str, AnyEntry]) -> None:  # noqa: ARG002 - no I/O here
        with self._lock:
            self.mark([_KEY + key for key in entries])
            for key, entry in entries.items():
                self.fill(key, entry, self.sequence)

    async def delete(self, io: IO, keys: Sequence[str]) -> int:  # noqa: ARG002 - no I/O here
        return self.forget(keys)

    async def update(self, io: IO, key: str, change: Change) -> AnyEntry | None:  # noqa: ARG002 - no I/O here
        with self._lock:
            node = self.peek(key)
            old = node.entry if node is not None and is_alive(node.entry, self._clock()) else None
            since = self.sequence
            new = change(old)
            if old is not None and self._is_void(key, old.tags, since):  # *change* itself has invalidated it
                new = change(None)
                old = None
            if new is old:
                return old
            if new is None:
                self.forget([key])
                return None
            self.mark([_KEY + key])
            self.fill(key, new, self.sequence)
            return new

    async def begin(self, io: IO, key: str, tags: Sequence[str], lease: float, *, exclusive: bool = True) -> Ticket:  # noqa: ARG002 - one process needs no lease
        if not exclusive:
            self.mark([_KEY + key])  # refuses what other loads of this key bring
        since = self.sequence
        return Ticket(key, leads=True, found=self._find(key), proof=since)

    async def commit(self, io: IO, ticket: Ticket, entry: AnyEntry) -> AnyEntry | None:  # noqa: ARG002 - no I/O here
        return None if self.fill(ticket.key, entry, ticket.proof) is None else entry

    async def holds(
        self,
        io: IO,  # noqa: ARG002 - no I/O here
        ticket: Ticket,
        tags: Sequence[str],
        stamps: Sequence[tuple[str, bytes]] = (),  # noqa: ARG002 - the port's
    ) -> bool:
        return not self.suspended and not self._is_void(ticket.key, tags, ticket.proof)

    async def release(self, io: IO, ticket: Ticket) -> None:
        pass

    async def invalidate(self, io: IO, tags: Sequence[str]) -> None:  # noqa: ARG002 - no I/O here
        self.mark(tags)

    async def clear(self, io: IO) -> None:  # noqa: ARG002 - no I/O here
        self.flush()

    async def scan(self, io: IO, pattern: str, cursor: bytes | None) -> tuple[bytes | None, list[str]]:  # noqa: ARG002 - one page, no I/O
        matches = glob(pattern).match
        return None, [key for key in self.keys() if matches(key)]

    async def close(self, io: IO) -> None:
        pass


def _renew(memory: Memory) -> None:
    memory._lock = threading.RLock()
