"""``cached``: the response of a view, kept where the decorator stands, so that what is above it and around it still runs.

Owns what may be kept of a view's response and for whom: as in the HTTP cache, what was answered to a request without
credentials is for such requests, unless the view is declared to be the same for everyone.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

from flask import Request, Response, current_app, has_request_context, make_response, request

from cachekit import Cache, ConfigError, Policy, current, refresh
from cachekit.keys import TagTemplates
from cachekit.policy import Duration
from cachekit_flask.functions import holds
from cachekit_flask.keepable import Watch, refusal
from cachekit_flask.settings import State
from cachekit_flask.signals import hit

log = logging.getLogger("cachekit")

_READS: Final = frozenset({"GET", "HEAD"})
_NOT_KEPT_FOR: Final = 10.0
_REMEMBERED: Final = 1024
_CONDITIONS: Final = frozenset(
    {"HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE"}
)
_DROPPED: Final = frozenset({"date", "content-length", "connection"})

Tags = Iterable[str] | Callable[..., Iterable[str]]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one ``cached``, checked.

    Attributes: as the arguments of ``CacheKit.cached``.
    """

    ttl: Duration | Policy | None = None
    tags: Tags = ()
    shared: bool = False
    query_string: bool | None = None
    vary: Sequence[str] = ()
    status: Sequence[int] = (200,)
    key_prefix: str | Callable[[], str] = ""
    make_cache_key: Callable[..., str] | None = None
    unless: Callable[..., object] | None = None
    forced_update: Callable[..., object] | None = None
    response_filter: Callable[[Response], object] | None = None

    def __post_init__(self) -> None:
        for name in ("make_cache_key", "unless", "forced_update", "response_filter"):
            if (value := getattr(self, name)) is not None and not callable(value):
                raise ConfigError(f"cached: {name}={value!r} must be a function")
        if not callable(self.key_prefix) and not isinstance(self.key_prefix, str):
            raise ConfigError(f"cached: key_prefix={self.key_prefix!r} must be text or a function that returns text")
        for name in ("shared", "query_string"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (value is None and name == "query_string"):
                raise ConfigError(f"cached: {name}={value!r} must be True or False")
        for name in ("vary", "status"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise ConfigError(f"cached: {name}={value!r} must be a list")
        object.__setattr__(self, "vary", tuple(str(one).lower() for one in self.vary))


class CachedView:
    """One decorated view."""

    def __init__(self, view: Callable[..., Any], options: Options, state_of: Callable[[], State]) -> None:
        self.view = view
        self.standin: Callable[..., Any] = view
        self.name = f"{view.__module__}.{view.__qualname__}"
        self._options = options
        self._state_of = state_of
        self._policies: WeakKeyDictionary[Cache, Policy] = WeakKeyDictionary()
        self._templates: dict[tuple[str, ...], TagTemplates] = {}
        self._not_kept: dict[str, float] = {}
        self._refused_until = -math.inf
        self._warned = False
        parameters = inspect.signature(view).parameters.values()
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            self._tags_over(tuple(one.name for one in parameters))

    def policy(self, cache: Cache) -> Policy:
        """Return how long *cache* keeps the view. A refresh behind would run outside of its request, so there is none."""
        if (found := self._policies.get(cache)) is None:
            try:
                found = cache.policy(self._options.ttl)
            except ConfigError as exc:
                raise ConfigError(f"cached on {self.name}: {exc}") from exc
            found = self._policies[cache] = replace(
                found, stale_while_revalidate=0.0, stale_if_error=0.0, beta=0.0, refresh_at=0.0, soft_timeout=None,
                hard_timeout=None,
            )  # fmt: skip
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        options = self._options
        state = self._state_of()
        cache = state.cache
        try:
            asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        except RuntimeError:
            return self._value(args, kwargs)
        environ = asked.environ
        if not (state.enabled and environ["REQUEST_METHOD"] in _READS and self._is_for_all(state, environ)):
            return self._run(args, kwargs)
        if options.unless is not None and holds(options.unless, (self.view, *args), kwargs):
            return self._run(args, kwargs)
        app = application()
        try:
            key = self._key(app, asked, args, kwargs)
            tags = self._tags(kwargs)
        except Exception:
            log.exception("the key or the tags of %s cannot be made; it is not cached", self.name)
            return self._run(args, kwargs)
        anew = options.forced_update is not None and holds(options.forced_update, args, kwargs)
        if self._not_kept and self._not_kept.get(key, 0.0) > cache.clock():
            return self._run(args, kwargs)
        made: list[Any] = []

        def load() -> list[Any] | None:
            if not _leads_to(app.view_functions.get(asked.endpoint), self.standin):
                made.append(self._value(args, kwargs))
                self._remember(key, cache.clock())
                current().no_store()
                return None
            watch = Watch.begin()
            touched = ""
            try:
                response = make_response(self._run(args, kwargs))
            except Exception:
                self._refused_until = cache.clock() + _NOT_KEPT_FOR  # abort(404) keeps nothing either
                raise
            finally:
                touched = watch.end(shared=options.shared)
            made.append(response)
            if reason := touched or refusal(response, options.status, options.vary, options.response_filter):
                log.debug("%s is not kept: %s", self.name, reason)
                self._remember(key, cache.clock())
                current().no_store()
                return None
            response.add_etag()
            fields = [[name, value] for name, value in response.headers if name.lower() not in _DROPPED]
            return [response.status_code, fields, response.get_data()]

        if environ["REQUEST_METHOD"] == "HEAD":  # which nobody waits for, since nothing is kept of it
            found = None if anew else cache.get(key)
        else:
            # Responses of which nothing is kept must not be made in single file by all processes.
            lock = cache.clock() >= self._refused_until
            with refresh() if anew else nullcontext():
                found = cache.get_or_set(key, load, ttl=self.policy(cache), tags=tags, lock=lock)
        if made:
            response = made[0]
        elif found is None:
            return self._run(
                args, kwargs
            )  # for HEAD, and after another request's response, which was for that one alone
        else:
            hit(app, key)
            response = app.response_class(found[2], found[0], [(name, value) for name, value in found[1]])
        if found is not None and not _CONDITIONS.isdisjoint(environ):
            return response.make_conditional(asked)
        return response

    def _value(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what the function returns where it is not the view that answers, and say once that it is not kept."""
        if not self._warned:
            self._warned = True
            log.warning(
                "cached on %s: it is not the view that answers a request, so it returns its value and nothing is kept; "
                "decorate a function with @kit.memoize(...). (Decorators above a view need functools.wraps.)",
                self.name,
            )
        return self._run(args, kwargs) if has_request_context() else self.view(*args, **kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return current_app.ensure_sync(self.view)(*args, **kwargs)

    def _is_for_all(self, state: State, environ: Mapping[str, Any]) -> bool:
        if self._options.shared or state.credentials.isdisjoint(environ):
            return True
        return not any(environ[name] for name in state.credentials.intersection(environ))

    def _key(self, app: Any, asked: Request, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        options, environ = self._options, asked.environ
        what: Any
        if options.make_cache_key is not None:
            what = options.make_cache_key(*args, **kwargs)
        elif callable(options.key_prefix):
            what = options.key_prefix()
            if options.query_string:
                what += _query(asked)
        else:
            host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
            what = f"{options.key_prefix}{environ['wsgi.url_scheme']}://{host}{environ.get('SCRIPT_NAME', '')}"
            what += environ.get("PATH_INFO", "")
            if options.query_string is not False:
                what += _query(asked)
        if not isinstance(what, str) or not what:
            raise ConfigError(f"{self.name}: {what!r} is no key: return text that is not empty")
        chosen = [f"{name}={asked.headers.get(name, '')}" for name in options.vary]
        return "\n".join([f"view:{app.name}:{asked.endpoint}:{self.name}", what, *chosen])

    def _tags(self, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        return self._tags_over(tuple(kwargs)).render(kwargs, lambda: ((), dict(kwargs)))

    def _tags_over(self, names: tuple[str, ...]) -> TagTemplates:
        if (found := self._templates.get(names)) is None:
            try:
                found = self._templates[names] = TagTemplates(self._options.tags, names)
            except ConfigError as exc:
                raise ConfigError(f"cached on {self.name}: {exc}") from exc
        return found

    def _remember(self, key: str, now: float) -> None:
        """Let nobody wait for another's response to *key* for a while, nor for that of another process to any key."""
        if len(self._not_kept) >= _REMEMBERED:
            self._not_kept.clear()
        self._not_kept[key] = self._refused_until = now + _NOT_KEPT_FOR


def _query(asked: Request) -> str:
    """Return the query, in order of names alone: the order of what is said under one name may mean something."""
    if not asked.environ.get("QUERY_STRING"):
        return ""
    return "?" + urlencode(sorted(asked.args.items(multi=True), key=itemgetter(0)))


def _leads_to(start: Any, function: Callable[..., Any]) -> bool:
    """Say whether the view *start* is *function*, wraps it, or is a class that has it as a method."""
    if getattr(start, "__name__", "") == function.__name__:  # a decorator without functools.wraps took over its name
        return True
    seen, left = set(), [start]
    while left:
        one = left.pop()
        if one is function:
            return True
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [getattr(one, name, None) for name in ("__wrapped__", "__func__", "func", "view_class")]
        if isinstance(one, type):
            left += [method for kind in one.__mro__ for method in vars(kind).values() if callable(method)]
    return False


def application() -> Any:
    """Return the application itself, not the proxy for it."""
    return current_app._get_current_object()  # type: ignore[attr-defined]
