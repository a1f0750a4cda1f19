"""``Middleware(CacheKit, cache=cache)``: the HTTP cache, route policies and compression around a Starlette application."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cachekit import Cache, ConfigError, default_cache
from cachekit.arguments import check_app, check_arguments
from cachekit.asgi import CacheKit as _CacheKit
from cachekit.asgi import DegradeOptions, Route, Webhook
from cachekit.compress.options import Compression
from cachekit.http.credentials import CREDENTIALS
from cachekit.http.options import HttpOptions
from cachekit.http.routes import RouteRules, declare
from cachekit.http.rules import Rule
from cachekit.keys import TagTemplates
from cachekit.sessions import Sessions
from cachekit_starlette.fields import fields_read
from cachekit_starlette.routes import RoutePolicy, declared, policy_of

log = logging.getLogger("cachekit")

SCOPE: Final = "cachekit.cache"

_NOTHING: Final = Rule("/**")
_KEPT_OUT: Final = Rule("/**", store=False, status=range(200, 600))


class CacheKit:
    """Put cachekit in front of a Starlette or FastAPI application, or of a part of one.

    Args:
        app: the application; Starlette gives it.
        cache: where responses are kept; the default cache when left out.
        rules: header rules; ``cached_route`` at an endpoint comes before them, except where a rule has ``store=False``.
        options: settings of the HTTP cache.
        compression: True, or settings: responses travel compressed.
        webhook: deliveries that it receives invalidate; answered at its path, before all else.
        degradation: what is refused while the store is away, and where that is told.
        sessions: gives each request its ``request.session``, inside of the HTTP cache.
        routes: time-outs, bounds and breakers of the application, inside the HTTP cache, which serves stale first.

    Raises:
        ConfigError: an option cannot be used, or a ``cached_route`` names a TTL class or a path parameter that is not there.

    Example:
        >>> from starlette.applications import Starlette
        >>> from starlette.middleware import Middleware
        >>> app = Starlette(middleware=[Middleware(CacheKit, cache=Cache(), compression=True)])
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        cache: Cache | None = None,
        rules: Sequence[Rule] = (),
        options: HttpOptions | None = None,
        compression: bool | Compression = False,
        webhook: Webhook | None = None,
        degradation: DegradeOptions | None = None,
        sessions: Sessions | None = None,
        routes: Sequence[Route] = (),
    ) -> None:
        check_app(app, "an ASGI application")
        check_arguments(cache=cache, rules=rules)
        self.app = app
        self.cache = cache if cache is not None else default_cache()
        self._outer: Any = _CacheKit(
            _Routes(app, self.cache, getattr(options, "credentials", CREDENTIALS)),
            cache=self.cache,
            rules=RouteRules(rules),
            options=options,
            webhook=webhook,
            degradation=degradation,
            sessions=sessions,
            routes=routes,
            compression=compression,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._outer(scope, receive, send)


class _Routes:
    """The application, seen from the cache: says what the route that answers declares."""

    def __init__(self, app: ASGIApp, cache: Cache, credentials: Sequence[str]) -> None:
        self._app = app
        self._cache = cache
        self._credentials = frozenset(credentials)
        self._rules: dict[RoutePolicy, Rule] = {}
        self._tags: dict[tuple[RoutePolicy, tuple[str, ...]], TagTemplates] = {}
        for policy, names in declared(app):
            self._rules[policy] = policy.rule(cache)
            self._tags[policy, names] = policy.templates(names)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        scope[SCOPE] = self._cache
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def relay(message: Message) -> None:
            # By now the router has put the endpoint into the scope.
            if message["type"] == "http.response.start" and (policy := policy_of(scope.get("endpoint"))) is not None:
                message = self._declare(policy, scope, message)
            await send(message)

        await self._app(scope, receive, relay)

    def _declare(self, policy: RoutePolicy, scope: MutableMapping[str, Any], head: Message) -> Message:
        """Tell the cache what *policy* says, and return *head* with a Vary of the fields that the endpoint reads."""
        try:
            if (rule := self._rules.get(policy)) is None:
                rule = self._rules[policy] = policy.rule(self._cache)
            parameters: Mapping[str, Any] = scope.get("path_params", {})
            names = tuple(parameters)
            if (templates := self._tags.get((policy, names))) is None:
                templates = self._tags[policy, names] = policy.templates(names)
            if not rule.is_shared:
                read, keys = fields_read(scope)
                if not keys.isdisjoint(name.decode("latin-1").lower() for name, _ in scope["headers"]):
                    rule = _NOTHING  # as with every other credential
                if apart := [name for name in read if name not in self._credentials]:
                    head = _varied(head, ", ".join(apart).encode())
            if head["status"] >= 400 and head["status"] not in rule.status:
                return head  # nothing is said of it, and the tags are those of another response
            declare(rule, templates.render(parameters, lambda: ((Request(scope),), {})))
        except ConfigError as exc:  # what a client has put into the path may make no tag
            declare(_KEPT_OUT)
            log.warning("the policy of %s cannot be used; its response is not kept: %s", policy.name, exc)
        except Exception:
            declare(_KEPT_OUT)
            log.exception("the policy of %s cannot be used; its response is not kept", policy.name)
        return head


def _varied(head: Message, names: bytes) -> Message:
    """Return *head* with *names* in its one Vary: whoever adds to that further out may look at the first line alone."""
    fields = list(head.get("headers", ()))
    said = [value for name, value in fields if name.lower() == b"vary"]
    rest = [field for field in fields if field[0].lower() != b"vary"]
    return {**head, "headers": [*rest, (b"vary", b", ".join([*said, names]))]}
