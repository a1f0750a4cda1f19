"""The port of a CDN: what is to be dropped there, the calls that say so, and what an answer means.

A purger is pure: it builds ``HttpCall`` values and judges replies. Must not know how calls are sent, retried or kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum, StrEnum
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit

from cachekit.errors import ConfigError

T = TypeVar("T")

EXCERPT: Final = 200
"""Bytes of a reply that an error message quotes."""


class Scope(StrEnum):
    """What a purge names."""

    TAG = "tag"
    URL = "url"
    ALL = "all"


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """One thing to drop: everything with a tag, one URL, or everything (whose value is empty)."""

    scope: Scope
    value: str = ""

    def __str__(self) -> str:
        return f"{self.scope}:{self.value}" if self.value else str(self.scope)

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target that ``str`` printed."""
        scope, _, value = text.partition(":")
        return cls(Scope(scope), value)


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One request to a CDN.

    Attributes:
        method: such as POST or PURGE.
        url: absolute, ``http`` or ``https``.
        targets: what it drops.
        headers: fields to send; never shown, since they carry tokens.
        body: bytes to send.
        secrets: texts that must not appear in logs, errors or events.
    """

    method: str
    url: str
    targets: tuple[Target, ...]
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def scrub(self, text: str) -> str:
        """Return *text* without the secrets: a CDN may quote what it was sent."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, slots=True)
class Reply:
    """What a CDN answered.

    Attributes:
        status: the status code.
        headers: the fields, as pairs.
        body: the body, cut at the client's bound.
        at: when it came, in seconds since the epoch.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    at: float = 0.0

    @property
    def retry_after(self) -> float | None:
        """Return the seconds that Retry-After asks for (RFC 9110 section 10.2.3), at most an hour, or None."""
        for name, value in self.headers:
            if name.lower() == "retry-after":
                return _seconds(value.strip(), self.at)
        return None

    @property
    def excerpt(self) -> str:
        """Return the beginning of the body as one printable line."""
        text = self.body[:EXCERPT].decode("utf-8", "replace")
        return "".join(char if char.isprintable() else " " for char in text).strip()


class Verdict(Enum):
    """What an answer means for the targets of a call."""

    DONE = "done"
    RETRY = "retry"
    """The CDN is busy or broken: the same call later."""
    FAILED = "failed"
    """The CDN refuses, and will until somebody changes something."""
    SPLIT = "split"
    """Something among the targets is refused: smaller calls will tell what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, and what belongs to it.

    Attributes:
        verdict: what to do.
        detail: words for an operator.
        retry_after: seconds that the CDN asked to wait, or None.
        landed: the targets that are done although the others are not.
        everywhere: whether any other call to this CDN would meet the same.
    """

    verdict: Verdict
    detail: str = ""
    retry_after: float | None = None
    landed: tuple[Target, ...] = ()
    everywhere: bool = True


DONE: Final = Outcome(Verdict.DONE)


@dataclass(frozen=True, slots=True)
class Rate:
    """What a CDN bears: *per_second* calls on average, *burst* at once. Raises ``ConfigError`` for what is no rate."""

    per_second: float
    burst: int

    def __post_init__(self) -> None:
        if not 0 < self.per_second < math.inf or self.burst < 1:
            raise ConfigError("a rate needs per_second > 0 and burst >= 1")


class Purger(Protocol):
    """One CDN, or one server of it. ``Cloudflare``, ``Fastly`` and ``Varnish`` are examples to write another by."""

    @property
    def name(self) -> str:
        """Return a name that stays the same over restarts: what waits for this purger is kept under it."""
        ...

    @property
    def rate(self) -> Rate | None:
        """Return how many calls the API takes, or None for any number."""
        ...

    @property
    def batches(self) -> Mapping[Scope, int]:
        """Return how many targets of each scope one call may carry; what is left out cannot be purged."""
        ...

    def build(self, tags: Sequence[str] = (), urls: Sequence[str] = (), *, everything: bool = False) -> list[HttpCall]:
        """Return the calls that drop *tags* and *urls*, or everything."""
        ...

    def check(self, call: HttpCall, reply: Reply) -> Outcome:
        """Say what *reply* means."""
        ...


def judge(call: HttpCall, reply: Reply) -> Outcome | None:
    """Return what the status alone says, as most APIs mean it; None for success, which the body may still qualify."""
    status, detail = reply.status, f"{reply.status}: {reply.excerpt}" if reply.body else f"status {reply.status}"
    if status in (408, 425, 429) or status >= 500:
        return Outcome(Verdict.RETRY, detail, reply.retry_after)
    if 200 <= status < 300:
        return None
    if status in (400, 413, 414, 422, 431):
        if len(call.targets) > 1:
            return Outcome(Verdict.SPLIT, detail)
        return Outcome(Verdict.FAILED, detail, everywhere=False)
    if 300 <= status < 400:
        detail = f"{status}: a redirection, which is not followed"
    return Outcome(Verdict.FAILED, detail, reply.retry_after)


def in_batches(items: Iterable[T], size: int) -> Iterable[list[T]]:
    """Yield *items* in lists of at most *size*."""
    given = list(items)
    for start in range(0, len(given), size):
        yield given[start : start + size]


def targets(scope: Scope, values: Iterable[str]) -> tuple[Target, ...]:
    """Return *values* as targets."""
    return tuple(Target(scope, value) for value in values)


def check_name(name: str) -> str:
    """Return *name* as given. Raises ``ConfigError`` unless it can be part of a key."""
    if not name or not name.isascii() or not name.isprintable() or any(char in "{} *?[]^\\" for char in name):
        raise ConfigError(f"purger name={name!r} must be a word without spaces and without any of {{}}*?[]^\\")
    return name


def check_base(option: str, url: object) -> str:
    """Return *url* without a slash at its end. Raises ``ConfigError`` unless it is an absolute http(s) URL."""
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"{option}={url!r} must be a URL such as https://api.example.com")
    if parts.username or parts.password:
        raise ConfigError(f"{option} must not contain credentials")
    return str(url).rstrip("/")


def check_secret(option: str, value: object) -> str:
    """Return *value* as given. Raises ``ConfigError``, which does not show it, unless it can be sent in a field."""
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"{option} must be a non-empty string of printable characters without spaces")
    return value


def _seconds(value: str, now: float) -> float | None:
    if value.isdecimal() and value.isascii():
        return min(float(value[:9]), 3600.0)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - now), 3600.0)
    except (ValueError, TypeError, OverflowError):
        return None
