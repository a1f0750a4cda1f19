"""Age and freshness lifetime, RFC 9111 section 4.2.

Pure: every time comes in as an argument. Must not know about requests, rules or storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cachekit.http.directives import MAX_SECONDS, CacheControl, delta_seconds, parse_surrogate, parse_targeted
from cachekit.http.headers import Headers, first, members, parse_date

_HEURISTIC: Final = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})


@dataclass(frozen=True, slots=True)
class Declared:
    """What a response declares to a shared cache.

    Attributes:
        directives: those of the first targeted field that is present and valid, else those of Cache-Control.
        targeted: whether a targeted field was taken; Cache-Control and Expires then say nothing (RFC 9213 section 2.2).
        lifetime: seconds of explicit freshness, or None when none is given.
    """

    directives: CacheControl
    targeted: bool
    lifetime: float | None

    @property
    def names_shared_caches(self) -> bool:
        """Say whether it speaks to caches that several users share: public, s-maxage, or a lifetime in a targeted field.

        A targeted field that gives no lifetime says nothing about who may have the response.
        """
        if "public" in self.directives or "s-maxage" in self.directives:
            return True
        return self.targeted and self.lifetime is not None

    @property
    def forbids_stale(self) -> bool:
        """Say whether a stale response must not be served without asking (RFC 9111 section 4.2.4)."""
        found = self.directives
        return "must-revalidate" in found or "proxy-revalidate" in found or "s-maxage" in found


def declared(headers: Headers, targets: Sequence[str], now: float) -> Declared:
    """Return what *headers* received at *now* declare to a shared cache that goes by the targeted fields *targets*."""
    for field in targets:
        found = parse_surrogate(headers) if field == "surrogate-control" else parse_targeted(headers, field)
        if found is not None:
            lifetime = found.seconds("s-maxage")
            return Declared(found, True, found.seconds("max-age") if lifetime is None else lifetime)
    control = CacheControl.of(headers)
    return Declared(control, False, explicit_lifetime(control, headers, now))


def explicit_lifetime(control: CacheControl, headers: Headers, now: float) -> float | None:
    """Return s-maxage, max-age or Expires less Date, in this order; None when there is none of them (section 4.2.1).

    An Expires that is no date lies in the past.
    """
    for name in ("s-maxage", "max-age"):
        if (given := control.seconds(name)) is not None:
            return given
    if (expires := first(headers, "expires")) is None:
        return None
    if (until := parse_date(expires, now)) is None:
        return 0.0
    date = parse_date(first(headers, "date"), now)
    return min(max(0.0, until - (now if date is None else date)), MAX_SECONDS)


def heuristic_lifetime(
    status: int, found: CacheControl, headers: Headers, fraction: float, longest: float, now: float
) -> float | None:
    """Return *fraction* of the time for which a response did not change, or None where none may be guessed (section 4.2.2).

    That is *longest* seconds at most, only where Last-Modified says since when, and only for status codes that allow it
    or what is public. Nothing is guessed for what has an ETag: it says exactly whether the response has changed, and is
    cheap to ask about.
    """
    if not fraction or not (status in _HEURISTIC or "public" in found) or first(headers, "etag") is not None:
        return None
    modified = parse_date(first(headers, "last-modified"), now)
    date = parse_date(first(headers, "date"), now)
    since = (now if date is None else date) - modified if modified is not None else 0.0
    return min(since * fraction, longest) if since > 0 else None


def initial_age(headers: Headers, asked_at: float, now: float) -> float:
    """Return the age that a response had when it was received at *now* (section 4.2.3).

    Of several ages the first counts, and one that is no number counts for nothing (section 5.1). A response with
    neither Age nor Date was made here and now.
    """
    date = parse_date(first(headers, "date"), now)
    ages = members(first(headers, "age") or "")
    if date is None and not ages:
        return 0.0
    apparent = 0.0 if date is None else max(0.0, now - date)
    stated = (delta_seconds(ages[0]) if ages else None) or 0.0
    return max(apparent, stated + max(0.0, now - asked_at))
