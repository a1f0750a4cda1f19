"""What an unsafe request makes invalid (RFC 9111 section 4.4).

Pure. Must not know how it is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from cachekit.http.headers import Headers, first, without
from cachekit.http.message import Request, same_origin
from cachekit.http.options import HttpOptions
from cachekit.http.parts import part_key

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})


def invalidated(request: Request, headers: Headers, options: HttpOptions) -> tuple[str, ...]:
    """Return the keys that a successful unsafe *request* makes invalid, answered with *headers* (RFC 9111 section 4.4)."""
    references = (first(headers, name) for name in ("location", "content-location"))
    others = (same_origin(request, reference.strip(" \t")) for reference in references if reference)
    asking = [request]
    keyed = {name for name, _ in request.headers} & {*options.keying.headers, "forwarded"}
    if keyed:  # they keep responses apart, but what is changed is the URL, as everybody knows it
        asking.append(replace(request, headers=without(request.headers, keyed)))
    targets = [target for target in (request.target, *others) if target]
    found = (options.keying.key(one, target) for one in asking for target in targets)
    return dropped(dict.fromkeys(key for key in found if key is not None), options)


def dropped(keys: Iterable[str], options: HttpOptions) -> tuple[str, ...]:
    """Return what is dropped where *keys* are invalid: their parts too."""
    return tuple(one for key in keys for one in ((key, part_key(key)) if options.store_parts else (key,)))
