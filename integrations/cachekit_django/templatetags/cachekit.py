"""``{% cache "5m" "fragment" user.pk tags="product:42" %}``: Django's fragment cache, with tags."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.utils import make_template_fragment_key
from django.template import Context, Library, Node, NodeList, TemplateSyntaxError, VariableDoesNotExist
from django.template.base import FilterExpression, Parser, Token, token_kwargs

from cachekit.errors import ConfigError
from cachekit.policy import seconds
from cachekit_django.backend import CacheBackend

register = Library()


class CacheNode(Node):
    """A cached part of a template."""

    def __init__(
        self, nodelist: NodeList, lifetime: FilterExpression, name: str, vary_on: list[FilterExpression],
        options: dict[str, FilterExpression],
    ) -> None:  # fmt: skip
        self.nodelist = nodelist
        self._lifetime = lifetime
        self._name = name
        self._vary_on = vary_on
        self._options = options

    def render(self, context: Context) -> Any:
        """Return the part, rendered now or before."""
        try:
            lifetime = self._lifetime.resolve(context)
        except VariableDoesNotExist:
            raise TemplateSyntaxError(f'"cache" tag got an unknown variable: {self._lifetime.var!r}') from None
        timeout = None if lifetime is None else _seconds(lifetime)
        backend = self._backend(context)
        key = make_template_fragment_key(self._name, [part.resolve(context) for part in self._vary_on])

        def draw() -> str:
            return self.nodelist.render(context)

        if isinstance(backend, CacheBackend):
            return backend.get_or_set(key, draw, timeout, tags=self._tags(context))
        if "tags" in self._options:
            raise TemplateSyntaxError('"cache" tag: tags= needs a cache whose BACKEND is cachekit_django.CacheBackend')
        return backend.get_or_set(key, draw, timeout)

    def _backend(self, context: Context) -> Any:
        if "using" not in self._options:
            try:
                return caches["template_fragments"]
            except InvalidCacheBackendError:
                return caches["default"]
        name = self._options["using"].resolve(context)
        try:
            return caches[name]
        except InvalidCacheBackendError:
            raise TemplateSyntaxError(f"Invalid cache name specified for cache tag: {name!r}") from None

    def _tags(self, context: Context) -> list[str]:
        if "tags" not in self._options:
            return []
        given = self._options["tags"].resolve(context)
        if isinstance(given, str):
            return given.replace(",", " ").split()
        return [str(tag) for tag in given] if isinstance(given, Iterable) else [str(given)]


def _seconds(lifetime: Any) -> float:
    """Return *lifetime* in seconds: what Django takes for a number as it does, else a duration.

    Nothing is kept for one of zero or less.
    """
    if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float, timedelta)):
        with suppress(TypeError, ValueError):
            lifetime = int(lifetime)
    if isinstance(lifetime, (int, float)) and lifetime <= 0:
        return 0
    try:
        return seconds(lifetime, "the lifetime of the cache tag")
    except ConfigError as exc:
        raise TemplateSyntaxError(str(exc)) from exc


@register.tag("cache")
def do_cache(parser: Parser, token: Token) -> CacheNode:
    """Cache a part of a template.

    ``{% cache lifetime name [vary_on ...] [tags=...] [using=...] %} ... {% endcache %}``. The lifetime is seconds, a
    duration such as ``"5m"``, or None. Tags are one text with spaces or commas, or a list; those of the cached functions
    that run inside are added.
    """
    nodelist = parser.parse(("endcache",))
    parser.delete_first_token()
    bits = token.split_contents()[1:]
    options: dict[str, FilterExpression] = {}
    while bits and (found := token_kwargs([bits[-1]], parser)):
        options.update(found)
        bits.pop()
    unknown = options.keys() - {"tags", "using"}
    if len(bits) < 2 or unknown:
        wrong = f"has no option {', '.join(sorted(unknown))}" if unknown else "needs a lifetime and a name"
        raise TemplateSyntaxError(f"'cache' tag {wrong}: {{% cache 300 sidebar user.pk tags=\"menu\" %}}")
    name = bits[1]
    if name[0] == name[-1] and name[0] in "\"'":
        name = name[1:-1]
    vary_on = [parser.compile_filter(bit) for bit in bits[2:]]
    return CacheNode(nodelist, parser.compile_filter(bits[0]), name, vary_on, options)
