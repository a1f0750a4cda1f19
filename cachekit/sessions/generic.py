"""Sessions in any ``Store`` of a cache: one entry each, changed atomically by ``update``.

For stores that no native layout exists for. Each index is one entry, so that a login or a new session costs a further
update, and very many sessions of one shard make that entry large: a server has its own store (``redis.py``). Must not
know values or requests.
"""

from __future__ import annotations

from typing import Any, Final

from cachekit._io import IO
from cachekit.clock import Clock
from cachekit.entry import seal
from cachekit.policy import FOREVER, Policy
from cachekit.sessions.store import ALL_SHARDS, DONE, GONE, Found, Key, Moved, Outcome, Record, Verdict
from cachekit.stores.base import AnyEntry, Store

_MOVED: Final = "moved"


class StoredSessions:
    """Keeps sessions as entries of *store*.

    Args:
        store: keeps them.
        prefix: what their keys begin with.
        slack: seconds by which the indexes may be behind.
        clock: source of time; it should agree between the processes that share the store.
    """

    def __init__(self, store: Store, *, prefix: str = "session", slack: float = 60.0, clock: Clock) -> None:
        self.store = store
        self._prefix = prefix
        self._slack = slack
        self._clock = clock

    def _name(self, key: Key) -> str:
        return f"{self._prefix}:{key}"

    def _entry(self, kept: Record | Moved, expires: float, now: float) -> AnyEntry:
        if isinstance(kept, Moved):
            value: list[Any] = [_MOVED, str(kept.key), kept.owner]
        else:
            deadline = None if kept.deadline == FOREVER else kept.deadline
            value = [kept.body, kept.version, kept.ttl, kept.created, kept.seen, deadline, kept.owner]
        return seal(value, Policy(ttl=expires - now), now)

    @staticmethod
    def _opened(entry: AnyEntry | None) -> Record | Moved | None:
        if entry is None:
            return None
        try:
            if entry.value[0] == _MOVED:
                key = Key.parse(entry.value[1])
                return None if key is None else Moved(key, entry.value[2])
            body, version, ttl, created, seen, deadline, owner = entry.value
        except (TypeError, ValueError, IndexError):
            return Record(b"", "", 0.0)
        return Record(body, version, ttl, created, seen, FOREVER if deadline is None else deadline, owner)

    async def _change(self, io: IO, key: Key, change: Any) -> Any:
        """Run *change* on what is kept under *key*: it returns an outcome and, where there is one, the new entry."""
        outcome: Any = None

        def apply(old: AnyEntry | None) -> AnyEntry | None:
            nonlocal outcome
            outcome, new = change(self._opened(old))
            return old if new is _KEEP else new

        await self.store.update(io, self._name(key), apply)
        return outcome

    # -- the port -------------------------------------------------------------------------------------------------

    async def read(self, io: IO, key: Key, ttl: float) -> Found:
        now = self._clock()
        entry = await self.store.get(io, self._name(key))
        found = self._opened(entry)
        if entry is None or not isinstance(found, Record):
            return found
        if not ttl or min(now + ttl, found.deadline) - entry.dead_at < self._slack:
            return found  # slid within the interval already

        def slide(kept: Record | Moved | None) -> Any:
            if not isinstance(kept, Record):
                return kept, _KEEP
            return kept, self._entry(kept, min(now + ttl, kept.deadline), now)

        slid: Found = await self._change(io, key, slide)
        return slid

    async def write(self, io: IO, key: Key, record: Record, expected: str | None) -> Outcome:
        now = self._clock()
        kept: Record | None = None

        def put(found: Record | Moved | None) -> Any:
            nonlocal kept
            if isinstance(found, Moved):
                return Outcome(Verdict.MOVED, found), _KEEP
            created, deadline = record.created, record.deadline
            if expected is None:
                if found is not None:
                    return Outcome(Verdict.CONFLICT, found), _KEEP
                if not created:
                    created, deadline = now, FOREVER if deadline == FOREVER else now + deadline
            elif found is None:
                return GONE, _KEEP
            elif found.version != expected:
                return Outcome(Verdict.CONFLICT, found), _KEEP
            else:
                created, deadline = found.created, found.deadline
            kept = record._replace(created=created, seen=now, deadline=deadline)
            expires = min(now + record.ttl, deadline)
            return (GONE, None) if expires <= now else (DONE, self._entry(kept, expires, now))

        outcome: Outcome = await self._change(io, key, put)
        if outcome.verdict is Verdict.DONE and kept is not None and expected is None:
            await self._note(io, key, kept, now)
        return outcome

    async def retire(self, io: IO, key: Key, record: Record, moved: Moved, grace: float) -> Outcome:
        now = self._clock()

        def put(found: Record | Moved | None) -> Any:
            if found is None:
                return GONE, _KEEP
            if isinstance(found, Moved):
                return Outcome(Verdict.MOVED, found), _KEEP
            if found.version != record.version:
                return Outcome(Verdict.CONFLICT, found), _KEEP
            return DONE, self._entry(moved, now + grace, now) if grace > 0 else None

        outcome: Outcome = await self._change(io, key, put)
        if outcome.verdict is Verdict.DONE:
            await self._unlist(io, key, record.owner)
        return outcome

    async def destroy(self, io: IO, key: Key, owner: str) -> Outcome:
        def end(found: Record | Moved | None) -> Any:
            if isinstance(found, Moved):
                return Outcome(Verdict.MOVED, found), _KEEP
            return (GONE, _KEEP) if found is None else (DONE, None)

        outcome: Outcome = await self._change(io, key, end)
        if outcome.verdict is Verdict.DONE:
            await self._unlist(io, key, owner)
        return outcome

    async def touch(self, io: IO, key: Key, ttl: float) -> bool:
        now = self._clock()

        def note(found: Record | Moved | None) -> Any:
            if not isinstance(found, Record):
                return None, _KEEP
            seen = found._replace(seen=now)
            return seen, self._entry(seen, min(now + ttl, found.deadline), now)

        found = await self._change(io, key, note)
        if found is None:
            return False
        await self._note(io, key, found, now)
        return True

    async def close(self, io: IO) -> None:
        await self.store.close(io)

    # -- indexes: one entry each, from key to the time at which that session ends ------------------------------------

    def _indexes(self, key: Key, owner: str) -> list[str]:
        indexes = [f"{self._prefix}:live:{key.shard}"]
        return [*indexes, f"{self._prefix}:of:{owner}"] if owner else indexes

    async def _note(self, io: IO, key: Key, record: Record, now: float) -> None:
        ends = min(now + record.ttl, record.deadline) + self._slack
        for index in self._indexes(key, record.owner):

            def add(old: AnyEntry | None) -> AnyEntry:
                listed = {} if old is None else {each: at for each, at in old.value.items() if at > now}
                listed[str(key)] = ends
                return seal(listed, Policy(ttl=max(listed.values()) - now), now)

            await self.store.update(io, index, add)

    async def _unlist(self, io: IO, key: Key, owner: str) -> None:
        now = self._clock()
        for index in self._indexes(key, owner):

            def remove(old: AnyEntry | None) -> AnyEntry | None:
                if old is None or str(key) not in old.value:
                    return old
                listed = {each: at for each, at in old.value.items() if at > now and each != str(key)}
                return seal(listed, Policy(ttl=max(listed.values()) - now), now) if listed else None

            await self.store.update(io, index, remove)

    async def _listed(self, io: IO, index: str) -> list[Key]:
        entry = await self.store.get(io, index)
        if entry is None:
            return []
        now = self._clock()
        return [key for text, at in entry.value.items() if at > now and (key := Key.parse(text)) is not None]

    async def sessions(self, io: IO, owner: str) -> list[tuple[Key, Record]]:
        keys = await self._listed(io, f"{self._prefix}:of:{owner}")
        entries = await self.store.get_many(io, [self._name(key) for key in keys])
        found = [(key, self._opened(entries.get(self._name(key)))) for key in keys]
        return [(key, record) for key, record in found if isinstance(record, Record) and record.owner == owner]

    async def revoke(self, io: IO, owner: str, *, only: Key | None = None, keep: Key | None = None) -> int:
        ended = 0
        for key in await self._listed(io, f"{self._prefix}:of:{owner}"):
            if (only is None or key == only) and key != keep:
                ended += (await self.destroy(io, key, owner)).verdict is Verdict.DONE
        return ended

    async def count(self, io: IO) -> int:
        entries = await self.store.get_many(io, [f"{self._prefix}:live:{shard}" for shard in ALL_SHARDS])
        now = self._clock()
        return sum(at > now for entry in entries.values() for at in entry.value.values())

    async def clear(self, io: IO) -> int:
        ended = 0
        for shard in ALL_SHARDS:
            for key in await self._listed(io, f"{self._prefix}:live:{shard}"):
                ended += (await self.destroy(io, key, "")).verdict is Verdict.DONE
        return ended


_KEEP: Final = object()
