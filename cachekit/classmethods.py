"""``@cached`` above ``@classmethod``: handles that receive the class by themselves.

Must not know how anything is cached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import wrapt


class _BoundClassMethod(wrapt.BoundFunctionWrapper[Any, Any]):
    """A class method seen through its class: the handles receive the class by themselves."""

    def _handle(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        bound: Any = self.__wrapped__
        return getattr(self._self_parent._self_cached, name)(bound.__self__, *args, **kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        return self._handle("invalidate", args, kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        return self._handle("refresh", args, kwargs)

    def peek(self, *args: Any, **kwargs: Any) -> Any:
        return self._handle("peek", args, kwargs)

    def peek_or(self, default: Any, /, *args: Any, **kwargs: Any) -> Any:
        bound: Any = self.__wrapped__
        return self._self_parent._self_cached.peek_or(default, bound.__self__, *args, **kwargs)

    def invalidate_all(self) -> Any:
        return self._self_parent._self_cached.invalidate_all()

    def key_for(self, *args: Any, **kwargs: Any) -> Any:
        return self._handle("key_for", args, kwargs)


def _pass_on(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


class ClassMethod(wrapt.FunctionWrapper[Any, Any]):
    """What stands in for a class method; *made* stands in for its function, with its handles."""

    __bound_function_wrapper__ = _BoundClassMethod

    def __init__(self, made: Callable[..., Any]) -> None:
        method: Any = classmethod(made)
        super().__init__(method, _pass_on)
        self._self_cached = made
