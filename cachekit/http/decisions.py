"""What an exchange says that is to be done: before the application is asked, with its response, and at the end.

Pure. Must not know how it comes to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from cachekit.entry import Entry
from cachekit.http.headers import Headers


@dataclass(frozen=True, slots=True)
class Serve:
    """Send this; with *refresh*, revalidate it behind."""

    status: int
    reason: str
    headers: Headers
    body: bytes
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Refuse(Serve):
    """Send this error: the client wants nothing but a stored response, and there is none (only-if-cached)."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Call the application with the request as it is."""


@dataclass(frozen=True, slots=True)
class Validate:
    """Call the application with *headers* in place of those of the request."""

    headers: Headers


Decision: TypeAlias = Serve | Forward | Validate


@dataclass(frozen=True, slots=True)
class Relay:
    """Send this head, then the body as it comes; where *silent*, no body at all."""

    status: int
    headers: Headers
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """Store *entry* at *key*, where the lookup ended."""

    key: str
    entry: Entry[Any]


@dataclass(frozen=True, slots=True)
class Freshen(Keep):
    """The same, for a stored response that was revalidated."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop *keys*."""

    keys: tuple[str, ...]


Outcome: TypeAlias = Keep | Freshen | Drop | None
