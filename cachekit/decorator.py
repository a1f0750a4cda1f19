"""``@cached``: a function whose results are kept, for both kinds of function.

Binds together what happens when a function is decorated (its shape, its key and tag templates, its policy) and what
happens on a call that the generated shell could not answer. The handles (``invalidate``, ``refresh``, ``peek`` ...) have
the colour of the function: those of a coroutine function are awaited. Must not know where entries lie.
"""

from __future__ import annotations

import copy as copying
import inspect
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterator,
)
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from cachekit import instances
from cachekit._io import ASYNCIO, BLOCKING, IO, drive
from cachekit.classmethods import ClassMethod
from cachekit.engine import Engine
from cachekit.entry import quiet_until
from cachekit.errors import ConfigError
from cachekit.jobs import Counters, Job, Plan
from cachekit.keys import KeyTemplate, TagTemplates, Unrenderable, bounded, check_tags, refused, render
from cachekit.loading import Raised
from cachekit.modes import Mode, mode_here
from cachekit.options import Options
from cachekit.shell import EXACT, Shape, build, memo_key, shape_of, split
from cachekit.stores.memory import Memory
from cachekit.tags import function_tag, note

T = TypeVar("T")

_ASKED: Final = 4096
_LONG: Final = 200
"""Arguments of more characters or bytes are not held on to."""


