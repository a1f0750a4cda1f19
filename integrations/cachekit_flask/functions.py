"""``memoize``: functions whose results are kept in the cache of whichever application calls them.

A function may be decorated before there is an application, and belong to several.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from cachekit import Cache, ConfigError, bypass, refresh
from cachekit.policy import Duration, Policy
from cachekit_flask.settings import State
from cachekit_flask.values import lifetime

HOME: Final = "__cachekit_memoized__"

_HANDLES: Final = (
    "invalidate", "ainvalidate", "invalidate_all", "ainvalidate_all", "refresh", "peek", "apeek", "peek_or", "apeek_or",
    "key_for",
)  # fmt: skip

_AS_USUAL: Final = nullcontext()

Condition = Callable[..., object]


class Memoized:
    """One function, decorated anew for each cache that it is used with."""

    def __init__(self, fn: Callable[..., Any], state_of: Callable[[], State], options: dict[str, Any]) -> None:
        self.fn = fn
        name = f"{fn.__module__}.{fn.__qualname__}"
        tags: Any = options.get("tags", ())
        if isinstance(tags, str):
            raise ConfigError(f"{name}: tags={tags!r} must be a list: write tags=[{tags!r}]")
        self._options = options
        self._state_of = state_of
        self._made: WeakKeyDictionary[Cache, Any] = WeakKeyDictionary()
        self._last: tuple[Cache, Any] | None = None

    def on(self, cache: Cache) -> Any:
        """Return the function as *cache* decorates it. Raises ``ConfigError``."""
        if self._last is not None and self._last[0] is cache:
            return self._last[1]
        if (made := self._made.get(cache)) is None:
            made = self._made[cache] = cache.cached(**self._options)(self.fn)
        self._last = (cache, made)
        return made

    def wrapper(self, made: Any, unless: Condition | None, forced_update: Condition | None) -> Callable[..., Any]:
        """Return what stands in for the function, with the handles that *made*, the function of one cache, has."""
        state_of, on, fn = self._state_of, self.on, self.fn

        def mode(state: State, args: Any, kwargs: Any) -> Any:
            if not state.enabled or (unless is not None and holds(unless, (fn, *args), kwargs)):
                return bypass()
            if forced_update is not None and holds(forced_update, args, kwargs):
                return refresh()
            return _AS_USUAL

        standin: Any
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                state = state_of()
                with mode(state, args, kwargs):
                    return await on(state.cache)(*args, **kwargs)

            standin = awaited
        else:
            always = unless is None and forced_update is None

            @functools.wraps(fn)
            def called(*args: Any, **kwargs: Any) -> Any:
                state = state_of()
                if always and state.enabled:
                    return on(state.cache)(*args, **kwargs)
                with mode(state, args, kwargs):
                    return on(state.cache)(*args, **kwargs)

            standin = called
        standin.__dict__.update({name: self._handle(name) for name in _HANDLES if hasattr(made, name)})
        standin.__dict__.update({HOME: self, "uncached": fn})
        return cast("Callable[..., Any]", standin)

    def _handle(self, name: str) -> Callable[..., Any]:
        def handle(*args: Any, **kwargs: Any) -> Any:
            return getattr(self.on(self._state_of().cache), name)(*args, **kwargs)

        handle.__name__ = name
        return handle

    def delete(self, cache: Cache, instance: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Drop the result for these arguments; without any, every result, of other instances too.

        Args:
            cache: where the results are.
            instance: whose method it is, alone: an instance, or a class. *args* may begin with it once more.
            args: the other arguments; where both readings of them make sense, both results go.
            kwargs: those given by name.
        """
        signature = inspect.signature(self.fn)
        if not args and not kwargs and not (instance and len(signature.parameters) == 1):
            made = self.on(cache).invalidate_all()
            if inspect.iscoroutine(made):  # which needs a loop, and may be called where one is running
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(asyncio.run, made).result()
        else:
            calls = [(*instance, *args)]
            if instance and args and args[0] is instance[0]:
                calls = [call for call in (*calls, args) if fits(signature, call, kwargs)] or calls
            for call in calls:
                cache.delete(self.on(cache).key_for(*call, **kwargs))


def fits(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Say whether what has *signature* can be called with these arguments."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def holds(condition: Condition, args: Any, kwargs: Any) -> bool:
    """Say whether *condition* holds; as in Flask-Caching, one that takes arguments by position gets these."""
    if any(one.kind is not one.KEYWORD_ONLY for one in inspect.signature(condition).parameters.values()):
        return bool(condition(*args, **kwargs))
    return bool(condition())


def memoize_options(
    timeout: Duration | None, ttl: Duration | Policy | None, response_filter: Condition | None, given: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of ``Cache.cached``. Raises ``ConfigError`` for one of Flask-Caching's that has no meaning here."""
    options = dict(given)
    if (make_name := options.pop("make_name", None)) is not None:
        raise ConfigError(f"memoize: make_name={make_name!r}: give key=, a template or a function of the arguments")
    for name in ("hash_method", "source_check", "is_stale"):
        if options.pop(name, None) is not None:
            raise ConfigError(f"memoize has no {name}: see the table in docs/flask.md")
    if "args_to_ignore" in options:
        options["ignore"] = options.pop("args_to_ignore") or ()
    if options.pop("cache_none", True) is False:
        options["none_ttl"] = 0
    if response_filter is not None:
        options["keep_if"] = response_filter
    if (chosen := lifetime(timeout, ttl)) is not None:
        options["ttl"] = chosen
    return options


def memoized_of(fn: Any) -> tuple[Memoized, tuple[Any, ...]]:
    """Return what stands behind *fn*, and the instance when it is a bound method. Raises ``ConfigError``."""
    instance = getattr(fn, "__self__", None)
    found = getattr(getattr(fn, "__func__", fn), HOME, None)
    if not isinstance(found, Memoized):
        raise ConfigError(f"{fn!r} is no memoized function: decorate it with @kit.memoize(...)")
    return found, () if instance is None else (instance,)
