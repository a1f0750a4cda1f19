"""Cache-Status: what this cache did, for whoever reads the response (RFC 9211).

Pure. Owns how the field is written.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachekit.http.headers import quoted_string
from cachekit.http.options import HttpOptions


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """What happened to one request.

    Attributes:
        hit: it was answered without going forward.
        fwd: why it went forward, in a word of RFC 9211 section 2.2; empty when it did not.
        fwd_status: the status code that came back, where another one was sent on.
        ttl: seconds of freshness left, negative when stale, or None.
        stored: whether the response is being stored.
        collapsed: whether it was answered by the forward of another request.
        key: the key of the response.
        detail: why, in a word.
    """

    hit: bool = False
    fwd: str = ""
    fwd_status: int | None = None
    ttl: float | None = None
    stored: bool = False
    collapsed: bool = False
    key: str | None = None
    detail: str = ""

    def print(self, options: HttpOptions) -> str:
        """Return the value of the field for this cache."""
        parts = [options.status_name]
        if self.hit:
            parts.append("hit")
        if self.fwd:
            parts.append(f"fwd={self.fwd}")
        if self.fwd_status is not None:
            parts.append(f"fwd-status={self.fwd_status}")
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.ttl is not None:
            parts.append(f"ttl={int(self.ttl) if self.ttl >= 0 else -int(-self.ttl + 0.999)}")
        if options.status_key and self.key is not None and self.key.isascii() and self.key.isprintable():
            parts.append(f"key={quoted_string(self.key)}")
        if options.status_detail and self.detail:
            parts.append(f"detail={self.detail}")
        return "; ".join(parts)
