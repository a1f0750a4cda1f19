"""The leases that lie on servers: given back at once or later, held longer, and waited for while others have them.

Must not know what is loaded under a lease, nor how it was granted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from cachekit._io import IO
from cachekit.clock import Clock
from cachekit.stores.base import Ticket
from cachekit.stores.channel import Channel
from cachekit.stores.link import Call, Link
from cachekit.stores.names import Announcement, Names
from cachekit.stores.stamps import BATCH, script

_LATE: Final = 0.02
"""Seconds after which a lease that should have ended is looked at again."""

_MAX_OWED: Final = 1000
"""Bound on what is given back later: the oldest are nearest to their end."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a ticket proves: who asked, and how things stood then.

    Attributes:
        token: who asks.
        stamps: the stamps of the tags known then.
        since: when it was asked, by the clock of the servers.
        lease: how long the lease lasts, in seconds, unless it is held longer.
        ended: completed when the lease ends that another has.
    """

    token: bytes
    stamps: dict[str, bytes]
    since: Any
    lease: float
    ended: Future[bool] | None = None

    def with_stamps(self, more: Iterable[tuple[str, bytes]]) -> Proof | None:
        """Return the proof with the stamps of what was used besides; None when two of one tag differ."""
        stamps = dict(self.stamps)
        for tag, stamp in more:
            if stamps.setdefault(tag, stamp) != stamp:
                return None
        return replace(self, stamps=stamps)


class Lent:
    """The part of a store that has to do with leases once they are granted.

    Args:
        link: the servers.
        names: what the store calls its keys.
        channel: hears of the ends of leases.
        clock: source of time.
    """

    def __init__(self, link: Link, names: Names, channel: Channel, clock: Clock) -> None:
        self.link = link
        self.names = names
        self.channel = channel
        self._clock = clock
        self._owed: deque[tuple[float, bytes, str]] = deque(maxlen=_MAX_OWED)

    async def release(self, io: IO, ticket: Ticket) -> None:
        """Give the right back without storing, so that the next caller may load at once."""
        if ticket.leads:
            await self.link.script(io, script("release"), *self._releasing(ticket.key, ticket.proof.token))
        elif ticket.proof.ended is not None:
            self.channel.forget(ticket.key, ticket.proof.ended)

    def _releasing(self, key: str, token: bytes) -> Call:
        return (
            [self.names.of_key(key, Announcement("", "free", (key,))), self.names.lease(key)],
            [token, self.names.channel],
        )

    @property
    def owes(self) -> bool:
        """Return whether leases have ended that the server may still hold."""
        return bool(self._owed) and self._clock() < max((until for until, *_ in self._owed.copy()), default=0.0)

    def owe(self, ticket: Ticket) -> None:
        """Note that the lease of *ticket* is to be released."""
        if ticket.leads:
            self.owe_token(ticket.proof.token, ticket.key, ticket.proof.lease)

    def owe_token(self, token: bytes, key: str, lease: float) -> None:
        """Note that the lease of *key* is to be released, which was asked for with *token* and may have been granted.

        After *lease* seconds it has ended by itself.
        """
        self._owed.append((self._clock() + lease, token, key))

    async def give_back(self, io: IO) -> None:
        """Release what is owed. Raises ``StoreError``; what is left is owed still."""
        while self._owed:
            batch: list[tuple[float, bytes, str]] = []
            with suppress(IndexError):  # another caller gives back too
                while len(batch) < BATCH:
                    batch.append(self._owed.popleft())
            now = self._clock()
            calls = [self._releasing(key, token) for until, token, key in batch if now < until]
            if not calls:
                continue
            try:
                await self.link.scripts(io, script("release"), calls)
            except BaseException:  # a refusal too: a slot that is on its way refuses until it has arrived
                self._owed.extendleft(reversed(batch))
                raise

    async def ended(self, io: IO, ticket: Ticket, poll: float) -> bool:
        """Wait until the lease that *ticket* did not get may have ended. Returns whether its value was kept."""
        ended: Future[bool] | None = ticket.proof.ended
        if ended is None:
            if not self.channel.tried and await self.channel.ensure(io, self.link.timeout):
                return False  # from now on the end is told: the caller asks again
            await io.sleep(min(poll, max(ticket.retry_in, 0.001)))
            return False
        try:
            return await io.wait(ended, ticket.retry_in + _LATE)
        except TimeoutError:
            return False
        finally:
            self.channel.forget(ticket.key, ended)

    async def renew(self, io: IO, ticket: Ticket, lease: float) -> bool:
        """Hold the lease of *ticket* for *lease* seconds from now. Returns False when another has it, or nobody."""
        held = await self.link.script(
            io, script("renew"), [self.names.lease(ticket.key)], [ticket.proof.token, math.ceil(lease * 1000)]
        )
        return bool(held)
