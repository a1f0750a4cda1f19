"""``Cache.entry``, ``scan``, ``add``, ``touch``, ``incr`` and ``change``: what a cache holds, and changing it atomically.

Must not know where entries lie, nor how values are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cachekit._io import IO, both
from cachekit.clock import Chance, Clock
from cachekit.engine import Engine
from cachekit.entry import Entry, seal
from cachekit.errors import ConfigError, StoreError
from cachekit.keys import bounded, check_entry_tags, check_tags
from cachekit.policy import Duration, Policy
from cachekit.stores.base import AnyEntry, Scannable, Store
from cachekit.stores.changes import Prolonged, adding


class Contents:
    """The part of a cache that looks at its entries; ``Cache`` brings the rest."""

    store: Store
    engine: Engine
    clock: Clock
    _chance: Chance

    def policy(self, ttl: Duration | Policy | None) -> Policy:
        """Return the policy that *ttl* means here."""
        raise NotImplementedError

    async def _entry(self, io: IO, key: str) -> Entry[Any] | None:
        """Return the fresh entry of *key*: its value, times (seconds since the epoch) and tags; or None.

        It is not counted as a hit, and its tags are not collected.
        """
        entry = await self.engine.here().read(io, bounded(key))
        return None if entry is None or self.clock() >= entry.fresh_until else entry

    entry, aentry = both(_entry)

    async def _add(
        self, io: IO, key: str, value: Any, *, ttl: Duration | Policy | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """Keep *value* only if *key* is absent. Returns whether it was kept; False when the store is away."""
        entry = seal(value, self.policy(ttl), self.clock(), tags=check_entry_tags(tags), chance=self._chance())
        try:
            return (
                await self.engine.here().store.update(io, bounded(key), lambda old: entry if self._gone(old) else old)
                is entry
            )
        except StoreError:
            return False

    add, aadd = both(_add)

    async def _touch(self, io: IO, key: str, *, ttl: Duration | Policy | None = None) -> bool:
        """Give *key* a new lifetime from now on. Returns whether it was there."""
        change = Prolonged(seal(None, self.policy(ttl), self.clock(), chance=self._chance()))
        try:
            return not self._gone(await self.engine.here().store.update(io, bounded(key), change))
        except StoreError:
            return False

    touch, atouch = both(_touch)

    async def _incr(
        self, io: IO, key: str, delta: int = 1, *, initial: int = 0, ttl: Duration | Policy | None = None
    ) -> int:
        """Add *delta* to the whole number under *key* and return the sum; an absent key starts at *initial*.

        The lifetime of a number that is there already stays.

        Raises:
            ConfigError: the value under *key* is no whole number.
            StoreError: the server is away; a count that cannot be kept has no honest answer.
        """
        policy = self.policy(ttl)

        def change(old: AnyEntry | None) -> AnyEntry | None:
            if old is None or self._gone(old):
                return seal(initial + delta, policy, self.clock(), chance=self._chance())
            if not isinstance(old.value, int) or isinstance(old.value, bool):
                raise ConfigError(f"incr({key!r}): the value is of type {type(old.value).__name__}, not a whole number")
            return old._replace(value=old.value + delta)

        entry = await self.engine.here().store.update(io, bounded(key), adding(delta, self.clock(), change))
        assert entry is not None
        return int(entry.value)

    incr, aincr = both(_incr)

    def _gone(self, entry: AnyEntry | None) -> bool:
        return entry is None or self.clock() >= entry.fresh_until

    async def _change(
        self,
        io: IO,
        key: str,
        change: Callable[[Any], Any],
        *,
        absent: Any = None,
        ttl: Duration | Policy | None = None,
        tags: tuple[str, ...] = (),
        slide: bool = False,
        adds: Any = None,
    ) -> Any:
        """Replace the value of *key* by ``change(value)`` atomically, and return the new value.

        An exception that *change* raises reaches the caller, and nothing is changed.

        *change* receives the value, or *absent* where there is none, and may be called several times. It returns the
        new value, the same object to leave all as it is, or *absent* to drop the key. A new entry gets *ttl* and *tags*;
        one that is there keeps its own, its lifetime only unless *slide* says otherwise. Where *adds* is a whole number,
        it is what *change* adds to whole numbers: a server can do that by itself, and *change* need not be called.

        Raises:
            ConfigError: an argument cannot be used.
            CodecError: the new value cannot be encoded for the server.
            StoreError: the server is away; a change that cannot be kept has no honest answer.
        """
        policy, checked = self.policy(ttl), check_tags(tags)

        def step(old: AnyEntry | None) -> AnyEntry | None:
            if old is not None and self.clock() >= old.fresh_until:
                old = None
            before = absent if old is None else old.value
            after = change(before)
            if after is before:
                return old
            if after is absent:
                return None
            if old is None:
                return seal(after, policy, self.clock(), tags=checked)
            if slide:
                return seal(after, policy, self.clock(), tags=old.tags)
            return old._replace(value=after)

        whole = step if adds is None or slide else adding(adds, self.clock(), step)
        entry = await self.engine.here().store.update(io, bounded(key), whole)
        return absent if entry is None else entry.value

    change, achange = both(_change)

    async def _scan(
        self, io: IO, pattern: str = "*", cursor: bytes | None = None, *, fresh: bool = True
    ) -> tuple[bytes | None, list[str]]:
        r"""Return some of the keys that match *pattern*, and the cursor for the next call: None after the last.

        Keys that come or go meanwhile may be missing, or come twice. A key over 200 bytes is listed in its short form.
        A server that is away lists nothing. *pattern* may hold ``*``, ``?``, ``[abc]`` and ``\`` to escape, as on Redis;
        *fresh* leaves out what is stale or was invalidated, which costs reading the entries.

        Raises:
            ConfigError: the store cannot list its keys.

        Example:
            >>> from cachekit import Cache
            >>> cache = Cache()
            >>> cache.set_many({"user:1": "Ann", "user:2": "Bob", "post:1": "Hello"})
            >>> cache.scan("user:*")
            (None, ['user:1', 'user:2'])
        """
        if not isinstance(self.store, Scannable):
            raise ConfigError(f"scan(): the store {type(self.store).__name__} cannot list its keys")
        try:
            following, names = await self.store.scan(io, pattern, cursor)
            if fresh:
                entries, now = await self.store.get_many(io, names), self.clock()
                names = [name for name in names if name in entries and now < entries[name].fresh_until]
        except StoreError:
            return None, []
        return following, names

    scan, ascan = both(_scan)
