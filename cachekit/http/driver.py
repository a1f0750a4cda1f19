"""Does what an exchange decides: the I/O of the HTTP cache, written once for both edges.

Owns what becomes of the application's response: stored, dropped, replaced by what is stored. What is before the
application is in ``arriving.py``. Must not know ASGI or WSGI.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from cachekit._io import IO
from cachekit.clock import random_token
from cachekit.entry import Entry
from cachekit.events import Kind
from cachekit.http.arriving import Arriving
from cachekit.http.collapse import Landing
from cachekit.http.decisions import Drop, Keep, Outcome, Relay, Serve
from cachekit.http.following import Stream
from cachekit.http.headers import Headers
from cachekit.http.message import Request
from cachekit.http.passage import Passage, every
from cachekit.http.routes import declare
from cachekit.http.rules import Match
from cachekit.stores.base import Ticket
from cachekit.tags import UNCOMMITTED, Tags


class Driver(Arriving):
    """The HTTP cache behind an edge."""

    # Past the cache

    async def went_past(
        self,
        io: IO,
        request: Request,
        status: int,
        headers: Headers,
        why: str,
        tags: AbstractSet[str],
        *,
        declared: Sequence[Match] = (),
        expected: bool,
    ) -> Headers:
        """Take in the head of a response that was sent past the cache, and has to be told more than expected.

        *why* is what ``goes_past`` said. What its route has *declared* holds for it. Where it is not even *expected* that
        nothing allows to store it, it is no longer remembered as uncacheable.
        """
        exchange = self.open(request)
        for match in declared:
            declare(match.rule, match.tags)
        if not expected:
            self._flights.forget(exchange.flight_key)
        exchange.decision(self._cache.clock())
        exchange.fwd = why
        exchange.recording.spoil("no-ticket")
        passage = Passage(exchange)
        passage.tags = tags
        return (await self.started(io, passage, status, "", headers)).headers

    # While the application answers

    async def started(self, io: IO, passage: Passage, status: int, reason: str, headers: Headers) -> Serve | Relay:
        """Take in the head of the response; returns what to send in its place."""
        exchange = passage.exchange
        if UNCOMMITTED in every(passage.tags):
            exchange.recording.spoil("uncommitted")
        try:
            answer = exchange.start(status, reason, headers, self._cache.clock(), passage.tags)
        except Exception as exc:  # noqa: BLE001 - a broken cache never breaks a response
            self._report(exc, exchange)
            exchange.recording.spoil("fault")
            answer = Relay(status, headers)
        if isinstance(answer, Serve):
            if status >= 500:
                self._emit(Kind.LOAD_FAILED, exchange, detail=f"status {status}")
                self._emit(Kind.STALE, exchange)
            await self.ended(io, passage)
        elif not exchange.recording.active:
            await self.ended(io, passage)
        elif passage.flight is not None:
            if passage.ticket is not None:
                stream = Stream(
                    exchange.recording.preview(), passage.ticket, passage.evidence, 2 * self.options.max_body
                )
                passage.stream = passage.flight.stream = stream
            self._flights.announce(passage.flight)
        return answer

    async def ended(self, io: IO, passage: Passage) -> None:
        """Store or drop what the exchange says. The caller sends the last of the response only afterwards."""
        if not passage.open:
            return
        passage.open = False
        exchange = passage.exchange
        landing = Landing.FAILED
        try:
            outcome = exchange.finish(random_token(8).hex(), passage.tags)
            landing = await self._conclude(io, passage, outcome)
        except Exception as exc:  # noqa: BLE001 - a broken cache never breaks a response
            self._report(exc, exchange)
        finally:
            self._land(passage, landing)
            await self._release(io, passage)

    async def _conclude(self, io: IO, passage: Passage, outcome: Outcome) -> Landing:
        exchange = passage.exchange
        if isinstance(outcome, Drop):
            await self._guard(self._cache.drop(io, *outcome.keys), exchange, None)
            if exchange.request.method not in ("GET", "HEAD"):  # those replace what is at a CDN by their own answer
                await self._guard(self.dropping.purge(io, outcome.keys), exchange, None)
        landing = Landing.FAILED
        if isinstance(outcome, Keep) and UNCOMMITTED in every(passage.tags):
            outcome = None
        if isinstance(outcome, Keep) and (ticket := passage.ticket) is not None:
            passage.ticket = None
            entry = outcome.entry
            if isinstance(passage.tags, Tags):  # what it used: the stamps of their tags, and the functions that made it
                used = dict.fromkeys((*entry.tags, *passage.tags.every))
                entry = entry._replace(tags=tuple(used), stamps=passage.tags.stamps)
            if outcome.key == ticket.key:
                passage.committed = await self._guard(self._cache.commit(io, ticket, entry), exchange, False)
            else:
                passage.committed = await self._guard(self._promote(io, ticket, outcome.key, entry), exchange, False)
            reusable = outcome.entry.fresh_until > self._cache.clock()
            landing = Landing.STORED if passage.committed and reusable else Landing.FAILED
        if landing is Landing.STORED:
            self._flights.forget(exchange.flight_key)
        elif passage.led and (exchange.recording.uncacheable or passage.committed):
            landing = Landing.UNCACHEABLE
            until = self._cache.clock() + self.options.span("uncacheable_for")
            bare = exchange.fwd if exchange.found is None and not passage.committed else ""
            self._flights.remember(exchange.flight_key, until, bare=bare)
            if refused := exchange.recording.terms.refused:
                self._emit(Kind.NOT_STORED, exchange, detail=refused)
        return landing

    async def _promote(self, io: IO, ticket: Ticket, key: str, entry: Entry[Any]) -> bool:
        """Keep *entry* at *key* although the *ticket*, taken before it was made, is for another one: that of a part.

        In this order nothing is lost: what was invalidated before the new ticket, the old one no longer holds against;
        what is invalidated afterwards, the new one does not.
        """
        try:
            own = await self._cache.begin(io, key, entry.tags)
            if own is None:
                return False
            if own.leads and own.found is None and await self._cache.holds(io, ticket, entry.tags, entry.stamps):
                return await self._cache.commit(io, own, entry)
            await self._cache.release(io, own)
            return False
        finally:
            await self._cache.release(io, ticket)

    async def overrun(self, io: IO, passage: Passage) -> None:
        """Take back what was stored: more came after the body that Content-Length announced."""
        if passage.committed:
            passage.committed = False
            await self._guard(self._cache.drop(io, passage.exchange.store_key), passage.exchange, None)

    async def failed(self, io: IO, passage: Passage, error: Exception) -> Serve | None:
        """Return the stale response to send although the application raised *error*, or None."""
        exchange = passage.exchange
        try:
            instead = exchange.failed(self._cache.clock(), disconnected=is_disconnected(error))
        except Exception as exc:  # noqa: BLE001 - a broken cache never breaks a response
            self._report(exc, exchange)
            instead = None
        if instead is not None:
            self._emit(Kind.LOAD_FAILED, exchange, error=error)
            self._emit(Kind.STALE, exchange)
        await self.leave(io, passage, Landing.FAILED)
        return instead

    async def leave(self, io: IO, passage: Passage, landing: Landing = Landing.ABANDONED) -> None:
        """Give up what is not ended: the response broke off, or the client left."""
        passage.open = False
        passage.over(False)
        passage.exchange.recording.spoil("incomplete")
        self._land(passage, landing)
        await self._release(io, passage)


def is_disconnected(error: BaseException) -> bool:
    """Say whether *error* is, or was caused by, a connection that could not be made, broke or took too long."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        if isinstance(found, (ConnectionError, TimeoutError)):
            return True
        seen.append(found)
        found = found.__cause__ or found.__context__
    return False


__all__ = ["Driver"]
