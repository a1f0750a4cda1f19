"""Leases that are held for longer than they were granted, while the load that they are for is running.

Must not know what is loaded, or where leases lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cachekit._io import IO
from cachekit.errors import StoreError
from cachekit.stores.base import SharedLeases, Ticket

LONGEST_HOLD: Final = 10
"""Leases for which a load may hold up other processes: one that hangs must not do so for ever."""

_PARTS: Final = 3


def hold(io: IO, leases: SharedLeases | None, ticket: Ticket | None, lease: float) -> Callable[[], None]:
    """Renew the lease of *ticket* at each third of its *lease* seconds. Returns what ends that."""
    if leases is None or ticket is None or not ticket.leads:
        return _nothing
    renewals = 0

    async def renew() -> None:
        nonlocal renewals
        renewals += 1
        try:
            if renewals >= _PARTS * LONGEST_HOLD or not await leases.renew(io, ticket, lease):
                let_go()
        except StoreError:
            pass  # the next time, or never: then the lease ends, and with it the right to keep the result

    let_go = io.every(lease / _PARTS, renew)
    return let_go


def _nothing() -> None:
    pass
