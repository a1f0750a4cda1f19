"""A dictionary whose values are decoded when they are first looked at.

Owns what is decoded, what may have changed in place, and what could not be read. Must not know where values come from, nor
what a session is beside them: ``Session`` says when it is read, and who may change it.

A ``dict``, because frameworks and ``json`` expect one. What was looked at and can change in place is compared with what was
stored, so that changes deep inside are noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Self, SupportsIndex

from cachekit.errors import CodecError
from cachekit.sessions.payload import FROZEN, Payloads

_MISSING: Final = object()
_NOTHING: Final[Mapping[str, bytes]] = {}
_PACKED: Final = object()
"""Stands for a value that nobody has looked at yet."""
_NOT_READ: Final = object()
"""Stands in a session that was not read yet: what looks at the size alone, as ``json`` does, must not find it empty."""


class LazyDict(dict[str, Any]):
    """What ``Session`` is as a dictionary.

    Attributes:
        accessed: whether anybody looked at it.
        loaded: whether it was read.
    """

    __slots__ = (
        "__weakref__", "_as_stored", "_base", "_cells", "_codec", "_forced", "_lost", "_suspects", "accessed", "loaded",
    )  # fmt: skip
    __hash__ = None  # a dictionary has none

    def __init__(self, codec: Payloads) -> None:
        dict.__setitem__(self, "", _NOT_READ)
        self._codec = codec
        self.accessed = self.loaded = False
        self._base: Mapping[str, bytes] = _NOTHING
        self._cells: Mapping[str, bytes] = _NOTHING  # what was read
        self._as_stored = False  # whether it began as what the store holds
        self._suspects: dict[str, bytes | None] = {}  # what must be compared at the end, and with what it was read from
        self._lost: dict[str, bytes] = {}  # what could not be read, and is stored as it was
        self._forced = False

    def _look(self) -> None:
        """Have it read, unless that has happened: called before every look."""
        raise NotImplementedError

    def _touch_key(self, key: object) -> None:
        """Refuse to change *key* where that cannot be, None for no certain one: called before every change."""
        raise NotImplementedError

    def _unreadable(self, key: str, error: CodecError) -> None:
        """Note that one value could not be read."""
        raise NotImplementedError

    # -- bytes ----------------------------------------------------------------------------------------------------

    def _take_in(self, values: Mapping[str, bytes], base: Mapping[str, bytes]) -> None:
        dict.clear(self)
        dict.update(self, dict.fromkeys(values, _PACKED))
        self._base, self._cells = base, values
        self._as_stored = values is base
        self.loaded = True

    def _forget(self) -> None:
        super().clear()
        self._suspects.clear()
        self._lost.clear()
        self._base = {}
        self._as_stored = False
        self._forced = False

    @property
    def base(self) -> Mapping[str, bytes]:
        """Return what the store is known to hold."""
        return self._base

    @property
    def bare(self) -> bool:
        """Return whether nothing is in it, without a look at any value; one that cannot be read is something."""
        return not dict.__len__(self) and not self._lost

    def is_as_stored(self) -> bool:
        """Say whether it surely is what the store holds, as far as that can be told without a look at any value."""
        return self._as_stored and not self._suspects and not self._forced and dict.__len__(self) == len(self._base)

    def changes(self) -> dict[str, bytes] | None:
        """Return all values encoded, or None when they are what the store holds. Raises ``CodecError``."""
        base, changed = self._base, self._forced
        if self._as_stored and not changed and dict.__len__(self) == len(base):
            fresh = self._fresh()
            if fresh is not None:
                return {**base, **fresh} if fresh else None
        now: dict[str, bytes] = {}
        for key, value in super().items():
            if value is _PACKED:
                now[key] = read = self._cells[key]
                changed = changed or base.get(key) != read
                continue
            before = base.get(key)
            if before is not None:
                if key not in self._suspects:
                    now[key] = before
                    continue
                cell = self._codec.same(before, value, self._suspects[key])
                now[key] = before if cell is None else cell
                changed = changed or cell is not None
            else:
                now[key] = self._encoded(key, value)
                changed = True
        for key, data in self._lost.items():
            now.setdefault(key, data)
        return now if changed or len(now) != len(base) else None

    def _fresh(self) -> dict[str, bytes] | None:
        """Return what other cells the keys have whose values may have changed; None where a key went or came.

        Only these are looked at: all others are what the store holds, and so is what could not be read.
        """
        found: dict[str, bytes] = {}
        base, differs = self._base, self._codec.same
        for key, read in self._suspects.items():
            value, before = dict.get(self, key, _MISSING), base.get(key)
            if value is _MISSING or before is None:
                return None
            if (cell := differs(before, value, read)) is not None:
                found[key] = cell
        return found

    def _encoded(self, key: str, value: Any) -> bytes:
        try:
            return self._codec.encode(value)
        except CodecError as exc:
            raise CodecError(
                f"session[{key!r}] cannot be stored: {exc}", path=f"[{key!r}]{exc.path}", type_name=exc.type_name
            ) from exc

    def commit(self, base: Mapping[str, bytes]) -> None:
        """Take *base* for what the store holds from now on."""
        self._base = base
        self._as_stored = True
        if self._suspects:  # what was never looked at, nor set, is no suspect
            self._suspects = {key: None for key in self._suspects if type(dict.get(self, key)) not in FROZEN}
        self._forced = False

    def _opened(self, key: str) -> Any:
        cell, codec = self._cells[key], self._codec
        value = codec.scalars.get(cell, _MISSING)
        if value is _MISSING:
            try:
                data = codec.opened(cell)
                value = codec.codec.decode(data)
            except CodecError as exc:
                self._lost[key] = cell
                dict.__delitem__(self, key)
                self._unreadable(key, exc)
                return _MISSING
            if type(value) not in FROZEN:
                self._suspects[key] = data
            else:
                codec.learn(cell, value)
        dict.__setitem__(self, key, value)
        return value

    def _open_all(self) -> None:
        self._look()
        for key, value in list(super().items()):
            if value is _PACKED:
                self._opened(key)

    def get(self, key: str, default: Any = None, /) -> Any:
        if not self.accessed or not self.loaded:
            self._look()
        value = dict.get(self, key, _MISSING)
        if value is _PACKED:
            value = self._opened(key)
        return default if value is _MISSING else value

    def __getitem__(self, key: str) -> Any:
        if not self.accessed or not self.loaded:
            self._look()
        value = dict.get(self, key, _MISSING)
        if value is _PACKED:
            value = self._opened(key)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key, _MISSING) is not _MISSING

    def __iter__(self) -> Iterator[str]:
        self._open_all()
        return super().__iter__()

    def __reversed__(self) -> Iterator[str]:
        self._open_all()
        return super().__reversed__()

    def __len__(self) -> int:
        self._open_all()
        return super().__len__()

    def __bool__(self) -> bool:
        return len(self) > 0

    def keys(self) -> Any:
        self._open_all()
        return super().keys()

    def values(self) -> Any:
        self._open_all()
        return super().values()

    def items(self) -> Any:
        self._open_all()
        return super().items()

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def __eq__(self, other: object) -> bool:
        self._open_all()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __or__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return {**self.copy(), **other}

    def __ror__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return {**other, **self.copy()}

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return dict, (self.copy(),)

    def __copy__(self) -> dict[str, Any]:
        return self.copy()

    # -- changing -------------------------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        self._touch_key(key)
        if self._lost:
            self._lost.pop(key, None)
        if key not in self._suspects:
            self._suspects[key] = None
        dict.__setitem__(self, key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._touch_key(key)
        super().__delitem__(key)

    def pop(self, key: str, *default: Any) -> Any:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            if default:
                return default[0]
            raise KeyError(key)
        self._touch_key(key)
        super().__delitem__(key)
        return value

    def popitem(self) -> tuple[str, Any]:
        self._open_all()
        if not super().__len__():
            raise KeyError("the session is empty")
        self._touch_key(None)
        return super().popitem()

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            self[key] = value = default
        return value

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]], /) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self
