"""The source of a session whose request is over: it holds the exchange, and not the session that holds it.

Must not know what an exchange does.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable
from typing import Protocol

from cachekit.errors import CodecError
from cachekit.sessions.session import Session, Source


class Kept(Source, Protocol):
    """An exchange that can take its session back."""

    session: Session


class Late:
    """The source of a session whose request is over. It does not hold the session; whoever still has that may use it."""

    __slots__ = ("_exchange", "_session")

    def __init__(self, exchange: Kept, session: Session) -> None:
        self._exchange = exchange
        self._session = weakref.ref(session)

    def _again(self) -> Kept:
        exchange, session = self._exchange, self._session()
        assert session is not None  # it is the one who asks
        exchange.session = session
        session.belongs_to(exchange)
        return exchange

    def fetch(self) -> None:
        self._again().fetch()

    def afetch(self) -> Awaitable[None]:
        return self._again().afetch()

    def store(self) -> None:
        self._again().store()

    def astore(self) -> Awaitable[None]:
        return self._again().astore()

    def csrf(self) -> str:
        return self._again().csrf()

    def is_csrf(self, token: str) -> bool:
        return self._again().is_csrf(token)

    def unreadable(self, key: str, error: CodecError) -> None:
        self._again().unreadable(key, error)
