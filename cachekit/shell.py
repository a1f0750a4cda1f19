"""The function that stands in for a decorated one, generated from its signature when it is decorated.

Because it has the same parameters, positional, keyword and default arguments arrive as one and the same values, methods
bind natively, and a hit costs a dictionary lookup, a type check per argument, two comparisons and a counter: no
coroutine, no lock, no key text. Everything else is the business of ``slow``. Must not know what a miss does.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

from cachekit.errors import ConfigError
from cachekit.stores.memory import Memory
from cachekit.tags import Refused, current

EXACT: Final = frozenset({int, str, bytes, bool, type(None), UUID})


@dataclass(frozen=True, slots=True)
class Shape:
    """The parameters of a function, as far as keys are concerned.

    Attributes:
        names: all parameters in order.
        keyed: those that are part of the key.
        instance: ``self`` of a method, whose identity is part of the key, or empty.
        variadic: whether there are ``*args`` or ``**kwargs``.
        signature: as inspected.
    """

    names: tuple[str, ...]
    keyed: tuple[str, ...]
    instance: str
    variadic: bool
    signature: inspect.Signature


def shape_of(fn: Callable[..., Any], ignore: tuple[str, ...]) -> Shape:
    """Inspect *fn*. Raises ``ConfigError`` when *ignore* names no parameter."""
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"{fn!r} has no signature to make keys from: wrap it in a def") from exc
    names = tuple(signature.parameters)
    for name in ignore:
        if name not in names:
            raise ConfigError(
                f"{_name(fn)}: ignore names {name!r}, which is no parameter ({', '.join(names) or 'none'})"
            )
    is_method = "." in _name(fn) and not _name(fn).rpartition(".")[0].endswith("<locals>")
    instance = names[0] if is_method and names and names[0] == "self" and "self" not in ignore else ""
    keyed = tuple(name for name in names if name not in ignore and name != instance)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    variadic = inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.VAR_KEYWORD in kinds
    return Shape(names, keyed, instance, variadic, signature)


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", type(fn).__qualname__)


def split(shape: Shape, values: tuple[Any, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and keyword arguments that call the function with *values*."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter, value in zip(shape.signature.parameters.values(), values, strict=True):
        if parameter.kind is parameter.VAR_POSITIONAL:
            args.extend(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs.update(value)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = value
        else:
            args.append(value)
    return args, kwargs


def memo_key(shape: Shape, values: tuple[Any, ...]) -> tuple[Hashable, tuple[type, ...]] | None:
    """Return how a hit finds *values*, and their types; None when equal values need not mean the same key."""
    chosen = [value for name, value in zip(shape.names, values, strict=True) if name in shape.keyed]
    for value in chosen:
        kind = type(value)
        if kind in EXACT or (kind is float and value != 0.0 and not math.isnan(value)):
            continue
        if isinstance(value, type) or (isinstance(value, Enum) and kind.__eq__ in _PLAIN_EQUALITY):
            continue
        return None
    kinds = tuple(type(value) for value in chosen)
    return (chosen[0] if len(chosen) == 1 else tuple(chosen)), kinds


_NONE: Final = SimpleNamespace(k0=None, k1=None, epoch=-1)
"""Stands for a node that was not found: no argument is of its types, and no epoch is its."""

_PLAIN_EQUALITY: Final[tuple[Any, ...]] = (object.__eq__, int.__eq__, str.__eq__)


def build(
    fn: Callable[..., Any],
    shape: Shape,
    *,
    is_async: bool,
    l1: Memory | None,
    clock: Callable[[], float],
    slow: Callable[[tuple[Any, ...]], Any],
    finish: Callable[[Any], Any] | None = None,
) -> tuple[Callable[..., Any], dict[Hashable, Any]]:
    """Return the function that stands in for *fn*, and the memo that its hits are found in.

    *finish* makes the result out of what *slow* gives, which is thus one coroutine less on the way.

    The memo maps arguments to nodes; that of a method maps the ``id`` of an instance to such a memo.
    """
    memo: dict[Hashable, Any] = {}
    defaults: list[Any] = []
    fast = l1 is not None and not shape.variadic
    source = _source(shape, defaults, is_async=is_async, fast=fast, finishes=finish is not None)
    namespace: dict[str, Any] = {
        "_ck_memo": memo, "_ck_l1": l1, "_ck_clock": clock, "_ck_tags": current, "_ck_slow": slow, "_ck_finish": finish,
        "_ck_default": defaults, "_ck_type": type, "_ck_id": id, "_ck_none": _NONE, "_ck_refused": Refused,
    }  # fmt: skip
    exec(compile(source, f"<cachekit shell of {_name(fn)}>", "exec"), namespace)  # noqa: S102 - our own text, names only
    made: Callable[..., Any] = namespace["_ck_made"]
    functools.update_wrapper(made, fn)
    return made, memo


def _source(shape: Shape, defaults: list[Any], *, is_async: bool, fast: bool, finishes: bool) -> str:
    parameters = _parameters(shape, defaults)
    everything = "".join(f"{name}, " for name in shape.names)
    call = f"{'await ' if is_async else ''}_ck_slow(({everything}))"
    call = f"return _ck_finish({call})" if finishes else f"return {call}"
    lines = [f"{'async ' if is_async else ''}def _ck_made({parameters}):"]
    if fast:
        lookup = shape.keyed[0] if len(shape.keyed) == 1 else f"({', '.join(shape.keyed)})"
        memo = f"_ck_memo[_ck_id({shape.instance})]" if shape.instance else "_ck_memo"
        checks = [f"_ck_type({name}) is {_kind(i)}" for i, name in enumerate(shape.keyed)]
        checks += ["_ck_node.epoch == _ck_l1.epoch", "_ck_clock() < _ck_node.quiet_until"]
        lines += [
            "    try:",
            f"        _ck_node = {memo}[{lookup}]",
            "    except (KeyError, TypeError):",
            "        _ck_node = _ck_none",  # the call is made outside, so that a loader's exception has no context of ours
            f"    if {' and '.join(checks)}:",
            "        _ck_used = _ck_tags()",
            "        try:",
            "            if _ck_used is not None:",
            "                _ck_used.add(_ck_node.tags)",
            "        except _ck_refused:",
            "            pass",
            "        else:",
            "            _ck_node.hits += 1",
            "            return _ck_node.value",
        ]
    return "\n".join([*lines, f"    {call}"])


def _kind(index: int) -> str:
    return f"_ck_node.k{index}" if index < 2 else f"_ck_node.kinds[{index}]"


_PREFIXES: Final[dict[Any, str]] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def _parameters(shape: Shape, defaults: list[Any]) -> str:
    made: list[str] = []
    parameters = list(shape.signature.parameters.values())
    star = False
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not star:
            made.append("*")
            star = True
        prefix = _PREFIXES.get(parameter.kind, "")
        text = prefix + parameter.name
        if parameter.default is not parameter.empty:
            text += f"=_ck_default[{len(defaults)}]"
            defaults.append(parameter.default)
        made.append(text)
        following = parameters[index + 1].kind if index + 1 < len(parameters) else None
        if parameter.kind is parameter.POSITIONAL_ONLY and following is not parameter.POSITIONAL_ONLY:
            made.append("/")
    return ", ".join(made)
