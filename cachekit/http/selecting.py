"""What a request says in a field that Vary lists, made comparable (RFC 9111 section 4.1).

Owns which spellings mean the same. Pure. A selecting name is the name of a field, with what the options say of it behind
a ``;`` where they say something (``accept-encoding;br,gzip``): a stored response that carries it is compared in the same
way ever after. Must not know what is stored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from cachekit.http.credentials import SECRETS
from cachekit.http.headers import Headers, members, values

ANY_ORDER: Final = "any-order"
_WEIGHT: Final = re.compile(r"[ \t]*;[ \t]*[qQ]=([01](?:\.\d{0,3})?)\Z", re.ASCII)


def selecting(
    vary: Sequence[str], codings: Sequence[str], any_order: bool, cookies: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the selecting names of the fields *vary* (lower case), with the dashes that requests are read with.

    What some *cookies* say selects too, whether or not the application says so.
    """
    vary = [name.replace("_", "-") for name in vary]
    single = () if "cookie" in vary else tuple(map(of_cookie, cookies))
    if not codings and not any_order:
        return (*vary, *single)
    more = {"accept-encoding": ",".join(sorted(codings)), "accept-language": ANY_ORDER if any_order else ""}
    return (*(f"{name};{more[name]}" if more.get(name) else name for name in vary), *single)


def of_cookie(cookie: str) -> str:
    """Return the selecting name of one *cookie*."""
    return f"cookie;{cookie}"


def overlooks(names: Sequence[str], cookies: Sequence[str]) -> bool:
    """Say whether one of *cookies* has no part in the selecting *names*: they were made under other options."""
    return bool(cookies) and "cookie" not in names and not {of_cookie(one) for one in cookies}.issubset(names)


def field_of(name: str) -> str:
    """Return the field that the selecting *name* is about."""
    return name.partition(";")[0]


def nominated(headers: Headers, name: str) -> str:
    """Return what a request with *headers* says for the selecting *name*, made comparable; absent is ``""``.

    White space round members carries no meaning, nor does the case of codings and languages, the order of codings, or
    how a weight is written. The order of languages has none where each has a weight of its own below 1. With a weight of
    1 it is kept: from applications that take the first, a strange order could get an answer that common lists then share.
    Of what lets somebody in only a digest is kept.
    """
    field, _, how = name.partition(";")
    lines = values(headers, field)
    if not lines:
        return ""
    found = [member for line in lines for member in members(line)]
    if field == "accept-encoding":
        codings = [_weighed(member) for member in found]
        return "=" + ",".join(
            _accepted(codings, how.split(",")) if how else sorted({_spelled(*one) for one in codings})
        )
    if field == "accept-language":
        ranges = [_weighed(member) for member in found]
        weights = {weight for _, weight in ranges}
        if how == ANY_ORDER or (len(weights) == len(ranges) and 1.0 not in weights):
            ranges = sorted(set(ranges), key=lambda one: (-one[1], one[0]))
        return "=" + ",".join(_spelled(*one) for one in ranges)
    if field == "cookie" and how:
        found = [value.strip() for line in lines for key, _, value in _cookies(line) if key.strip() == how]
        if not found:
            return ""
        found = [";".join(found)]  # no value has one in it
    text = "=" + ",".join(found)
    if field in SECRETS:
        return "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return text


def _cookies(line: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in line.split(";")]


def _weighed(member: str) -> tuple[str, float]:
    """Return what *member* names, in lower case, and its weight (RFC 9110 section 12.4.2)."""
    if (match := _WEIGHT.search(member)) is None:
        return member.lower(), 1.0
    return member[: match.start()].lower(), min(float(match[1]), 1.0)


def _spelled(what: str, weight: float) -> str:
    return what if weight == 1.0 else f"{what};q={weight:g}"


def _accepted(ranges: Sequence[tuple[str, float]], codings: Sequence[str]) -> list[str]:
    """Return those of *codings* that are accepted, each with its place by weight."""
    stated = dict(reversed(ranges))
    for old, new in (("x-gzip", "gzip"), ("x-compress", "compress")):
        if old in stated:
            stated.setdefault(new, stated[old])
    weights = {one: stated.get(one, stated.get("*", 0.0)) for one in codings}
    # Without coding: accepted unless it is ruled out (RFC 9110 section 12.5.3).
    weights["identity"] = stated.get("identity", 0.0 if stated.get("*") == 0.0 else 0.001)
    steps = sorted({weight for weight in weights.values() if weight}, reverse=True)
    return [f"{one}:{steps.index(weight)}" for one, weight in sorted(weights.items()) if weight]
