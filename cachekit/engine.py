"""Fetch and load: single flight, stale-while-revalidate, stale-if-error, degradation. Written once for both worlds.

Decides with ``judge``; asks the store; runs the loader. A store that fails is as good as an empty one; a loader's own
exception reaches the caller untouched. Must not know how keys are made or where entries lie.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

from cachekit import uncommitted
from cachekit._io import IO, stopped_scope
from cachekit.clock import Chance, Clock, stopwatch
from cachekit.entry import Verdict, hits_quietly, judge, refresh_eagerly, refresh_early, seal
from cachekit.errors import LoadTimeout, StoreError
from cachekit.events import Event, Events, Kind
from cachekit.flight import NOTHING, Abandoned, Certainty, Flight, Retry, leading
from cachekit.jobs import Counters, Job, Loader, Plan
from cachekit.keeping import Keeping, Kept
from cachekit.leases import LONGEST_HOLD, hold
from cachekit.loading import Loading
from cachekit.loading import here as loading_here
from cachekit.modes import Mode, mode_here
from cachekit.policy import Policy
from cachekit.stores.base import AnyEntry, Listening, SharedLeases, Store, Ticket
from cachekit.stores.memory import Memory
from cachekit.tags import UNCOMMITTED, Refusing, Tags, collecting, current, note, note_until

log = logging.getLogger("cachekit")

_FIRST_POLL: Final = 0.005
_LONGEST_POLL: Final = 0.05
_RETRIES: Final = 3


within: Final[ContextVar[tuple[tuple[Engine, Engine], ...]]] = ContextVar("cachekit_within", default=())
"""The engines that work for others here while a transaction is open, each behind the one it works for."""


class Engine(Keeping):
    """Runs loads over a store.

    Args:
        store: where entries are kept.
        clock: source of time.
        chance: source of randomness.
        events: receives what happened.
        l1: the in-process level of *store*, if it has one.
    """

    def __init__(self, store: Store, *, clock: Clock, chance: Chance, events: Events, l1: Memory | None) -> None:
        super().__init__(store, events)
        self._leases = store if isinstance(store, SharedLeases) else None
        self._listening = store if isinstance(store, Listening) else None
        self.clock = clock
        self.chance = chance
        self.l1 = l1
        self.open = True
        self.on_hit: Callable[[str, str], None] | None = None  # told of hits that no node counts: key and function

    def here(self) -> Engine:
        """Return the engine for what runs here: that of the transaction that is open here, or this one."""
        if not (inside := within.get()):
            return self
        for owner, engine in reversed(inside):
            if owner is self and engine.open:
                return engine
        return self

    # -- leases of other processes ---------------------------------------------------------------------------------

    async def ended(self, io: IO, ticket: Ticket, poll: float) -> bool:
        """Wait until the lease that *ticket* did not get may have ended. Returns whether its value was kept."""
        if self._leases is None:
            await io.sleep(min(poll, max(ticket.retry_in, 0.001)))
            return False
        return await self._leases.ended(io, ticket, poll)

    # -- the fetch -------------------------------------------------------------------------------------------------

    async def fetch(self, io: IO, key: str, tags: Sequence[str], load: Loader, plan: Plan) -> Any:
        """Return the cached value of *key*, or what *load* makes."""
        used = current()
        if type(used) is Refusing and (mode := mode_here()) is not None:
            job = Job(key, tags, load, plan)
            return await (self.load(io, replace(job, force=True)) if mode is Mode.REFRESH else self._alone(job))
        if self._listening is not None:
            await self._listening.listen(
                io
            )  # before the next look: many may wait here, and one of them loads meanwhile
        # What a load that is under way was started for need not be looked for again.
        entry: AnyEntry | None = None
        if not self.flights.aloft or not self.flights.cold(io.scope, key):
            try:
                entry = await self.store.get(io, key, tags)
            except StoreError:
                pass  # as good as an empty one
        now = self.clock()
        quiet = entry is not None and hits_quietly(entry, now, plan.beta, plan.policy.refresh_at)
        verdict = Verdict.HIT if quiet else judge(entry, now)
        if entry is not None and verdict is Verdict.HIT:
            if not quiet and self._refresh_now(entry, now, plan):
                self._refresh_behind(io, Job(key, tags, load, plan), entry)
            self.count_hit(key, plan.counters, plan.name)
            if used is not None:
                note(entry.evidence)
            return entry.value
        job = Job(key, tags, load, plan)
        if entry is not None and verdict is Verdict.STALE:
            self._refresh_behind(io, job, entry)
            return self._serve_stale(job, entry)
        plan.counters.misses += 1
        self.events(Event(Kind.MISS, key, plan.name))
        usable = entry if verdict is Verdict.EXPIRED and self._may_stand_in(entry, plan.policy) else None
        limit = plan.policy.hard_timeout if usable is None else plan.policy.soft_timeout
        try:
            return await self.load(io, replace(job, seen=entry), limit)
        except Exception as exc:
            if usable is None or not self._may_stand_in(usable, plan.policy):
                raise
            return self._serve_stale(job, usable, exc)

    def _may_stand_in(self, entry: AnyEntry | None, policy: Policy) -> bool:
        """Say whether an expired *entry* may be served when its loader fails or is slow."""
        return entry is not None and self.clock() < entry.fresh_until + policy.stale_if_error

    def _refresh_now(self, entry: AnyEntry, now: float, plan: Plan) -> bool:
        """Say whether a fresh *entry* should be refreshed behind already."""
        if refresh_eagerly(entry, now, plan.policy.refresh_at):
            return True
        return plan.beta > 0 and refresh_early(entry, now, plan.beta, self.chance())

    def count_hit(self, key: str, counters: Counters, name: str = "") -> None:
        """Count a hit of *key*: on its node, whose use the eviction policy follows, or else on *counters* itself."""
        if self.l1 is None or (node := self.l1.peek(key)) is None:
            counters.tally.hits += 1
            if self.on_hit is not None:
                self.on_hit(key, name)
            return
        self.l1.claim(node, counters.tally)
        node.hits += 1

    def _serve_stale(self, job: Job, entry: AnyEntry, error: Exception | None = None) -> Any:
        job.plan.counters.stale += 1
        self.events(Event(Kind.STALE, job.key, job.plan.name, error=error))
        note(entry.evidence)
        return entry.value

    def _refresh_behind(self, io: IO, job: Job, seen: AnyEntry) -> None:
        if not self.flights.running(io.scope, job.key):
            io.spawn(self._refresh_quietly(io, replace(job, seen=seen, behind=True)))

    async def _refresh_quietly(self, io: IO, job: Job) -> None:
        leading.set(())
        joined = self.flights.join(io.scope, job.key, job.tags)
        if joined is None or not joined[1]:
            return
        try:
            with collecting():
                await self._lead(io, joined[0], job)
        except Exception:
            log.warning("refreshing %s failed; the stale value stays", job.key, exc_info=True)

    async def load(self, io: IO, job: Job, limit: float | None = None) -> Any:
        """Lead the flight of the job's key or follow it.

        Raises:
            LoadTimeout: *limit* seconds were not enough; the load goes on behind.
        """
        key, plan = job.key, job.plan
        if self.is_uncommitted(job.tags):
            return await self._uncommitted(job)
        came = self.flights.begun
        for _ in range(_RETRIES):
            joined = self.flights.join(io.scope, key, job.tags)
            if joined is None:
                break
            flight, leads = joined
            if leads:
                flight.cold = job.seen is None and not job.force and not job.behind
            if leads and limit is None:
                return await self._lead(io, flight, job)
            if leads:
                io.spawn(self._lead_behind(io, flight, job))
            else:
                self.events(Event(Kind.COLLAPSED, key, plan.name))
            late = not leads and flight.sealed
            try:
                value = await io.wait(flight.result, limit)
                if late:
                    raise Retry(value)  # it may have been invalidated after the store was asked
            except TimeoutError as exc:
                _tell(flight)
                if limit is None or flight.result.done():
                    raise  # the loader's own
                message = f"{plan.name or key} took longer than {limit:g} s; the load goes on behind"
                raise LoadTimeout(message, key=key, seconds=limit) from exc
            except Abandoned:
                continue
            except Retry as again:
                if leads or (again.value is not NOTHING and flight.number > came):
                    note(flight.tags)  # loaded since this caller came
                    return again.own if leads else again.value
                entry = await self.read(io, key, job.tags)
                if entry is None or judge(entry, self.clock()) is not Verdict.HIT:
                    continue
                self.count_hit(key, plan.counters, plan.name)
                note(entry.evidence)
                return entry.value
            except Exception:
                _tell(flight)  # what is made without the value is made anew as well, once a tag of it is invalidated
                if leads or flight.number > came or not (late or flight.doubtful):
                    raise
                continue  # it may have been invalidated before this caller came
            finally:
                if not leads:
                    self.flights.left(flight)
            _tell(flight)
            return value
        return await self._alone(job)

    def is_uncommitted(self, tags: Collection[str]) -> bool:
        """Say whether what carries *tags* may be made of what is not committed here, and so is not kept."""
        return UNCOMMITTED in tags or uncommitted.concerns(tags)

    def _not_stored(self, job: Job) -> None:
        self.events(Event(Kind.NOT_STORED, job.key, job.plan.name, detail="made of what is not committed"))

    async def _uncommitted(self, job: Job) -> Any:
        """Load for the caller alone: those in other transactions have the value that was there before."""
        value = await self._alone(job)
        self._not_stored(job)
        return value

    async def _alone(self, job: Job) -> Any:
        """Run the loader for one caller, and keep nothing."""
        used = Tags()
        try:
            with collecting() as used:
                value = await self._run(job)
                used.update(() if job.plan.result_tags is None else job.plan.result_tags(value))
        finally:
            every = (*job.tags, *used.every)
            note((*every, UNCOMMITTED) if self.is_uncommitted(every) else every)
            note_until(used.until)
        return value

    async def _lead_behind(self, io: IO, flight: Flight, job: Job) -> None:
        """Lead *flight* in the background; whoever waits learns its outcome from the flight."""
        try:
            with collecting():
                await self._lead(io, flight, job)
        except Exception:
            log.debug("a load behind %s failed", flight.key, exc_info=True)

    async def _lead(self, io: IO, flight: Flight, job: Job) -> Any:
        try:
            value, certainty = await self._load_and_keep(io, flight, job)
        except Exception as exc:
            self.flights.land(flight)
            flight.result.set_exception(exc)
            _tell(flight)
            raise
        except BaseException:
            self.flights.land(flight)
            flight.result.set_exception(Abandoned())
            raise
        self.flights.land(flight)
        if certainty is Certainty.SURE:
            flight.result.set_result(value)
        else:
            flight.result.set_exception(Retry(value if certainty is Certainty.LOADED else NOTHING, value))
        _tell(flight)
        return value

    async def _load_and_keep(self, io: IO, flight: Flight, job: Job) -> tuple[Any, Certainty]:
        """Return what was loaded, or found after all, and whether those who joined meanwhile may have it."""
        key, plan = job.key, job.plan
        ticket = await self.begin(io, key, job.tags, lease=plan.policy.lease, exclusive=not job.force)
        if ticket is not None and not job.force:
            if (found := self._appeared(ticket.found, job.seen)) is not None:
                await self.release(io, ticket)
                found, certain = await self._for_all(io, flight, job, found)
                flight.tags.update(found.tags)
                flight.until = found.until
                return found.value, Certainty.SURE if certain else Certainty.FOUND
            if not ticket.leads and job.behind:
                return (job.seen.value if job.seen is not None else None), Certainty.FOUND
            stopped = stopped_scope(io)
            stuck = stopped is not None and self.flights.running(stopped, key)  # what holds the lease cannot go on
            if not ticket.leads and plan.shared_flight and not stuck:
                ticket, found, certain = await self._wait_elsewhere(io, flight, job, ticket)
                if found is not None:
                    flight.tags.update(found.tags)
                    flight.until = found.until
                    return found.value, Certainty.SURE if certain else Certainty.FOUND
        let_go = hold(io, self._leases, ticket, plan.policy.lease)
        token = leading.set((*leading.get(), flight))
        loading = Loading(key)
        outer = loading_here.set(loading)
        started = stopwatch()
        used = Tags()
        try:
            with collecting() as used:
                value = await self._run(job)
                used.update(() if plan.result_tags is None else plan.result_tags(value))
        except BaseException as exc:
            flight.tags.update(used.every)
            if self.is_uncommitted(flight.tags):
                flight.tags.add(UNCOMMITTED)
            flight.until = used.until
            flight.sealed = True
            if ticket is not None:
                if isinstance(exc, Exception):
                    flight.doubtful = not await self._stands(io, flight, ticket, job, used)
                await self._give_up(io, ticket, flight, job, exc, used)
            raise
        finally:
            let_go()
            loading_here.reset(outer)
            leading.reset(token)
        flight.tags.update(used.every)
        flight.until = used.until
        if self.is_uncommitted((*job.tags, *used.every)):
            flight.tags.add(UNCOMMITTED)
            if ticket is not None:
                await self.release(io, ticket)
            self._not_stored(job)
            return (
                value,
                Certainty.FOUND,
            )  # those who joined may be in no transaction: they look, and load, for themselves
        flight.sealed = True
        if ticket is None or not ticket.leads:
            return value, Certainty.SURE  # without the store nobody hears of others: those who wait share one load
        policy = plan.outcomes.policy(value, plan.policy, loading)
        if policy is None or flight.void:
            # Where this process has heard of it, whoever joined did so before the invalidation: later callers have their
            # own flight.
            stands = flight.void or await self._stands(io, flight, ticket, job, used)
            await self.release(io, ticket)
            return await self._latest(io, flight, job, value), Certainty.SURE if stands else Certainty.LOADED
        tags = tuple(dict.fromkeys((*job.tags, *used.every)))
        delta = stopwatch() - started
        entry = seal(value, policy, self.clock(), tags=tags, delta=delta, chance=self.chance(), stamps=used.stamps)
        entry = entry._replace(uses_until=used.until)
        flight.until = entry.until
        if await self.keep(io, ticket, entry) is Kept.REFUSED:
            return await self._latest(io, flight, job, value), Certainty.LOADED
        return value, Certainty.SURE

    async def _stands(self, io: IO, flight: Flight, ticket: Ticket, job: Job, used: Tags) -> bool:
        """Say whether what comes of *flight*, and is not kept, holds for all who joined: other processes invalidate too."""
        if self._leases is None or not flight.followers or not ticket.leads:
            return True
        return await self.holds(io, ticket, (*job.tags, *used.every), used.stamps)

    async def _latest(self, io: IO, flight: Flight, job: Job, value: Any) -> Any:
        """Return what is there after *value* was refused, if the call goes by it and there is something."""
        if not job.plan.yields:
            return value
        entry = await self.read(io, job.key, job.tags)
        if entry is None or judge(entry, self.clock()) is not Verdict.HIT:
            return value
        flight.tags.update(entry.tags)
        flight.until = entry.until
        return entry.value

    async def _give_up(self, io: IO, ticket: Ticket, flight: Flight, job: Job, exc: BaseException, used: Tags) -> None:
        """Give *ticket* back after a load that failed, or keep the failure where the function's options say so."""
        asked = isinstance(exc, Exception) and ticket.leads and not flight.void
        kept = job.plan.outcomes.failure(exc) if asked and isinstance(exc, Exception) else None
        tags = tuple(dict.fromkeys((*job.tags, *used.every)))
        if kept is None or self.is_uncommitted(tags):
            await self.release(io, ticket)
            return
        entry = seal(kept[0], kept[1], self.clock(), tags=tags, stamps=used.stamps, uses_until=used.until)
        await self.keep(io, ticket, entry)

    def _appeared(self, found: AnyEntry | None, seen: AnyEntry | None) -> AnyEntry | None:
        """Return *found* if it is fresh and not what the caller had already."""
        if found is None or judge(found, self.clock()) is not Verdict.HIT:
            return None
        return None if seen is not None and seen.created_at == found.created_at else found

    async def _wait_elsewhere(
        self, io: IO, flight: Flight, job: Job, ticket: Ticket | None
    ) -> tuple[Ticket | None, AnyEntry | None, bool]:
        """Wait while another process loads the key.

        Returns its entry and whether those who joined may have it, or the ticket to load it here.
        """
        pause = _FIRST_POLL
        lease = job.plan.policy.lease
        started = stopwatch()
        while ticket is not None and not ticket.leads and stopwatch() - started < lease * LONGEST_HOLD:
            kept = await self.ended(io, ticket, pause)
            pause = min(pause * 1.5, _LONGEST_POLL)
            if kept:
                self.flights.land(flight)  # as in _for_all
                if (found := self._appeared(await self.read(io, job.key, job.tags), job.seen)) is not None:
                    self.events(Event(Kind.COLLAPSED, job.key, job.plan.name))
                    return ticket, found, True
            ticket = await self.begin(io, job.key, job.tags, lease=lease)
            if ticket is not None and (found := self._appeared(ticket.found, job.seen)) is not None:
                await self.release(io, ticket)
                self.events(Event(Kind.COLLAPSED, job.key, job.plan.name))
                return ticket, *await self._for_all(io, flight, job, found)
        return ticket, None, False

    async def _for_all(self, io: IO, flight: Flight, job: Job, found: AnyEntry) -> tuple[AnyEntry, bool]:
        """Return an entry where *found* was, and whether those who joined may have it.

        They may have come after *found* was looked for, and have to know what was invalidated before they came. One look
        after the last of them serves all; otherwise each would look for itself.
        """
        self.flights.land(flight)
        if not flight.followers:
            return found, True
        again = self._appeared(await self.read(io, job.key, job.tags), job.seen)
        return (found, False) if again is None else (again, True)

    async def _run(self, job: Job) -> Any:
        started = stopwatch()
        plan = job.plan
        plan.counters.loads += 1
        try:
            value = await job.load()
        except Exception as exc:
            plan.counters.errors += 1
            self.events(Event(Kind.LOAD_FAILED, job.key, plan.name, seconds=stopwatch() - started, error=exc))
            raise
        took = stopwatch() - started
        plan.counters.load_seconds += took
        self.events(Event(Kind.LOAD, job.key, plan.name, seconds=took))
        return value


def _tell(flight: Flight) -> None:
    """Note what the value of *flight*, or its failure, was made from."""
    note(flight.tags)
    note_until(flight.until)
