"""Whether a call to a store may go out now, and what follows from how it ends: one place for every guarded store.

Owns which errors mean that a store is away, and what is said about it. Must not know which store it is, nor what its calls
mean.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from cachekit._fork import renew_in_child
from cachekit.breaker import Breaker
from cachekit.clock import Clock
from cachekit.errors import StoreError, StoreTimeout, StoreUnavailable
from cachekit.events import Emit, Event, Kind

R = TypeVar("R")

log = logging.getLogger("cachekit")

# A full server, or a replica, refuses every write: said when it begins, and then once in so many seconds.
SAY_AGAIN: Final = 60.0


class Breaking:
    """Lets calls through while *breaker* allows them, and tells it and everybody how they ended.

    Args:
        breaker: decides when calls are refused.
        clock: source of time.
        emit: receives events.
        what: what the store is called in messages.
        name: the name in events.
    """

    def __init__(self, breaker: Breaker, *, clock: Clock, emit: Emit, what: str = "the store", name: str = "") -> None:
        self.breaker = breaker
        self._clock = clock
        self._emit = emit
        self._what = what
        self._name = name
        self._said: tuple[float, int] | None = None
        self._renew()
        renew_in_child(self, Breaking._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    @property
    def is_away(self) -> bool:
        """Return whether a call would be refused now. False as soon as one may be tried, so that somebody tries."""
        return self.breaker.is_open and self.breaker.retry_after(self._clock()) > 0

    def admit(self) -> None:
        """Let a call through. Raises ``StoreUnavailable`` while the breaker is open."""
        with self._lock:
            allowed = self.breaker.allow(self._clock())
        if not allowed:
            raise StoreUnavailable(
                f"{self._what} is away and its breaker is open", retry_after=self.breaker.retry_after(self._clock())
            )

    def succeeded(self) -> None:
        """Take in that a call was answered."""
        self._record(None)

    def failed(self, error: StoreError) -> None:
        """Take in that a call has raised *error*."""
        self._record(error)

    def _record(self, error: StoreError | None) -> None:
        answered = not isinstance(error, (StoreTimeout, StoreUnavailable))  # an error reply is an answer too
        with self._lock:
            changed = self.breaker.record(answered, self._clock(), slow=isinstance(error, StoreTimeout))
            refused = self._refused() if error is not None and answered else 0
        if refused:
            # The breaker stays closed, since what it has is still read; nobody would hear of it otherwise.
            more = f" ({refused} refusals since this was last said)" if refused > 1 else ""
            log.warning("%s answers with a refusal, going on without what it refuses: %s%s", self._what, error, more)
        if error is not None:
            self._emit(Event(Kind.STORE_ERROR, name=self._name, detail=str(error), error=error))
        if changed and answered:
            log.warning("%s answers again", self._what)
            self._emit(Event(Kind.BREAKER_CLOSED, name=self._name))
        elif changed:
            log.warning("%s is away, going on without it: %s", self._what, error)
            self._emit(Event(Kind.BREAKER_OPENED, name=self._name, detail=str(error), error=error))

    def _refused(self) -> int:
        """Count a refusal. Returns how many there were since it was last said, if it is to be said now, else 0."""
        now = self._clock()
        last, count = self._said or (now - SAY_AGAIN, 0)
        if 0 <= now - last < SAY_AGAIN:
            self._said = last, count + 1
            return 0
        self._said = now, 0
        return count + 1

    async def run(
        self, call: Callable[..., Awaitable[R]], *args: Any, before: Callable[[], Awaitable[object]] | None = None
    ) -> R:
        """Return what *call* with *args* returns, having awaited *before*. Raises ``StoreError``."""
        if before is None and self.breaker.is_quiet:
            try:
                return await call(*args)
            except StoreError as exc:
                self.failed(exc)
                raise
        self.admit()
        try:
            if before is not None:
                await before()
            result = await call(*args)
        except StoreError as exc:
            self.failed(exc)
            raise
        self.succeeded()
        return result
