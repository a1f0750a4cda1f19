"""Fragment caching for Jinja2: ``{% cache "5m", "sidebar", user.id, tags=["menu"] %}...{% endcache %}``.

Owns the syntax and the key of a fragment. What is used inside is collected by the cache: its tags become the fragment's,
and those of whatever the fragment is part of. Needs the extra ``jinja``. Must not know about HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from jinja2 import Environment, nodes, pass_eval_context
from jinja2.ext import Extension
from jinja2.parser import Parser
from markupsafe import Markup

from cachekit.errors import ConfigError
from cachekit.facade import Cache
from cachekit.policy import Duration, Policy

_PARTS: Final = (str, int, float, Decimal, UUID, date, type(None))


class CacheExtension(Extension):
    """The tag ``cache``: what is between it and ``endcache`` is rendered once for each key, and kept.

    The first argument is the ttl, a duration or the name of a TTL class. The others make the key: a name, and whatever
    changes the content, such as an id or a language. ``tags`` is a list of tags. The default cache is used unless
    ``environment.cachekit_cache`` is set.

    Raises:
        ConfigError: while rendering, for a ttl, key or tag that cannot be used.

    Example:
        >>> from cachekit import Cache
        >>> env = Environment(extensions=[CacheExtension], autoescape=True)
        >>> env.cachekit_cache = Cache()
        >>> page = env.from_string('{% cache "5m", "hello", name, tags=["greetings"] %}Hello {{ name }}!{% endcache %}')
        >>> page.render(name="<Ann>")
        'Hello &lt;Ann&gt;!'
    """

    tags = {"cache"}  # noqa: RUF012 - as Jinja2 declares it

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.extend(cachekit_cache=None)

    def parse(self, parser: Parser) -> nodes.Node:
        """Read one ``cache`` block."""
        line = next(parser.stream).lineno
        given: list[nodes.Expr] = []
        tags: nodes.Expr = nodes.List([])
        while not given or parser.stream.skip_if("comma"):
            if given and parser.stream.current.test("name:tags") and parser.stream.look().test("assign"):
                parser.stream.skip(2)
                tags = parser.parse_expression()
            else:
                given.append(parser.parse_expression())
        if len(given) < 2:
            parser.fail('write {% cache "5m", "name" %}: a ttl, and what makes the key', line)
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        call = self.call_method("_render", [given[0], nodes.List(given[1:]), tags], lineno=line)
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    @pass_eval_context
    def _render(
        self,
        escaping: nodes.EvalContext,
        ttl: Duration | Policy | None,
        parts: list[Any],
        tags: Iterable[str],
        caller: Callable[[], Any],
    ) -> Any:
        if isinstance(tags, str):
            raise ConfigError(f"cache {parts[0]!r}: tags={tags!r} must be a list of tags")
        # The same fragment with and without escaping is not the same text.
        key = fragment_key(parts) + ("" if escaping.autoescape else ":raw")
        cache = self._cache()
        if self.environment.is_async:
            return self._arender(cache, key, ttl, tags, caller)
        return cache.get_or_set(key, lambda: str(caller()), ttl=ttl, tags=tags)

    async def _arender(
        self, cache: Cache, key: str, ttl: Duration | Policy | None, tags: Iterable[str], caller: Callable[[], Any]
    ) -> str:
        async def load() -> str:
            return str(await caller())

        return str(await cache.aget_or_set(key, load, ttl=ttl, tags=tags))

    def _cache(self) -> Cache:
        chosen: Cache | None = getattr(self.environment, "cachekit_cache", None)
        if chosen is None:
            from cachekit.default import default_cache

            chosen = default_cache()
        return chosen


def fragment_key(parts: Iterable[Any]) -> str:
    """Return the key of the fragment that *parts* name. Raises ``ConfigError`` for what makes no stable key.

    Example:
        >>> fragment_key(["sidebar", 42])
        'fragment:sidebar:i42'
    """
    made = ["fragment"]
    for number, part in enumerate(parts):
        if isinstance(part, Markup) or type(part) is str:
            text = quote(str(part), safe="", errors="surrogatepass")
            made.append(text if number == 0 else f"s{text}")
        elif isinstance(part, _PARTS):
            made.append(f"{type(part).__name__[0]}{quote(str(part), safe='')}")
        else:
            raise ConfigError(
                f"cache: {part!r} cannot be part of a fragment's key: use text, a number, a date, a UUID or None"
            )
    return ":".join(made)


__all__ = ["CacheExtension", "fragment_key"]
