"""One tag, every layer: the context in which the tags of what is used are collected.

Whoever produces something out of cached results (a cached function that calls another, an HTTP response) opens
``collecting()``; whatever is used inside adds its tags. Must not know about stores.
"""

from __future__ import annotations

import math
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextvars import ContextVar, Token
from hashlib import blake2b
from typing import Final, TypeAlias

from cachekit.keys import check_tags

Noted: TypeAlias = str | tuple[str, bytes] | float
Groups: TypeAlias = set[frozenset[Noted] | tuple[float, ...]]


_FUNCTION: Final = "\x1f"

UNCOMMITTED: Final = f"{_FUNCTION}uncommitted"
"""The tag of what was made of data that may yet be rolled back, or was: nothing that carries it is kept."""


def function_tag(name: str) -> str:
    """Return the tag that every result of the function *name* carries by itself, so that all of them can be dropped.

    It begins with a character that no tag of a user's may contain, and is short, because it lies in every entry.
    """
    return _FUNCTION + urlsafe_b64encode(blake2b(name.encode(), digest_size=9).digest()).decode()


def is_implicit(tag: str) -> bool:
    """Say whether *tag* was given by cachekit itself: it means nothing to users and to caches further out."""
    return tag.startswith(_FUNCTION)


def names_any(groups: Groups) -> bool:
    """Say whether one of the tags in *groups* was given by users."""
    for group in groups:
        for noted in group:
            tag = noted[0] if type(noted) is tuple else noted
            if type(tag) is str and not is_implicit(tag):
                return True
    return False


class Tags(AbstractSet[str]):
    """The tags collected so far: a set that grows while what it belongs to is being made.

    Tags arrive in groups, one for each thing used. A group is a frozenset, which keeps its hash, so that noting the
    tags of a hit is one step however many they are. A tag may come with the stamp that it had when the thing was read.
    A number among them says until when the thing is fresh.
    As a set it shows the tags that users gave; ``every`` has those of the functions too.
    """

    __slots__ = ("groups",)

    def __init__(self, groups: Groups | None = None) -> None:
        self.groups: Groups = set() if groups is None else groups

    @property
    def every(self) -> frozenset[str]:
        """Return all tags, those included that functions have by themselves."""
        found = frozenset[Noted]().union(*self.groups)
        return frozenset(
            noted if isinstance(noted, str) else noted[0] for noted in found if isinstance(noted, (str, tuple))
        )

    def _flat(self) -> frozenset[str]:
        return frozenset(tag for tag in self.every if not is_implicit(tag))

    @property
    def stamps(self) -> tuple[tuple[str, bytes], ...]:
        """Return the stamps that tags came with; one tag may have come with several, which then contradict."""
        found = frozenset[Noted]().union(*self.groups)
        return tuple(noted for noted in found if isinstance(noted, tuple))

    @property
    def until(self) -> float:
        """Return when the first of the things used ceases to be fresh, in seconds since the epoch; infinity for never."""
        return min(
            (noted for noted in frozenset[Noted]().union(*self.groups) if type(noted) is float), default=math.inf
        )

    def __contains__(self, tag: object) -> bool:
        return tag in self._flat()

    def __iter__(self) -> Iterator[str]:
        return iter(self._flat())

    def __len__(self) -> int:
        return len(self._flat())

    def __repr__(self) -> str:
        return f"Tags({sorted(self)})"

    def update(self, tags: Iterable[str]) -> None:
        """Add *tags*, known to be valid."""
        self.groups.add(frozenset(tags))


class Refused(Exception):
    """A hit may not be served here."""


class Refusing:
    """Stands where groups are collected while a mode is in force: whoever adds to it learns that it must not serve."""

    __slots__ = ("groups", "mode")

    def __init__(self, groups: Groups | None, mode: object) -> None:
        self.groups = groups
        self.mode = mode

    def add(self, tags: frozenset[Noted] | tuple[float, ...]) -> None:  # noqa: ARG002 - the method of a set
        """Raise ``Refused``."""
        raise Refused

    @staticmethod
    def mode_here() -> object:
        """Return the mode that is in force here, or None."""
        found = _groups.get()
        return found.mode if type(found) is Refusing else None


_groups: Final[ContextVar[Groups | Refusing | None]] = ContextVar("cachekit_tags", default=None)

current = _groups.get
"""Returns what the hit path adds the tags of a hit to, or None."""


def enter(mode: object) -> Token[Groups | Refusing | None]:
    """Put *mode* in force. Give the token to ``leave`` afterwards."""
    return _groups.set(Refusing(_collector(), mode))


leave = _groups.reset
"""Ends what ``enter`` or ``collect`` began, of which it is given the token."""


def _collector() -> Groups | None:
    found = _groups.get()
    return found.groups if type(found) is Refusing else found  # type: ignore[return-value]


class collecting:  # noqa: N801 - used as a statement: `with collecting() as tags`
    """Collect the tags of everything that is used inside.

    Example:
        >>> with collecting() as tags:
        ...     tag("product:42")
        >>> set(tags)
        {'product:42'}
    """

    __slots__ = ("_token", "tags")

    def __init__(self) -> None:
        self.tags = Tags()

    def __enter__(self) -> Tags:
        self._token = collect(self.tags.groups)
        return self.tags

    def __exit__(self, *_: object) -> None:
        _groups.reset(self._token)


def collect(groups: Groups) -> Token[Groups | Refusing | None]:
    """Collect in *groups* until the token is given to ``leave``: ``collecting`` for who seldom looks at what was used."""
    found = _groups.get()
    return _groups.set(Refusing(groups, found.mode) if type(found) is Refusing else groups)


def tag(*tags: str) -> None:
    """Tag whatever is being made here: the cached result that is loading, and the HTTP response that will use it.

    Outside of both it does nothing. Raises ``ConfigError`` for an invalid tag.
    """
    note(check_tags(tags))


def is_collected() -> bool:
    """Say whether tags are being collected here."""
    return _groups.get() is not None


def note(tags: Iterable[Noted]) -> None:
    """Add tags known to be valid to what is being collected here, if anything is."""
    groups = _collector()
    if groups is not None:
        groups.add(frozenset(tags))


def note_until(until: float) -> None:
    """Note that what is used here is fresh until then; infinity says nothing."""
    groups = _collector()
    if groups is not None and until != math.inf:
        groups.add((float(until),))
