"""Cache directives: Cache-Control, the targeted fields of RFC 9213, and Surrogate-Control, parsed and printed.

Owns how directives are written, to the letter. Pure and total. Must not know what follows from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cachekit.http.headers import TOKEN, Headers, joined, members, quoted_string, unquoted, values

MAX_SECONDS: Final = 2147483648.0
"""What a number of seconds that is too large to count counts as (RFC 9111 section 1.2.2)."""


def delta_seconds(text: str | None) -> float | None:
    """Return the number of seconds that *text* means, or None for no whole number (RFC 9111 section 1.2.2)."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    digits = text.lstrip("0")
    return MAX_SECONDS if len(digits) > 10 else min(float(digits or 0), MAX_SECONDS)


_FIELD: Final = re.compile(r"[!#$%&*+.^_`|~0-9A-Za-z-]+\Z")
"""A token without single quotes: whoever writes those means a string."""

INDISPENSABLE: Final = frozenset(
    {
        "age", "cache-control", "content-encoding", "content-length", "content-range", "content-type", "date", "etag",
        "expires", "last-modified", "surrogate-control", "transfer-encoding", "vary",
    }
)  # fmt: skip
"""Fields without which a stored response would be another one, or be used in another way."""


@dataclass(frozen=True, slots=True)
class CacheControl:
    """Directives in the order written: lower-case name and argument, None where there is no argument.

    Example:
        >>> cc = CacheControl.parse('public, max-age="60"')
        >>> "public" in cc, cc.seconds("max-age"), str(cc)
        (True, 60.0, 'public, max-age=60')
    """

    pairs: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> CacheControl:
        """Return the directives of *text*. An argument with white space round its ``=`` is kept as an invalid one."""
        pairs: list[tuple[str, str | None]] = []
        for member in members(text):
            name, equals, argument = member.partition("=")
            bare = name.rstrip(" \t")
            if not TOKEN.match(bare):
                continue
            if not equals:
                pairs.append((bare.lower(), None))
            elif bare != name or argument[:1] in (" ", "\t"):
                pairs.append((bare.lower(), ""))
            else:
                pairs.append((bare.lower(), unquoted(argument)))
        return cls(tuple(pairs))

    @classmethod
    def of(cls, headers: Headers) -> CacheControl:
        """Return the directives of every Cache-Control line of *headers*.

        Each line is read by itself, so that a quote left open on one cannot hide another.
        """
        lines = values(headers, "cache-control")
        if not lines:
            return EMPTY
        return cls(tuple(pair for line in lines for pair in cls.parse(line).pairs))

    def __str__(self) -> str:
        return ", ".join(
            name if argument is None else f"{name}={argument if TOKEN.match(argument) else quoted_string(argument)}"
            for name, argument in self.pairs
        )

    def __contains__(self, name: object) -> bool:
        return any(own == name for own, _ in self.pairs)

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def argument(self, name: str) -> str | None:
        """Return the argument of the first directive *name*, or None."""
        for own, argument in self.pairs:
            if own == name:
                return argument
        return None

    def seconds(self, name: str) -> float | None:
        """Return the seconds that the first directive *name* gives, None when it is absent.

        An argument that is no number counts as 0: whoever wrote it is asked again (RFC 9111 section 4.2.1).
        """
        for own, argument in self.pairs:
            if own == name:
                return delta_seconds(argument) or 0.0
        return None

    def fields(self, name: str) -> frozenset[str] | None:
        """Return the fields (lower case) that the directive *name* is about, none where it is absent.

        None says that it is about the whole response: written without an argument, with one that is no list of names, or
        with one that names what a stored response cannot do without (RFC 9111 sections 5.2.2.4 and 5.2.2.7).
        """
        found: set[str] = set()
        for own, argument in self.pairs:
            if own == name:
                listed = {member.lower() for member in members(argument or "")}
                if not listed or not all(map(_FIELD.match, listed)) or listed & INDISPENSABLE:
                    return None
                found |= listed
        return frozenset(found)

    def without(self, names: Iterable[str]) -> CacheControl:
        """Return the directives apart from *names*."""
        dropped = frozenset(names)
        return CacheControl(tuple(pair for pair in self.pairs if pair[0] not in dropped))


EMPTY: Final = CacheControl()


# Surrogate-Control (W3C Edge Architecture Specification 1.0)


def parse_surrogate(headers: Headers) -> CacheControl | None:
    """Return Surrogate-Control as cache directives, or None when it is absent or says nothing.

    ``max-age=600+60`` is 600 seconds fresh and 60 more while it is revalidated. A directive addressed to a named
    surrogate (``;name``) is taken as addressed to all.
    """
    if (text := joined(headers, "surrogate-control")) is None:
        return None
    pairs: list[tuple[str, str | None]] = []
    for name, argument in CacheControl.parse(", ".join(member.split(";")[0] for member in members(text))).pairs:
        if name == "max-age" and argument is not None and "+" in argument:
            fresh, _, stale = argument.partition("+")
            pairs += [("max-age", fresh), ("stale-while-revalidate", stale)]
        else:
            pairs.append((name, argument))
    return CacheControl(tuple(pairs)) if pairs else None


# Targeted fields are Dictionary Structured Fields (RFC 9213 section 2.1, RFC 9651)

_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_ITEM: Final = (
    r"(?:-?\d{1,12}\.\d{1,3}|-?\d{1,15}"
    r'|"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*|:[A-Za-z0-9+/=]*:|\?[01])"
)
_MEMBER: Final = re.compile(rf"({_KEY})(?:=({_ITEM}))?(?:;[ ]*{_KEY}(?:={_ITEM})?)*")
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")


def parse_targeted(headers: Headers, field: str) -> CacheControl | None:
    """Return the directives of a targeted *field* (lower case), None when it is absent, empty or invalid as a whole."""
    # An empty line says nothing, and must not make the others invalid: one of them might say private.
    lines = [line for value in values(headers, field) if (line := value.strip(" \t"))]
    if not (text := ", ".join(lines)):
        return None
    found: dict[str, str | None] = {}
    at = 0
    while (match := _MEMBER.match(text, at)) is not None:
        name, argument = match[1], match[2]
        found.pop(name, None)
        if argument != "?0":
            found[name] = None if argument in (None, "?1") else _plain(name, argument)
        if match.end() == len(text):
            return CacheControl(tuple(found.items()))
        if (comma := _COMMA.match(text, match.end())) is None:
            return None
        at = comma.end()
    return None


def _plain(name: str, item: str) -> str:
    """Return *item* as an argument; a string is one only where it lists fields, and no number."""
    if not item.startswith('"'):
        return item
    return unquoted(item) if name in ("no-cache", "private") else f"'{unquoted(item)}'"