class Handle(Generic[T]):
    """One decorated function: makes its keys and answers the calls that its shell could not."""

    def __init__(
        self,
        engine: Engine,
        fn: Any,
        options: Options,
        counters: Counters,
        learn: Callable[[], object] | None = None,
    ) -> None:
        if not callable(fn) or not hasattr(fn, "__qualname__"):
            raise ConfigError(f"cached() decorates functions, not {fn!r}: write @cached(ttl=...) above a def")
        self._fn: Callable[..., Any] = fn
        self.name = f"{fn.__module__}.{fn.__qualname__}"
        _refuse_generators(fn, self.name)
        self.is_async = inspect.iscoroutinefunction(fn)
        self._engine = engine
        self._learn = learn
        self._copy = options.copy
        self._shape: Shape = shape_of(fn, options.ignore)
        names = self._shape.names
        self._tags = TagTemplates(options.tags, names)
        if options.key is not None and options.ignore:
            raise ConfigError(f"{self.name}: key= says already what makes the key, so that ignore= means nothing")
        self._template = KeyTemplate(options.key, names) if isinstance(options.key, str) else None
        self._key = options.key if callable(options.key) else None
        if self._template is None and self._key is None and options.key is not None:
            raise ConfigError(
                f"{self.name}: key={options.key!r} must be a template or a callable that returns a string"
            )
        if options.result_tags is not None and not callable(options.result_tags):
            raise ConfigError(f"{self.name}: result_tags must be a callable that takes the result and returns tags")
        from_result = options.result_tags
        self._plan = Plan(
            self.name,
            options.policy,
            None if from_result is None else lambda result: check_tags(from_result(result)),
            options.lock,
            counters,
            options.outcomes,
        )
        prefix = _prefix(fn, self.name)
        self._suffix = f"@{options.version}" if options.version else ""
        self._prefix = prefix + self._suffix
        self._own_tag = function_tag(prefix)  # whatever the version: data that changed is old in all of them
        # Where there is a first level the shell remembers.
        self._remembers = (
            engine.l1 is None and self._key is None and not callable(options.tags) and not self._shape.instance
        )
        self._asked: dict[tuple[tuple[type, ...], tuple[Any, ...]], tuple[str, tuple[str, ...]]] = {}
        self.function, self._memo = build(
            fn,
            self._shape,
            is_async=self.is_async,
            l1=None if options.copy or engine.l1 is None else engine.l1,
            clock=engine.clock,
            slow=self._slow if not self.is_async else self._ask_store if engine.l1 is None else self._aslow,
            finish=self._given if self.is_async and engine.l1 is None else None,
        )

    # -- keys -----------------------------------------------------------------------------------------------------

    def key_of(self, values: tuple[Any, ...]) -> str:
        """Return the key for *values*, one for each parameter. Raises ``KeyArgumentError``, ``ConfigError``."""
        if (learn := self._learn) is not None:  # whatever follows reads or writes values
            learn()
            self._learn = None
        arguments = dict(zip(self._shape.names, values, strict=True))
        if self._template is not None:
            return bounded(self._template.render(self.name, arguments) + self._suffix)
        if self._key is not None:
            args, kwargs = split(self._shape, values)
            made: Any = self._key(*args, **kwargs)
            if not isinstance(made, str) or not made:
                raise ConfigError(
                    f"{self.name}: key={getattr(self._key, '__qualname__', self._key)!s} returned {made!r}, but a key must "
                    f"be a string that is not empty: build one from the arguments"
                )
            return bounded(f"{self._prefix}:{made}")
        parts = [self._render(name, arguments[name]) for name in self._shape.keyed]
        if self._shape.instance:
            parts.insert(0, self._render_instance(values[0]))
        return bounded(f"{self._prefix}:{','.join(parts)}")

    def _render(self, name: str, value: Any) -> str:
        try:
            return render(value, special=",")
        except Unrenderable as exc:
            raise refused(exc, self.name, name) from None

    def _render_instance(self, instance: object) -> str:
        if instances.has_own_key(instance):
            return self._render(self._shape.instance, instance)
        return f"~{instances.token_of(instance, self.name)}"

    def _ask(self, values: tuple[Any, ...]) -> tuple[str, tuple[str, ...]]:
        """Return key and tags for *values*, remembered where equal arguments of equal types always give the same."""
        if not self._remembers:
            return self.key_of(values), self.tags_of(values)
        kinds = tuple(map(type, values))
        try:
            found = self._asked.get((kinds, values))
        except TypeError:  # something in them has no hash
            return self.key_of(values), self.tags_of(values)
        if found is None:
            found = self.key_of(values), self.tags_of(values)
            if EXACT.issuperset(kinds) and all(len(one) <= _LONG for one in values if isinstance(one, str | bytes)):
                if len(self._asked) >= _ASKED:
                    self._asked.clear()
                self._asked[kinds, values] = found
        return found

    def tags_of(self, values: tuple[Any, ...]) -> tuple[str, ...]:
        """Return the tags for *values*."""
        if self._tags.is_static:
            return (self._own_tag, *self._tags.render({}))
        arguments = dict(zip(self._shape.names, values, strict=True))
        return (self._own_tag, *self._tags.render(arguments, lambda: split(self._shape, values)))

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return one value for each parameter, defaults included."""
        try:
            bound = self._shape.signature.bind(*args, **kwargs)
        except TypeError as exc:
            if self._shape.instance:
                raise TypeError(
                    f"{self.name}: {exc}. The handles of a method take the instance first: "
                    f"{self.name.rpartition('.')[0].rpartition('.')[2]}.{self.function.__name__}.invalidate(instance, ...)"
                ) from None
            raise
        bound.apply_defaults()
        return tuple(bound.arguments[name] for name in self._shape.names)

    # -- calls ----------------------------------------------------------------------------------------------------

    def _slow(self, values: tuple[Any, ...]) -> Any:
        key, tags = self._ask(values)
        engine = self._engine.here()
        if engine.l1 is not None and (found := self._peek(engine, engine.l1, key, values)) is not None:
            return self._given(found[0])
        value = drive(engine.fetch(BLOCKING, key, tags, self._loader(values), self._plan))
        if engine.l1 is not None:
            self._link(engine.l1, key, values)
        return self._given(value)

    def _ask_store(self, values: tuple[Any, ...]) -> Awaitable[Any]:
        """Return what is to be awaited for a call where there is no first level, in a transaction neither."""
        key, tags = self._ask(values)
        return self._engine.here().fetch(ASYNCIO, key, tags, self._loader(values), self._plan)

    async def _aslow(self, values: tuple[Any, ...]) -> Any:
        key, tags = self._ask(values)
        engine = self._engine.here()
        if engine.l1 is not None and (found := self._peek(engine, engine.l1, key, values)) is not None:
            return self._given(found[0])
        value = await engine.fetch(ASYNCIO, key, tags, self._loader(values), self._plan)
        if engine.l1 is not None:
            self._link(engine.l1, key, values)
        return self._given(value)

    def _given(self, value: Any) -> Any:
        if type(value) is Raised:
            raise self._plan.outcomes.revive(value)
        return copying.deepcopy(value) if self._copy else value

    def _peek(self, engine: Engine, l1: Memory, key: str, values: tuple[Any, ...]) -> tuple[Any] | None:
        if (node := l1.peek(key)) is None or mode_here() is not None:
            return None
        policy = self._plan.policy
        if engine.clock() >= quiet_until(node.entry, self._plan.beta, policy.refresh_at):
            return None
        engine.count_hit(key, self._plan.counters)
        note(node.tags)
        self._link(l1, key, values)
        return (node.value,)

    def _link(self, l1: Memory, key: str, values: tuple[Any, ...]) -> None:
        """Let the shell find the node of *key* by these arguments from now on."""
        if (node := l1.peek(key)) is None:
            return
        l1.claim(node, self._plan.counters.tally)
        node.quiet_until = quiet_until(node.entry, self._plan.beta, self._plan.policy.refresh_at)
        if type(node.value) is Raised or self._copy or self._shape.variadic or self._key is not None:
            return  # a key function may look at more than the arguments
        if self._template is not None and self._shape.instance:
            return  # such a key may follow what the instance holds
        found = memo_key(self._shape, values)
        if found is None:
            return
        memo: dict[Hashable, Any] = self._memo
        if self._shape.instance:
            if instances.has_own_key(values[0]):
                return
            memo = instances.memo_of(values[0], memo)
        l1.alias(node, memo, *found)

    def _loader(self, values: tuple[Any, ...]) -> Callable[[], Awaitable[Any]]:
        async def load() -> Any:
            args, kwargs = split(self._shape, values)
            result = self._fn(*args, **kwargs)
            return reusable(await result if self.is_async else result, self.name)

        return load

    # -- handles --------------------------------------------------------------------------------------------------

    async def _drop(self, io: IO, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        await self._engine.here().delete(io, [self.key_of(self.bind(args, kwargs))])

    async def _reload(self, io: IO, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = self.bind(args, kwargs)
        key, tags = self.key_of(values), self.tags_of(values)
        engine = self._engine.here()
        engine.flights.void(keys=[key])
        return self._given(await engine.load(io, Job(key, tags, self._loader(values), self._plan, force=True)))

    async def _drop_all(self, io: IO) -> None:
        await self._engine.here().invalidate(io, [self._own_tag], name=self.name)

    async def _look(self, io: IO, default: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a call would be served without a load, or *default*: nothing is loaded, counted or waited for."""
        values = self.bind(args, kwargs)
        if mode_here() is Mode.BYPASS:
            return default
        entry = await self._engine.here().read(io, self.key_of(values), self.tags_of(values))
        if entry is None or self._engine.clock() >= entry.swr_until or type(entry.value) is Raised:
            return default
        note(entry.evidence)
        return self._given(entry.value)

    def attach(self) -> Callable[..., Any]:
        """Return the stand-in with its handles: those of the function's own kind, and ``a...`` ones that are awaited."""

        async def ainvalidate_all() -> None:
            await self._drop_all(ASYNCIO)

        def invalidate_all() -> None:
            drive(self._drop_all(BLOCKING))

        async def apeek(*args: Any, **kwargs: Any) -> Any:
            return await self._look(ASYNCIO, None, args, kwargs)

        def peek(*args: Any, **kwargs: Any) -> Any:
            return drive(self._look(BLOCKING, None, args, kwargs))

        async def apeek_or(default: Any, /, *args: Any, **kwargs: Any) -> Any:
            return await self._look(ASYNCIO, default, args, kwargs)

        def peek_or(default: Any, /, *args: Any, **kwargs: Any) -> Any:
            return drive(self._look(BLOCKING, default, args, kwargs))

        async def ainvalidate(*args: Any, **kwargs: Any) -> None:
            await self._drop(ASYNCIO, args, kwargs)

        async def arefresh(*args: Any, **kwargs: Any) -> Any:
            return await self._reload(ASYNCIO, args, kwargs)

        def invalidate(*args: Any, **kwargs: Any) -> None:
            drive(self._drop(BLOCKING, args, kwargs))

        def refresh(*args: Any, **kwargs: Any) -> Any:
            return drive(self._reload(BLOCKING, args, kwargs))

        handles: dict[str, Any] = {
            "invalidate": ainvalidate if self.is_async else invalidate,
            "invalidate_all": ainvalidate_all if self.is_async else invalidate_all,
            "refresh": arefresh if self.is_async else refresh,
            "peek": apeek if self.is_async else peek,
            "peek_or": apeek_or if self.is_async else peek_or,
            "key_for": lambda *args, **kwargs: self.key_of(self.bind(args, kwargs)),
            "counters": self._plan.counters,
        }
        if not self.is_async:
            handles |= {"ainvalidate": ainvalidate, "ainvalidate_all": ainvalidate_all}
            handles |= {"apeek": apeek, "apeek_or": apeek_or}
        self.function.__dict__.update(handles)
        return self.function


