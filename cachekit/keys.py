"""Keys and tags: arguments rendered into text, templates compiled when a function is decorated.

Owns the promise that two calls share a key exactly when their arguments are the same values of the same types.
Pure. Must not know about stores.

Rendering is injective: ``1``, ``True``, ``1.0`` and ``"1"`` give ``1``, ``True``, ``1.0`` and ``'1'``. A plain word is
rendered bare, so that keys stay readable; everything else is quoted or bracketed, and inside quotes the characters
that could end the quote are percent-encoded.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from string import Formatter
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from cachekit.errors import ConfigError, KeyArgumentError

MAX_KEY_BYTES: Final = 200
MAX_TAG_BYTES: Final = 512
MAX_TAGS: Final = 1000
"""Most tags that one entry may carry: a hit on a server compares a stamp for each."""

_WORD: Final = re.compile(r"[A-Za-z0-9_.@/~+-]+\Z")
_QUOTED: Final = " !()*,;:=?[]{}#$&|<>^`/"
_RESERVED: Final = frozenset({"True", "False", "None"})
_DEPTH: Final = 32


class Unrenderable(Exception):
    """A part of an argument has no stable text."""

    def __init__(self, path: str, value: object, hint: str = "") -> None:
        super().__init__(path)
        self.path = path
        self.value = value
        self.hint = hint


def _text(value: str, special: str = "") -> str:
    if _WORD.match(value) and value not in _RESERVED and not any(char in special for char in value):
        try:
            float(value)
        except ValueError:
            return value
    return f"'{quote(value, safe=_QUOTED, errors='surrogatepass')}'"


def _type_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def render(value: object, *, special: str = "", path: str = "", depth: int = 0) -> str:
    """Return the text of *value* in a key. Raises ``Unrenderable`` for what has no stable text.

    Words that contain one of the *special* characters are quoted.
    """
    kind = type(value)
    if kind is str:
        return _text(value, special)  # type: ignore[arg-type]
    if kind is int or kind is float or value is None or kind is bool:
        return repr(value)
    if depth > _DEPTH:
        raise Unrenderable(path, value, "it is nested too deeply, or contains itself")
    if not hasattr(kind, "__cache_key__") and (own := _render_scalar(value, kind)) is not None:
        return own
    return _render_compound(value, kind, path, depth + 1)


def _render_scalar(value: Any, kind: type) -> str | None:
    if kind is bytes:
        return f"b'{value.hex()}'"
    if isinstance(value, Enum):
        return f"{_type_name(kind)}({_text(value.name) if value.name else repr(value.value)})"
    if kind in _BY_REPR:
        return f"{kind.__name__}({value})"
    if kind in (dt.datetime, dt.time):
        zone = "" if value.tzinfo is None else str(value.tzinfo)
        return f"{kind.__name__}({value.isoformat()},{value.fold},{_text(zone) if zone else ''})"
    if isinstance(value, PurePath):
        return f"{kind.__name__}({_text(str(value))})"
    if isinstance(value, type):
        return f"type({_type_name(value)})"
    if isinstance(value, str):
        return f"{_type_name(kind)}({_text(str.__str__(value))})"
    if isinstance(value, (int, float)):
        return f"{_type_name(kind)}({int.__repr__(value) if isinstance(value, int) else float.__repr__(value)})"
    return None


_BY_REPR: Final = frozenset(
    {
        dt.date, dt.timedelta, Decimal, UUID, Fraction, complex, range,
        ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network,
        ipaddress.IPv4Interface, ipaddress.IPv6Interface,
    }
)  # fmt: skip


def _render_compound(value: Any, kind: type, path: str, depth: int) -> str:
    def inner(item: object, step: str) -> str:
        return render(item, path=path + step, depth=depth)

    if (own := getattr(kind, "__cache_key__", None)) is not None:
        made = own(value) if callable(own) and not isinstance(own, property) else value.__cache_key__
        return f"{_type_name(kind)}<{render(made, path=path + '.__cache_key__', depth=depth)}>"
    if kind is tuple:
        return "(" + "".join(inner(item, f"[{i}]") + "," for i, item in enumerate(value)) + ")"
    if kind is list:
        return "[" + "".join(inner(item, f"[{i}]") + "," for i, item in enumerate(value)) + "]"
    if kind is set or kind is frozenset:
        return f"{kind.__name__}{{" + "".join(sorted(inner(item, "{...}") + "," for item in value)) + "}"
    if kind is dict:
        pairs = sorted((inner(key, f".key({key!r})"), inner(item, f"[{key!r}]")) for key, item in value.items())
        return "{" + "".join(f"{key}={item}," for key, item in pairs) + "}"
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        fields: Iterable[str] = kind._fields
        return f"{_type_name(kind)}(" + "".join(f"{f}={inner(getattr(value, f), f'.{f}')}," for f in fields) + ")"
    if dataclasses.is_dataclass(value) and _compares_by_value(kind):
        names = [field.name for field in dataclasses.fields(value) if field.compare]
        return f"{_type_name(kind)}(" + "".join(f"{f}={inner(getattr(value, f), f'.{f}')}," for f in names) + ")"
    dump: Any = getattr(value, "model_dump", None)
    if dump is not None and hasattr(kind, "__pydantic_validator__"):
        return f"{_type_name(kind)}{inner(dump(), '')}"
    raise Unrenderable(path, value)


def _compares_by_value(kind: Any) -> bool:
    return bool(kind.__dataclass_params__.eq)


def refused(error: Unrenderable, function: str, argument: str) -> KeyArgumentError:
    """Return the error that tells a developer which argument of *function* cannot be part of a key, and what to do."""
    where = f"{argument}{error.path}"
    why = f" ({error.hint})" if error.hint else ""
    return KeyArgumentError(
        f"{function}: argument {where} of type {type(error.value).__name__} cannot be part of a cache key{why}. "
        f'Leave it out with ignore=("{argument}",), choose the parts that matter with key="...:{{{argument}.id}}" or '
        f"key=lambda ...: ..., or give {type(error.value).__name__} a __cache_key__ method that returns plain values.",
        argument=argument,
        path=error.path,
    )


def bounded(key: str) -> str:
    """Return *key*, or its readable head and a digest when it is over 200 bytes.

    Raises:
        ConfigError: *key* is not a string, or empty.
    """
    if not isinstance(key, str):
        raise ConfigError(f"a cache key must be a string, not {type(key).__name__}: {key!r}")
    if not key:
        raise ConfigError("a cache key must not be empty")
    if len(key) <= MAX_KEY_BYTES // 4:
        return key
    raw = key.encode("utf-8", "surrogatepass")
    if len(raw) <= MAX_KEY_BYTES:
        return key
    digest = hashlib.blake2b(raw, digest_size=20).hexdigest()
    head = raw[: MAX_KEY_BYTES - 43].decode("utf-8", "ignore")
    return f"{head}~#{digest}"


def check_tag(tag: object) -> str:
    """Return *tag* as given. Raises ``ConfigError`` unless it is a string of 1 to 512 bytes without control characters."""
    if not isinstance(tag, str):
        raise ConfigError(f"a tag must be a string, not {type(tag).__name__}: {tag!r}")
    if not tag:
        raise ConfigError("a tag must not be empty")
    if not tag.isprintable():
        raise ConfigError(f"tag {tag!r} contains control or unprintable characters: use printable text")
    if len(tag) > MAX_TAG_BYTES // 4 and len(tag.encode()) > MAX_TAG_BYTES:
        raise ConfigError(f"tag {tag[:40]!r}... is over {MAX_TAG_BYTES} bytes: use an identifier, not the content")
    return tag


def check_entry_tags(tags: object) -> tuple[str, ...]:
    """Return *tags* of one entry without repeats. Raises ``ConfigError`` as ``check_tags``, and for more than 1,000."""
    checked = check_tags(tags)
    if len(checked) > MAX_TAGS:
        raise ConfigError(
            f"{len(checked):,} tags for one entry, over the bound of {MAX_TAGS:,}: tag with what they have in common"
        )
    return checked


_WIRE: Final = "!\"#$&'()*+-./:;<=>?@[]^_`{|}~\\"


def wire_tag(tag: str) -> str:
    """Return *tag* as it is told to CDNs, in response fields and in purges: what could end it is percent-encoded."""
    return quote(tag, safe=_WIRE, errors="replace")


def check_tags(tags: object) -> tuple[str, ...]:
    """Return *tags* without repeats. Raises ``ConfigError`` for a bare string or an invalid tag."""
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise ConfigError(f"tags must be a list of strings, not {tags!r}: write tags=[{str(tags)!r}]")
    return tuple(dict.fromkeys(check_tag(tag) for tag in tags))


class _Template:
    """Literal text and ``{parameter}`` fields, parsed and checked against the parameters of a function."""

    def __init__(self, template: str, parameters: Sequence[str], what: str) -> None:
        self.source = template
        self.parts: list[tuple[str, str | None, str]] = []
        try:
            parsed = list(Formatter().parse(template))
        except ValueError as exc:
            raise ConfigError(f"{what} {template!r} is not a valid template: {exc}") from exc
        for literal, field, spec, conversion in parsed:
            if field is None:
                self.parts.append((literal, None, ""))
                continue
            name = re.split(r"[.\[]", field, maxsplit=1)[0]
            if name not in parameters:
                known = ", ".join(parameters) or "none"
                raise ConfigError(f"{what} {template!r} names {{{field}}}, which is no parameter (parameters: {known})")
            if spec or conversion:
                raise ConfigError(f"{what} {template!r}: {{{field}}} must not carry a conversion or a format")
            self.parts.append((literal, name, field[len(name) :]))

    def values(self, arguments: Mapping[str, Any]) -> list[tuple[str, str | None, Any]]:
        """Return literal, parameter and value of each part."""
        return [
            (literal, name, None if name is None else _reach(arguments[name], rest) if rest else arguments[name])
            for literal, name, rest in self.parts
        ]


def _reach(value: Any, rest: str) -> Any:
    for attribute, index in re.findall(r"\.([^.\[]+)|\[([^\]]+)\]", rest):
        if attribute:
            value = getattr(value, attribute)
        else:
            value = value[int(index) if index.isdigit() and not isinstance(value, Mapping) else index]
    return value


class KeyTemplate:
    """A key such as ``"tenant:{tenant_id}:stats:{period}"``.

    Raises:
        ConfigError: a field is no parameter, or two fields are not separated well enough to tell their values apart.
    """

    def __init__(self, template: str, parameters: Sequence[str]) -> None:
        self._template = _Template(template, parameters, "key template")
        between = [literal for literal, name, _ in self._template.parts[1:] if name is not None]
        if any(re.fullmatch(r"[A-Za-z0-9.+]*", literal) for literal in between):
            raise ConfigError(f'key template {template!r}: separate its fields clearly, for example with ":"')
        self._special = "".join(set("".join(between)))

    def render(self, function: str, arguments: Mapping[str, Any]) -> str:
        """Return the key for *arguments*. Raises ``KeyArgumentError``."""
        made: list[str] = []
        for literal, name, value in self._template.values(arguments):
            made.append(literal)
            if name is not None:
                try:
                    made.append(render(value, special=self._special))
                except Unrenderable as exc:
                    raise refused(exc, function, name) from None
        return "".join(made)


TagSource = str | Callable[..., Iterable[str]]


class TagTemplates:
    """The tags of a function: templates over its arguments, or a callable that receives them.

    A tag holds the plain text of a value, so that ``product:42`` is one tag whether 42 came as a number or as text.

    Raises:
        ConfigError: a template names no parameter, or a literal tag is invalid.
    """

    def __init__(self, tags: Iterable[str] | Callable[..., Iterable[str]], parameters: Sequence[str]) -> None:
        self._callable: Callable[..., Iterable[str]] | None = None
        self._fixed: tuple[str, ...] = ()
        self._templates: list[_Template] = []
        if callable(tags):
            self._callable = tags
            return
        if isinstance(tags, str) or not isinstance(tags, Iterable):
            raise ConfigError(
                f"tags must be a list of templates or a callable, not {tags!r}: write tags=[{str(tags)!r}]"
            )
        for tag in tags:
            template = _Template(check_tag(tag), parameters, "tag template")
            if any(name is not None for _, name, _ in template.parts):
                self._templates.append(template)
            else:
                self._fixed += (check_tag("".join(literal for literal, _, _ in template.parts)),)

    @property
    def is_static(self) -> bool:
        """Return whether the tags do not depend on the arguments."""
        return self._callable is None and not self._templates

    def render(
        self, arguments: Mapping[str, Any], call: Callable[[], tuple[Iterable[Any], dict[str, Any]]] | None = None
    ) -> tuple[str, ...]:
        """Return the tags for *arguments*; *call* tells how a callable receives them. Raises ``ConfigError``."""
        if self._callable is not None:
            args, kwargs = call() if call is not None else ((), {})
            return check_tags(self._callable(*args, **kwargs))
        if not self._templates:
            return self._fixed
        made = [
            check_tag(
                "".join(f"{literal}{'' if name is None else value}" for literal, name, value in t.values(arguments))
            )
            for t in self._templates
        ]
        return tuple(dict.fromkeys((*self._fixed, *made)))


__all__ = [
    "KeyTemplate",
    "TagTemplates",
    "Unrenderable",
    "bounded",
    "check_entry_tags",
    "check_tag",
    "check_tags",
    "refused",
    "render",
]
