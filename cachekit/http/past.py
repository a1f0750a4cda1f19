"""Requests that go past the cache: those of other methods, and those of what is remembered as uncacheable.

Owns when a response may pass with no more than a Cache-Status added, exactly as an exchange would send it; where that
is not certain, the head is given to an exchange after all. Pure. Must not know ASGI or WSGI.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cachekit.http.directives import CacheControl
from cachekit.http.invalidation import SAFE_METHODS
from cachekit.http.options import EmitTags, HttpOptions
from cachekit.http.rules import Rules
from cachekit.http.status import CacheStatus

CACHE_CONTROL: Final = 1
EXPIRES: Final = 2
TARGET: Final = 4
REFERENCE: Final = 8
MODIFIED: Final = 16
_METHODS: Final = 64
_WHY: Final = ("uri-miss", "vary-miss", "bypass")


class Past:
    """What one cache knows about the requests that go past it.

    Attributes:
        methods: what ``by_method`` said of the methods met so far.
        method: the value of Cache-Status for other methods than GET and HEAD, None when the field is off.
        misses: the same for what need not be looked up, by why that is so.
        plain: whether nothing else has to be added.
        tells: whether the tags that were used are told, where a response does not keep to itself.
    """

    __slots__ = ("_guesses", "_ruled", "_rules", "_targets", "method", "methods", "misses", "plain", "tells")

    def __init__(self, options: HttpOptions, rules: Rules) -> None:
        told = options.cache_status
        self.method = CacheStatus(fwd="method").print(options) if told else None
        self.misses = {why: CacheStatus(fwd=why).print(options) for why in _WHY} if told else {}
        self.plain = not (told and (options.status_key or options.status_detail))
        self.tells = options.emit_tags == EmitTags.ALL
        self.methods: dict[str, bool | None] = {}
        self._rules = rules.speaks
        self._guesses = options.heuristic > 0
        self._ruled = rules.methods
        self._targets = frozenset(options.targets)

    def by_method(self, method: str) -> bool | None:
        """Say whether what *method* does may make stored responses invalid; None when an exchange has to see it."""
        found = self.methods.get(method)
        if found is None and method not in self.methods:
            ours = (
                self.plain and method not in ("GET", "HEAD") and method.upper() == method and method not in self._ruled
            )
            found = method not in SAFE_METHODS if ours else None
            if len(self.methods) < _METHODS:
                self.methods[method] = found
        return found

    def field(self, name: str) -> int:
        """Return what the response field *name* (lower case) means here, 0 for nothing."""
        if name in self._targets:
            return TARGET
        return _FIELDS.get(name, 0)

    def passes(self, control: Sequence[str], seen: int, *, ruled: bool = False) -> bool:
        """Say whether a response passes as it is: nothing allows to store it, and no rule adds to it.

        Args:
            control: the lines of its Cache-Control.
            seen: the meanings of all its fields together.
            ruled: whether its route has declared a rule.
        """
        if seen & TARGET:
            return False
        if not control:
            return not (seen & EXPIRES or self._rules or ruled or (self._guesses and seen & MODIFIED))
        if len(control) == 1:
            return _keeps_to_itself(control[0]) is True
        found = [_keeps_to_itself(line) for line in control]
        return True in found and None not in found


_FIELDS: Final = {
    "cache-control": CACHE_CONTROL, "expires": EXPIRES, "location": REFERENCE, "content-location": REFERENCE,
    "last-modified": MODIFIED,
}  # fmt: skip


@lru_cache(maxsize=256)
def _keeps_to_itself(line: str) -> bool | None:
    """Say whether Cache-Control *line* is private or no-store; None when more has to be known."""
    control = CacheControl.parse(line)
    if "must-understand" in control or control.argument("private") is not None:
        return None
    return "private" in control or "no-store" in control
