"""Sessions in this process: for one process, for tests, and for the time that a server is away.

Bounded, and what has expired gives its memory back. Holds bytes and parcels of them, which nobody changes, so that no two
requests share an object that can. Must not know values or requests.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from typing import Any, Final

from cachekit._fork import renew_in_child
from cachekit._io import IO
from cachekit.clock import Clock, system_clock
from cachekit.errors import ConfigError
from cachekit.policy import FOREVER
from cachekit.sessions.store import DONE, GONE, Found, Key, Moved, Outcome, Record, Verdict

_new: Final = tuple.__new__  # what a NamedTuple's own __new__ calls, without the frame that this takes
_SWEEP: Final = 16
"""How many candidates each write looks at: more than it adds, so that what has expired never piles up."""


class MemorySessions:
    """Keeps sessions in this process.

    Attributes:
        in_process: nobody waits for it, so that it can be asked without anything to await (``Instant``).
        takes_parcels: what it keeps need not be bytes.

    Args:
        max_sessions: bound on their number; the one that was not used for longest leaves first.
        max_bytes: bound on the bytes of their bodies.
        clock: source of time.

    Raises:
        ConfigError: a bound is not positive.
    """

    in_process: bool = True
    takes_parcels: bool = True

    def __init__(
        self, *, max_sessions: int = 100_000, max_bytes: int = 512 * 1024 * 1024, clock: Clock = system_clock
    ) -> None:
        if max_sessions < 1 or max_bytes < 1:
            raise ConfigError("max_sessions and max_bytes must be positive")
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept: OrderedDict[Key, tuple[float, Record | Moved]] = OrderedDict()  # the one used last is the last
        self._owners: dict[str, set[Key]] = {}
        self._ends: list[tuple[float, str, Key]] = []
        self._bytes = 0
        self._renew()
        renew_in_child(self, MemorySessions._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    # -- under the lock -------------------------------------------------------------------------------------------

    def _find(self, key: Key, now: float) -> Record | Moved | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if now >= found[0]:
            self._drop(key)
            return None
        return found[1]

    def _put(self, key: Key, kept: Record | Moved, expires: float, now: float) -> None:
        before = self._kept.get(key)
        if before is not None:
            self._drop(key)
        self._kept[key] = (expires, kept)
        if isinstance(kept, Record):
            self._bytes += len(kept.body)
            if kept.owner:
                self._owners.setdefault(kept.owner, set()).add(key)
        if before is None or expires < before[0]:
            self._note_end(key, expires)
        self._trim(now)

    def _trim(self, now: float) -> None:
        """Let go what has expired, and what is too much."""
        if self._ends and self._ends[0][0] <= now:
            self._sweep(now)
        while len(self._kept) > self._max_sessions or (self._bytes > self._max_bytes and len(self._kept) > 1):
            self._drop(next(iter(self._kept)))
        if len(self._ends) > 2 * len(self._kept) + 1024:  # each write adds one: those of what was replaced are let go
            self._ends = [(at, str(each), each) for each, (at, _) in self._kept.items()]
            heapq.heapify(self._ends)

    def _keep(self, key: Key, record: Record, now: float) -> Outcome:
        expires = _end(now + record.ttl, record)
        if expires <= now:
            self._drop(key)
            return GONE
        self._put(key, record, expires, now)
        return DONE

    def _sweep(self, now: float) -> None:
        for _ in range(_SWEEP):
            if not self._ends or self._ends[0][0] > now:
                break
            _, _, old = heapq.heappop(self._ends)
            if (entry := self._kept.get(old)) is not None:
                if entry[0] <= now:
                    self._drop(old)
                else:  # it was used meanwhile
                    heapq.heappush(self._ends, (entry[0], str(old), old))

    def _note_end(self, key: Key, expires: float) -> None:
        """Have *key* looked at when it *expires*. One that lives longer is noted, and found used when it comes up."""
        heapq.heappush(self._ends, (expires, str(key), key))

    def _slide(self, key: Key, before: float, record: Record, expires: float) -> None:
        if expires < before:
            self._note_end(key, expires)
        self._kept[key] = (expires, record)
        self._kept.move_to_end(key)

    def _drop(self, key: Key) -> bool:
        found = self._kept.pop(key, None)
        if found is None:
            return False
        if isinstance(record := found[1], Record):
            self._bytes -= len(record.body)
            if record.owner and (keys := self._owners.get(record.owner)) is not None:
                keys.discard(key)
                if not keys:
                    del self._owners[record.owner]
        return True

    def _checked(self, key: Key, version: str, now: float) -> Outcome | Record:
        found = self._find(key, now)
        if found is None:
            return GONE
        if isinstance(found, Moved):
            return Outcome(Verdict.MOVED, found)
        return found if found.version == version else Outcome(Verdict.CONFLICT, found)

    # -- the port -------------------------------------------------------------------------------------------------

    async def read(self, io: IO, key: Key, ttl: float) -> Found:  # noqa: ARG002 - no I/O here
        return self.read_now(key, ttl)

    def read_now(self, key: Key, ttl: float) -> Found:
        now = self._clock()
        with self._lock:
            entry = self._kept.get(key)
            if entry is None or now >= entry[0]:
                return None if entry is None else self._find(key, now)
            found = entry[1]
            if isinstance(found, Record):
                self._slide(key, entry[0], found, _end(now + ttl, found) if ttl else entry[0])
            return found

    async def write(self, io: IO, key: Key, record: Record, expected: str | None) -> Outcome:  # noqa: ARG002 - no I/O here
        now = self._clock()
        with self._lock:
            if expected is None:
                found = self._find(key, now)
                if found is not None:
                    return Outcome(Verdict.MOVED if isinstance(found, Moved) else Verdict.CONFLICT, found)
                created, deadline = record.created, record.deadline
                if not created:
                    created, deadline = now, FOREVER if deadline == FOREVER else now + deadline
            else:
                checked = self._checked(key, expected, now)
                if isinstance(checked, Outcome):
                    return checked
                created, deadline = checked.created, checked.deadline
            kept = Record(record.body, record.version, record.ttl, created, now, deadline, record.owner)
            return self._keep(key, kept, now)

    def replace_now(self, key: Key, body: Any, version: str, ttl: float, expected: str) -> Record | Outcome:
        now = self._clock()
        with self._lock:
            was = self._checked(key, expected, now)
            if isinstance(was, Outcome):
                return was
            kept = _new(Record, (body, version, ttl, was.created, now, was.deadline, was.owner))
            expires = _end(now + ttl, kept)
            if expires <= now:
                self._drop(key)
                return GONE
            self._bytes += len(body) - len(was.body)
            self._slide(key, self._kept[key][0], kept, expires)  # its owner stays, and so does its place there
            if self._bytes > self._max_bytes or (self._ends and self._ends[0][0] <= now):
                self._trim(now)
            return kept

    async def append(self, io: IO, key: Key, addition: bytes, version: str, expected: str) -> Outcome:  # noqa: ARG002 - no I/O here
        now = self._clock()
        with self._lock:
            found = self._checked(key, expected, now)
            if isinstance(found, Outcome):
                return found
            body = found.body + addition
            kept = Record(body, version, found.ttl, found.created, now, found.deadline, found.owner)
            return self._keep(key, kept, now)

    async def retire(self, io: IO, key: Key, record: Record, moved: Moved, grace: float) -> Outcome:  # noqa: ARG002 - no I/O here
        now = self._clock()
        with self._lock:
            checked = self._checked(key, record.version, now)
            if isinstance(checked, Outcome):
                return checked
            self._drop(key)
            if grace > 0:
                self._put(key, moved, now + grace, now)
            return DONE

    async def destroy(self, io: IO, key: Key, owner: str) -> Outcome:  # noqa: ARG002 - no I/O here
        with self._lock:
            found = self._find(key, self._clock())
            if isinstance(found, Moved):
                return Outcome(Verdict.MOVED, found)
            return DONE if self._drop(key) else GONE

    async def touch(self, io: IO, key: Key, ttl: float) -> bool:  # noqa: ARG002 - no I/O here
        now = self._clock()
        with self._lock:
            found = self._find(key, now)
            if not isinstance(found, Record):
                return False
            self._slide(key, self._kept[key][0], found._replace(seen=now), _end(now + ttl, found))
            return True

    async def close(self, io: IO) -> None:
        pass

    # -- all sessions of a user, and of everybody -----------------------------------------------------------------

    async def sessions(self, io: IO, owner: str) -> list[tuple[Key, Record]]:  # noqa: ARG002 - no I/O here
        now = self._clock()
        with self._lock:
            found = [(key, self._find(key, now)) for key in list(self._owners.get(owner, ()))]
        return [(key, record) for key, record in found if isinstance(record, Record)]

    async def revoke(self, io: IO, owner: str, *, only: Key | None = None, keep: Key | None = None) -> int:  # noqa: ARG002 - no I/O here
        with self._lock:
            ended = [key for key in list(self._owners.get(owner, ())) if (only is None or key == only) and key != keep]
            return sum(self._find(key, self._clock()) is not None and self._drop(key) for key in ended)

    async def count(self, io: IO) -> int:  # noqa: ARG002 - no I/O here
        now = self._clock()
        with self._lock:
            return sum(at > now and isinstance(kept, Record) for at, kept in self._kept.values())

    async def clear(self, io: IO) -> int:
        ended = await self.count(io)
        with self._lock:
            self._kept.clear()
            self._owners.clear()
            self._ends.clear()
            self._bytes = 0
        return ended


def _end(expires: float, record: Record) -> float:
    """Return when *record* ends, which would end when it *expires*."""
    return min(record.deadline, expires)