def _prefix(fn: Any, name: str) -> str:
    """Return what the keys of *fn* begin with.

    Functions made by one factory have one name. What tells them apart is what they closed over, as far as that is
    plain: it becomes part of the key, like an argument. Lambdas are told apart by their lines.
    """
    code = getattr(fn, "__code__", None)
    if code is None:
        return name
    if code.co_name == "<lambda>":
        name += f":{code.co_firstlineno}"
    closed: list[str] = []
    for variable, cell in zip(code.co_freevars, getattr(fn, "__closure__", None) or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue  # not bound yet, such as the function's own name
        if type(value) in _PLAIN_CLOSED or isinstance(value, Enum):
            closed.append(f"{variable}={render(value, special=',')}")
    return f"{name}[{','.join(closed)}]" if closed else name


_PLAIN_CLOSED: Final = frozenset({str, int, float, bool, type(None), bytes, UUID, Decimal, date})


def reusable(result: Any, name: str) -> Any:
    """Return *result* of *name*. Raises ``ConfigError`` for what can be used only once, such as a coroutine."""
    if type(result) in _PLAIN or not (inspect.isawaitable(result) or isinstance(result, (Iterator, AsyncIterator))):
        return result
    if inspect.iscoroutine(result):
        result.close()
    raise ConfigError(
        f"{name} returned {type(result).__name__}, which can be used only once and cannot be cached: decorate "
        f"the `async def` itself, or return a list"
    )


_PLAIN: Final = frozenset({dict, list, tuple, str, bytes, int, float, bool, type(None)})


def _refuse_generators(fn: Callable[..., Any], name: str) -> None:
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ConfigError(f"{name} is a generator, whose result can be used only once: return a list")


def decorate(
    engine: Engine, fn: Any, options: Options, counters: Counters, learn: Callable[[], object] | None = None
) -> Any:
    """Return the stand-in for *fn*, which may also be a ``staticmethod`` or ``classmethod`` object.

    *learn* is called before the first load, when everything that *fn* names is defined.
    """
    if isinstance(fn, staticmethod):
        return staticmethod(Handle[Any](engine, fn.__func__, options, counters, learn).attach())
    if isinstance(fn, classmethod):
        return ClassMethod(Handle[Any](engine, fn.__func__, options, counters, learn).attach())
    return Handle[Any](engine, fn, options, counters, learn).attach()
