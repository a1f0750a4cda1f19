"""Which content coding a client gets: Accept-Encoding (RFC 9110 section 12.5.3).

Pure, and total: text that is not what the grammar allows counts as not said. Must not know how a coding works.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_MEMBER: Final = re.compile(
    r"[ \t]*(?P<coding>[!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    r"(?:[ \t]*;[ \t]*[qQ]=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*\Z"
)
_ALIASES: Final = {"x-gzip": "gzip"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a client may be given.

    Attributes:
        coding: the best of the codings on offer, or None for none of them.
        identity: whether it accepts a response without a coding.
        others: whether it accepts codings that are not on offer.
    """

    coding: str | None
    identity: bool = True
    others: bool = False


NOTHING: Final = Choice(None)


@lru_cache(maxsize=2048)
def choose(accept: str | None, offered: tuple[str, ...]) -> Choice:
    """Return what a client with this Accept-Encoding gets of what is *offered*, the best first.

    The client's order by weight comes first, the server's order decides among equals. Without the field nothing is
    encoded: it would be allowed, but such clients are mostly those that know no codings.
    """
    if accept is None:
        return NOTHING
    weights: dict[str, float] = {}
    for part in accept.split(","):
        if (match := _MEMBER.match(part)) is not None:
            coding = match["coding"].lower()
            weights[_ALIASES.get(coding, coding)] = 1.0 if match["weight"] is None else float(match["weight"])
    rest = weights.get("*", 0.0)
    identity = weights.get("identity", rest if "*" in weights else 1.0) > 0
    others = any(weight > 0 and name not in (*offered, "*", "identity") for name, weight in weights.items())
    best, most = None, 0.0
    for name in offered:
        weight = weights.get(name, rest)
        if weight > most:
            best, most = name, weight
    if best is not None and weights.get("identity", 0.0) > most:
        best = None  # it says that it likes a plain response better
    return Choice(best, identity, others)
