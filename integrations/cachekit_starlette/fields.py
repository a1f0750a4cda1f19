"""Which fields of a request a route of FastAPI reads: header parameters and API keys, its own and those of its dependencies.

Reads the route as it is, so that FastAPI need not be there. Must not know what a cache makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_OF_THE_CACHE: Final = frozenset(
    {"cache-control", "host", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "pragma",
     "range"}
)  # fmt: skip
"""Fields that a cache answers by itself: none of them selects a response."""


def fields_read(scope: Mapping[str, Any]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the fields that the route which answers reads, and those that are API keys among them, in lower case."""
    read: dict[str, None] = {}
    keys: set[str] = set()
    waiting = [getattr(_route(scope), "dependant", None)]
    while waiting:
        dependant: Any = waiting.pop()
        if dependant is None:
            continue
        waiting += dependant.dependencies
        for parameter in dependant.header_params:
            read.update(dict.fromkeys(_names(parameter)))
        scheme = getattr(dependant.call, "model", None)  # of a class of fastapi.security
        place = getattr(scheme, "in_", None)
        if getattr(place, "value", place) == "header":
            keys.add(str(getattr(scheme, "name", "")).lower())
    names = (name for name in (*read, *sorted(keys)) if _TOKEN.fullmatch(name) and name not in _OF_THE_CACHE)
    return tuple(dict.fromkeys(names)), frozenset(keys)


def _route(scope: Mapping[str, Any]) -> object:
    """Return the route, or what ``include_router`` has made of it: newer releases keep the dependencies of routers there."""
    route, own = scope.get("route"), scope.get("fastapi")
    context = own.get("effective_route_context") if isinstance(own, Mapping) else None
    return context if context is not None and getattr(context, "original_route", None) is route else route


def _names(parameter: Any) -> Iterator[str]:
    """Yield the fields that one header parameter reads: several, where it is a model of them; "*" for all."""
    info = parameter.field_info
    members: Any = getattr(getattr(info, "annotation", None), "model_fields", None)
    if not isinstance(members, Mapping):
        yield _name(parameter.alias, info)
        return
    if info.annotation.model_config.get("extra") == "allow":
        yield "*"  # it is given every field that there is
    dashed = getattr(info, "convert_underscores", True)
    for name, member in members.items():
        yield _name(name.replace("_", "-") if dashed and member.alias in (None, name) else member.alias or name, member)


def _name(alias: str, info: Any) -> str:
    validation = getattr(info, "validation_alias", None)
    return (validation if isinstance(validation, str) else alias).lower()
