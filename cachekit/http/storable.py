"""May this response be stored, for whom, and for how long: RFC 9111 section 3 and the safety of shared storage.

Owns the weighing of what the application said against what a rule says. Pure.

Three things decide for whom a response is. The application may say that it is for everyone (``public``, ``s-maxage``,
a targeted field); a rule may say so (``shared``). Everything else that is stored is for *strangers*: it came from a
request that carried no credentials, and is served only to requests that carry none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cachekit.http.directives import CacheControl
from cachekit.http.freshness import Declared, declared, heuristic_lifetime
from cachekit.http.headers import HeaderList, Headers, first, parse_vary, values, without
from cachekit.http.message import Mark
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Match, Rule
from cachekit.http.selecting import selecting

_UNDERSTOOD: Final = frozenset(
    {200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415}
    | {416, 417, 421, 422, 426, 451, 500, 501, 502, 503, 504, 505}
)
"""Status codes whose caching requirements are observed here, for must-understand (RFC 9111 section 5.2.2.3)."""

_NEVER: Final = frozenset({304, 428, 429, 431, 511})
"""Status codes of what is no answer to store: RFC 6585 says so of all but the first, which speak to one client."""
_NO_MARKS: Final = Mark(0)


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a response may be stored.

    Attributes:
        lifetime: seconds of freshness.
        swr: seconds for stale-while-revalidate.
        sie: seconds for stale-if-error.
        marks: what else holds.
        vary: names of the request fields that select it, as ``selecting`` makes them.
        left_out: names of the response fields (lower case) that are not stored.
        refused: why it must not be stored, in a word; empty when it may.
    """

    lifetime: float = 0.0
    swr: float = 0.0
    sie: float = 0.0
    marks: Mark = _NO_MARKS
    vary: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()
    refused: str = ""


def refuse(reason: str) -> Terms:
    """Return the terms of a response that must not be stored, for *reason*."""
    return Terms(refused=reason)


def apply_rule(
    match: Match | None, headers: Headers, credentials: Sequence[str], options: HttpOptions
) -> tuple[HeaderList, HeaderList]:
    """Return which of *headers* stay, and what the rule adds to them for clients and caches further out.

    Nothing is added to what is private, is not to be stored, or sets a cookie. To the answer of a request with
    *credentials* a rule that is not shared adds no more than a private Cache-Control.
    """
    kept, added = list(headers), []
    if match is None or is_personal(headers, options):
        return kept, []
    rule = match.rule
    narrowed = bool(credentials) and not rule.is_shared
    if rule.control and (rule.override or not _spoke(headers)):
        kept = without(kept, ("cache-control", "expires"))
        added.append(("Cache-Control", str(narrow(rule.control) if narrowed else rule.control)))
    if rule.surrogate_control and not narrowed and (rule.override or first(kept, "surrogate-control") is None):
        kept = without(kept, ("surrogate-control",))
        added.append(("Surrogate-Control", rule.surrogate_control))
    return kept, added


def narrow(control: CacheControl) -> CacheControl:
    """Return *control* for one user's own cache."""
    own = control.without(("public", "private", "s-maxage", "proxy-revalidate"))
    return CacheControl((("private", None), *own.pairs))


def is_personal(headers: Headers, options: HttpOptions) -> bool:
    """Say whether the application keeps a response from others, by its own Cache-Control, a targeted field or a cookie."""
    for control in (CacheControl.of(headers), declared(headers, options.targets, 0.0).directives):
        if "private" in control or "no-store" in control:
            return True
    return not options.allow_set_cookie and bool(values(headers, "set-cookie"))


def _spoke(headers: Headers) -> bool:
    return first(headers, "cache-control") is not None or first(headers, "expires") is not None


