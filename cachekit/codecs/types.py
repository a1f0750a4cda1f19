"""Which classes may be built from cached bytes, and under which name.

Owns the allow list of one codec, filled by ``register`` and by walking return annotations. Data never causes an import:
a name that is not in the list cannot be built. Must not know bytes, msgpack or frames.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from cachekit.codecs.shapes import Kind, Shape, fields_of, kind_of, name_of, raw_annotations, shape_of
from cachekit.errors import ConfigError


class KnownTypes:
    """The classes that one codec may build."""

    __slots__ = ("_adapted", "_by_class", "_by_name")

    def __init__(self) -> None:
        self._by_class: dict[type[Any], Shape] = {}
        self._by_name: dict[str, Shape] = {}
        self._adapted: dict[type[Any], Shape] = {}

    def of(self, cls: type[Any]) -> Shape | None:
        """Return the shape of a class, or None when it is not known."""
        shape = self._by_class.get(cls)
        if shape is None and self._adapted:
            shape = next((self._adapted[base] for base in cls.__mro__ if base in self._adapted), None)
            if shape is not None:
                self._by_class[cls] = shape
        return shape

    def named(self, name: str) -> Shape | None:
        """Return the shape that has this name in the data, or None when it is not known."""
        return self._by_name.get(name)

    def register(self, cls: type[Any], name: str | None = None) -> None:
        """Allow *cls* under *name*, by default ``module:qualname``.

        A newer class with the same module and qualified name (a reloaded module) replaces the older one. A class that
        was known under another name is written under the new one, and still read under the old one.

        Raises:
            ConfigError: the class cannot be taken apart, or the name belongs to another class.
        """
        if not isinstance(cls, type):
            raise ConfigError(f"register() takes a class, not {cls!r}")
        self._add(shape_of(cls, name_of(cls) if name is None else name))

    def adapt(
        self, base: type[Any], name: str, take: Callable[[Any], list[Any]], build: Callable[[list[Any]], Any]
    ) -> None:
        """Allow the instances of *base* and of its subclasses under *name*, by functions of the caller's own.

        Raises:
            ConfigError: the name belongs to another class.
        """
        shape = Shape(cls=base, name=name, digest=bytes(8), take=take, build=build)
        self._add(shape)
        self._adapted[base] = shape

    def learn(self, annotation: Any) -> None:
        """Allow every enum, dataclass, NamedTuple and model that *annotation* names, at any depth.

        What cannot be resolved (a name imported for type checkers only) or cannot be registered is left out: encoding
        such a value says what to do.
        """
        seen: set[int] = set()
        waiting: list[Any] = [annotation]
        kept: list[Any] = []  # ids in `seen` stay unique as long as the objects live
        while waiting:
            part = waiting.pop()
            if id(part) in seen:
                continue
            seen.add(id(part))
            kept.append(part)
            if isinstance(part, type) and typing.get_origin(part) is None:
                waiting.extend(self._learn_class(part))
            else:
                waiting.extend(_parts_of(part))

    def _learn_class(self, cls: type[Any]) -> Iterator[Any]:
        kind = kind_of(cls)
        if kind is None:
            if typing.is_typeddict(cls):
                yield from _field_types(cls)
            return
        # Enum and the like are no annotation anyone can mean: they have no members to build.
        if cls not in self._by_class and not (kind is Kind.ENUM and not cls.__members__):
            try:
                shape = shape_of(cls, name_of(cls))
            except ConfigError:
                shape = None
            if shape is not None:
                self._add(shape)
        if kind is not Kind.ENUM:
            yield from _field_types(cls)
        if kind is Kind.MODEL:
            yield from (field.annotation for field in cls.model_fields.values())

    def _add(self, shape: Shape) -> None:
        older = self._by_name.get(shape.name)
        if older is not None and older.cls is not shape.cls:
            if name_of(older.cls) != name_of(shape.cls):
                raise ConfigError(
                    f"the name {shape.name!r} belongs to {name_of(older.cls)}: give {name_of(shape.cls)} another name"
                )
            self._by_class.pop(older.cls, None)
        self._by_name[shape.name] = shape
        self._by_class[shape.cls] = shape


def _parts_of(annotation: Any) -> Iterator[Any]:
    """Yield what an annotation that is no plain class consists of."""
    if isinstance(annotation, list | tuple):  # the arguments of Callable
        yield from annotation
    elif isinstance(annotation, Enum):  # Literal[Colour.RED]
        yield type(annotation)
    elif isinstance(annotation, typing.TypeVar):
        yield from annotation.__constraints__
        yield annotation.__bound__
    else:
        yield typing.get_origin(annotation)
        yield from typing.get_args(annotation)
        yield getattr(annotation, "__supertype__", None)  # NewType
        if type(annotation).__name__ == "TypeAliasType":  # type X = ..., which is evaluated on access
            try:
                yield annotation.__value__
            except Exception:  # noqa: BLE001 - whatever a name in the alias raises: it stays unknown
                return


def _field_types(cls: type[Any]) -> Iterator[Any]:
    """Yield the types of the fields of a class, strings resolved where they can be."""
    try:
        yield from typing.get_type_hints(cls).values()
    except Exception:  # noqa: BLE001 - one name that cannot be resolved fails all: take them one by one
        names = fields_of(cls)
        for name, annotation in raw_annotations(cls).items():
            if not names or name in names:
                yield from _resolved(cls, annotation)


def _resolved(cls: type[Any], annotation: Any) -> Iterator[Any]:
    for base in cls.__mro__:
        lone = type("Lone", (), {"__annotations__": {"field": annotation}, "__module__": base.__module__})
        try:
            yield typing.get_type_hints(lone)["field"]
            return
        except Exception:  # noqa: BLE001, S112 - documented: what cannot be resolved is left out
            continue
