"""What type checkers and editors see of a decorated function: its own signature, and its handles.

Protocols and types only; nothing here runs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypedDict, TypeVar, overload

from cachekit.policy import Duration, Policy

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

KeySource: TypeAlias = str | Callable[..., str] | None
TagsSource: TypeAlias = Iterable[str] | Callable[..., Iterable[str]]
ResultTags: TypeAlias = Callable[[Any], Iterable[str]] | None


class CachedFunction(Protocol[P, R_co]):
    """A blocking function whose results are cached."""

    __name__: str
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Drop the result for these arguments."""
        ...

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Drop the result for these arguments, awaited."""
        ...

    def invalidate_all(self) -> None:
        """Drop every result of this function, whatever the arguments, in every process."""
        ...

    async def ainvalidate_all(self) -> None:
        """Drop every result of this function, awaited."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Load the result for these arguments anew, keep it and return it."""
        ...

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> R_co | None:
        """Return the result for these arguments if it is there, or None. Nothing is loaded, counted or waited for."""
        ...

    async def apeek(self, *args: P.args, **kwargs: P.kwargs) -> R_co | None:
        """Return what ``peek`` returns, awaited."""
        ...

    def peek_or(self, default: T, /, *args: P.args, **kwargs: P.kwargs) -> R_co | T:
        """Return what ``peek`` returns, or *default* where nothing is there."""
        ...

    async def apeek_or(self, default: T, /, *args: P.args, **kwargs: P.kwargs) -> R_co | T:
        """Return what ``peek_or`` returns, awaited."""
        ...

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the cache key for these arguments."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], R_co], instance: object, owner: type | None = None, /
    ) -> Callable[Q, R_co]: ...


class CachedCoroutine(Protocol[P, R_co]):
    """A coroutine function whose results are cached."""

    __name__: str
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, None]:
        """Drop the result for these arguments."""
        ...

    def invalidate_all(self) -> Coroutine[Any, Any, None]:
        """Drop every result of this function, whatever the arguments, in every process."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Load the result for these arguments anew, keep it and return it."""
        ...

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co | None]:
        """Return the result for these arguments if it is there, or None. Nothing is loaded, counted or waited for."""
        ...

    def peek_or(self, default: T, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co | T]:
        """Return what ``peek`` returns, or *default* where nothing is there."""
        ...

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the cache key for these arguments."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> CachedCoroutine[P, R_co]: ...
    @overload
    def __get__(
        self: CachedCoroutine[Concatenate[Any, Q], R_co], instance: object, owner: type | None = None, /
    ) -> Callable[Q, Coroutine[Any, Any, R_co]]: ...


class Decorate(Protocol):
    """What ``cached(...)`` returns: it takes either kind of function and keeps its signature."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> CachedCoroutine[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> CachedFunction[P, R]: ...


class CachedMany(Protocol[P, R_co]):
    """A blocking function of many items whose values are cached one by one."""

    __name__: str
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Drop the values of these items."""
        ...

    def invalidate_all(self) -> None:
        """Drop the values of all items."""
        ...


class CachedManyCoroutine(Protocol[P, R_co]):
    """A coroutine function of many items whose values are cached one by one."""

    __name__: str
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, None]:
        """Drop the values of these items."""
        ...

    def invalidate_all(self) -> Coroutine[Any, Any, None]:
        """Drop the values of all items."""
        ...


class DecorateMany(Protocol):
    """What ``cached_many(...)`` returns: it takes either kind of function and keeps its signature."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> CachedManyCoroutine[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> CachedMany[P, R]: ...


class CachedOptions(TypedDict, total=False):
    """The keyword arguments of ``cached``; ``Cache.cached`` describes them."""

    ttl: Duration | Policy | None
    tags: TagsSource
    result_tags: ResultTags
    key: KeySource
    ignore: Sequence[str]
    stale_while_revalidate: Duration
    stale_if_error: Duration
    jitter: float
    beta: float
    lease: Duration
    refresh_at: float
    soft_timeout: Duration
    hard_timeout: Duration
    keep_if: Callable[[Any], object]
    none_ttl: Duration
    exceptions: Mapping[type[Exception], Duration]
    version: str | int
    lock: bool
    copy: bool
