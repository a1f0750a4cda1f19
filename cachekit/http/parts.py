"""Partial responses: what of a 206 may be stored, served in parts, and combined (RFC 9111 sections 3.3 and 3.4).

Pure, and total. A part lies at a key of its own, where no request for the whole ever looks, so that it cannot be taken for
the whole. Must not know whether it may be stored or served.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from cachekit.http.headers import HeaderList, Headers, first, joined, parse_etag, values, without
from cachekit.http.message import StoredResponse
from cachekit.http.ranges import cut_spans, if_range_holds, parse_range
from cachekit.keys import bounded

_SHORT: Final = 190
_CONTENT_RANGE: Final = re.compile(r"[ \t]*bytes (\d{1,18})-(\d{1,18})/(\d{1,18})[ \t]*\Z", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes *begin* to *end* (not included) of *whole* bytes."""

    begin: int
    end: int
    whole: int

    def __str__(self) -> str:
        return f"bytes {self.begin}-{self.end - 1}/{self.whole}"


def part_key(key: str) -> str:
    """Return the key of the parts of what lies at *key*."""
    return f"{key} ~part" if len(key) <= _SHORT else bounded(f"{key} ~part")


def content_range(headers: Headers) -> Part | None:
    """Return the one part that a 206 with *headers* is, None when it is none, or does not say of how much."""
    stated = values(headers, "content-range")
    match = _CONTENT_RANGE.match(stated[0]) if len(stated) == 1 else None
    if match is None:
        return None
    begin, last, whole = map(int, match.groups())
    return Part(begin, last + 1, whole) if begin <= last < whole else None


def combined(old: StoredResponse | None, headers: HeaderList, body: bytes, longest: int) -> tuple[HeaderList, bytes]:
    """Return fields and content of a new part with *headers* and *body*, together with the *old* one where they fit.

    They fit when both have the same strong entity tag and the same length of the whole, and touch: together they are
    one part again. The new fields replace the old ones of the same names.
    """
    new = content_range(headers)
    held = content_range(old.headers) if old is not None else None
    if old is None or new is None or held is None or held.whole != new.whole or not _same(old.headers, headers):
        return headers, body
    if new.begin > held.end or held.begin > new.end:
        return headers, body
    part = Part(min(new.begin, held.begin), max(new.end, held.end), new.whole)
    if part.end - part.begin > longest:
        return headers, body
    before = old.body[: max(0, new.begin - held.begin)]
    behind = old.body[new.end - held.begin :] if held.end > new.end else b""
    content = before + body + behind
    replaced = {name.lower() for name, _ in headers} | {"content-range", "content-length"}
    stated = [("Content-Range", str(part)), ("Content-Length", str(len(content)))]
    return [*without(old.headers, replaced), *without(headers, ("content-range", "content-length")), *stated], content


def _same(one: Headers, other: Headers) -> bool:
    left, right = parse_etag(first(one, "etag")), parse_etag(first(other, "etag"))
    return left is not None and left == right and not left.weak


def cut_part(request: Headers, found: StoredResponse, headers: HeaderList) -> tuple[int, HeaderList, bytes] | None:
    """Return status, fields and content of what *request* asks for where all of it is in *found*, a stored part.

    Args:
        request: the fields of a GET with Range.
        found: a stored 206.
        headers: the fields that it would be sent with.
    """
    part = content_range(found.headers)
    if part is None or part.end - part.begin != len(found.body) or not if_range_holds(request, headers):
        return None
    spans = parse_range(joined(request, "range"), part.whole)
    if not spans or any(begin < part.begin or end > part.end for begin, end in spans):
        return None
    moved = replace(found, headers=without(found.headers, ("content-range",)))
    return cut_spans(moved, headers, spans, part.begin, part.whole)
