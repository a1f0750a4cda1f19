"""What waited in this process while the store was away, and how it gets there: each of it once, and nothing twice.

Owns when a delivery is under way, and what becomes of it when somebody else was faster. Must not know requests or cookies.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

from cachekit._io import IO, stopped_scope
from cachekit.clock import Clock
from cachekit.errors import CodecError, SessionError, StoreError
from cachekit.events import Emit, Event, Kind
from cachekit.sessions.degraded import Pending
from cachekit.sessions.guard import GuardedSessions
from cachekit.sessions.keeper import Exists, Held, Keeper, bound
from cachekit.sessions.options import AtReturn, SessionOptions
from cachekit.sessions.payload import Payloads
from cachekit.sessions.store import Key, Moved, Verdict

_DELIVERY: Final = 1.0
"""Seconds that a request waits for another one's delivery."""


class Deliveries(Keeper):
    """A ``Keeper`` that brings what it holds to the store."""

    def __init__(
        self, store: GuardedSessions, options: SessionOptions, payloads: Payloads, *, clock: Clock, emit: Emit
    ) -> None:
        super().__init__(store, options, payloads, clock=clock, emit=emit)
        self._under_way: dict[Key, Future[None]] = {}
        self._merges = options.at_return == AtReturn.MERGE

    async def deliver(self, io: IO, key: Key) -> None:
        """Bring what waits under *key* to the store. Raises ``StoreError`` while that cannot be; then it waits on."""
        pending = self.local.find(key)
        if pending is None:
            await self._wait_for_delivery(io, key)
            return
        if pending.replaced or (pending := self.local.take(key)) is None:
            return
        under_way: Future[None] = Future()
        self._under_way[key] = under_way
        tried: list[str] = []
        try:
            await self._deliver(io, key, pending, tried)
        except CodecError as exc:
            self.emit(Event(Kind.UNENCODABLE, str(key), name="sessions", detail=str(exc), error=exc))
        except SessionError as exc:
            self.discarded(key, str(exc))
        except BaseException:
            self.local.give_back(key, pending.after(tried))
            raise
        finally:
            self._under_way.pop(key, None)
            under_way.set_result(None)

    async def _wait_for_delivery(self, io: IO, key: Key) -> None:
        """Let another delivery of *key* end first, so that its changes are read; not where that would stop it."""
        under_way = self._under_way.get(key)
        if under_way is not None and stopped_scope(io) is None:
            with contextlib.suppress(TimeoutError):
                await io.wait(under_way, _DELIVERY)

    @property
    def waiting(self) -> int:
        """Return how many sessions wait for the store, those on their way included."""
        return len(self.local) + len(self._under_way)

    @property
    def is_idle(self) -> bool:
        """Return whether nothing waits for the store, or is on its way."""
        return not self.local.kept and not self._under_way

    def concerns(self, key: Key) -> bool:
        """Say whether something of *key* waits, or is on its way."""
        return self.local.find(key) is not None or (bool(self._under_way) and key in self._under_way)

    async def _deliver(self, io: IO, key: Key, pending: Pending, tried: list[str]) -> None:
        if pending.ended:
            await self.end(io, key, pending.owner)
            return
        found = await self.read(io, key, remembered=pending.about.remembered)
        if not self._merges:
            if pending.previous is not None:
                await self.store.destroy(io, pending.previous, pending.owner)
                self.local.take(pending.previous)
            self.discarded(key, "changes made while the store was away are dropped (at_return='drop')")
            return
        if found is None and pending.born:
            await self._deliver_new(io, key, pending, tried)
        elif isinstance(found, Held):  # or what was sent has arrived, although nobody heard of it
            merged = self.payloads.merge(pending.base_of(found.record.version), pending.values, found.base)
            lasting = replace(pending.about, life=pending.about.life or found.about.life)  # 0.0: not known here
            there, about = bound(found, found.about.lasting_as(lasting), pending)
            changed = merged != found.base or about != found.about
            kept = await self.write(io, there, merged, about, tried=tried, pending=pending) if changed else found
            if kept is None:
                return
            await self._leave_previous(io, kept, pending)
        else:
            self.discarded(key)
            return
        self.emit(Event(Kind.SESSION_RETURNED, str(key)))

    async def _deliver_new(self, io: IO, key: Key, pending: Pending, tried: list[str]) -> None:
        values, before = pending.values, None
        if pending.previous is not None:
            before = await self.read(io, pending.previous, remembered=pending.about.remembered)
            if isinstance(before, Held):
                base = pending.base_of(before.record.version)
                values = self.payloads.merge(base, values, before.base, yielding=False)
        try:
            made = await self.make(io, key, values, pending.about, tried=tried)
        except Exists as exists:  # another process was there first
            there = self.held(key, exists.record)
            if there is not None:
                there, about = bound(there, there.about, pending)
                await self.write(io, there, self.payloads.merge({}, values, there.base), about, pending=pending)
            return
        await self._leave_previous(io, made, pending)

    async def _leave_previous(self, io: IO, made: Held, pending: Pending) -> None:
        """End what has the id in whose place *made* has come: it must open nothing any more."""
        if pending.previous is None:
            return
        before = await self.read(io, pending.previous, remembered=pending.about.remembered)
        if isinstance(before, Held):
            note = Moved(made.key, made.record.owner)
            outcome = await self.store.retire(io, pending.previous, before.record, note, self._grace)
            if outcome.verdict is Verdict.CONFLICT:  # changed in this moment by who has the old id
                await self.store.destroy(io, pending.previous, before.record.owner)
        self.local.take(pending.previous)

    async def deliver_all(self, io: IO) -> int:
        """Bring everything that waits to the store. Returns how many still wait."""
        for key in self.local.waiting():
            try:
                await self.deliver(io, key)
            except StoreError:
                break
        return len(self.local)
