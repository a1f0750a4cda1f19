"""``@cached_route``: what the HTTP cache may do with the responses of one endpoint.

The decorator marks the endpoint and returns it as it is, so that signatures, dependencies and OpenAPI stay what they were.
Owns what a mark says and what it means for a cache; must not know ASGI.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from starlette.requests import Request

from cachekit import Cache, ConfigError
from cachekit.http.rules import Rule
from cachekit.keys import TagTemplates
from cachekit.policy import Duration, Policy

MARK: Final = "__cachekit_route__"

_PARAMETER: Final = re.compile(r"\{(\w+)")

Tags = Iterable[str] | Callable[[Request], Iterable[str]]
E = TypeVar("E", bound=Callable[..., Any])

_OPTIONS: Final = tuple(
    field.name for field in dataclasses.fields(Rule) if field.init and field.name not in ("path", "methods")
)


@dataclass(frozen=True, slots=True, eq=False)
class RoutePolicy:
    """What ``cached_route`` was given.

    Attributes:
        name: the endpoint, for messages.
        ttl: a duration, a ``Policy``, or the name of a TTL class of the cache in front.
        tags: templates over the path parameters, or a callable that takes the ``Request``.
        options: the other options of ``Rule``.
    """

    name: str
    ttl: Duration | Policy | None
    tags: Tags
    options: Mapping[str, Any]

    def rule(self, cache: Cache) -> Rule:
        """Return the rule that this means in front of *cache*. Raises ``ConfigError``."""
        given = dict(self.options)
        try:
            if self.ttl is not None:
                policy = cache.policy(self.ttl)
                given["ttl"] = policy.ttl
                given.setdefault("stale_while_revalidate", policy.stale_while_revalidate or None)
                given.setdefault("stale_if_error", policy.stale_if_error or None)
            return Rule("/**", **given)
        except ConfigError as exc:
            raise ConfigError(f"cached_route on {self.name}: {exc}") from exc

    def templates(self, names: Iterable[str]) -> TagTemplates:
        """Return the tags as templates over the path parameters *names*. Raises ``ConfigError``."""
        try:
            return TagTemplates(self.tags, tuple(names))
        except ConfigError as exc:
            raise ConfigError(f"cached_route on {self.name}: {exc}") from exc


def cached_route(ttl: Duration | Policy | None = None, *, tags: Tags = (), **options: Any) -> Callable[[E], E]:
    """Say how the HTTP cache in front keeps the responses of an endpoint, sync or async, a function or an ``HTTPEndpoint``.

    Args:
        ttl: a duration such as ``"5m"``, a ``Policy``, or the name of a TTL class; None leaves it to the response's own
            ``Cache-Control``.
        tags: templates over the path parameters, such as ``["product:{number}"]``, or a callable that takes the ``Request``.
        **options: ``shared``, ``stale_while_revalidate``, ``stale_if_error``, ``cache_control``, ``surrogate_control``,
            ``status``, ``content_types``, ``store`` and ``override``, as ``Rule`` has them.

    Raises:
        ConfigError: an option cannot be used, or what is decorated cannot be marked. Names of TTL classes and of path
            parameters are checked when the middleware is made.

    Example:
        >>> @cached_route(ttl="5m", tags=["product:{number}"])
        ... async def product(request): ...
    """
    if callable(ttl):
        raise ConfigError("cached_route needs parentheses: write @cached_route(ttl=...)")
    for name in options:
        if name not in _OPTIONS:
            close = difflib.get_close_matches(name, ("ttl", "tags", *_OPTIONS), 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigError(f"cached_route has no option {name!r}{hint}: the options are {', '.join(_OPTIONS)}")
    Rule("/**", **options)
    if not callable(tags) and not isinstance(tags, str):
        given: Any = tags
        if not isinstance(given, Iterable):
            raise ConfigError(f"cached_route: tags={given!r} must be a list of templates, or a function of the request")
        tags = tuple(tags)

    def mark(endpoint: E) -> E:
        name = getattr(endpoint, "__qualname__", repr(endpoint))
        marked: Any = _method_of_its_own(endpoint) if isinstance(endpoint, types.MethodType) else endpoint
        try:
            setattr(getattr(marked, "__func__", marked), MARK, RoutePolicy(name, ttl, tags, options))
        except AttributeError:
            raise ConfigError(
                f"cached_route: {endpoint!r} cannot be marked: give a function, a method or an HTTPEndpoint"
            ) from None
        return cast("E", marked)

    return mark


def _method_of_its_own(method: types.MethodType) -> types.MethodType:
    """Return a method that may carry a mark: of *method* itself, the function is that of all instances."""
    func = method.__func__
    if not isinstance(func, types.FunctionType):
        return method
    own = types.FunctionType(func.__code__, func.__globals__, func.__name__, func.__defaults__, func.__closure__)
    own.__kwdefaults__ = func.__kwdefaults__
    functools.update_wrapper(own, func)
    del own.__wrapped__  # type: ignore[attr-defined]  # it is no wrapper: whoever unwraps it would lose the instance
    return types.MethodType(own, method.__self__)


def policy_of(endpoint: object) -> RoutePolicy | None:
    """Return what ``cached_route`` said about *endpoint*, or None."""
    found = getattr(endpoint, MARK, None)
    return found if isinstance(found, RoutePolicy) else None


def declared(app: Any) -> Iterator[tuple[RoutePolicy, tuple[str, ...]]]:
    """Yield the policies of the routes that can be found in *app*, each with the names of its path parameters."""
    while app is not None and not hasattr(app, "routes"):
        app = getattr(app, "app", None)
    yield from _within(getattr(app, "routes", None) or (), ())


def _within(routes: Iterable[Any], outer: tuple[str, ...]) -> Iterator[tuple[RoutePolicy, tuple[str, ...]]]:
    for route in routes:
        names = (*outer, *getattr(route, "param_convertors", ()))
        if (policy := policy_of(getattr(route, "endpoint", None))) is not None:
            yield policy, names
        inner = getattr(route, "routes", None)
        if not inner and (router := getattr(route, "original_router", None)) is not None:  # FastAPI's include_router
            inner = router.routes
            names += tuple(_PARAMETER.findall(getattr(getattr(route, "include_context", None), "prefix", "")))
        yield from _within(inner or (), names)
