"""Ranges of a stored response: 206 and 416 (RFC 9110 section 14).

Pure, and total. Must not know whether the response may be served.
"""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from typing import Final

from cachekit.http.headers import HeaderList, Headers, first, joined, parse_date, parse_etag, without
from cachekit.http.message import StoredResponse

_MOST: Final = 16
"""Ranges in one request; whoever asks for more gets everything once, which is less work than what they asked for."""
_LONGEST: Final = 4096
_SPEC: Final = re.compile(r"(\d{1,18})-(\d{1,18})?\Z|-(\d{1,18})\Z", re.ASCII)

Span = tuple[int, int]
"""First byte, and the one behind the last."""


def parse_range(text: str | None, length: int) -> list[Span] | None:
    """Return the spans that *text* means of *length* bytes; none when it cannot be met; None when it must be ignored.

    Spans that overlap are joined, so that together they are never more than everything.
    """
    if text is None or len(text) > _LONGEST:
        return None
    unit, equals, listed = text.strip(" \t").partition("=")
    if unit.lower() != "bytes" or not equals:
        return None
    specs = [part for spec in listed.split(",") if (part := spec.strip(" \t"))]
    if not specs or len(specs) > _MOST:
        return None
    spans: list[Span] = []
    for spec in specs:
        if (match := _SPEC.match(spec)) is None:
            return None
        begin, last, suffix = match.groups()
        if suffix is not None:
            span = (max(0, length - int(suffix)), length)
        else:
            span = (int(begin), length if last is None else min(int(last) + 1, length))
            if last is not None and int(last) < int(begin):
                return None
        if span[0] < span[1]:
            spans.append(span)
    return _joined(spans)


def _joined(spans: list[Span]) -> list[Span]:
    """Return *spans* as they are where they are apart; else in order, those that overlap joined."""
    ordered = sorted(spans)
    if all(left[1] <= right[0] for left, right in pairwise(ordered)):
        return spans
    made = [ordered[0]]
    for begin, end in ordered[1:]:
        if begin < made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((begin, end))
    return made


def if_range_holds(request: Headers, response: Headers) -> bool:
    """Say whether If-Range allows a range of *response* (RFC 9110 section 13.1.5): by a strong entity tag, or a date.

    A date is strong only where the response was a second old, at least, when it was sent.
    """
    if (condition := joined(request, "if-range")) is None:
        return True
    if (wanted := parse_etag(condition)) is not None:
        own = parse_etag(first(response, "etag"))
        return own is not None and not wanted.weak and not own.weak and own.opaque == wanted.opaque
    since, modified = parse_date(condition), parse_date(first(response, "last-modified"))
    date = parse_date(first(response, "date"))
    return since is not None and since == modified and (date is None or date - since >= 1.0)


def cut(request: Headers, found: StoredResponse, headers: HeaderList) -> tuple[int, HeaderList, bytes] | None:
    """Return status, fields and content of the ranges that *request* asks for, or None when it gets everything.

    Args:
        request: the fields of a GET.
        found: a stored 200.
        headers: the fields that all of it would be sent with.
    """
    length = len(found.body)
    spans = parse_range(joined(request, "range"), length)
    if spans is None or not if_range_holds(request, headers):
        return None
    if not spans:
        kept = without(headers, _OF_CONTENT)
        # Freshness goes too: a cache further out might serve this to who asks for all of it.
        stated = [("Content-Type", "text/plain"), ("Cache-Control", "no-store"), ("Content-Length", "0")]
        return 416, [*kept, *stated, ("Content-Range", f"bytes */{length}")], b""
    return cut_spans(found, headers, spans, 0, length)


def cut_spans(
    found: StoredResponse, headers: HeaderList, spans: list[Span], offset: int, length: int
) -> tuple[int, HeaderList, bytes]:
    """Return status, fields and content of *spans* of *length* bytes, of which *found* holds those from *offset* on."""
    if len(spans) == 1:
        begin, end = spans[0]
        kept = without(headers, ("content-length", "content-range"))
        stated = [("Content-Range", f"bytes {begin}-{end - 1}/{length}"), ("Content-Length", str(end - begin))]
        return 206, [*kept, *stated], found.body[begin - offset : end - offset]
    return _multipart(found, headers, spans, offset, length)


_OF_CONTENT: Final = frozenset(
    {
        "content-length",
        "content-type",
        "content-encoding",
        "content-language",
        "content-range",
        "etag",
        "last-modified",
        "cache-control",
        "expires",
        "surrogate-control",
        "cdn-cache-control",
    }
)


def _multipart(
    found: StoredResponse, headers: HeaderList, spans: list[Span], offset: int, length: int
) -> tuple[int, HeaderList, bytes]:
    # Its generation is random: who wrote the body could not know the boundary.
    seed = f"{found.generation}\n{found.made_at}\n{spans}".encode()
    boundary = hashlib.blake2b(seed, digest_size=16).hexdigest()
    kind = first(headers, "content-type")
    label = b"" if kind is None else f"Content-Type: {kind}\r\n".encode("latin-1", "replace")
    parts: list[bytes] = []
    for begin, end in spans:
        stated = f"Content-Range: bytes {begin}-{end - 1}/{length}\r\n\r\n".encode()
        parts += [f"\r\n--{boundary}\r\n".encode(), label, stated, found.body[begin - offset : end - offset]]
    content = b"".join([*parts, f"\r\n--{boundary}--\r\n".encode()])
    kept = without(headers, ("content-length", "content-range", "content-type"))
    stated_type = ("Content-Type", f"multipart/byteranges; boundary={boundary}")
    return 206, [*kept, stated_type, ("Content-Length", str(len(content)))], content
