"""The outbox: purges are put here with the invalidation that causes them, and stay until the CDN has confirmed them.

Owns when a purge is delivered, when again, and when it is given up. Where there is a server the outbox lies beside the
cache: a purge survives its process, one process delivers at a time, and all of them keep one pace. While that server is
away purges are delivered from this process, and put there as soon as it is back.

Each confirmed purge is sent a second time after *rebound* seconds. A CDN may be fetching a page while the purge passes
it, or fetch from a process that has not heard of the invalidation yet; without the second purge it would keep that page
for as long as it lives. (MediaWiki does the same: www.mediawiki.org/wiki/Manual:$wgCdnReboundPurgeDelay.)

Must not know what invalidated, nor how a CDN is spoken to.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cachekit._fork import renew_in_child
from cachekit._io import BLOCKING, IO, drive
from cachekit.around import surrounded
from cachekit.cdn.base import HttpCall, Outcome, Purger, Scope, Target, Verdict
from cachekit.cdn.box import Box, Claim, Count, Item, MemoryBox, Settled
from cachekit.cdn.client import Client
from cachekit.cdn.options import PurgeOptions, PurgeStatus
from cachekit.clock import Chance, Clock, random_token, stopwatch, system_chance, system_clock
from cachekit.errors import ConfigError, PurgeError, StoreError
from cachekit.events import Emit, Event, Kind
from cachekit.keys import wire_tag
from cachekit.stats import Waiting

log = logging.getLogger("cachekit")

_POLL: Final = 1.0
"""Seconds between looks into a shared outbox, in which other processes put too."""
_MARGIN: Final = 5.0
_LONGEST_TAG: Final = 1024
"""Bytes of a tag that CDNs take: a longer one was never told to them, so there is nothing to purge."""


@dataclass(slots=True)
class _Unsaved:
    """What this process could not put into the store yet, by purger."""

    targets: dict[str, dict[str, object]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.targets.values()))


class Outbox:
    """Keeps purges and delivers them.

    Args:
        purgers: the CDNs.
        box: where purges wait; this process when left out.
        is_away: says whether the store of *box*, and with it the invalidations themselves, wait for a server.
        options: when to deliver.
        client: sends calls.
        clock: source of time.
        chance: source of randomness.
        emit: receives events.
        background: deliver in threads; without them ``deliver`` does when it is called.

    Raises:
        ConfigError: two purgers have one name, or there is none.
    """

    def __init__(
        self,
        purgers: Sequence[Purger],
        *,
        box: Box | None = None,
        is_away: Callable[[], bool] = lambda: False,
        options: PurgeOptions | None = None,
        client: Client | None = None,
        clock: Clock = system_clock,
        chance: Chance = system_chance,
        emit: Emit = lambda _: None,
        background: bool = True,
    ) -> None:
        self.purgers = {purger.name: purger for purger in purgers}
        if not self.purgers or len(self.purgers) != len(purgers):
            raise ConfigError("purgers must be a list of purgers with different names: give them name=...")
        self.options = options or PurgeOptions()
        self._spare = MemoryBox()
        self._box: Box = self._spare if box is None else box
        self._is_away = is_away
        self._client = client or Client(timeout=self.options.timeout, clock=clock)
        self._clock = clock
        self._chance = chance
        self._emit = emit
        self._background = background
        self._stopped = True
        self._unsaved = _Unsaved()
        self._known: dict[str, Count] = {}
        self._renew()
        renew_in_child(self, Outbox._in_child)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._wakes = {name: threading.Event() for name in self.purgers}

    def _in_child(self) -> None:
        """A forked child has no threads, and what waits in its parent's memory is its parent's to deliver."""
        running = not self._stopped
        self._stopped = True
        self._unsaved = _Unsaved()
        self._renew()
        if running:
            self.start()

    @property
    def is_durable(self) -> bool:
        """Say whether purges outlive this process."""
        return self._box is not self._spare

    def start(self) -> None:
        """Begin to deliver in the background, if that is wanted and not under way."""
        if not self._background:
            return
        with self._lock:
            if not self._stopped:
                return
            self._stopped = False
            self._wakes = {
                name: threading.Event() for name in self.purgers
            }  # a thread of before knows itself by its own
            for name, wake in self._wakes.items():
                args = (weakref.ref(self), name, wake)
                threading.Thread(target=_work, args=args, name=f"cachekit-purge-{name}", daemon=True).start()

    def stop(self) -> None:
        """Have the background end after the call that is under way."""
        self._stopped = True
        for wake in self._wakes.values():
            wake.set()

    # -- putting ------------------------------------------------------------------------------------------------------

    async def put(
        self, io: IO, tags: Iterable[str] = (), urls: Iterable[str] = (), *, everything: bool = False
    ) -> bool:
        """Put what is to be purged. Returns False when it is in this process only, although there is a server."""
        wanted = [Target(Scope.TAG, tag) for tag in tags if len(wire_tag(tag)) <= _LONGEST_TAG]
        wanted += [Target(Scope.URL, url) for url in urls]
        wanted += [Target(Scope.ALL)] * everything
        if not wanted:
            return True
        now = self._clock()
        due = now + self.options.span("delay")
        saved = True
        for name, purger in self.purgers.items():
            names = [str(target) for target in wanted if purger.batches.get(target.scope, 0) > 0]
            if names:
                saved = await self._put(io, name, names, now, due) and saved
        self.start()
        for wake in self._wakes.values():
            wake.set()
        return saved

    async def _put(self, io: IO, purger: str, names: Sequence[str], now: float, due: float) -> bool:
        if not self._is_away():
            try:
                await self._box.put(io, purger, names, now, due)
                return True
            except StoreError as exc:
                self._emit(Event(Kind.STORE_ERROR, name=purger, detail=str(exc), error=exc))
        with self._lock:  # the same box where there is no server, which then never is away
            self._unsaved.targets.setdefault(purger, {}).update((name, object()) for name in names)
        await self._spare.put(io, purger, names, now, due)
        return False

    async def _save(self, io: IO, purger: str) -> None:
        """Put into the store what could not be put there, once the invalidations themselves have been delivered."""
        with self._lock:
            unsaved = dict(self._unsaved.targets.get(purger, {}))
        if not unsaved or self._is_away():
            return
        now = self._clock()
        await self._box.put(io, purger, list(unsaved), now, now)
        with self._lock:
            waiting = self._unsaved.targets.get(purger, {})
            kept = [name for name, mark in unsaved.items() if waiting.get(name) is mark]
            for name in kept:
                del waiting[name]
        self._spare.forget(purger, kept)

    # -- delivering ---------------------------------------------------------------------------------------------------

    async def deliver(self, io: IO, purger: str | None = None) -> float:
        """Deliver what is due. Returns the seconds until something will be; infinite when nothing waits."""
        pauses = [await self._deliver(io, self.purgers[name]) for name in ([purger] if purger else self.purgers)]
        return min(pauses)

    async def _deliver(self, io: IO, purger: Purger) -> float:
        boxes: list[Box] = [self._box] if self._box is self._spare else [self._box, self._spare]
        pause = math.inf
        token = random_token(8).hex()
        for box in boxes:
            try:
                if self.is_durable and box is self._box:
                    if self._is_away():
                        continue
                    await self._save(io, purger.name)
                while (claim := await self._claim(io, box, purger, token)).what == "due":
                    await self._serve(io, box, purger, claim, token)
            except StoreError:
                pause = min(pause, _POLL)  # the guard reports it; what it keeps is there when it is back
            else:
                pause = min(pause, claim.wait if claim.wait >= 0 else math.inf)
                if box is self._box:
                    await self._look(io, purger.name)
        if self.is_durable:
            pause = min(pause, _POLL)
        return pause

    async def _claim(self, io: IO, box: Box, purger: Purger, token: str) -> Claim:
        lease = self._client.timeout + _MARGIN
        return await box.claim(io, purger.name, token, lease, self._clock(), purger.rate)

    async def _serve(self, io: IO, box: Box, purger: Purger, claim: Claim, token: str) -> None:
        """Make the first call that *claim* allows, and say what came of it."""
        items = _together(claim.items, purger)
        by_target = {Target.parse(item.target): item for item in items}
        settled: list[Settled] = []
        error, hold = "", 0.0
        try:
            scope = next(iter(by_target)).scope
            values = [target.value for target in by_target]
            calls = purger.build(
                values if scope is Scope.TAG else (),
                values if scope is Scope.URL else (),
                everything=scope is Scope.ALL,
            )
            for call in calls:
                outcome, took = await self._call(io, purger, call)
                mine = [by_target[target] for target in call.targets]
                settled += self._settle(purger, mine, outcome)
                self._report(purger, call, outcome, took)
                if outcome.verdict is not Verdict.DONE:
                    error = outcome.detail or str(outcome.verdict)
                    if outcome.everywhere and outcome.verdict is not Verdict.SPLIT:
                        hold = max(s.due for s in settled)
                        break
        finally:
            # What was not called keeps its place; a purger that raises is a purge that failed.
            if not settled:
                broken = Outcome(Verdict.RETRY, "the purger raised", everywhere=True)
                settled = self._settle(purger, items, broken)
                hold, error = max(s.due for s in settled), broken.detail
            await box.settle(io, purger.name, token, self._clock(), hold, error, settled)

    async def _call(self, io: IO, purger: Purger, call: HttpCall) -> tuple[Outcome, float]:
        began = stopwatch()
        try:
            reply = await self._client.send(io, call)
        except PurgeError as exc:
            return Outcome(Verdict.RETRY, str(exc)), stopwatch() - began
        outcome = purger.check(call, reply)
        return replace(outcome, detail=call.scrub(outcome.detail)), stopwatch() - began

    def _settle(self, purger: Purger, items: Sequence[Item], outcome: Outcome) -> list[Settled]:
        now = self._clock()
        rebound = self.options.span("rebound")
        again = now + rebound if rebound > 0 else 0.0
        landed = set(map(str, outcome.landed))
        made: list[Settled] = []
        pause = self.options.pause(max((item.tries for item in items), default=0), self._chance())
        if outcome.retry_after is not None:
            pause = max(pause, outcome.retry_after)
        for item in items:
            if outcome.verdict is Verdict.DONE or item.target in landed:
                made.append(Settled(item, "done", again))
            elif outcome.verdict is Verdict.SPLIT:
                made.append(Settled(item, "split", now, max(1, len(items) // 2)))
            elif now - item.last >= self.options.span("give_up_after"):
                self._emit(Event(Kind.PURGE_DEAD, item.target, purger.name, detail=outcome.detail))
                log.error("%s: gave up purging %s: %s", purger.name, item.target, outcome.detail)
                made.append(Settled(item, "dead", now + pause))
            else:
                made.append(Settled(item, "retry", now + pause, item.batch))
        return made

    def _report(self, purger: Purger, call: HttpCall, outcome: Outcome, took: float) -> None:
        shown = ", ".join(map(str, call.targets[:20]))
        if outcome.verdict is Verdict.DONE:
            self._emit(Event(Kind.PURGED, name=purger.name, detail=shown, seconds=took))
        elif outcome.verdict is not Verdict.SPLIT:
            self._emit(Event(Kind.PURGE_FAILED, name=purger.name, detail=outcome.detail, seconds=took))
            log.warning(
                "%s: %d purges failed and will be tried again: %s", purger.name, len(call.targets), outcome.detail
            )

    async def _look(self, io: IO, purger: str) -> None:
        """Remember how it stands, for those who ask without a round trip."""
        try:
            self._known[purger] = await self._box.count(io, purger)
        except StoreError:
            pass  # what was seen last holds, and grows old

    # -- looking ------------------------------------------------------------------------------------------------------

    async def status(self, io: IO) -> dict[str, PurgeStatus]:
        """Return how it stands with each purger. Raises ``StoreError`` when the store is away."""
        now = self._clock()
        made: dict[str, PurgeStatus] = {}
        for name in self.purgers:
            count = await self._box.count(io, name)
            made[name] = PurgeStatus(
                count.pending,
                0.0 if count.oldest is None else max(0.0, now - count.oldest),
                count.again,
                count.dead,
                count.dead_targets,
                count.delivered,
                count.failed,
                count.error,
                None if count.error_at is None else max(0.0, now - count.error_at),
                len(self._unsaved.targets.get(name, ())),
            )
        return made

    def waiting(self) -> dict[str, Waiting]:
        """Return what waits at each purger as of the last delivery or try, and what this process could not save."""
        now = self._clock()
        made: dict[str, Waiting] = {}
        for name in self.purgers:
            known = self._known.get(name, Count())
            unsaved = len(self._unsaved.targets.get(name, ()))
            age = 0.0 if known.oldest is None else max(0.0, now - known.oldest)
            made[name] = Waiting(known.pending + unsaved, age)
        return made

    async def retry_dead(self, io: IO) -> int:
        """Put the purges that were given up anew, the first hundred of each purger. Returns how many there were."""
        now, found = self._clock(), 0
        for name in self.purgers:
            dead = (await self._box.count(io, name)).dead_targets
            if dead:
                await self._box.put(io, name, dead, now, now)
                found += len(dead)
        for wake in self._wakes.values():
            wake.set()
        return found

    async def flush(self, io: IO, timeout: float) -> bool:
        """Deliver until nothing waits for its first delivery, at most *timeout* seconds. Says whether that is so."""
        deadline = stopwatch() + timeout
        while True:
            pause = await self.deliver(io)
            try:
                pending = sum([(await self._box.count(io, name)).pending for name in self.purgers])
            except StoreError:
                pending = 1
            if not pending and self._spare.is_empty():
                return True
            left = deadline - stopwatch()
            if left <= 0:
                return False
            await io.sleep(min(pause, left, 0.05))

    async def close(self, io: IO) -> None:
        """Stop; deliver first what would be lost with this process, as far as *flush* seconds reach."""
        wait = self.options.span("flush")
        if wait > 0 and not self._spare.is_empty():
            done = self._spare.is_empty() or await self.flush(io, wait)
            if not done and not self.is_durable:
                log.error("purges are lost with this process: the CDN did not take them in %g s", wait)
        self.stop()


def _together(items: Sequence[Item], purger: Purger) -> list[Item]:
    """Return those of *items* that go into the next call: of one scope, as many as the CDN and earlier refusals allow."""
    first = items[0]
    scope = Target.parse(first.target).scope
    most = min(purger.batches.get(scope, 1), first.batch or math.inf)
    return [item for item in items if Target.parse(item.target).scope is scope and item.batch == first.batch][
        : int(most)
    ]


def _work(outbox: weakref.ref[Outbox], name: str, wake: threading.Event) -> None:
    """Deliver for one purger until the outbox is stopped or gone."""
    while True:
        owner = outbox()
        if owner is None or owner._stopped or owner._wakes[name] is not wake:
            return
        wake.clear()
        try:
            pause = surrounded(functools.partial(drive, owner.deliver(BLOCKING, name)))
        except Exception:
            log.exception("delivering purges to %s failed", name)
            pause = _POLL
        del owner
        wake.wait(min(pause, 60.0))  # not for ever: the outbox may go, and nobody would say so


__all__ = ["Outbox"]
