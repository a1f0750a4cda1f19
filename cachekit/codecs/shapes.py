"""How an instance of a user's class is taken apart into plain values, and put together again.

Owns the four kinds of classes: enum, dataclass, NamedTuple and pydantic model. Must not know bytes, msgpack or who is
allowed to be built: see ``types`` for that.

Instances are restored, not constructed: ``__init__``, ``__post_init__``, ``__new__`` and validators do not run. They
ran when the value was made; a second run could count, log or connect again, or reject or change what is by now a valid
state (a validator that hashes a password, a field that is no parameter). ``copy`` and ``pickle`` do the same. In place
of validation, the shape (names of the fields with their declared types) is part of the data, so that a value written
before a class was changed is not read as one of the changed class.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, Flag
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any, ForwardRef, get_args, get_origin

from cachekit.errors import CodecError, ConfigError

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: set for classes made by a class statement
_DIGEST_SIZE = 8


class Kind(Enum):
    """What sort of class can be taken apart."""

    ENUM = "enum"
    MODEL = "pydantic model"
    NAMEDTUPLE = "NamedTuple"
    DATACLASS = "dataclass"


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One class, under the name that it has in the data.

    Attributes:
        digest: stands for the fields and their declared types.
        take: returns the values of an instance. Raises ``CodecError`` when it has state that would be lost.
        build: returns an instance for these values. Raises whatever the values cause: the caller translates.
    """

    cls: type[Any]
    name: str
    digest: bytes
    take: Callable[[Any], list[Any]]
    build: Callable[[list[Any]], Any]


def kind_of(cls: type[Any]) -> Kind | None:
    """Return which kind of class this is, or None when its instances cannot be taken apart."""
    if issubclass(cls, Enum):
        return Kind.ENUM
    # pydantic is recognised, not imported. Its dataclasses have a validator too, but no model_dump.
    if hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_dump"):
        return Kind.MODEL
    if issubclass(cls, tuple):
        return Kind.NAMEDTUPLE if isinstance(getattr(cls, "_fields", None), tuple) else None
    if dataclasses.is_dataclass(cls):
        return Kind.DATACLASS
    return None


def name_of(cls: type[Any]) -> str:
    """Return the name that a class has in the data when no other was given."""
    return f"{cls.__module__}:{cls.__qualname__}"


def shape_of(cls: type[Any], name: str) -> Shape:
    """Return the shape of *cls*. Raises ``ConfigError`` when its instances cannot be restored exactly."""
    match kind_of(cls):
        case Kind.ENUM:
            return _enum_shape(cls, name)
        case Kind.MODEL:
            return _model_shape(cls, name)
        case Kind.NAMEDTUPLE:
            return _namedtuple_shape(cls, name)
        case Kind.DATACLASS:
            return _dataclass_shape(cls, name)
        case None:
            raise ConfigError(
                f"{name_of(cls)} cannot be registered: only enums, dataclasses, NamedTuples and pydantic models can"
            )


def fields_of(cls: type[Any]) -> tuple[str, ...]:
    """Return the names of the fields of a dataclass, NamedTuple or model."""
    match kind_of(cls):
        case Kind.MODEL:
            return tuple(cls.model_fields)
        case Kind.NAMEDTUPLE:
            return tuple(cls._fields)
        case Kind.DATACLASS:
            return tuple(field.name for field in dataclasses.fields(cls))
        case _:
            return ()


def steps_of(cls: type[Any]) -> tuple[str, ...]:
    """Return how a path names each value that ``take`` returns for an instance of *cls*."""
    fields = tuple(f".{field}" for field in fields_of(cls))
    match kind_of(cls):
        case Kind.DATACLASS:
            return (*fields, ".__dict__")
        case Kind.MODEL:
            return (*fields, ".__pydantic_extra__", ".model_fields_set", ".__pydantic_private__")
        case Kind.ENUM:
            return (".value",)
        case _:
            return fields


