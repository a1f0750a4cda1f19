"""What a response says that was made with a session: its cookie, and that it is for one visitor.

Pure. Must not know how sessions are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cachekit.http.directives import CacheControl
from cachekit.http.headers import HeaderList, Headers, parse_vary, values, without

_SHARED: Final = ("public", "s-maxage", "proxy-revalidate")
_REPLACED: Final = (*_SHARED, "private", "must-understand")
_TARGETED: Final = ("surrogate-control", "x-accel-expires")
_OWN: Final = (("Cache-Control", "private"), ("Vary", "Cookie"))
_NOT_KEPT: Final = (("Cache-Control", "no-store"), ("Vary", "Cookie"))
_BODILESS: Final = (204, 304)


def dressed(headers: Headers, *, accessed: bool, cookies: Sequence[str], no_store: bool = False) -> HeaderList:
    """Return the fields of a response whose session was *accessed*, with the lines that set cookies.

    What was made by looking at a session is for one visitor: ``Vary: Cookie`` and ``Cache-Control: private`` (RFC 9111
    section 5.2.2.7), whatever the application said. Fields that speak to shared caches alone are taken out, because they
    would come before Cache-Control (RFC 9213 section 2.2).
    """
    if not accessed and not cookies:
        return list(headers)
    if not headers or True not in [concerns(name) for name, _ in headers]:
        kept = [*headers, *(_NOT_KEPT if no_store else _OWN)]
        return [*kept, *[("Set-Cookie", cookie) for cookie in cookies]] if cookies else kept
    kept = [
        (name, value)
        for name, value in headers
        if (lower := name.lower()) not in _TARGETED
        and not lower.endswith("-cache-control")
        and lower != "cache-control"
    ]
    control = CacheControl.of(headers)
    narrowed = CacheControl((("private", None), *control.without(_REPLACED).pairs))
    kept.append(("Cache-Control", "no-store" if no_store else str(narrowed)))
    kept = _varied(kept)
    return [*kept, *(("Set-Cookie", cookie) for cookie in cookies)]


@lru_cache(maxsize=1024)
def concerns(name: str | bytes) -> bool:
    """Say whether the field *name* has to do with who may have a response."""
    lower = name.lower() if isinstance(name, str) else str(name, "latin-1").lower()
    return lower in _TARGETED or lower.endswith("cache-control") or lower == "vary"


def _varied(headers: HeaderList) -> HeaderList:
    names = parse_vary(headers)
    if names == ("*",) or "cookie" in names:
        return headers
    told = values(headers, "vary")
    return [*without(headers, ("vary",)), ("Vary", ", ".join([*told, "Cookie"]))]


def may_be_shared(method: str, headers: Headers) -> bool:
    """Say whether caches may give a response with these fields to others than who asked."""
    if method not in ("GET", "HEAD"):
        return False
    if not headers:
        return True
    control = CacheControl.of(headers)
    return "private" not in control and ("no-store" not in control or "must-understand" in control)


def is_open(method: str, status: int, headers: Headers) -> bool:
    """Say whether a response is for one visitor because its body, which is made while it is sent, may look at the session.

    Not where there is no body, or one whose length is known, as that of a file; nor where *headers* say already who may
    have it, be it all or one.
    """
    if status < 200 or status in _BODILESS or not may_be_shared(method, headers):
        return False
    for name, value in headers:
        lower = name.lower()
        if lower == "content-length":
            return False
        if (lower in _TARGETED or lower.endswith("-cache-control")) and not _forbids(value):
            return False
    control = CacheControl.of(headers)
    return True not in [name in control for name in _SHARED]


def _forbids(targeted: str) -> bool:
    """Say whether a field that speaks to shared caches alone tells them to keep nothing."""
    control = CacheControl.parse(targeted)
    return "no-store" in control or "private" in control or targeted.strip() == "0"
