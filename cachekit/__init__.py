"""cachekit makes an existing web application fast and keeps it up: one cache, one tag, every layer.

Public names load when they are first used, so that importing this package imports no framework and no client.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, whose import would cost more than everything else here

if TYPE_CHECKING:
    from typing import Any

    from cachekit.cdn.cloudflare import Cloudflare as Cloudflare
    from cachekit.cdn.fastly import Fastly as Fastly
    from cachekit.cdn.options import PurgeOptions as PurgeOptions
    from cachekit.cdn.options import PurgeStatus as PurgeStatus
    from cachekit.cdn.varnish import Varnish as Varnish
    from cachekit.codecs.protection import Encryption as Encryption
    from cachekit.codecs.protection import Signing as Signing
    from cachekit.default import cached as cached
    from cachekit.default import default_cache as default_cache
    from cachekit.default import use as use
    from cachekit.errors import (
        AppTimeout as AppTimeout,
    )
    from cachekit.errors import (
        AuthenticityError as AuthenticityError,
    )
    from cachekit.errors import (
        CacheKitError as CacheKitError,
    )
    from cachekit.errors import (
        CodecError as CodecError,
    )
    from cachekit.errors import (
        ConfigError as ConfigError,
    )
    from cachekit.errors import (
        KeyArgumentError as KeyArgumentError,
    )
    from cachekit.errors import (
        LoadTimeout as LoadTimeout,
    )
    from cachekit.errors import (
        PurgeError as PurgeError,
    )
    from cachekit.errors import (
        SignatureError as SignatureError,
    )
    from cachekit.errors import (
        StoreError as StoreError,
    )
    from cachekit.errors import (
        StoreTimeout as StoreTimeout,
    )
    from cachekit.errors import (
        StoreUnavailable as StoreUnavailable,
    )
    from cachekit.events import Event as Event
    from cachekit.events import Kind as Kind
    from cachekit.facade import Cache as Cache
    from cachekit.loading import Loading as Loading
    from cachekit.loading import current as current
    from cachekit.modes import bypass as bypass
    from cachekit.modes import refresh as refresh
    from cachekit.policy import Policy as Policy
    from cachekit.signatures import CachedCoroutine as CachedCoroutine
    from cachekit.signatures import CachedFunction as CachedFunction
    from cachekit.stats import Figures as Figures
    from cachekit.stats import Stats as Stats
    from cachekit.tags import collecting as collecting
    from cachekit.tags import tag as tag

    cache: Cache

__version__ = "0.1.0"

_HOMES = {
    "AppTimeout": "errors",
    "Cache": "facade",
    "AuthenticityError": "errors",
    "CachedCoroutine": "signatures",
    "CachedFunction": "signatures",
    "CacheKitError": "errors",
    "Cloudflare": "cdn.cloudflare",
    "CodecError": "errors",
    "ConfigError": "errors",
    "Encryption": "codecs.protection",
    "Signing": "codecs.protection",
    "Event": "events",
    "Fastly": "cdn.fastly",
    "Figures": "stats",
    "Kind": "events",
    "KeyArgumentError": "errors",
    "Policy": "policy",
    "PurgeError": "errors",
    "PurgeOptions": "cdn.options",
    "PurgeStatus": "cdn.options",
    "SignatureError": "errors",
    "Stats": "stats",
    "StoreError": "errors",
    "StoreTimeout": "errors",
    "StoreUnavailable": "errors",
    "Varnish": "cdn.varnish",
    "cached": "default",
    "collecting": "tags",
    "bypass": "modes",
    "current": "loading",
    "default_cache": "default",
    "LoadTimeout": "errors",
    "Loading": "loading",
    "refresh": "modes",
    "tag": "tags",
    "use": "default",
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "cache":
        from cachekit.default import default_cache

        return default_cache()
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'cachekit' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"cachekit.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
