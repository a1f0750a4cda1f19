"""Policies that belong to routes: which one holds is known only once the application has found the route.

Owns what an application declares for the response that it is making: a rule that joins the header rules while the request
is under way. Must not know routers: whoever knows one calls ``declare``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Final

from cachekit.http.rules import Match, Rule, Rules

_PATH: Final = "/**"


class _Candidates(list[Match]):
    """The rules that may hold for one request, with a place for the one that its route declares.

    A rule that keeps responses out stays in front of what a route declares; the others stand behind it, since they speak of
    many paths and the route of its own.
    """

    __slots__ = ("_declared", "_place")

    def __init__(self, found: Iterable[Match]) -> None:
        matches = tuple(found)
        super().__init__([match for match in matches if not match.rule.store])
        self._place = len(self)
        self._declared = False
        self.extend(match for match in matches if match.rule.store)

    def declare(self, match: Match) -> None:
        """Put *match* in its place, in the place of what was declared before."""
        self[self._place : self._place + self._declared] = [match]
        self._declared = True


_here: Final[ContextVar[_Candidates | None]] = ContextVar("cachekit_route", default=None)


class RouteRules(Rules):
    """Header rules that routes may add to while a request is under way.

    What was found uncacheable goes past the cache for a while as ever; what its route declares meanwhile is heard, too.

    Example:
        >>> rules = RouteRules([Rule("/account/**", store=False)])
        >>> found = rules.candidates("GET", "/product/42")
        >>> declare(Rule("/**", ttl="5m"), ["product:42"])
        True
        >>> [match.tags for match in found]
        [('product:42',)]
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return True

    def listen(self) -> Sequence[Match]:
        """Return a sequence to which ``declare`` adds from now on, in this context."""
        found = _Candidates(())
        _here.set(found)
        return found

    @property
    def methods(self) -> frozenset[str]:
        """Return the methods that some rule is for; what routes declare is for GET and HEAD."""
        return super().methods | {"GET", "HEAD"}

    def candidates(self, method: str, path: str, query: str = "") -> Sequence[Match]:
        """Return the rules that may hold for a request, to which ``declare`` adds from now on, in this context."""
        found = _Candidates(super().candidates(method, path, query))
        _here.set(found)
        return found


def declare(rule: Rule, tags: Iterable[str] = ()) -> bool:
    """Let *rule*, whatever its path, hold for the response that is being made here, with these *tags*.

    Returns whether an HTTP cache with ``RouteRules`` listens.
    """
    found = _here.get()
    if found is None:
        return False
    found.declare(Match(rule, tuple(tags)))
    return True


__all__ = ["RouteRules", "declare"]
