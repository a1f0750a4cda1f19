"""Header rules: what the operator declares for the paths of an application.

Owns path patterns and their checking. Pure. A rule speaks where the application said nothing, and never against its
``private`` or ``no-store``; storable.py says how both are weighed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cachekit.errors import ConfigError
from cachekit.http.directives import CacheControl, delta_seconds
from cachekit.http.headers import TOKEN, members
from cachekit.http.query_tags import QueryTag, parameters
from cachekit.keys import TagTemplates
from cachekit.policy import Duration, positive_seconds, seconds

_MAX_PATH: Final = 2048
_FINAL: Final = range(200, 600)
_PART: Final = re.compile(r"\{([^{}]*)\}|(\*\*)|(\*)|([^{}*]+)|([{}])")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:[a-z0-9!#$&^_.+-]+|\*)\Z")
_SECONDS: Final = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
_ANGLED: Final = re.compile(r"<[^<>/]*>")  # a name, as Flask and Django write it
_ODD_PATH: Final = re.compile(r"//|\\|/\.\.?(?:/|\Z)|[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for the responses of some paths.

    Attributes:
        path: pattern such as ``/product/{id}``: ``{name}`` is one segment or part of one, ``*`` anything within a
            segment, ``**`` anything at all.
        cache_control: Cache-Control of responses that have neither it nor Expires.
        surrogate_control: Surrogate-Control of responses that have none.
        ttl: freshness in this cache alone, for responses that declare none; clients are not told.
        stale_while_revalidate: how long this cache serves such a response stale while it is refreshed.
        stale_if_error: how long this cache serves such a response stale when the application fails.
        tags: tags of the response, templates over the names in *path*, such as ``product:{id}``, and over parameters of
            the query, such as ``carrier:{query.carrier}``: one tag for each value, none where the parameter is absent.
        content_types: such as ``text/html`` or ``image/*``; none means every type.
        status: the final status codes that it is for.
        methods: the methods that it is for.
        store: False keeps these responses out of this cache.
        shared: True says that the response is the same for everyone, whatever cookies or credentials they send. None
            takes the word ``public`` in *cache_control* for it.
        override: True replaces what the application declared, apart from ``private`` and ``no-store``.

    Raises:
        ConfigError: a value is wrong; the message names it.
    """

    path: str
    cache_control: str | None = None
    surrogate_control: str | None = None
    ttl: Duration | None = None
    stale_while_revalidate: Duration | None = None
    stale_if_error: Duration | None = None
    tags: Sequence[str] = ()
    content_types: Sequence[str] = ()
    status: Sequence[int] = (200,)
    methods: Sequence[str] = ("GET", "HEAD")
    store: bool = True
    shared: bool | None = None
    override: bool = False
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _templates: TagTemplates = field(init=False, repr=False, compare=False)
    _asked: tuple[QueryTag, ...] = field(init=False, repr=False, compare=False)
    _control: CacheControl = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names, pattern = compile_path(self.path)
        self._set("_pattern", pattern)
        self._set("_control", _check_control(self.cache_control, "cache_control", self.path))
        _check_control(self.surrogate_control, "surrogate_control", self.path)
        if self.ttl is not None:
            self._set("ttl", positive_seconds(self.ttl, f"rule {self.path!r}: ttl"))
        for name in ("stale_while_revalidate", "stale_if_error"):
            if (value := getattr(self, name)) is not None:
                self._set(name, seconds(value, f"rule {self.path!r}: {name}"))
        if isinstance(self.content_types, str) or not all(_TYPE.match(str(one).lower()) for one in self.content_types):
            raise self._wrong("content_types", 'a list such as ["text/html", "image/*"]')
        if isinstance(self.status, int) or not all(one in _FINAL for one in self.status):
            raise self._wrong("status", "a list of status codes from 200 to 599")
        if isinstance(self.methods, str) or not all(TOKEN.match(str(one)) for one in self.methods):
            raise self._wrong("methods", 'a list such as ["GET", "HEAD"]')
        for name in ("store", "shared", "override"):
            if not isinstance(value := getattr(self, name), bool) and not (name == "shared" and value is None):
                raise self._wrong(name, "True or False")
        self._set("content_types", tuple(one.lower() for one in self.content_types))
        self._set("status", tuple(self.status))
        self._set("methods", tuple(one.upper() for one in self.methods))
        try:
            asked = [] if isinstance(self.tags, str) else [tag for tag in self.tags if "{query." in str(tag)]
            self._set("_asked", tuple(QueryTag(tag, names) for tag in asked))
            plain = self.tags if isinstance(self.tags, str) else [tag for tag in self.tags if tag not in asked]
            self._set("_templates", TagTemplates(plain, names))
            self._set("tags", tuple(self.tags))
        except ConfigError as exc:
            raise ConfigError(f"rule {self.path!r}: tags: {exc}") from exc
        self._check_contradictions()

    def _check_contradictions(self) -> None:
        if not self.store and self.ttl is not None:
            raise ConfigError(f"rule {self.path!r}: store=False and ttl contradict each other: drop one of them")
        if ("private" in self._control or "no-store" in self._control) and (self.ttl is not None or self.shared):
            raise ConfigError(
                f"rule {self.path!r}: cache_control={self.cache_control!r} contradicts ttl and shared=True"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _wrong(self, option: str, wanted: str) -> ConfigError:
        return ConfigError(f"rule {self.path!r}: {option}={getattr(self, option)!r} must be {wanted}")

    @property
    def control(self) -> CacheControl:
        """Return the parsed *cache_control*."""
        return self._control

    @property
    def is_shared(self) -> bool:
        """Say whether the rule declares the response to be the same for everyone."""
        return self.shared if self.shared is not None else "public" in self._control

    def span(self, name: str) -> float | None:
        """Return *name*, one of the durations, in seconds, or None when it is not given."""
        value: float | None = getattr(self, name)
        return value

    def match(self, method: str, path: str, query: str = "") -> tuple[str, ...] | None:
        """Return the tags for *path* (percent-decoded) and *query* (as sent), or None when the rule is not for it.

        It is not for what gives a tag that cannot be one: stored without that tag, the response would outlive its purge.
        """
        if method not in self.methods or (found := self._pattern.fullmatch(path)) is None:
            return None
        if self._templates.is_static and not self._asked:
            return self._templates.render({})
        named = found.groupdict()
        try:
            tags = self._templates.render(named)
            if not self._asked:
                return tags
            values = parameters(query)
            return tuple(dict.fromkeys([*tags, *(tag for one in self._asked for tag in one.render(named, values))]))
        except ConfigError:
            return None

    def suits(self, status: int, content_type: str | None) -> bool:
        """Say whether the rule is for a response of *status* and *content_type*.

        What holds for 200 holds for the 206 and 304 that stand for it.
        """
        if (200 if status in (206, 304) else status) not in self.status:
            return False
        if not self.content_types:
            return True
        kind = (content_type or "").partition(";")[0].strip(" \t").lower()
        return kind in self.content_types or f"{kind.partition('/')[0]}/*" in self.content_types


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that is for the path of a request, and the tags that follow."""

    rule: Rule
    tags: tuple[str, ...]


class Rules:
    """The rules of one application in order; the first that suits a response holds.

    Raises:
        ConfigError: something in *rules* is no ``Rule``.
    """

    __slots__ = ("_rules",)

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        given: tuple[object, ...] = tuple(rules)
        self._rules = tuple(rule for rule in given if isinstance(rule, Rule))
        if len(self._rules) != len(given):
            raise ConfigError("rules must be a list of Rule(...)")

    def __bool__(self) -> bool:
        return bool(self._rules)

    @property
    def speaks(self) -> bool:
        """Say whether there is a rule for what an application leaves unsaid."""
        return bool(self._rules)

    def listen(self) -> Sequence[Match]:
        """Return what will hold what routes declare for a request that goes past the cache; here none does."""
        return ()

    @property
    def methods(self) -> frozenset[str]:
        """Return the methods that some rule is for."""
        return frozenset(method for rule in self._rules for method in rule.methods)

    def candidates(self, method: str, path: str, query: str = "") -> Sequence[Match]:
        """Return the rules that may hold for a request.

        None holds for a path that an application might resolve to another one: dot segments, empty segments,
        backslashes, control characters.
        """
        if not self._rules or len(path) > _MAX_PATH or _ODD_PATH.search(path):
            return ()
        return tuple(Match(rule, tags) for rule in self._rules if (tags := rule.match(method, path, query)) is not None)


def choose(candidates: Sequence[Match], status: int, content_type: str | None) -> Match | None:
    """Return the first of *candidates* that suits the response, or None."""
    for match in candidates:
        if match.rule.suits(status, content_type):
            return match
    return None


def compile_path(path: object) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """Return the names in the pattern *path* and what it matches. Raises ``ConfigError``."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigError(f"rule path={path!r} must be a string that begins with /")
    if not path.isprintable() or _ODD_PATH.search(path):
        raise ConfigError(
            f"rule path={path!r} must not contain empty or dot segments, backslashes or control characters"
        )
    if theirs := _ANGLED.search(path):
        raise ConfigError(f"rule path={path!r}: {theirs[0]!r} would match these characters only: write {{name}}")
    names: list[str] = []
    made: list[str] = []
    for name, deep, any_, literal, stray in _PART.findall(path):
        if stray:
            raise ConfigError(f"rule path={path!r}: {stray!r} stands alone: write {{name}}")
        if deep:
            made.append(".*")
        elif any_:
            made.append("[^/]*")
        elif literal:
            made.append(re.escape(literal))
        elif not _NAME.match(name) or name in names:
            raise ConfigError(f"rule path={path!r}: {{{name}}} must be a name, used once")
        else:
            names.append(name)
            made.append(f"(?P<{name}>[^/]+)")
    text = "".join(made).replace(r"/.*/", "/(?:.*/)?")
    if path.count("**") > 2 or any(part.count("*") + part.count("{") > 3 for part in path.split("/")):
        raise ConfigError(f"rule path={path!r} has too many wildcards: at most two ** and three in a segment")
    return tuple(names), re.compile(text, re.DOTALL)


def _check_control(value: object, option: str, path: str) -> CacheControl:
    if value is None:
        return CacheControl()
    where = f"rule {path!r}: {option}={value!r}"
    if not isinstance(value, str) or not value.strip() or not value.isascii() or not value.isprintable():
        raise ConfigError(f'{where} must be printable text such as "public, max-age=60"')
    control = CacheControl.parse(value)
    if len(control.pairs) != len(members(value)):
        raise ConfigError(f"{where} is not a list of directives")
    names: Mapping[str, str | None] = dict(control.pairs)
    if len(names) != len(control.pairs):
        raise ConfigError(f"{where} gives a directive twice")
    for name in _SECONDS & names.keys():
        given = names[name]
        if option == "surrogate_control" and given is not None:
            given = given.partition(";")[0].partition("+")[0]
        if delta_seconds(given) is None:
            raise ConfigError(f"{where}: {name} needs a whole number of seconds")
    if "public" in names and ("private" in names or "no-store" in names):
        raise ConfigError(f"{where} contradicts itself: public and private or no-store")
    return control
