"""Which requests share a key: that of a URL as the options want it.

Owns sorted queries, ignored parameters, and what else of a request is made part of the key. Pure. What is not in the
key must not change the response: an ignored parameter that the application reflects lets one visitor write to others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from typing import TypeAlias
from urllib.parse import quote, unquote_plus

from cachekit.http.message import Request, key_of
from cachekit.keys import bounded

log = logging.getLogger("cachekit")

KeyFunction: TypeAlias = Callable[[Request], str | None]
"""Returns what sets the responses to a request apart, or None when the cache must have no part in it."""


class Keying:
    """Makes the keys of one cache.

    Args:
        headers: request fields that are part of the key.
        sort_query: whether the order of query parameters is left out.
        ignored: patterns of query parameters that are left out.
        more: see ``KeyFunction``.
    """

    __slots__ = ("_ignored", "_more", "_sort", "headers")

    def __init__(
        self,
        headers: Sequence[str] = (),
        ignored: Sequence[str] = (),
        more: KeyFunction | None = None,
        *,
        sort_query: bool = False,
    ) -> None:
        self.headers = tuple(headers)
        self._ignored = re.compile("|".join(map(translate, ignored))) if ignored else None
        self._more = more
        self._sort = sort_query

    @property
    def by_url(self) -> bool:
        """Say whether URL and *headers* alone make the key."""
        return self._more is None

    @property
    def as_is(self) -> bool:
        """Say whether the query is part of the key as it was sent."""
        return not self._sort and self._ignored is None

    def key(self, request: Request, target: str | None = None) -> str | None:
        """Return the key of the responses to *request*, or to the same with another *target*; None when it has none."""
        target = request.target if target is None else target
        if (self._sort or self._ignored is not None) and "?" in target:
            target = self._target(target)
        key = key_of(request, self.headers, target)
        if key is None or self._more is None:
            return key
        try:
            more = self._more(request)
        except Exception:
            log.exception("the key function of the HTTP cache failed; the request passes by")
            return None
        return bounded(f"{key} +{quote(more, errors='replace')}") if isinstance(more, str) else None

    def _target(self, target: str) -> str:
        path, _, query = target.partition("?")
        parts = [(unquote_plus(part.partition("=")[0]), part) for part in query.split("&")]
        if (ignored := self._ignored) is not None:
            # Some applications take a semicolon for a separator: behind it could be another parameter.
            parts = [(name, part) for name, part in parts if ";" in part or not ignored.match(name)]
        if self._sort:
            parts.sort(key=_by_name)  # stable: the order of repeated parameters may mean something
        query = "&".join(part for _, part in parts)
        return f"{path}?{query}" if query else path


def _by_name(part: tuple[str, str]) -> str:
    return part[0]
