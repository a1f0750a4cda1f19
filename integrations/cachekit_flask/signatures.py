"""What type checkers know of decorated views and functions. Holds no behaviour."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from cachekit.signatures import CachedCoroutine, CachedFunction

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class View(Protocol[P, R_co]):
    """A view whose responses are kept."""

    __name__: str
    __wrapped__: Callable[..., Any]

    @property
    def uncached(self) -> Callable[P, R_co]:
        """Return the view as it was written."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> View[P, R_co]: ...
    @overload
    def __get__(
        self: View[Concatenate[Any, Q], R_co], instance: object, owner: type | None = None, /
    ) -> Callable[Q, R_co]: ...


class MemoizedFunction(CachedFunction[P, R_co], Protocol[P, R_co]):
    """A blocking function whose results are kept in the cache of whichever application calls it."""

    @property
    def uncached(self) -> Callable[P, R_co]:
        """Return the function as it was written."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> MemoizedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: MemoizedFunction[Concatenate[Any, Q], R_co], instance: object, owner: type | None = None, /
    ) -> Callable[Q, R_co]: ...


class MemoizedCoroutine(CachedCoroutine[P, R_co], Protocol[P, R_co]):
    """A coroutine function whose results are kept in the cache of whichever application calls it."""

    @property
    def uncached(self) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """Return the function as it was written."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> MemoizedCoroutine[P, R_co]: ...
    @overload
    def __get__(
        self: MemoizedCoroutine[Concatenate[Any, Q], R_co], instance: object, owner: type | None = None, /
    ) -> Callable[Q, Coroutine[Any, Any, R_co]]: ...


class Memoize(Protocol):
    """What ``memoize(...)`` returns: it takes either kind of function and keeps its signature."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> MemoizedCoroutine[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> MemoizedFunction[P, R]: ...
