"""Why a value cannot be encoded: where in it the trouble is, and what to do.

Owns the messages for users. Runs only after encoding has failed, so it may be slow. Must not know msgpack: it asks the
encoder's own hook about each part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from cachekit.codecs.shapes import kind_of, name_of, steps_of
from cachekit.errors import CodecError

_DEEPEST = 1024  # msgpack's own limit
_PLAIN = (type(None), bool, float, bytes, bytearray, memoryview)
_BUILTIN_BASES = (str, bytes, bytearray, int, float, complex, tuple, list, dict, set, frozenset)


def refusal(cls: type[Any]) -> CodecError:
    """Return the error for a value of a type that the codec does not know."""
    name = name_of(cls) if cls.__module__ != "builtins" else cls.__qualname__
    kind = kind_of(cls)
    if kind is not None:
        message = (
            f"{name} is not registered with the codec: annotate the return type of the cached function with it, "
            f"or call codec.register({cls.__qualname__})"
        )
    elif base := next((base for base in _BUILTIN_BASES if issubclass(cls, base)), None):
        message = f"{name} would come back as a plain {base.__name__}: convert it with {base.__name__}(...) first"
    else:
        message = f"{name} cannot be encoded: convert it to a dict, a dataclass or another supported type first"
    return CodecError(message, type_name=name)


def explain(value: Any, cause: Exception, hook: Callable[[Any], Any]) -> CodecError:
    """Return the error that says where in *value* encoding failed.

    Args:
        value: what could not be encoded.
        cause: what encoding raised; its text is used when the search finds nothing.
        hook: returns what is written in place of a value of a type that msgpack lacks; raises for what cannot be.
    """
    try:
        path, trouble = _search(value, hook)
    except Exception:  # noqa: BLE001 - a value that misbehaves twice: the first error is the one to report
        path, trouble = "", None
    if trouble is None:
        trouble = cause
    if isinstance(trouble, CodecError):
        message, type_name = str(trouble), trouble.type_name or _type_name(value)
    else:
        message, type_name = f"encoding raised {type(trouble).__name__}: {trouble}", _type_name(value)
    return CodecError(f"at {path}: {message}" if path else message, path=path, type_name=type_name)


def _type_name(value: Any) -> str:
    cls = type(value)
    return name_of(cls) if cls.__module__ != "builtins" else cls.__qualname__


def _search(value: Any, hook: Callable[[Any], Any]) -> tuple[str, Exception | None]:
    """Walk depth first, so that a value that contains itself reaches the limit at once."""
    waiting: list[tuple[str, Any, int]] = [("", value, 0)]
    while waiting:
        path, part, depth = waiting.pop()
        try:
            children = list(_children(part, hook))
        except Exception as exc:  # noqa: BLE001 - this is what we look for, whatever a user's class raised
            return path, _with_type(exc, part)
        if children and depth >= _DEEPEST:
            return "", CodecError(f"nested deeper than {_DEEPEST} levels, or contains itself")
        waiting.extend((path + step, child, depth + 1) for step, child in reversed(children))
    return "", None


def _with_type(exc: Exception, part: Any) -> Exception:
    if isinstance(exc, CodecError):
        return exc if exc.type_name else CodecError(str(exc), type_name=_type_name(part))
    return CodecError(f"encoding raised {type(exc).__name__}: {exc}", type_name=_type_name(part))


def _children(part: Any, hook: Callable[[Any], Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values inside *part* with the step that leads to each. Raises when *part* itself cannot be encoded."""
    cls = type(part)
    if cls in _PLAIN:
        return
    if cls is str:
        try:
            part.encode()
        except UnicodeEncodeError as exc:
            raise CodecError(
                f"text with a lone surrogate at position {exc.start} cannot be encoded: "
                'decode bytes with errors="replace", or cache the bytes',
                type_name="str",
            ) from exc
    elif cls is list:
        yield from ((f"[{index}]", item) for index, item in enumerate(part))
    elif cls is dict:
        yield from _steps_of_dict(part)
    else:
        inside = hook(part)
        if type(inside) is list:
            yield from _steps_inside(part, inside[1:])


def _steps_of_dict(mapping: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for index, (key, item) in enumerate(mapping.items()):
        yield f".keys()[{index}]", key
        short = type(key) is str or (type(key) is int and key.bit_length() < 64)  # other keys may have an odd repr
        yield f"[{key!r}]" if short else f".values()[{index}]", item


def _steps_inside(part: Any, values: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a container or an instance; *values* are what its mark is followed by."""
    cls = type(part)
    if isinstance(part, dict):
        yield from _steps_of_dict(part)
    elif isinstance(part, set | frozenset):
        yield from (("{...}", item) for item in part)
    elif isinstance(part, tuple | deque) and kind_of(cls) is None:
        yield from ((f"[{index}]", item) for index, item in enumerate(part))
    elif kind_of(cls) is None:  # adapted: only its own functions know what its values are called
        yield from (("", item) for item in values)
    else:
        yield from zip(steps_of(cls), values, strict=False)
