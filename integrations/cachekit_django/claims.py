"""The second cookie of a session: what is believed of it while the store is away, so that an outage logs nobody out.

Owns what it says and when it is said anew. It stands beside Django's own cookie and counts for that session alone. Must not
know requests: ``middleware.SessionMiddleware`` reads and sends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from cachekit.sessions.cookie import Ticket
from cachekit.sessions.driver import Driver
from cachekit.sessions.keyed import KeyedExchange

LOGIN: Final = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)
"""What ``django.contrib.auth`` has to find in a session, for a visitor to be logged in."""


class ClaimedExchange(KeyedExchange):
    """One request and its session, under an id that Django carries, with claims beside it.

    Args:
        driver: what the requests of one application share.
        session_id: the id that the client sent.
        claimed: the claims that it sent; those of another session, or that nobody here has signed, count for nothing.
    """

    __slots__ = ()

    def __init__(self, driver: Driver, session_id: str, claimed: str) -> None:
        super().__init__(driver, session_id)
        found = driver.cookies.read([f"{driver.options.cookie}={claimed}"]) if claimed else None
        if found is not None and self._ticket is not None and found.id == self._ticket.id:
            self._ticket = found

    def claims(self) -> str | None:
        """Return the claims as they have to be sent; None where the client has them, an empty text where there are none.

        Raises:
            SessionTooLarge: no browser would keep them.
        """
        if self.gone or not self.is_kept:
            return ""
        driver, now = self._driver, self._driver.clock()
        if self._held is not None:
            values, about = self._held.base, self._held.about
        else:
            assert self._local is not None
            values, about = self._local.values, self._local.about
        claims: Mapping[str, bytes] = self._claimed(values)
        if not claims and not about.user:
            return ""
        sent = self._ticket
        if sent is not None and (sent.id, sent.claims, sent.user) == (self._id, claims, about.user):
            due = sent.detached or driver.cookies.is_due(sent, now, claimed=True)
            if (
                self._held is None or not due
            ):  # what the store has not confirmed is not renewed, however long it is away
                return None
        return driver.cookies.issue(Ticket(self._id, 0.0, False, self._born, claims, about.user), now)
