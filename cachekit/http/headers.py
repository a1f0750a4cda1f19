"""Header fields as HTTP writes them: lists of pairs, comma lists, dates, entity tags, Vary and tag lists.

Owns the grammar. Pure, and total: text that is not what the grammar allows gives a defined answer, never an exception.
Must not know what a field means for a cache.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias
from urllib.parse import unquote

from cachekit.keys import wire_tag

Headers: TypeAlias = Sequence[tuple[str, str]]
"""Fields in the order received; a name may repeat. Names compare without regard to case."""

HeaderList: TypeAlias = list[tuple[str, str]]

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")

HOP_BY_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Fields that belong to one connection and are never stored (RFC 9111 section 3.1)."""


def values(headers: Headers, name: str) -> list[str]:
    """Return the value of every line of the field *name* (lower case)."""
    return [value for field, value in headers if field.lower() == name]


def first(headers: Headers, name: str) -> str | None:
    """Return the first line of the field *name* (lower case), or None."""
    for field, value in headers:
        if field.lower() == name:
            return value
    return None


def joined(headers: Headers, name: str) -> str | None:
    """Return the lines of the field *name* (lower case) as one list, or None."""
    found = values(headers, name)
    return ", ".join(found) if found else None


def without(headers: Headers, names: Collection[str]) -> HeaderList:
    """Return *headers* apart from the fields *names* (lower case)."""
    return [pair for pair in headers if pair[0].lower() not in names]


def end_to_end(headers: Headers) -> HeaderList:
    """Return *headers* without those of one connection, the ones that Connection lists included."""
    listed = {name.lower() for value in values(headers, "connection") for name in members(value)}
    return without(headers, HOP_BY_HOP | listed)


def members(value: str) -> list[str]:
    """Return the members of a comma list; a comma inside a quoted string separates nothing.

    When the quotes do not balance every comma separates, so that nothing hides in a string that never ends.
    """
    if '"' not in value:
        return [member for part in value.split(",") if (member := part.strip(" \t"))]
    parts: list[str] = []
    begin = 0
    quoted = escaped = False
    for at, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            parts.append(value[begin:at])
            begin = at + 1
    parts = value.split(",") if quoted else [*parts, value[begin:]]
    return [member for part in parts if (member := part.strip(" \t"))]


def quoted_string(text: str) -> str:
    """Return *text* as a quoted-string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquoted(text: str) -> str:
    """Return the content of a quoted-string, or *text* itself when it is none."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


# Dates (RFC 9110 section 5.6.7)

_DAYS: Final = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_LONG_DAYS: Final = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_NAMES: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS: Final = {name: number for number, name in enumerate(_NAMES, 1)}
_CLOCK: Final = r"(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)"
_MONTH: Final = f"(?P<month>{'|'.join(_NAMES)})"
_DATES: Final = (
    re.compile(rf"(?:{_DAYS}), (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_CLOCK} GMT\Z", re.ASCII | re.IGNORECASE),
    re.compile(rf"(?:{_LONG_DAYS}), (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_CLOCK} GMT\Z", re.ASCII | re.IGNORECASE),
    re.compile(rf"(?:{_DAYS}) {_MONTH} (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})\Z", re.ASCII | re.IGNORECASE),
)
_HALF_A_CENTURY: Final = 50 * 31556952.0
_SOMETIME: Final = 1577836800.0
"""Stands for now where dates are only compared with each other: the first second of 2020."""


def parse_date(text: str | None, now: float = _SOMETIME) -> float | None:
    """Return the seconds since the epoch that an HTTP date means, or None when it is not one of the three forms.

    Upper and lower case make no difference (RFC 9111 section 4.2). A year of two digits is never more than 50 years ahead
    of *now* (RFC 9110 section 5.6.7).
    """
    if text is None:
        return None
    for form in _DATES:
        if (match := form.match(text.strip(" \t"))) is not None:
            break
    else:
        return None
    year, month, day = int(match["year"]), _MONTHS[match["month"].title()], int(match["day"])
    two_digits = len(match["year"]) == 2
    if two_digits:
        latest = datetime.fromtimestamp(max(0.0, min(now + _HALF_A_CENTURY, _LATEST)), UTC).year
        year += latest // 100 * 100
        year -= 100 if year > latest else 0
    hour, minute, second = int(match["h"]), int(match["m"]), int(match["s"])
    if hour > 23 or minute > 59 or second > 60 or year < 1 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    found = float(calendar.timegm((year, month, day, hour, minute, second)))
    if two_digits and found > now + _HALF_A_CENTURY:
        found = float(calendar.timegm((year - 100, month, day, hour, minute, second)))
    return found


