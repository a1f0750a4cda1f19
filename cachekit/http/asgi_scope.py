"""A scope with other request fields than the server gave, in which an application's notes are seen outside all the same.

Routers note in the scope which route answers, and whoever stands further out reads that there: measurements, or the policy
of a route. With a mere copy they would see nothing of it. Must not know what the fields are.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

_OWN: Final = "headers"


class Inner(dict[str, Any]):
    """A scope whose items go to the scope outside as well, apart from ``headers``."""

    __slots__ = ("outer",)

    outer: MutableMapping[str, Any]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if key != _OWN:
            self.outer[key] = value

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        if key != _OWN:
            self.outer.pop(key, None)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, /, *default: Any) -> Any:
        if key not in self and default:
            return default[0]
        value = self[key]
        del self[key]
        return value


def with_headers(scope: MutableMapping[str, Any], headers: list[tuple[bytes, bytes]]) -> Inner:
    """Return *scope* with *headers* in place of its own."""
    inner = Inner(scope, headers=headers)
    inner.outer = scope
    return inner
