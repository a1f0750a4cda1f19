"""``@cached_many``: one loader call for all the keys that are missing.

The function takes a collection of items and returns a mapping from item to value. Each item has a key and tags of its
own, so that a value that one call brought serves another, and is dropped alone. Must not know where entries lie.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from cachekit._io import ASYNCIO, BLOCKING, IO, drive
from cachekit.clock import stopwatch
from cachekit.engine import Engine
from cachekit.entry import seal
from cachekit.errors import ConfigError, StoreError
from cachekit.events import Event, Kind
from cachekit.jobs import Counters
from cachekit.keys import KeyTemplate, TagTemplates, bounded
from cachekit.modes import Mode, mode_here
from cachekit.policy import Policy
from cachekit.stores.base import Ticket
from cachekit.tags import UNCOMMITTED, Tags, collecting, function_tag, note, note_until

ITEM: Final = "item"


class _Absent(Enum):
    """What is kept for an item that the loader did not know."""

    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class _Wanted:
    item: Hashable
    key: str
    tags: tuple[str, ...]


class Many:
    """One function decorated with ``cached_many``.

    Args:
        engine: what to load with.
        fn: takes a collection of items first, and returns a mapping from item to value.
        key: template over ``{item}`` and the other parameters.
        tags: templates over the same.
        policy: how long values are kept.
        missing: how long it is kept that an item is unknown; None does not keep it.
        counters: where it is counted.

    Raises:
        ConfigError: *fn* takes no parameter, or a template cannot be used.
    """

    def __init__(
        self,
        engine: Engine,
        fn: Any,
        key: str,
        tags: Iterable[str],
        policy: Policy,
        missing: float | None,
        counters: Counters,
    ) -> None:
        name = getattr(fn, "__qualname__", repr(fn))
        try:
            self._signature = inspect.signature(fn)
        except (TypeError, ValueError) as exc:
            raise ConfigError(f"{name} has no signature to make keys from: wrap it in a def") from exc
        parameters = list(self._signature.parameters)
        if not parameters:
            raise ConfigError(f"{name}: cached_many needs a function whose first parameter is the items")
        if f"{{{ITEM}" not in key:
            raise ConfigError(
                f'key={key!r} must contain {{{ITEM}}}: each item has a key of its own, such as "user:{{item}}"'
            )
        self._engine = engine
        self._fn = fn
        self._items = parameters[0]
        names = [*parameters[1:], ITEM]
        self._key = KeyTemplate(key, names)
        self._tags = TagTemplates(tuple(tags), names)
        self._policy = policy
        self._missing = missing
        self._counters = counters
        self.name = f"{fn.__module__}.{name}"
        self._own_tag = function_tag(self.name)

    def _wanted(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[_Wanted], inspect.BoundArguments]:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        others = {name: value for name, value in bound.arguments.items() if name != self._items}
        wanted = []
        for item in dict.fromkeys(bound.arguments[self._items]):
            arguments = {**others, ITEM: item}
            tags = (self._own_tag, *self._tags.render(arguments))
            wanted.append(_Wanted(item, bounded(self._key.render(self.name, arguments)), tags))
        return wanted, bound

    async def call(self, io: IO, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[Any, Any]:
        """Return the values of the items that are known, in the order asked for."""
        wanted, bound = self._wanted(args, kwargs)
        mode = mode_here()
        found = {} if mode is not None else await self._look(io, wanted)
        missing = [one for one in wanted if one.key not in found]
        loaded = await self._load(io, missing, bound, keep=mode is not Mode.BYPASS) if missing else {}
        made = {}
        for one in wanted:
            value = found[one.key] if one.key in found else loaded.get(one.item, _Absent.ABSENT)
            if value is not _Absent.ABSENT:
                made[one.item] = value
        return made

    async def _look(self, io: IO, wanted: list[_Wanted]) -> dict[str, Any]:
        try:
            entries = await self._engine.here().store.get_many(io, [one.key for one in wanted])
        except StoreError:
            entries = {}
        now = self._engine.clock()
        fresh = {key: entry for key, entry in entries.items() if now < entry.fresh_until}
        for key, entry in fresh.items():
            self._engine.count_hit(key, self._counters, self.name)
            note(entry.evidence)
        self._counters.misses += len(wanted) - len(fresh)
        return {key: entry.value for key, entry in fresh.items()}

    async def _load(
        self, io: IO, missing: list[_Wanted], bound: inspect.BoundArguments, *, keep: bool
    ) -> Mapping[Any, Any]:
        tickets: dict[str, Ticket] = {}
        for one in missing if keep else ():
            ticket = await self._engine.here().begin(io, one.key, one.tags, lease=self._policy.lease)
            if ticket is not None:
                tickets[one.key] = ticket
        bound.arguments[self._items] = [one.item for one in missing]
        started = stopwatch()
        self._counters.loads += 1
        used = Tags()
        try:
            with collecting() as used:
                result = self._fn(*bound.args, **bound.kwargs)
                loaded = await result if inspect.isawaitable(result) else result
                if not isinstance(loaded, Mapping):
                    raise ConfigError(
                        f"{self.name} must return a mapping from item to value, not {type(loaded).__name__}"
                    )
        except BaseException:
            self._counters.errors += 1
            self._note({tag for one in missing for tag in one.tags}, used)
            note_until(used.until)
            for ticket in tickets.values():
                await self._engine.here().release(io, ticket)
            raise
        took = stopwatch() - started
        self._counters.load_seconds += took
        self._engine.events(Event(Kind.LOAD, name=self.name, detail=f"{len(missing)} items", seconds=took))
        every = tuple(used.every)
        for one in missing:
            self._note(one.tags, used)
            note_until(min(used.until, self._engine.clock() + self._policy.ttl))
            if one.key in tickets:
                await self._keep(io, one, tickets[one.key], loaded, every, used.stamps, used.until)
        return loaded

    def _note(self, tags: Iterable[str], used: Tags) -> None:
        every = (*tags, *used.every)
        note((*every, UNCOMMITTED) if self._engine.here().is_uncommitted(every) else every)

    async def _keep(
        self, io: IO, one: _Wanted, ticket: Ticket, loaded: Mapping[Any, Any], used: tuple[str, ...],
        stamps: tuple[tuple[str, bytes], ...], until: float,
    ) -> None:  # fmt: skip
        value = loaded.get(one.item, _Absent.ABSENT)
        policy = self._policy if value is not _Absent.ABSENT else None
        if policy is None and self._missing is not None:
            policy = Policy(ttl=self._missing)
        tags = tuple(dict.fromkeys((*one.tags, *used)))
        if policy is None or not ticket.leads or self._engine.here().is_uncommitted(tags):
            await self._engine.here().release(io, ticket)
            return
        chance = self._engine.chance()
        now = self._engine.clock()
        entry = seal(value, policy, now, tags=tags, chance=chance, stamps=stamps, uses_until=until)
        await self._engine.here().keep(io, ticket, entry)

    async def drop(self, io: IO, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Drop the values of the items."""
        wanted, _ = self._wanted(args, kwargs)
        if wanted:
            await self._engine.here().delete(io, [one.key for one in wanted])

    async def drop_all(self, io: IO) -> None:
        """Drop the values of all items."""
        await self._engine.here().invalidate(io, [self._own_tag], name=self.name)


def decorate_many(many: Many, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that stands in for *fn*, in its colour, with ``invalidate`` and ``invalidate_all``."""

    @functools.wraps(fn)
    async def aio(*args: Any, **kwargs: Any) -> Any:
        return await many.call(ASYNCIO, args, kwargs)

    @functools.wraps(fn)
    def blocking(*args: Any, **kwargs: Any) -> Any:
        return drive(many.call(BLOCKING, args, kwargs))

    async def ainvalidate(*args: Any, **kwargs: Any) -> None:
        await many.drop(ASYNCIO, args, kwargs)

    def invalidate(*args: Any, **kwargs: Any) -> None:
        drive(many.drop(BLOCKING, args, kwargs))

    async def ainvalidate_all() -> None:
        await many.drop_all(ASYNCIO)

    def invalidate_all() -> None:
        drive(many.drop_all(BLOCKING))

    is_async = inspect.iscoroutinefunction(fn)
    made: Callable[..., Any] = aio if is_async else blocking
    made.__dict__["invalidate"] = ainvalidate if is_async else invalidate
    made.__dict__["invalidate_all"] = ainvalidate_all if is_async else invalidate_all
    return made


LEARN: Final = _Absent
"""What a codec must know to keep that an item is unknown."""
