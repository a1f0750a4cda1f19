"""``GZipMiddleware`` with the arguments of Starlette's own: a migration in one import line.

Owns what Starlette compresses by default, which is everything but some types. Must not know how a body is encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Final

from starlette.types import ASGIApp

from cachekit import ConfigError
from cachekit.compress.asgi import Compress
from cachekit.compress.negotiate import Choice
from cachekit.compress.options import Compression

EXCLUDED: Final = (
    "application/grpc", "application/gzip", "application/x-gzip", "application/zip", "audio/*", "font/woff", "font/woff2",
    "image/avif", "image/gif", "image/jpeg", "image/png", "image/webp", "text/event-stream", "video/*",
)  # fmt: skip
"""Media types that Starlette leaves alone."""


class GZipMiddleware(Compress):
    """Compress responses as clients accept it. The arguments are those of Starlette's own.

    Args:
        app: the application; Starlette gives it.
        minimum_size: bytes below which a body is left alone.
        compresslevel: level of gzip, 1 to 9.
        thread_minimum_size: bytes from which a body is left to a thread.
        exclude_content_types: media types that are left alone; ``image/*`` means all of a kind.
        codings: those on offer, the best first, such as ``("zstd", "br", "gzip")``.

    Raises:
        ConfigError: an argument cannot be used; the message names it.

    Example:
        >>> from starlette.applications import Starlette
        >>> from starlette.middleware import Middleware
        >>> app = Starlette(middleware=[Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)])
    """

    def __init__(
        self,
        app: ASGIApp,
        minimum_size: int = 500,
        compresslevel: int = 9,
        thread_minimum_size: int = 128 * 1024,
        *,
        exclude_content_types: Sequence[str] = EXCLUDED,
        codings: Sequence[str] = ("gzip",),
    ) -> None:
        kinds: Any = exclude_content_types
        if isinstance(kinds, str) or not isinstance(kinds, Iterable) or not all(isinstance(one, str) for one in kinds):
            raise ConfigError(
                f'GZipMiddleware: exclude_content_types={exclude_content_types!r} must be a list such as ["image/*"]'
            )
        excluded = frozenset(one.partition(";")[0].strip().lower() for one in exclude_content_types)
        try:
            options = _AllBut(
                codings=codings, levels={"gzip": compresslevel} if "gzip" in codings else {}, minimum=minimum_size,
                offload=thread_minimum_size, excluded=excluded,
            )  # fmt: skip
        except ConfigError as exc:
            said = str(exc)
            for ours, theirs in (
                ("levels: gzip=", "compresslevel="), ("minimum=", "minimum_size="), ("offload=", "thread_minimum_size="),
            ):  # fmt: skip
                said = said.replace(ours, theirs)
            raise ConfigError(f"GZipMiddleware: {said}") from exc
        super().__init__(app, options)


class GZipResponder(GZipMiddleware):
    """What Starlette's middleware makes for each request; here it is the same."""


@dataclass(frozen=True, slots=True)
class _AllBut(Compression):
    """Compresses everything but what is *excluded*; no client is refused."""

    BY_SIZE_ALONE: ClassVar[bool] = True

    excluded: frozenset[str] = field(default=frozenset())

    def choose(self, accept: str | None, *, padded: bool = False) -> Choice:
        return _never_refused(Compression.choose(self, accept, padded=padded))

    def compresses(self, content_type: str | bytes) -> bool:
        text = content_type if isinstance(content_type, str) else content_type.decode("latin-1")
        kind = text.partition(";")[0].strip().lower()
        own = {kind, kind.partition("/")[0] + "/*"}
        if kind.startswith("application/grpc+"):
            own.add("application/grpc")
        return own.isdisjoint(self.excluded)


@lru_cache(maxsize=1024)
def _never_refused(choice: Choice) -> Choice:
    return choice if choice.identity else replace(choice, identity=True)
