"""``Cache.cached`` and ``Cache.cached_many``: what a cache does for functions.

Resolves options, refuses key templates that two functions would share, and has the codec learn what functions return.
Must not know where entries lie.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from cachekit.codecs.base import Codec
from cachekit.decorator import decorate
from cachekit.engine import Engine
from cachekit.errors import ConfigError
from cachekit.jobs import Counters
from cachekit.keys import check_tags
from cachekit.loading import Raised
from cachekit.many import LEARN, Many, decorate_many
from cachekit.options import resolve, return_type
from cachekit.policy import Duration, Policy, TTLClasses, positive_seconds
from cachekit.signatures import CachedCoroutine, CachedFunction, CachedOptions, Decorate, DecorateMany, KeySource
from cachekit.stores.memory import Tally

P = ParamSpec("P")
R = TypeVar("R")


class Functions:
    """The part of a cache that decorates functions; ``Cache`` brings the rest.

    Args:
        engine: what to load with.
        codec: learns what functions return.
        classes: the named policies.
        default: the policy where a function names none.
        counted: where the counters of each function are listed.
    """

    def __init__(
        self,
        engine: Engine,
        codec: Codec,
        classes: TTLClasses,
        default: Policy,
        counted: list[tuple[str, str, Counters]],
    ) -> None:
        self.engine = engine
        self.codec = codec
        self._classes = classes
        self._default = default
        self._counted = counted
        self._templates: dict[str, str] = {}
        codec.learn(Raised)

    @property
    def ttl_classes(self) -> tuple[str, ...]:
        """Return the names of the TTL classes."""
        return self._classes.names

    def function_names(self) -> dict[Tally, str]:
        """Return the names of the decorated functions by what their hits are counted on."""
        return {counters.tally: name for name, _, counters in list(self._counted)}

    def policy(self, ttl: Duration | Policy | None) -> Policy:
        """Return the policy that *ttl* means here: a policy, a class by its name, a duration, or None for the default.

        Raises:
            ConfigError: *ttl* is none of these.
        """
        return self._classes.resolve(ttl, self._default)

    @overload
    def cached(self, fn: None = None, /, **options: Unpack[CachedOptions]) -> Decorate: ...
    @overload
    def cached(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> CachedCoroutine[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def cached(self, fn: Callable[P, R], /) -> CachedFunction[P, R]: ...
    def cached(self, fn: Any = None, /, **options: Any) -> Any:
        """Keep the results of a function or coroutine function.

        Args:
            fn: the function, when the decorator is used without options.
            **options: those that follow.
            ttl: a duration, a ``Policy``, or the name of a TTL class; the cache's default when left out.
            tags: templates over the arguments, such as ``["product:{product_id}"]``, or a callable that receives the
                arguments and returns tags.
            result_tags: a callable that receives the result and returns more tags.
            key: a template such as ``"tenant:{tenant_id}:stats:{period}"``, or a callable that receives the arguments
                and returns a string; by default all arguments, with their types.
            ignore: parameters that are not part of the key.
            stale_while_revalidate: window after the ttl in which stale results are served while one refresh runs.
            stale_if_error: window after the ttl in which stale results are served when the function raises.
            jitter: part of the ttl (0 to 1) by which it is randomly shortened.
            beta: eagerness of probabilistic early refresh; 0 turns it off; by default 1 with ``lock=False``, else 0.
            lease: how long one process may load while the others wait for it.
            lock: whether processes wait for each other; within a process callers always share one load.
            copy: give each caller a deep copy instead of the shared, read-only result.
            refresh_at: part of the ttl (0 to 1) after which a hit starts a refresh behind.
            soft_timeout: how long a caller waits for a load while a stale result (``stale_if_error``) could be served.
            hard_timeout: how long a caller waits for a load at all; then ``LoadTimeout`` is raised. The load goes on.
            keep_if: receives the result and says whether it is kept.
            none_ttl: lifetime of None; 0 does not keep it.
            exceptions: kinds of exception that are kept, and how long: ``{LookupError: "30s"}``.
            version: part of the key; change it to leave behind what older code kept.

        Returns:
            The function with the handles ``invalidate``, ``invalidate_all``, ``refresh``, ``peek``, ``peek_or`` and
            ``key_for``.

        Raises:
            ConfigError: an option cannot be used, or a template names no parameter.
        """
        chosen = resolve(self.policy, options)

        def apply(target: Any) -> Any:
            self._claim(chosen.key, target)
            counters = Counters()
            inner = getattr(target, "__func__", target)
            made = decorate(self.engine, target, chosen, counters, self._learning(inner))
            self._counted.append((f"{inner.__module__}.{inner.__qualname__}", chosen.policy.name, counters))
            return made

        return apply if fn is None else apply(fn)

    def _learning(self, fn: Any) -> Callable[[], object] | None:
        """Have the codec learn what *fn* returns. Where that is defined only later, return what does it then."""
        if "return" not in getattr(fn, "__annotations__", {}):
            return None
        found = return_type(fn)
        if found is None:
            return lambda: self.codec.learn(return_type(fn))
        self.codec.learn(found)
        return None

    def cached_many(
        self,
        *,
        key: str,
        ttl: Duration | Policy | None = None,
        tags: Iterable[str] = (),
        missing_ttl: Duration | None = None,
    ) -> DecorateMany:
        """Keep the results of a function that takes a collection of items and returns a mapping from item to value.

        It is called once for all the items that are missing. Each item has a key and tags of its own. The handle
        ``invalidate`` drops the values of items, ``invalidate_all`` those of all.

        Args:
            key: template over ``{item}`` and the other parameters, such as ``"user:{item}"``.
            ttl: a duration, a ``Policy``, or the name of a TTL class.
            tags: templates over the same.
            missing_ttl: how long it is kept that the loader did not know an item; None does not keep it.

        Raises:
            ConfigError: an option cannot be used.

        Example:
            >>> from cachekit import Cache
            >>> cache = Cache()
            >>> @cache.cached_many(key="user:{item}", tags=["user:{item}"], ttl="5m")
            ... def users(numbers: list[int]) -> dict[int, str]:
            ...     return {number: f"user {number}" for number in numbers}
            >>> users([1, 2])
            {1: 'user 1', 2: 'user 2'}
            >>> users([2, 3])
            {2: 'user 2', 3: 'user 3'}
        """
        policy = self.policy(ttl)
        missing = None if missing_ttl is None else positive_seconds(missing_ttl, "missing_ttl")
        checked = check_tags(tags)

        def apply(fn: Any) -> Any:
            self._claim(key, fn)
            counters = Counters()
            many = Many(self.engine, fn, key, checked, policy, missing, counters)
            self.codec.learn(return_type(fn))
            self.codec.learn(LEARN)
            self._counted.append((many.name, policy.name, counters))
            return decorate_many(many, fn)

        return apply

    def _claim(self, key: KeySource, target: Any) -> None:
        """Refuse a key template that another function of this cache uses: they would read each other's results."""
        if not isinstance(key, str):
            return
        inner = getattr(target, "__func__", target)
        name = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', inner)}"
        owner = self._templates.setdefault(key, name)
        if owner != name:
            raise ConfigError(
                f"key={key!r} is used by {owner} already: {name} would read its results; choose another key"
            )
