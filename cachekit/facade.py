"""``Cache``: the facade. Checks what callers pass, and hands it to the engine, in both worlds.

Each operation is written once as a coroutine over ``IO``; ``both`` makes the blocking method and, with an ``a`` in
front, the awaitable one. Must not decide anything that the engine or the store should.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cachekit._io import ASYNCIO, BLOCKING, IO, both
from cachekit.clock import Chance, Clock, system_chance, system_clock
from cachekit.codecs.base import Codec
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.codecs.protection import Protection
from cachekit.contents import Contents
from cachekit.decorator import reusable
from cachekit.engine import Engine
from cachekit.entry import seal
from cachekit.errors import ConfigError, StoreError
from cachekit.events import Events, Observer
from cachekit.functions import Functions
from cachekit.jobs import Counters, Plan
from cachekit.keys import bounded, check_entry_tags, check_tags
from cachekit.making import Making
from cachekit.policy import Duration, Policy, TTLClasses
from cachekit.purging import Purging, open_outbox
from cachekit.stats import Stats, snapshot
from cachekit.stores.base import AnyEntry, Store
from cachekit.stores.build import Settings, build, is_private
from cachekit.stores.memory import Memory, Tally
from cachekit.tags import is_collected, note
from cachekit.transaction import OnCommit, Transaction

if TYPE_CHECKING:
    from cachekit.cdn.base import Purger
    from cachekit.cdn.options import PurgeOptions


class Cache(Functions, Purging, Contents, Making):
    """Keeps values in this process, on Redis or Valkey, or in this process in front of a server.

    Args:
        url: ``memory://``; ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://``, ``unix://``;
            ``sentinel://host:port,host:port/0?service=name``; ``redis+cluster://host:port,host:port``; ``embedded://`` for a
            private Valkey of its own; ``tiered+redis://`` (and so on) for an in-process level in front of the server.
            A ``Store`` of your own is taken as it is.
        ttl: default lifetime of entries, as a duration; None keeps them until they are evicted or invalidated.
        ttl_classes: named lifetimes, such as ``{"tenant_stats": "5m"}``, used as ``ttl="tenant_stats"``.
        jitter: part of a lifetime (0 to 1) by which it is randomly shortened.
        stale_while_revalidate: default window after the ttl in which stale values are served while one refresh runs.
        stale_if_error: default window after the ttl in which stale values are served when the loader fails.
        namespace: prefix of all keys; caches with the same namespace on one server share their entries.
        timeout: seconds that a caller may wait for the server.
        max_entries: bound on the entries held in this process.
        max_bytes: bound on their estimated size in bytes.
        codec: turns values into bytes for a server.
        compress_from: bytes from which encoded values are compressed.
        max_value_bytes: bound on one encoded value, decompressed; a larger one is not kept.
        isolated_ttl: with ``tiered+``, seconds for which the in-process level serves when the server is gone altogether.
        protection: ``Encryption`` or ``Signing``, for what lies on a server; objects in this process stay as they are.
        observers: callables that receive each ``Event``.
        purgers: the CDNs in front: ``Cloudflare``, ``Fastly``, ``Varnish``. What ``invalidate`` drops is purged there too.
        purging: when purges are delivered, see ``PurgeOptions``.
        clock: source of time, for tests.
        chance: source of randomness, for tests.

    Raises:
        ConfigError: an option cannot be used. A server that cannot be reached is no error: the cache starts without it.

    Example:
        >>> cache = Cache()
        >>> cache.set("greeting", "hello", ttl="5m", tags=["texts"])
        >>> cache.get("greeting")
        'hello'
        >>> cache.invalidate("texts")
        >>> cache.get("greeting", "gone")
        'gone'
    """

    def __init__(
        self,
        url: str | Store = "memory://",
        *,
        ttl: Duration | None = None,
        ttl_classes: Mapping[str, Duration | Policy] | None = None,
        jitter: float = 0.0,
        stale_while_revalidate: Duration = 0,
        stale_if_error: Duration = 0,
        namespace: str = "cachekit",
        timeout: float = 0.25,
        max_entries: int = 100_000,
        max_bytes: int = 256 * 1024 * 1024,
        codec: Codec | None = None,
        compress_from: int = 1024,
        max_value_bytes: int = 64 * 1024 * 1024,
        isolated_ttl: float = 30.0,
        protection: Protection | None = None,
        observers: Sequence[Observer] = (),
        purgers: Sequence[Purger] = (),
        purging: PurgeOptions | None = None,
        clock: Clock = system_clock,
        chance: Chance = system_chance,
    ) -> None:
        self.clock = clock
        self.events = Events(tuple(observers))
        chosen: Codec = codec if codec is not None else MsgpackCodec()
        default = Policy.of(
            ttl, jitter=jitter, stale_while_revalidate=stale_while_revalidate, stale_if_error=stale_if_error
        )
        classes = TTLClasses(ttl_classes, jitter=jitter)
        self._chance = chance
        self.store: Store
        self.l1: Memory | None = None
        if isinstance(url, str):
            self.url = url
            settings = Settings(
                namespace=namespace,
                codec=chosen,
                clock=clock,
                emit=self.events,
                timeout=timeout,
                max_entries=max_entries,
                max_bytes=max_bytes,
                compress_from=compress_from,
                max_value_bytes=max_value_bytes,
                isolated_ttl=isolated_ttl,
                protection=protection,
            )
            self.store, self.l1 = build(url, settings)
        else:
            if not all(callable(getattr(url, name, None)) for name in ("begin", "commit", "invalidate")):
                raise ConfigError(
                    f"a cache is made of a URL such as 'redis://localhost', or of a Store, not of {type(url).__name__}"
                )
            if protection is not None:
                raise ConfigError(
                    f"protection= does not reach a {type(url).__name__} that you built: protect values there"
                )
            self.url = f"<{type(url).__name__}>"
            self.store = url
            self.l1 = url if isinstance(url, Memory) else None
        self._own, self._uses = Counters(), Tally()
        if self.l1 is not None:
            self._own.tally = self.l1.unclaimed
        engine = Engine(self.store, clock=clock, chance=chance, events=self.events, l1=self.l1)
        super().__init__(engine, chosen, classes, default, [("", "", self._own)])
        if purgers:
            self.attach(*purgers, purging=purging)

    def attach(self, *purgers: Purger, purging: PurgeOptions | None = None) -> None:
        """Purge *purgers* too from now on, as ``Cache(purgers=...)`` does. Raises ``ConfigError`` the second time."""
        if self.outbox is not None:
            raise ConfigError("this cache has purgers already: name all of them at once")
        self.outbox = open_outbox(
            self, purgers, purging, self.store, clock=self.clock, chance=self._chance, emit=self.events
        )
        self.engine.beyond = self.outbox.put

    @property
    def private(self) -> bool:
        """Whether no other process reaches what it holds: it is in this one's memory, or on a server of its own."""
        return is_private(self.url)

    def __repr__(self) -> str:
        scheme, found, rest = self.url.partition("://")
        return f"Cache({scheme + found + rest.rpartition('@')[2]!r})"  # without a password

    # -- reading and writing ----------------------------------------------------------------------------------------

    async def _get(self, io: IO, key: str, default: Any = None) -> Any:
        """Return the value of *key*, or *default*. A server that is away has no values."""
        entry = await self._fresh(io, bounded(key))
        return default if entry is None else entry.value

    get, aget = both(_get)

    async def _fresh(self, io: IO, key: str) -> AnyEntry | None:
        entry = await self.engine.here().read(io, key)
        if entry is None or self.clock() >= entry.fresh_until:
            self._own.misses += 1
            return None
        self.engine.count_hit(key, self._own)
        note(entry.evidence)
        return entry

    async def _get_many(self, io: IO, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those *keys* that are present."""
        names = {bounded(key): key for key in keys}
        try:
            entries = await self.engine.here().store.get_many(io, list(names))
        except StoreError:
            entries = {}
        now = self.clock()
        found = {name: entry for name, entry in entries.items() if now < entry.fresh_until}
        self._own.misses += len(names) - len(found)
        for name in found:
            self.engine.count_hit(name, self._own)
        if is_collected():
            for entry in found.values():
                note(entry.evidence)
        return {names[name]: entry.value for name, entry in found.items()}

    get_many, aget_many = both(_get_many)

    async def _set(
        self, io: IO, key: str, value: Any, *, ttl: Duration | Policy | None = None, tags: Iterable[str] = ()
    ) -> None:
        """Keep *value* under *key*. A load of *key* that is running is not kept any more.

        Raises:
            ConfigError: the key, ttl or a tag cannot be used.
            CodecError: the value cannot be encoded for the server.
        """
        await self._set_many(io, {key: value}, ttl=ttl, tags=tags)

    set, aset = both(_set)

    async def _set_many(
        self, io: IO, values: Mapping[str, Any], *, ttl: Duration | Policy | None = None, tags: Iterable[str] = ()
    ) -> None:
        """Keep each of *values* under its key. Raises as ``set`` does, before anything is kept."""
        policy, checked, now = self.policy(ttl), check_entry_tags(tags), self.clock()
        entries = {
            bounded(key): seal(value, policy, now, tags=checked, chance=self._chance()) for key, value in values.items()
        }
        if entries:
            await self.engine.here().write(io, entries)

    set_many, aset_many = both(_set_many)

    async def _delete(self, io: IO, key: str) -> bool:
        """Drop *key*. Returns whether it was there. A load of it that is running is not kept."""
        return bool(await self.engine.here().delete(io, [bounded(key)]))

    delete, adelete = both(_delete)

    async def _delete_many(self, io: IO, keys: Iterable[str]) -> int:
        """Drop *keys*. Returns how many were there."""
        names = [bounded(key) for key in keys]
        return await self.engine.here().delete(io, names) if names else 0

    delete_many, adelete_many = both(_delete_many)

    async def _get_or_set(
        self,
        io: IO,
        key: str,
        loader: Callable[[], Any],
        *,
        ttl: Duration | Policy | None = None,
        tags: Iterable[str] = (),
        lock: bool = True,
    ) -> Any:
        """Return the value of *key*, or what *loader* returns, which is then kept. Concurrent callers share one load.

        What was set meanwhile stays, and is what is returned.

        The awaitable form takes a loader of either kind.

        Raises:
            ConfigError: an argument cannot be used, or the blocking form was given a coroutine function.
        """
        if io is BLOCKING and inspect.iscoroutinefunction(loader):
            raise ConfigError("get_or_set() was given a coroutine function: call `await cache.aget_or_set(...)`")

        async def load() -> Any:
            made = loader()
            return reusable(await made if io is ASYNCIO and isinstance(made, Awaitable) else made, "the loader")

        plan = Plan("", self.policy(ttl), shared_flight=lock, counters=self._own, yields=True)
        return await self.engine.here().fetch(io, bounded(key), check_tags(tags), load, plan)

    get_or_set, aget_or_set = both(_get_or_set)

    # -- invalidation -----------------------------------------------------------------------------------------------

    async def _invalidate(self, io: IO, *tags: str) -> None:
        """Drop everything that carries one of *tags*, in every process, those still being loaded included.

        When the server is away the invalidation is kept, and delivered before anything else is asked of it again.

        The purges of the CDNs are put into the outbox before this returns.

        Raises:
            ConfigError: no tag was given, or one cannot be used.
        """
        await self.drop_tags(io, tags)

    invalidate, ainvalidate = both(_invalidate)

    async def drop_tags(self, io: IO, tags: Iterable[str]) -> bool:
        """Do what ``invalidate`` does. Returns False when it would be lost if this process ended now: the server is away."""
        saved = await self.engine.here().invalidate(io, check_tags(tags))
        return saved and not getattr(getattr(self.store, "l2", self.store), "pending", 0)

    async def _clear(self, io: IO) -> None:
        """Drop everything in this cache's namespace."""
        await self.engine.here().clear(io)

    clear, aclear = both(_clear)

    def transaction(self, *, on_commit: OnCommit | None = None) -> Transaction:
        """Return a block whose changes are applied at its end, or not at all when it raises.

        Inside, reads see the changes; others see none of them. What is loaded inside is given to whoever asked and
        remembered until the end, and not kept for others, because it may be made of data that is not committed. Blocks
        can be nested. ``add``, ``touch`` and ``incr`` act at once, except on keys that the transaction itself changed.

        Args:
            on_commit: receives a callable at the end of the block, and calls it when a database has committed:
                ``django.db.transaction.on_commit``, for example. Until then nothing is applied.

        Example:
            >>> cache = Cache()
            >>> with cache.transaction():
            ...     cache.set("a", 1)
            ...     cache.set("b", 2)
            >>> cache.get_many(["a", "b"])
            {'a': 1, 'b': 2}
        """
        return Transaction(self.engine, on_commit)

    async def _close(self, io: IO) -> None:
        """Give up connections and threads. In asyncio this closes those of the running loop too."""
        if self.outbox is not None:
            await self.outbox.close(io)
        await self.store.close(io)

    close, aclose = both(_close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- health ---------------------------------------------------------------------------------------------------

    async def _available(self, io: IO, max_age: float = 1.0) -> bool:
        """Say whether the store answers; it is asked unless it said so within the last *max_age* seconds."""
        guarded: Any = getattr(self.store, "l2", self.store)
        return await guarded.answers(io, max_age) if hasattr(guarded, "answers") else True

    available, aavailable = both(_available)

    @property
    def is_away(self) -> bool:
        """Say whether the store is known to be away, without asking it."""
        breaker = getattr(getattr(self.store, "l2", self.store), "breaker", None)
        return breaker is not None and breaker.is_open

    # -- looking --------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return what this cache did so far."""
        counted = snapshot(list(self._counted), self.l1)
        entries, size = (0, 0) if self.l1 is None else self.l1.sizes()
        guarded: Any = getattr(self.store, "l2", self.store)
        live = getattr(self.store, "live", None)
        return Stats(
            total=counted.total,
            by_function=counted.by_function,
            by_class=counted.by_class,
            by_function_and_class=counted.by_function_and_class,
            events={str(kind): count for kind, count in self.events.counts.items() if count},
            entries=entries,
            bytes=size,
            evictions=0 if self.l1 is None else self.l1.evictions,
            store="away" if self.is_away else "ok",
            channel="none" if live is None else "live" if live else "lost",
            channel_kind=getattr(getattr(getattr(guarded, "inner", None), "channel", None), "kind", "none"),
            pending=getattr(guarded, "pending", 0),
            purges={} if self.outbox is None else self.outbox.waiting(),
        )


__all__ = ["Cache"]
