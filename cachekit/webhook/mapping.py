"""From an event to tags: a table that says which tags an event drops, always and when certain fields changed.

Pure. Must not know how events arrive.

An event is a JSON object::

    {"event": "product.updated",
     "data": {"id": 42, "category_id": 7, "brand_id": 3},
     "changed": ["price", "category_id"],
     "previous": {"category_id": 5}}

``changed`` may also be an object whose names are the fields. Where it is missing altogether nobody knows what changed, so
everything counts as changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cachekit.errors import ConfigError
from cachekit.keys import check_tag

_TEMPLATE: Final = re.compile(r"\{([^{}]*)\}")
_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")


class UnknownEvent(ValueError):
    """The table has no such event."""


class BadObject(ValueError):
    """The object lacks what a tag is made of, or has something else there."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What one event drops.

    Attributes:
        tags: dropped always. ``{id}`` is a field of the object, ``{owner.id}`` one of an object in it, and
            ``{previous.category_id}`` what it was before; a tag with ``previous`` is left out where that is not told.
        changed: tags dropped when one of the fields changed: ``{"name, price": ["search-results"]}``.

    Raises:
        ConfigError: a template is wrong.
    """

    tags: Sequence[str] = ()
    changed: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", _templates(self.tags, "tags"))
        if not isinstance(self.changed, Mapping):
            raise ConfigError(f"changed={self.changed!r} must be a table of fields and tags")
        made = {name: _templates(templates, f"changed {name!r}") for name, templates in self.changed.items()}
        if any(not fields_of(name) for name in made):
            raise ConfigError('changed must name fields, such as "name, price"')
        object.__setattr__(self, "changed", made)
        if not self.tags and not self.changed:
            raise ConfigError("an event must drop something: give it tags, or changed")


class Events:
    """The table of events.

    Args:
        effects: what each event drops, by its name.
        event_field: where the name of the event stands; a dotted path.
        data_field: where the object stands; empty for the body itself.
        changed_field: where the fields that changed stand.
        previous_field: where their earlier values stand.

    Raises:
        ConfigError: the table is empty or a name in it is wrong.

    Example:
        >>> events = Events({"post.edited": Effect(["post:{id}"], {"title, slug": ["index"]})})
        >>> events.tags({"event": "post.edited", "data": {"id": 7}, "changed": ["slug"]})
        ('post:7', 'index')
    """

    def __init__(
        self,
        effects: Mapping[str, Effect],
        *,
        event_field: str = "event",
        data_field: str = "data",
        changed_field: str = "changed",
        previous_field: str = "previous",
    ) -> None:
        if not effects or not all(isinstance(effect, Effect) for effect in effects.values()):
            raise ConfigError('events must be a table such as {"product.updated": Effect(["product:{id}"])}')
        for name, path in (("event_field", event_field), ("changed_field", changed_field)):
            if not _PATH.match(path):
                raise ConfigError(f"{name}={path!r} must be a name, or names joined by dots")
        for name, path in (("data_field", data_field), ("previous_field", previous_field)):
            if path and not _PATH.match(path):
                raise ConfigError(f"{name}={path!r} must be a name, names joined by dots, or empty")
        self.effects = dict(effects)
        self._event, self._data, self._changed, self._previous = event_field, data_field, changed_field, previous_field

    def name_of(self, document: Mapping[str, Any]) -> str:
        """Return the name of the event. Raises ``UnknownEvent``."""
        name = _find(document, self._event)
        if not isinstance(name, str) or name not in self.effects:
            raise UnknownEvent(f"{self._event} is {_shown(name)}; known are {', '.join(self.effects)}")
        return name

    def tags(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the tags that the event drops. Raises ``UnknownEvent``, or ``BadObject`` when a field is missing."""
        effect = self.effects[self.name_of(document)]
        data = _find(document, self._data) if self._data else document
        if not isinstance(data, Mapping):
            raise BadObject(f"{self._data} must be an object, not {_shown(data)}")
        previous = _find(document, self._previous) if self._previous else None
        if previous is not None and not isinstance(previous, Mapping):
            raise BadObject(f"{self._previous} must be an object, not {_shown(previous)}")
        changed = self._fields(document)
        templates = list(effect.tags)
        for names, more in effect.changed.items():
            if changed is None or not changed.isdisjoint(fields_of(names)):
                templates += more
        values = {**data, "previous": previous or {}}
        made = [tag for template in templates if (tag := _render(template, values)) is not None]
        return tuple(dict.fromkeys(made))

    def _fields(self, document: Mapping[str, Any]) -> frozenset[str] | None:
        given = _find(document, self._changed)
        if given is None:
            return None
        if isinstance(given, Mapping) or (isinstance(given, list) and all(isinstance(one, str) for one in given)):
            return frozenset(given)
        raise BadObject(f"{self._changed} must be a list of field names, not {_shown(given)}")


def catalogue() -> Events:
    """Return the table of a shop: always the product, its category if that changed, searches if they show what changed."""
    always = ["product:{id}"]
    searched = {"name, price, tags": ["search-results"]}
    moved = {"category_id": ["category:{category_id}", "category:{previous.category_id}"]}
    listed = [*always, "category:{category_id}", "search-results"]
    return Events(
        {
            "product.updated": Effect(always, {**moved, **searched}),
            "product.created": Effect(listed),
            "product.deleted": Effect(listed),
            "category.updated": Effect(["category:{id}"]),
        }
    )


def fields_of(names: str) -> frozenset[str]:
    """Return the fields that *names* lists, separated by commas."""
    return frozenset(name.strip() for name in names.split(",") if name.strip())


def _templates(given: object, where: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(f'{where} must be a list of tags such as ["product:{{id}}"], not {given!r}')
    for template in given:
        check_tag(template)
        if any(not _PATH.match(name) for name in _TEMPLATE.findall(template)):
            raise ConfigError(f"{where}: {template!r} must name fields of the object, such as {{id}} or {{owner.id}}")
        if "{" in _TEMPLATE.sub("", template) or "}" in _TEMPLATE.sub("", template):
            raise ConfigError(f"{where}: {template!r} has a brace that stands alone")
    return tuple(given)


def _render(template: str, values: Mapping[str, Any]) -> str | None:
    made = template
    for path in _TEMPLATE.findall(template):
        value = _find(values, path)
        if value is None and path.startswith("previous."):
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise BadObject(f"{path} must be a text or a whole number, not {_shown(value)}")
        made = made.replace("{" + path + "}", str(value).replace("{", "%7B").replace("}", "%7D"))
    try:
        return check_tag(made)
    except ConfigError as exc:
        raise BadObject(str(exc)) from exc


def _find(document: Mapping[str, Any], path: str) -> Any:
    found: Any = document
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _shown(value: object) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


__all__ = ["BadObject", "Effect", "Events", "UnknownEvent", "catalogue"]
