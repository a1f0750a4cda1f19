"""What this process holds while the store is away: changes that wait, and logouts that must not be forgotten.

Bounded. Owns what waits; must not know how it is delivered, nor requests or cookies.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cachekit._fork import renew_in_child
from cachekit.clock import Clock
from cachekit.sessions.payload import About, Payloads
from cachekit.sessions.store import Key


@dataclass(frozen=True, slots=True)
class Pending:
    """One session as this process left it.

    Attributes:
        base: what the store was known to hold; what was only claimed counts as that.
        values: what the session holds here.
        about: whose it is.
        born: whether the store has never heard of it.
        previous: the key whose place it takes, once it has reached the store.
        replaced: whether another key takes its place: it is dead here, and delivered by that one.
        ended: whether it has ended.
        owner: whose it was when it ended.
        sent: versions that were sent to the store, and perhaps arrived there; with what the session held here then.
    """

    base: Mapping[str, bytes] = field(default_factory=dict)
    values: Mapping[str, bytes] = field(default_factory=dict)
    about: About = field(default_factory=About)
    born: bool = False
    previous: Key | None = None
    replaced: bool = False
    ended: bool = False
    owner: str = ""
    sent: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    @property
    def is_unheard_of(self) -> bool:
        """Return whether the store certainly has nothing of it."""
        return self.born and not self.sent

    def after(self, versions: Iterable[str]) -> Pending:
        """Return the same after it was sent under *versions*."""
        return replace(self, sent={**self.sent, **dict.fromkeys(versions, self.values)})

    def base_of(self, version: str) -> Mapping[str, bytes]:
        """Return what of this was in the store already, where *version* of the session is there."""
        return self.sent.get(version, self.base)

    @property
    def is_dead(self) -> bool:
        """Return whether nobody may read it here."""
        return self.ended or self.replaced


class LocalSessions:
    """Holds what waits for the store.

    Attributes:
        kept: what waits, with when it is given up.

    Args:
        limit: bound on the number of sessions; the oldest leave first.
        ttl: seconds for which one is held.
        clock: source of time.
        payloads: merges values.
    """

    def __init__(self, limit: int, ttl: float, clock: Clock, payloads: Payloads) -> None:
        self._limit = limit
        self._ttl = ttl
        self._clock = clock
        self._payloads = payloads
        self.kept: OrderedDict[Key, tuple[float, Pending]] = OrderedDict()
        self._renew()
        renew_in_child(self, LocalSessions._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.kept)

    def find(self, key: Key) -> Pending | None:
        """Return what waits under *key*."""
        if not self.kept:
            return None
        found = self.kept.get(key)
        return found[1] if found is not None and self._clock() < found[0] else None

    def put(self, key: Key, pending: Pending) -> int:
        """Let *pending* wait, in place of what did. Returns how many had to leave for lack of room, or because of age."""
        with self._lock:
            return self._put(key, pending, self._clock())

    def _put(self, key: Key, pending: Pending, now: float) -> int:
        self.kept.pop(key, None)
        self.kept[key] = (now + self._ttl, pending)
        left = 0
        while len(self.kept) > self._limit or next(iter(self.kept.values()))[0] <= now:
            self.kept.popitem(last=False)
            left += 1
        return left

    def add(
        self, key: Key, pending: Pending, base: Mapping[str, bytes], known: Pending | None, *, own_about: bool
    ) -> tuple[Pending | None, int]:
        """Let *pending* wait, together with what other requests have let wait since this one has looked.

        Args:
            key: of which session.
            pending: what the session holds here.
            base: what its values were made of.
            known: what this request knows to wait.
            own_about: whether whose it is, or how long it lasts, was changed as well.

        Returns what waits now, None where the session has ended here meanwhile; and how many others had to leave.
        """
        now = self._clock()
        with self._lock:
            found = self.kept.get(key)
            there = found[1] if found is not None and now < found[0] else None
            if there is None and known is not None:
                pending = replace(pending, base=base)  # what was known is delivered, or on its way
            if there is not None and there is not known:
                if there.is_dead:
                    return None, 0
                values = self._payloads.merge(base, pending.values, there.values)
                about = pending.about if own_about else there.about
                pending = replace(there, values=values, about=about, sent={**there.sent, **pending.sent})
            return pending, self._put(key, pending, now)

    def take(self, key: Key) -> Pending | None:
        """Return what waits under *key*, which from now on is the caller's to deliver."""
        with self._lock:
            found = self.kept.pop(key, None)
        return found[1] if found is not None and self._clock() < found[0] else None

    def give_back(self, key: Key, pending: Pending) -> int:
        """Let *pending* wait again; what was put in its place meanwhile came after it."""
        later = self.take(key)
        if later is not None and not pending.is_dead and not later.is_dead:
            values = self._payloads.merge(later.base, later.values, pending.values)
            later = replace(pending, values=values, about=later.about, sent={**pending.sent, **later.sent})
        return self.put(key, later if later is not None else pending)

    def clear(self) -> None:
        """Forget all that waits."""
        with self._lock:
            self.kept.clear()

    def waiting(self) -> list[Key]:
        """Return the keys of all that waits."""
        with self._lock:
            return list(self.kept)
