"""A request on its way to the application: what this cache has for it, whose response it may share, the right to store.

Owns the order of reading, waiting and taking the right, in this process and across processes. Must not know ASGI or
WSGI, nor what the application answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from cachekit._io import IO
from cachekit.clock import stopwatch
from cachekit.events import Event, Kind
from cachekit.http.collapse import Flight, Flights, Landing
from cachekit.http.decisions import Forward, Refuse, Serve, Validate
from cachekit.http.dropping import Dropping
from cachekit.http.exchange import Exchange
from cachekit.http.following import BrokenOff, Following, Stream
from cachekit.http.message import Request
from cachekit.http.options import HttpOptions
from cachekit.http.passage import Passage
from cachekit.http.past import Past
from cachekit.http.port import CachePort
from cachekit.http.rules import Rule, Rules
from cachekit.stores.base import Ticket
from cachekit.tags import UNCOMMITTED

log = logging.getLogger("cachekit")

R = TypeVar("R")

_NAME: Final = "http"
_BODY_PATIENCE: Final = 2.0
"""Seconds that followers wait for a body that has begun: its client may read it slowly."""
_LOOKS: Final = 3
_FIRST_POLL: Final = 0.01
_LONGEST_POLL: Final = 0.04


class Arriving:
    """The half of the HTTP cache that lies before the application; ``Driver`` brings the rest."""

    def __init__(self, cache: CachePort, rules: Rules | Sequence[Rule], options: HttpOptions | None) -> None:
        self._cache = cache
        self._rules = rules if isinstance(rules, Rules) else Rules(rules)
        self.options = options or HttpOptions()
        self._flights = Flights(self.options.span("collapse_timeout"), cache.clock)
        self.dropping = Dropping(cache, self.options.purge_urls)
        self.past = Past(self.options, self._rules)
        self.listen = self._rules.listen
        """Returns what holds from now on the rules that routes declare for a request that goes past the cache."""
        self.goes_past: Callable[[str, bool], str] = self._flights.bare if self.past.plain else _never
        """Says why a plain GET of a key, of which this process holds nothing, need not be looked up, if so: it was found
        uncacheable a moment ago. The flag is for credentials."""
        self.counters = cache.counting(_NAME)
        self.tally = self.counters.tally

    def open(self, request: Request) -> Exchange:
        """Return the exchange for *request*."""
        self.dropping.tread(request.path)
        return Exchange(request, self._rules, self.options)

    def at_once(self, exchange: Exchange) -> Serve | None:
        """Return what this process can answer with at once, or None."""
        if exchange.wants() is None:
            return None
        try:
            while (key := exchange.wants()) is not None:
                if (entry := self._cache.peek(key)) is None:
                    break
                exchange.supply(entry)
            else:
                if exchange.found is not None:
                    decision = exchange.decision(self._cache.clock())
                    if isinstance(decision, Serve) and not isinstance(decision, Refuse):
                        self._count(decision, exchange)
                        return decision
        except Exception as exc:  # noqa: BLE001 - a broken cache never breaks a response
            self._report(exc, exchange)
        exchange.reset()
        return None

    async def enter(self, io: IO, exchange: Exchange) -> Serve | Passage | Following:
        """Answer from the cache, or return the passage to the application."""
        try:
            return await self._enter(io, exchange)
        except Exception as exc:  # noqa: BLE001 - a broken cache never breaks a response
            self._report(exc, exchange)
            exchange.reset()
            return Passage(exchange)

    async def _enter(self, io: IO, exchange: Exchange) -> Serve | Passage | Following:
        if exchange.wants() is None:
            exchange.decision(self._cache.clock())
            return Passage(exchange)
        flight: Flight | None = None
        for look in range(_LOOKS):
            decision = await self._look(io, exchange)
            if not look:
                self._count(decision, exchange)
            if isinstance(decision, Serve):
                return decision
            if not exchange.collapses:
                break
            now = self._cache.clock()
            if self._flights.is_uncacheable(exchange.flight_key, now):
                break
            flight, leads = self._flights.join(io.scope, exchange.flight_key, now)
            if leads:
                break
            landing = await self._follow(io, exchange, flight)
            if isinstance(landing, Following):
                return landing
            flight = None
            if landing in (Landing.UNCACHEABLE, Landing.FAILED):
                break
            exchange.collapsed = exchange.collapsed or landing is Landing.STORED
            exchange.reset()
        else:
            decision = await self._look(io, exchange)
            if isinstance(decision, Serve):
                return decision
        exchange.collapsed = False
        passage = Passage(exchange, flight)
        try:
            return await self._depart(io, passage, decision)
        except BaseException:
            self._land(passage, Landing.ABANDONED)
            raise

    async def _look(self, io: IO, exchange: Exchange) -> Serve | Forward | Validate:
        while (key := exchange.wants()) is not None:
            exchange.supply(await self._guard(self._cache.read(io, key), exchange, None))
        if exchange.unreadable:
            self._emit(Kind.UNREADABLE, exchange)
        decision = exchange.decision(self._cache.clock())
        if exchange.collapsed and isinstance(decision, Serve) and not isinstance(decision, Refuse):
            self._emit(Kind.COLLAPSED, exchange)
        return decision

    def _count(self, decision: Serve | Forward | Validate, exchange: Exchange) -> None:
        """Count the lookup that came to *decision*."""
        if not isinstance(decision, Serve) or isinstance(decision, Refuse):
            self.counters.misses += 1
        elif decision.refresh:
            self.counters.stale += 1
            self._emit(Kind.STALE, exchange)
        else:
            self.tally.hits += 1

    async def _follow(self, io: IO, exchange: Exchange, flight: Flight) -> Landing | Following:
        """Wait for *flight*, or take its response as it comes."""
        flight.followers += 1
        follows = False
        try:
            await io.wait(flight.started, self.options.span("collapse_timeout"))
            if flight.stream is not None and not flight.landed.done():
                following = await self._take(io, exchange, flight, flight.stream)
                if following is not None:
                    follows = True
                    return following
            return await io.wait(flight.landed, _BODY_PATIENCE)
        except TimeoutError:
            return Landing.FAILED
        finally:
            if not follows:
                flight.followers -= 1

    async def _take(self, io: IO, exchange: Exchange, flight: Flight, stream: Stream) -> Following | None:
        """Return the response of *flight* as it comes, where it may be taken by this request already.

        What was invalidated before the request came must not reach it, though its bytes are under way: so it is asked
        whether they would still be stored.
        """
        headers = exchange.follow(stream.head, self._cache.clock())
        if headers is None:
            return None
        tags, stamps = stream.tags()
        holds = UNCOMMITTED not in tags and await self._guard(
            self._cache.holds(io, stream.ticket, tags, stamps), exchange, False
        )
        if not holds:
            exchange.collapsed = False
            return None
        cursor = stream.join()
        if cursor is None:
            exchange.collapsed = False
            return None
        try:
            first = await stream.take(io, cursor, _BODY_PATIENCE)
        except BaseException as exc:
            stream.part(cursor)
            exchange.collapsed = False
            if isinstance(exc, (BrokenOff, TimeoutError)):
                return None
            raise
        self._emit(Kind.COLLAPSED, exchange)

        def done() -> None:
            flight.followers -= 1

        return Following(headers, stream, cursor, first, self.options.span("collapse_timeout"), done)

    async def _depart(self, io: IO, passage: Passage, decision: Forward | Validate) -> Serve | Passage:
        """Take the right to store, and look a last time: another process may have been faster."""
        exchange = passage.exchange
        self._emit(Kind.MISS, exchange)
        if isinstance(decision, Validate):
            passage.headers = decision.headers
        if not exchange.recording.active:
            self._land(passage, Landing.FAILED)
            return passage
        ticket = await self._begin(io, passage)
        if ticket is not None and not ticket.leads and exchange.found is None and passage.flight is not None:
            theirs = await self._wait_elsewhere(io, passage, ticket)
            if isinstance(theirs, Serve):
                self._land(passage, Landing.STORED)
                return theirs
            ticket = theirs
            if ticket is not None and ticket.found is None:
                # Nothing came of it. Whoever follows here has waited once, and does not wait for a second one.
                if not ticket.leads:
                    until = self._cache.clock() + self.options.span("uncacheable_for")
                    self._flights.remember(exchange.flight_key, until, bare=exchange.fwd)
                self._land(passage, Landing.FAILED)
        if ticket is not None and not ticket.leads:  # the end of that lease need not be told any more
            await self._guard(self._cache.release(io, ticket), exchange, None)
        if ticket is not None and ticket.found is not None and exchange.found is None:
            exchange.reset()
            again = await self._look(io, exchange)
            if isinstance(again, Serve):
                self._land(passage, Landing.STORED)
                await self._release(io, passage)
                return again
            passage.headers = again.headers if isinstance(again, Validate) else None
        exchange.collapsed = False
        if passage.ticket is None or passage.ticket.key != exchange.store_key:
            exchange.recording.spoil("no-ticket")
            self._land(passage, Landing.FAILED)
            await self._release(io, passage)
        return passage

    async def _wait_elsewhere(self, io: IO, passage: Passage, ticket: Ticket) -> Serve | Ticket | None:
        """Wait while another process makes the response; returns it, or what was learned last.

        The store tells when the lease ended, where it can; otherwise it is asked again and again. No longer than the
        lease and the time-out, and for one other only: when the lease passes on to a third, the response of the first
        was not for others, and waiting in line for the next would be in vain.
        """
        exchange = passage.exchange
        exchange.collapsed = True
        pause, started = _FIRST_POLL, stopwatch()
        longest = min(self.options.span("collapse_timeout"), ticket.retry_in)
        while (left := longest - (stopwatch() - started)) > 0:
            bounded = replace(ticket, retry_in=min(left, ticket.retry_in))
            kept = await self._guard(self._cache.ended(io, bounded, min(pause, left)), exchange, None)
            if kept is None:
                await io.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL)
            if kept:
                exchange.reset()
                found = await self._look(io, exchange)
                if isinstance(found, Serve):
                    return found
                passage.headers = found.headers if isinstance(found, Validate) else None
            before = ticket.retry_in
            again = await self._begin(io, passage)
            if again is None or again.leads or again.found is not None:
                return again
            ticket = again
            if kept or ticket.retry_in > before:
                break
        return ticket

    async def _begin(self, io: IO, passage: Passage) -> Ticket | None:
        exchange = passage.exchange
        ticket = await self._guard(self._cache.begin(io, exchange.store_key, exchange.tags), exchange, None)
        if ticket is not None and ticket.leads:
            passage.ticket = ticket
        return ticket

    # Revalidation behind a stale response

    def refreshing(self, io: IO, exchange: Exchange) -> Passage | None:
        """Return the passage of the one revalidation of a response served stale; None when one is under way."""
        now = self._cache.clock()
        flight, leads = self._flights.join(io.scope, exchange.flight_key, now)
        if not leads:
            return None
        passage = Passage(exchange, flight)
        passage.headers = exchange.refresh(now)
        return passage

    async def take_off(self, io: IO, passage: Passage) -> bool:
        """Take the right to store for a revalidation; False when another process has it."""
        await self._begin(io, passage)
        if passage.ticket is None:
            passage.exchange.recording.spoil("no-ticket")
            self._land(passage, Landing.FAILED)
        return passage.ticket is not None

    # Parts of the above

    def _land(self, passage: Passage, landing: Landing) -> None:
        flight, passage.flight = passage.flight, None
        if passage.stream is not None:
            passage.stream.close()
        if flight is not None:
            self._flights.land(flight, landing)

    async def _release(self, io: IO, passage: Passage) -> None:
        ticket, passage.ticket = passage.ticket, None
        if ticket is not None:
            await self._guard(self._cache.release(io, ticket), passage.exchange, None)

    async def _guard(self, job: Coroutine[Any, Any, R], exchange: Exchange, otherwise: R) -> R:
        try:
            return await job
        except Exception as exc:  # noqa: BLE001 - a broken cache never breaks a response
            self._report(exc, exchange)
            return otherwise

    def _report(self, error: Exception, exchange: Exchange) -> None:
        log.error("the HTTP cache failed; the response goes on without it", exc_info=error)
        self._emit(Kind.STORE_ERROR, exchange, error=error)

    def _emit(self, kind: Kind, exchange: Exchange, *, detail: str = "", error: Exception | None = None) -> None:
        try:
            self._cache.events(Event(kind, exchange.key or "", _NAME, detail=detail, error=error))
        except Exception:
            log.exception("an event of the HTTP cache could not be emitted")


def _never(*key: object) -> str:  # noqa: ARG001 - stands in for what looks at it
    return ""
