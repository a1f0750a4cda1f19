"""``fragments(templates, cache)``: ``{% cache %}`` in the templates of ``Jinja2Templates``."""

from __future__ import annotations

from typing import Any

from cachekit import Cache, ConfigError


def fragments(templates: Any, cache: Cache) -> None:
    """Let the templates of a ``Jinja2Templates`` keep fragments in *cache*: ``{% cache "5m", "menu", tags=["menu"] %}``.

    Raises:
        ConfigError: *templates* has no environment of Jinja2.
    """
    from jinja2 import Environment

    from cachekit.jinja import CacheExtension

    env = getattr(templates, "env", None)
    if not isinstance(env, Environment):
        raise ConfigError(f"fragments: {templates!r} must be a Jinja2Templates")
    env.add_extension(CacheExtension)
    env.cachekit_cache = cache  # type: ignore[attr-defined]
