"""``cached`` for views and ``memoize`` for functions: the decorators of ``CacheKit``, and what undoes them.

They may be used before there is an application. What is wrong is said as soon as it can be known: when decorating, or
when the application is set up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from cachekit import Cache, ConfigError
from cachekit.policy import Duration, Policy
from cachekit_flask.functions import Memoized, memoize_options, memoized_of
from cachekit_flask.settings import State
from cachekit_flask.signatures import Memoize, View
from cachekit_flask.values import Values, lifetime
from cachekit_flask.views import CachedView, Options

P = ParamSpec("P")
R = TypeVar("R")


class Decorators(Values):
    """The part of ``CacheKit`` that decorates."""

    _only: State | None = None

    def __init__(self) -> None:
        self._views: list[CachedView] = []
        self._functions: list[Memoized] = []

    @property
    def state(self) -> State:
        """Return what the running application has."""
        raise NotImplementedError

    def _check(self, cache: Cache) -> None:
        """Raise ``ConfigError`` where something that was decorated cannot be used with *cache*."""
        for view in self._views:
            view.policy(cache)
        for function in self._functions:
            function.on(cache)

    def cached(
        self,
        timeout: Duration | None = None,
        *,
        ttl: Duration | Policy | None = None,
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
        shared: bool = False,
        **options: Any,
    ) -> Callable[[Callable[P, R]], View[P, R]]:
        """Keep the response of a view, sync or async, where the decorator stands: below ``route`` and what guards the view.

        A function that is called outside of a view of its own is for ``memoize``: here it returns its value, nothing is
        kept, and a warning says so.

        Args:
            timeout: seconds, 0 for ever, as in Flask-Caching.
            ttl: a duration such as ``"5m"``, a ``Policy``, or the name of a TTL class.
            tags: templates over the view's arguments, such as ``["product:{number}"]``, or a callable that receives them.
            shared: True says that the response is the same for everyone. Without it, requests with cookies or other
                credentials go to the view.
            **options: ``query_string=False`` leaves the query out of the key, ``True`` adds it to what a ``key_prefix``
                function returns; ``vary=["accept-language"]`` names request fields that are part of it; ``key_prefix`` goes
                in front, or as a function makes the key, as ``make_cache_key`` does from the view's arguments; ``unless``
                says when not to cache, ``forced_update`` when to make the response anew, ``response_filter`` which
                responses to keep, ``status=[200, 404]`` which status codes.

        Raises:
            ConfigError: an option cannot be used.
        """
        _with_parentheses("cached", timeout)
        try:
            checked = Options(ttl=lifetime(timeout, ttl), tags=tags, shared=shared, **options)
        except TypeError as exc:
            known = ", ".join(Options.__dataclass_fields__)
            raise ConfigError(f"cached: {str(exc).rpartition(') ')[2]}; the options are timeout, {known}") from exc

        def decorate(view: Callable[P, R]) -> View[P, R]:
            kept = CachedView(view, checked, lambda: self.state)
            self._views.append(kept)
            if self._only is not None:
                kept.policy(self._only.cache)

            @functools.wraps(view)
            def standin(*args: P.args, **kwargs: P.kwargs) -> Any:
                return kept(*args, **kwargs)

            standin.__dict__["uncached"] = view
            kept.standin = standin
            return cast("View[P, R]", standin)

        return decorate

    def memoize(
        self,
        timeout: Duration | None = None,
        *,
        ttl: Duration | Policy | None = None,
        unless: Callable[..., object] | None = None,
        forced_update: Callable[..., object] | None = None,
        response_filter: Callable[..., object] | None = None,
        **options: Any,
    ) -> Memoize:
        """Keep the results of a function or coroutine function; the other options are those of ``Cache.cached``.

        What ``Cache.cached`` gives a function (``invalidate``, ``refresh``, ``peek``, ``key_for`` ...) works on the cache of
        the application that runs; ``uncached`` is the function as it was written.

        Raises:
            ConfigError: an option cannot be used.
        """
        _with_parentheses("memoize", timeout)
        chosen = memoize_options(timeout, ttl, response_filter, options)

        def decorate(fn: Callable[..., Any]) -> Any:
            memoized = Memoized(fn, lambda: self.state, chosen)
            made = memoized.on(self._only.cache if self._only is not None else Cache(ttl_classes=_any_class(chosen)))
            self._functions.append(memoized)
            return memoized.wrapper(made, unless, forced_update)

        return cast("Memoize", decorate)

    def delete_memoized(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Drop what *fn* returned for these arguments; without any, everything that it returned.

        A method of an instance needs the arguments after the instance. Without any, the results of all instances go, unless
        the method takes nothing else.
        """
        memoized, instance = memoized_of(fn)
        memoized.delete(self.cache, instance, args, kwargs)

    def delete_memoized_verhash(self, fn: Callable[..., Any]) -> None:
        """Drop everything that *fn* returned."""
        self.delete_memoized(fn)


def _with_parentheses(name: str, timeout: object) -> None:
    if callable(timeout):
        raise ConfigError(f"{name} was given a function as its time-out: write @kit.{name}(), with parentheses")


def _any_class(options: Mapping[str, Any]) -> dict[str, Duration]:
    """Return TTL classes under which options can be checked before the real ones are known."""
    ttl = options.get("ttl")
    if not isinstance(ttl, str):
        return {}
    try:
        Policy.of(ttl)
    except ConfigError:
        return {ttl: 1}
    return {}