def judge_response(
    status: int,
    own: Headers,
    effective: Headers,
    match: Match | None,
    credentials: Sequence[str],
    options: HttpOptions,
    now: float,
) -> Terms:
    """Say on what terms a response to a GET may be stored (RFC 9111 section 3).

    Args:
        status: its final status code.
        own: its fields as the application made them.
        effective: the same after ``apply_rule``.
        match: the rule that holds for it.
        credentials: the names of the fields with which the request said who asks.
        options: the settings of the cache.
        now: when it was received.
    """
    rule = match.rule if match is not None else None
    said = declared(own, options.targets, now)
    holds = declared(effective, options.targets, now)
    left_out = _listed(holds.directives, "private", options) or frozenset()
    if reason := _refusal(status, effective, holds, rule, options):
        return refuse(reason)
    vary = parse_vary(effective)
    if vary == ("*",):
        return refuse("vary-any")
    by_rule = _own_ttl(own, said, rule, options)
    lifetime = holds.lifetime if by_rule is None else by_rule
    if lifetime is None and not holds.targeted:
        longest = options.span("heuristic_max")
        lifetime = heuristic_lifetime(status, holds.directives, own, options.heuristic, longest, now)
    asks = _listed(holds.directives, "no-cache", options) is None
    if lifetime is None and asks and status == 200 and not credentials:
        lifetime = 0.0  # no-cache asks to be validated before each use, not to be left out
    if lifetime is None:
        return refuse("no-freshness")
    marks = _audience(said, rule, options)
    spoke = said.lifetime is not None and by_rule is None
    if (missing := unmet(credentials, marks, vary if spoke else (), options)) is not None:
        return refuse(missing)
    base = holds if by_rule is None else said
    unsure = _listed(base.directives, "no-cache", options)
    # A field that a rule adds hides nothing that the application said.
    asked_about = _listed(said.directives, "no-cache", options)
    if asked_about is not None:
        left_out |= asked_about
    elif rule is None or not rule.override:
        unsure = None
    if unsure is None and by_rule is None:
        marks |= Mark.NO_CACHE
    strict = said if rule is None or not rule.override else base
    if base.forbids_stale or strict.forbids_stale or unsure is None:
        marks |= Mark.FORBIDS_STALE
    never = unsure is None or "must-revalidate" in strict.directives or "proxy-revalidate" in strict.directives
    windows = (0.0, 0.0) if never else _windows(base, rule, options)
    names = selecting(vary, options.codings, options.any_language_order, options.key_cookies)
    return Terms(lifetime, *windows, marks, names, left_out | (unsure or frozenset()))


def _listed(control: CacheControl, name: str, options: HttpOptions) -> frozenset[str] | None:
    """Return the fields that the directive *name* is about, none where it is absent; None for the whole response."""
    return control.fields(name) if options.field_lists or name not in control else None


def unmet(credentials: Sequence[str], marks: int, vary: Sequence[str], options: HttpOptions) -> str | None:
    """Return the one of *credentials* for which a response of these *marks* is not meant, or None.

    A response that was selected by a credential, because its Vary names it, is meant for whoever sends the same.
    """
    if not credentials or marks & Mark.SHARED:
        return None
    for name in credentials:
        if name == "authorization":
            if not (marks & Mark.AUTHORIZED or options.allow_authorization):
                return name
        elif name not in vary and not (name == "cookie" and options.allow_cookies):
            return name
    return None


def _refusal(status: int, headers: Headers, found: Declared, rule: Rule | None, options: HttpOptions) -> str:
    control = found.directives
    if rule is not None and not rule.store:
        return "rule"
    if status in _NEVER or status < 200:
        return "status"
    understood = "must-understand" in control and status in _UNDERSTOOD
    if "must-understand" in control and not understood:
        return "must-understand"
    if "no-store" in control and not understood:
        return "no-store"
    if (listed := _listed(control, "private", options)) is None:
        return "private"
    listed |= _listed(control, "no-cache", options) or frozenset()
    if not options.allow_set_cookie and "set-cookie" not in listed and values(headers, "set-cookie"):
        return "set-cookie"
    return ""


def _own_ttl(own: Headers, said: Declared, rule: Rule | None, options: HttpOptions) -> float | None:
    """Return the ttl of the rule where it holds: the application declared no freshness, or the rule overrides it."""
    if rule is None or (ttl := rule.span("ttl")) is None or is_personal(own, options):
        return None
    if rule.override:
        return ttl
    asks_first = "no-cache" in said.directives or "must-understand" in said.directives
    return None if said.lifetime is not None or asks_first else ttl


def _audience(said: Declared, rule: Rule | None, options: HttpOptions) -> Mark:
    if rule is not None and rule.shared is False:
        shared = False
    else:
        shared = (rule is not None and rule.is_shared) or said.names_shared_caches
    if shared:
        return Mark.SHARED | Mark.AUTHORIZED
    if options.allow_authorization or "must-revalidate" in said.directives:
        return Mark.AUTHORIZED
    return _NO_MARKS


def _windows(base: Declared, rule: Rule | None, options: HttpOptions) -> tuple[float, float]:
    """Return the windows of stale-while-revalidate and stale-if-error: of the rule, the response, or the options."""
    control = base.directives
    if "must-revalidate" in control or "proxy-revalidate" in control:
        return 0.0, 0.0
    found: list[float] = []
    for option in ("stale_while_revalidate", "stale_if_error"):
        given = rule.span(option) if rule is not None else None
        if given is None:
            given = control.seconds(option.replace("_", "-"))
        if given is None:
            given = 0.0 if base.forbids_stale else options.span(option)
        found.append(given)
    return found[0], found[1]
