"""What the fields of a request ask of a cache: conditions, directives, and whether there is a body.

Pure. Must not know what is stored.
"""

from __future__ import annotations

from cachekit.http.directives import CacheControl
from cachekit.http.headers import Headers, first, joined, members, none_match, parse_date, values


def not_modified(request: Headers, response: Headers) -> bool:
    """Say whether the conditions of *request* are answered by 304 (RFC 9110 section 13.2.2, RFC 9111 section 4.3.2)."""
    if (condition := joined(request, "if-none-match")) is not None:
        return none_match(condition, first(response, "etag"))
    since = parse_date(first(request, "if-modified-since"))
    modified = parse_date(first(response, "last-modified"))
    if modified is None:
        modified = parse_date(first(response, "date"))
    return since is not None and modified is not None and modified <= since


def request_control(headers: Headers, names: set[str]) -> CacheControl:
    """Return the directives of a request, those that Pragma stands for included (RFC 9111 section 5.4)."""
    if "cache-control" in names:
        return CacheControl.of(headers)
    if "pragma" in names and any(member.lower() == "no-cache" for member in members(joined(headers, "pragma") or "")):
        return CacheControl((("no-cache", None),))
    return CacheControl()


def has_body(headers: Headers, names: set[str]) -> bool:
    """Say whether a request with *headers* has content."""
    if "transfer-encoding" in names:
        return True
    return "content-length" in names and any(value.strip() != "0" for value in values(headers, "content-length"))