def raw_annotations(cls: type[Any]) -> dict[str, Any]:
    """Return the annotations of *cls* and its bases as they were written, strings left alone."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        try:
            found.update(inspect.get_annotations(base))
        except Exception:  # noqa: BLE001, S112 - Python 3.14 evaluates here: whatever a name in an annotation raises
            continue
    return found


def _label(annotation: Any) -> str:
    """Return a text for an annotation that is the same in every process: never the repr of an object."""
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _label(arguments[0])
    if origin is not None:
        return f"{_label(origin)}[{','.join(map(_label, arguments))}]"
    return str(getattr(annotation, "__name__", None) or type(annotation).__name__)


def _digest(cls: type[Any], kind: Kind, fields: Iterable[str]) -> bytes:
    annotations = raw_annotations(cls)
    lines = [kind.value, *(f"{field}:{_label(annotations.get(field, ''))}" for field in fields)]
    return blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_SIZE).digest()


def _enum_shape(cls: type[Any], name: str) -> Shape:
    """Flags go by value (combinations have no member), other members by name: members may be added or renumbered."""

    def take_flag(flag: Any) -> list[Any]:
        return [flag._value_]

    def build_flag(values: list[Any]) -> Any:
        (value,) = values
        flag = cls(value)
        if type(flag) is not cls or flag._value_ != value:
            raise CodecError(f"{value!r} is no combination of {name}")
        return flag

    def take_member(member: Any) -> list[Any]:
        if cls.__members__.get(member._name_) is not member:
            raise CodecError("this enum member cannot be found by its name", type_name=name)
        return [member._name_]

    def build_member(values: list[Any]) -> Any:
        (value,) = values
        return cls.__members__[value]

    by_value = issubclass(cls, Flag)
    return Shape(
        cls=cls,
        name=name,
        digest=_digest(cls, Kind.ENUM, ["value" if by_value else "name"]),
        take=take_flag if by_value else take_member,
        build=build_flag if by_value else build_member,
    )


def _namedtuple_shape(cls: type[Any], name: str) -> Shape:
    fields = fields_of(cls)

    def take(value: Any) -> list[Any]:
        if getattr(value, "__dict__", None):
            raise CodecError("this NamedTuple has attributes beside its fields, which would be lost", type_name=name)
        return list(value)

    def build(values: list[Any]) -> Any:
        if len(values) != len(fields):
            raise CodecError(f"{name} has {len(fields)} fields, the data has {len(values)}")
        return tuple.__new__(cls, values)

    return Shape(cls=cls, name=name, digest=_digest(cls, Kind.NAMEDTUPLE, fields), take=take, build=build)


def _refuse_hidden_state(cls: type[Any], fields: frozenset[str]) -> None:
    """Raise ``ConfigError`` when instances hold state that neither the fields nor ``__dict__`` give."""
    for base in cls.__mro__:
        if base is not object and not base.__flags__ & _HEAP_TYPE:
            raise ConfigError(f"{name_of(cls)} cannot be restored exactly: it derives from {base.__qualname__}")
        slots = vars(base).get("__slots__", ())
        for slot in [slots] if isinstance(slots, str) else slots:
            if slot not in fields and slot not in ("__dict__", "__weakref__"):
                raise ConfigError(f"{name_of(cls)} cannot be restored exactly: its slot {slot!r} is no field")


def _dataclass_shape(cls: type[Any], name: str) -> Shape:
    fields = fields_of(cls)
    known = frozenset(fields)
    _refuse_hidden_state(cls, known)
    assign = object.__setattr__  # also sets the fields of a frozen class

    def take(value: Any) -> list[Any]:
        try:
            values = [getattr(value, field) for field in fields]
        except AttributeError as exc:
            raise CodecError(f"a field of this dataclass is not set: {exc}", type_name=name) from exc
        state = getattr(value, "__dict__", None)
        if state and not state.keys() <= known:
            extra = {key: item for key, item in state.items() if key not in known and not _is_computed(cls, key)}
            if extra:
                values.append(extra)
        return values

    def build(values: list[Any]) -> Any:
        if not 0 <= len(values) - len(fields) <= 1:
            raise CodecError(f"{name} has {len(fields)} fields, the data has {len(values)}")
        instance = object.__new__(cls)
        for field, item in zip(fields, values, strict=False):
            assign(instance, field, item)
        if len(values) > len(fields):
            instance.__dict__.update(_checked(values[-1], dict))
        return instance

    return Shape(cls=cls, name=name, digest=_digest(cls, Kind.DATACLASS, fields), take=take, build=build)


def _model_shape(cls: type[Any], name: str) -> Shape:
    """Take the four parts of a model's state, which are what its own ``__getstate__`` consists of.

    ``model_dump`` would turn nested models into dicts, drop excluded fields, private attributes and which fields were
    set, and ``model_validate`` would run validators on values that have passed them.
    """
    fields = fields_of(cls)
    known = frozenset(fields)
    assign = object.__setattr__

    def take(model: Any) -> list[Any]:
        state = vars(model)
        if not state.keys() <= known:
            extra = [key for key in state if key not in known and not _is_computed(cls, key)]
            if extra:
                raise CodecError(
                    f"this model has attributes that are no fields and would be lost: {extra}", type_name=name
                )
        if not known <= state.keys():
            raise CodecError(f"this model lacks {sorted(known - state.keys())}", type_name=name)
        given = model.__pydantic_fields_set__
        private = model.__pydantic_private__
        return [
            *(state[field] for field in fields),
            model.__pydantic_extra__,
            None if given == known else sorted(given),
            private and {key: item for key, item in private.items() if not _is_undefined(item)},
        ]

    def build(values: list[Any]) -> Any:
        if len(values) != len(fields) + 3:
            raise CodecError(f"{name} has {len(fields)} fields, the data has {len(values) - 3}")
        *items, extra, given, private = values
        model = object.__new__(cls)
        assign(model, "__dict__", dict(zip(fields, items, strict=True)))
        assign(model, "__pydantic_extra__", extra if extra is None else _checked(extra, dict))
        assign(model, "__pydantic_fields_set__", set(known if given is None else _checked(given, list)))
        assign(model, "__pydantic_private__", private if private is None else _checked(private, dict))
        return model

    return Shape(cls=cls, name=name, digest=_digest(cls, Kind.MODEL, fields), take=take, build=build)


def _is_computed(cls: type[Any], attribute: str) -> bool:
    """Whether an attribute is the result of a cached property: it is computed again, not stored."""
    return isinstance(inspect.getattr_static(cls, attribute, None), cached_property)


def _is_undefined(value: Any) -> bool:
    """Whether this is what pydantic holds for a private attribute that has no value yet."""
    return type(value).__name__ == "PydanticUndefinedType"


def _checked(value: Any, cls: type[Any]) -> Any:
    """Return *value*, which must be a *cls* of, or with, text names only."""
    if type(value) is not cls or not all(type(name) is str for name in value):
        raise CodecError(f"expected a {cls.__name__} of names")
    return value
