"""The default codec: msgpack, with extensions for what JSON-like data lacks.

Owns the layout of a payload. Must not know frames, compression, keys or stores.

A payload of plain values is plain msgpack, made and read by one call into C. Single values of other types are
extensions (module ``extensions``). A tuple, a set or an instance of a registered class becomes an array whose first
item is an extension that says what the rest is: all nest inside one msgpack message, so depth and lengths stay within
msgpack's limits. A payload with such arrays starts with the byte 0xC1, which msgpack never uses; only these payloads
pay for looking at each array.

Limits: ``bytearray`` and ``memoryview`` come back as ``bytes``; values that occur twice come back as two equal values;
text with lone surrogates is refused, as is anything nested deeper than 1024 levels; a ``msgpack.ExtType`` is taken for
one of this module's own extensions, so it does not survive.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from msgpack import ExtType, packb, unpackb

from cachekit.codecs import quick
from cachekit.codecs.explain import explain, refusal
from cachekit.codecs.extensions import PACKERS, read_leaf
from cachekit.codecs.shapes import Shape
from cachekit.codecs.types import KnownTypes
from cachekit.errors import CodecError

C = TypeVar("C", bound=type[Any])

_TAGGED = 0xC1
_TAG = bytes([_TAGGED])
_write, _read = quick.write, quick.read
_DIGEST_SIZE = 8

# Extension numbers of the first item of an array. Part of the wire format.
_TUPLE = ExtType(32, b"")
_SET = ExtType(33, b"")
_FROZENSET = ExtType(34, b"")
_ORDEREDDICT = ExtType(35, b"")
_COUNTER = ExtType(36, b"")
_DEFAULTDICT = ExtType(37, b"")
_DEQUE = ExtType(38, b"")
_CLASS = 48  # first instance of a class in this payload: digest and name
_CLASS_AGAIN = 49  # a further instance: number of its class in order of appearance

_FACTORIES: dict[str, Callable[[], Any] | None] = {
    "": None,
    **{cls.__name__: cls for cls in (list, dict, set, int, float, str, tuple, bool, bytes)},
}
_FACTORY_NAMES = {factory: name for name, factory in _FACTORIES.items()}


def _take_defaultdict(value: Any) -> list[Any]:
    name = _FACTORY_NAMES.get(value.default_factory)
    if name is None:
        raise CodecError(
            "the factory of this defaultdict cannot be encoded: use a builtin type, or convert it to a dict",
            type_name="collections.defaultdict",
        )
    return [_DEFAULTDICT, name, dict(value)]


_CONTAINERS: dict[type[Any], Callable[[Any], list[Any]]] = {
    tuple: lambda value: [_TUPLE, *value],
    set: lambda value: [_SET, *value],
    frozenset: lambda value: [_FROZENSET, *value],
    OrderedDict: lambda value: [_ORDEREDDICT, dict(value)],
    Counter: lambda value: [_COUNTER, dict(value)],
    defaultdict: _take_defaultdict,
    deque: lambda value: [_DEQUE, value.maxlen, *value],
}


class _Mark:
    """What the first item of a tagged array is read as: the function that builds the value from the other items."""

    __slots__ = ("build",)

    def __init__(self, build: Callable[[list[Any]], Any]) -> None:
        self.build = build


def _only_dict(items: list[Any]) -> dict[Any, Any]:
    (value,) = items
    if type(value) is not dict:
        raise CodecError("expected a map")
    return value


def _build_counter(items: list[Any]) -> Any:
    counter: Counter[Any] = Counter()
    dict.update(counter, _only_dict(items))  # Counter.update would add up
    return counter


_MARKS: dict[int, _Mark] = {
    _TUPLE.code: _Mark(tuple),
    _SET.code: _Mark(set),
    _FROZENSET.code: _Mark(frozenset),
    _ORDEREDDICT.code: _Mark(lambda items: OrderedDict(_only_dict(items))),
    _COUNTER.code: _Mark(_build_counter),
    _DEFAULTDICT.code: _Mark(lambda items: defaultdict(_FACTORIES[items[0]], _only_dict(items[1:]))),
    _DEQUE.code: _Mark(lambda items: deque(items[1:], items[0])),
}


class _Writing:
    """One payload being written."""

    __slots__ = ("_known", "_numbers", "tagged")

    def __init__(self, known: KnownTypes) -> None:
        self.tagged = False
        self._known = known
        self._numbers: dict[Shape, ExtType] = {}

    def default(self, value: Any) -> Any:
        """Return what msgpack can write in place of *value*. Raises ``CodecError``."""
        cls = type(value)
        pack = PACKERS.get(cls)
        if pack is not None:
            return pack(value)
        self.tagged = True
        take = _CONTAINERS.get(cls)
        if take is not None:
            return take(value)
        shape = self._known.of(cls)
        if shape is None:
            raise refusal(cls)
        return [self._mark(shape), *shape.take(value)]

    def _mark(self, shape: Shape) -> ExtType:
        again = self._numbers.get(shape)
        if again is not None:
            return again
        number = len(self._numbers)
        self._numbers[shape] = ExtType(_CLASS_AGAIN, number.to_bytes(number.bit_length() // 8 + 1, "big"))
        return ExtType(_CLASS, shape.digest + shape.name.encode("utf-8", "surrogatepass"))


class _Reading:
    """One tagged payload being read."""

    __slots__ = ("_classes", "_known", "unused")

    def __init__(self, known: KnownTypes) -> None:
        self.unused = 0  # marks that do not stand at the start of an array: always 0 at the end of good data
        self._known = known
        self._classes: list[_Mark] = []

    def extension(self, code: int, data: bytes) -> Any:
        """Return the value or the mark of one extension."""
        if code == _CLASS_AGAIN:
            mark = self._classes[int.from_bytes(data, "big")]
        elif code == _CLASS:
            mark = self._class(data)
        elif code in _MARKS:
            mark = _MARKS[code]
        else:
            return read_leaf(code, data)
        self.unused += 1
        return mark

    def array(self, items: list[Any]) -> Any:
        """Return the list, or what its first item says it is."""
        if items and type(items[0]) is _Mark:
            self.unused -= 1
            return items[0].build(items[1:])
        return items

    def _class(self, data: bytes) -> _Mark:
        name = data[_DIGEST_SIZE:].decode("utf-8", "surrogatepass")
        shape = self._known.named(name)
        if shape is None:
            raise CodecError(f"{name} is not registered with this codec, so it is not built", type_name=name)
        if shape.digest != data[:_DIGEST_SIZE]:
            raise CodecError(f"the fields of {name} have changed since this value was written", type_name=name)
        mark = _Mark(shape.build)
        self._classes.append(mark)
        return mark


class MsgpackCodec:
    """Encodes values with msgpack so that they come back equal and with the same types.

    Enums, dataclasses, NamedTuples and pydantic models must be known: cached functions ``learn`` their return
    annotation, other classes are registered.

    Args:
        classes: what is registered from the start.
        known: the allow list; one of its own when left out.

    Example:
        >>> from dataclasses import dataclass
        >>> codec = MsgpackCodec()
        >>> @codec.register
        ... @dataclass(frozen=True)
        ... class Point:
        ...     x: int
        ...     y: int
        >>> codec.decode(codec.encode({"route": (Point(1, 2), Point(3, 4))}))
        {'route': (Point(x=1, y=2), Point(x=3, y=4))}
    """

    id = 1
    counts_as_msgpack = True
    """The payload of a whole number is msgpack's: a server can count."""

    __slots__ = ("_known",)

    def __init__(self, *classes: type[Any], known: KnownTypes | None = None) -> None:
        self._known = KnownTypes() if known is None else known
        for cls in classes:
            self._known.register(cls)

    @overload
    def register(self, cls: C, /, name: str | None = None) -> C: ...
    @overload
    def register(self, cls: None = None, /, *, name: str | None = None) -> Callable[[C], C]: ...
    def register(self, cls: Any = None, /, name: str | None = None) -> Any:
        """Allow *cls* to be written and built, under *name* in the data (default ``module:qualname``).

        Use as ``register(cls)``, ``@register`` or ``@register(name="...")``.

        Raises:
            ConfigError: the class cannot be restored exactly, or another class has this name.
        """
        if cls is None:
            return lambda decorated: self.register(decorated, name)
        self._known.register(cls, name)
        return cls

    def adapt(
        self, base: type[Any], name: str, *, take: Callable[[Any], list[Any]], build: Callable[[list[Any]], Any]
    ) -> None:
        """Allow the instances of *base* and of its subclasses, taken apart and built by functions of your own.

        Args:
            base: the class; a subclass that is registered itself goes its own way.
            name: its name in the data.
            take: returns the values of an instance, each of which can be encoded. Raises ``CodecError``.
            build: returns an instance for these values. The values come from the store: build nothing but what may be
                built. Whatever it raises, the value counts as unreadable.

        Raises:
            ConfigError: another class has this name.

        Example:
            >>> from array import array
            >>> codec = MsgpackCodec()
            >>> codec.adapt(array, "array", take=lambda a: [a.typecode, a.tobytes()], build=lambda v: array(*v))
            >>> codec.decode(codec.encode({"prices": array("d", [9.5])}))
            {'prices': array('d', [9.5])}
        """
        self._known.adapt(base, name, take, build)

    def learn(self, annotation: Any) -> None:
        """Allow all classes that *annotation* names, also inside containers, unions and fields."""
        self._known.learn(annotation)

    def encode(self, value: Any) -> bytes:
        """Return the bytes of *value*. Raises ``CodecError`` with the path and type of what cannot be encoded."""
        if _write is not None:
            try:
                return _write(value)
            except Exception:  # noqa: BLE001, S110 - not plain, or wrong: that is found out below
                pass
        writing = _Writing(self._known)
        try:
            packed = cast("bytes", packb(value, default=writing.default, strict_types=True))
        except Exception as exc:
            raise explain(value, exc, _Writing(self._known).default) from exc
        return _TAG + packed if writing.tagged else packed

    def decode(self, data: bytes) -> Any:
        """Return the value of *data*. Raises ``CodecError`` for anything that ``encode`` did not return."""
        # msgpack bounds each announced length by the length of the data, also inside extensions.
        if _read is not None and data[:1] != _TAG:
            try:
                return _read(data)
            except Exception:  # noqa: BLE001, S110 - what is wrong is found out below
                pass
        try:
            if data[0] != _TAGGED:
                return unpackb(data, strict_map_key=False, ext_hook=read_leaf)
            reading = _Reading(self._known)
            value = unpackb(
                memoryview(data)[1:], strict_map_key=False, ext_hook=reading.extension, list_hook=reading.array
            )
        except CodecError:
            raise
        except Exception as exc:
            raise CodecError(f"these bytes hold no value of this codec: {type(exc).__name__}: {exc}") from exc
        if reading.unused:
            raise CodecError("these bytes hold no value of this codec: misplaced mark")
        return value