_LATEST: Final = 253402300799
"""The end of the year 9999."""


def format_date(at: float) -> str:
    """Return *at* as an IMF-fixdate."""
    utc = datetime.fromtimestamp(max(0, min(int(at), _LATEST)), UTC)
    day = _DAYS.split("|")[utc.weekday()]
    return f"{day}, {utc.day:02} {_NAMES[utc.month - 1]} {utc.year:04} {utc:%H:%M:%S} GMT"


# Entity tags (RFC 9110 section 8.8.3)


@dataclass(frozen=True, slots=True)
class ETag:
    """An entity tag: what is between its quotes, and whether it is weak."""

    opaque: str
    weak: bool = False

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.opaque}"'


_BARE_ETAG: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x7e\x80-\xff]+")
_ETAG: Final = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|\Z)')


def parse_etag(text: str | None) -> ETag | None:
    """Return the entity tag that *text* is, or None."""
    if text is None or (match := _ETAG.match(text)) is None or match.end() != len(text) or text.endswith(","):
        return None
    return ETag(match[2], match[1] is not None)


def loose_etag(text: str | None) -> ETag | None:
    """Return the same, also of a tag that some servers send without its quotes: to compare weakly, and to send back."""
    if (found := parse_etag(text)) is None and text is not None and _BARE_ETAG.fullmatch(text.strip(" \t")):
        return ETag(text.strip(" \t"), weak=True)
    return found


def parse_etags(text: str, *, bare: bool = False) -> tuple[ETag, ...]:
    """Return the entity tags of a list, *bare* ones without quotes too; what is no entity tag is left out."""
    found: list[ETag] = []
    at = 0
    while at < len(text):
        if (match := _ETAG.match(text, at)) is not None:
            found.append(ETag(match[2], match[1] is not None))
            at = match.end()
        else:
            comma = text.find(",", at)
            end = len(text) if comma < 0 else comma
            if bare and (tag := loose_etag(text[at:end])) is not None:
                found.append(tag)
            at = end + 1
    return tuple(found)


def none_match(condition: str, etag: str | None) -> bool:
    """Say whether If-None-Match *condition* finds *etag*, by weak comparison; ``*`` finds anything."""
    if condition.strip(" \t") == "*":
        return True
    own = loose_etag(etag)
    return own is not None and any(own.opaque == other.opaque for other in parse_etags(condition, bare=True))


# Vary (RFC 9110 section 12.5.5)


def parse_vary(headers: Headers) -> tuple[str, ...]:
    """Return the sorted lower-case names that Vary lists, ``("*",)`` when it contains ``*`` or what is no name."""
    names = {member.lower() for value in values(headers, "vary") for member in members(value)}
    if not all(TOKEN.match(name) for name in names) or "*" in names:
        return ("*",)
    return tuple(sorted(names))


def print_vary(names: Iterable[str]) -> str:
    """Return *names* as the value of Vary."""
    return ", ".join(names)


# Tags: Cache-Tag is a comma list, Surrogate-Key and xkey are lists separated by spaces


def print_tags(tags: Iterable[str], separator: str = ",") -> str:
    """Return *tags* as one value; what could end a tag or a header line is percent-encoded."""
    return separator.join(map(wire_tag, tags))


MAX_TAG: Final = 1024
MAX_TAGS: Final = 16384
_MAX_TAG_LINE: Final = 8000
"""What CDNs take: a tag of 1,024 bytes, 16 KB of tags (Cloudflare, Fastly); a line of 8 KB (Varnish)."""


def tag_lines(tags: Iterable[str], separator: str = ",") -> tuple[list[str], list[str]]:
    """Return *tags* as values of header lines that CDNs take, and the tags that find no place in them."""
    lines: list[str] = []
    left_out: list[str] = []
    total = 0
    for tag in tags:
        text = print_tags((tag,), separator)
        if len(text) > MAX_TAG or total + len(text) + 1 > MAX_TAGS:
            left_out.append(tag)
            continue
        total += len(text) + 1
        if lines and len(lines[-1]) + len(text) + 1 <= _MAX_TAG_LINE:
            lines[-1] += separator + text
        else:
            lines.append(text)
    return lines, left_out


def parse_tags(value: str, separator: str = ",") -> tuple[str, ...]:
    """Return the tags that *value* lists, without repeats."""
    parts = (part.strip(" \t") for part in value.split(separator))
    return tuple(dict.fromkeys(unquote(part, errors="replace") for part in parts if part))
