"""What happens while something is away: settings, and the decision for one request. Written once for both edges.

Must not know ASGI or WSGI.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cachekit._io import IO
from cachekit.degrade.health import Health, Source, State, StorePort, WarmerPort
from cachekit.degrade.paths import Paths
from cachekit.degrade.refusal import PROBLEM, Body, Refusal, check_body
from cachekit.errors import ConfigError
from cachekit.events import Emit, Event, Kind
from cachekit.http.headers import TOKEN, HeaderList

log = logging.getLogger("cachekit")

_CODES: Final = {State.READY: 200, State.DEGRADED: 200, State.WARMING: 503}


@dataclass(frozen=True, slots=True)
class DegradeOptions:
    """What happens while something is away.

    Attributes:
        protected: paths that are refused then, because they are wrong without it; the others go on.
        retry_after: seconds in Retry-After.
        body: ``"problem"`` for application/problem+json, or an object that is sent as application/json.
        health_path: where the state is told; None for nowhere.
        codes: status codes of the health endpoint for ``ready``, ``degraded`` and ``warming``.
        sources: functions that say at once whether a further part is there, by its name.
        warmer: while it is not ready, the state is ``warming``.
        max_age: seconds for which the store is believed before it is asked again.
        status_name: the name in Cache-Status.

    Raises:
        ConfigError: a value cannot be used; the message names it.
    """

    protected: Sequence[str] = ()
    retry_after: int = 30
    body: Body = PROBLEM
    health_path: str | None = "/-/health"
    codes: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    warmer: WarmerPort | None = None
    max_age: float = 1.0
    status_name: str = "cachekit"

    def __post_init__(self) -> None:
        Paths(self.protected, "protected")
        if type(self.retry_after) is not int or self.retry_after < 0:
            raise ConfigError(f"retry_after={self.retry_after!r} must be a whole number of seconds")
        object.__setattr__(self, "body", check_body(self.body))
        if self.health_path is not None and not str(self.health_path).startswith("/"):
            raise ConfigError(f"health_path={self.health_path!r} must begin with /, or be None")
        for name, code in self.codes.items():
            if name not in set(State) or type(code) is not int or not 200 <= code <= 599:
                raise ConfigError(f"codes: {name!r}: {code!r} must be ready, degraded or warming, and a status code")
        if not 0 <= self.max_age <= 3600:
            raise ConfigError(f"max_age={self.max_age!r} must be a number of seconds, at most 3600")
        if not TOKEN.match(self.status_name):
            raise ConfigError(f"status_name={self.status_name!r} must be a token")

    def watching(self, name: str, source: Source) -> DegradeOptions:
        """Return the same with a further part *name*, unless there is one of that name already."""
        return replace(self, sources={name: source, **self.sources})


@dataclass(slots=True)
class DegradeCounts:
    """What happened.

    Attributes:
        refused: requests for protected paths that were refused.
        degraded: requests that went on although something was away.
    """

    refused: int = 0
    degraded: int = 0


class Degrading:
    """Decides for the requests of one application.

    Args:
        options: the settings.
        cache: its store is watched; None watches only the sources.
        emit: receives events.
    """

    def __init__(self, options: DegradeOptions, cache: StorePort | None, emit: Emit) -> None:
        self.options = options
        self.health = Health(cache, options.sources, options.warmer, max_age=options.max_age)
        self.counts = DegradeCounts()
        self._protected = Paths(options.protected, "protected")
        self._emit = emit
        self._member = re.compile(rf"(?:\A|,)\s*{re.escape(options.status_name)}\s*(?=;|,|\Z)[^,]*")

    def is_health(self, path: str) -> bool:
        """Say whether *path* is the health endpoint."""
        return path == self.options.health_path

    async def tell(self, io: IO) -> tuple[int, HeaderList, bytes]:
        """Return the answer of the health endpoint."""
        report = await self.health.check(io)
        code = self.options.codes.get(str(report.state), _CODES[report.state])
        body = json.dumps(report.document()).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        return code, headers, body

    def is_protected(self, path: str) -> bool:
        """Say whether *path* must not be reached while something is away."""
        return self._protected.match(path) is not None

    async def admit(self, io: IO, path: str) -> Refusal | None:
        """Ask for a protected *path*: None lets it through."""
        report = await self.health.check(io)
        if not report.away:
            return None
        self.counts.refused += 1
        away = ", ".join(report.away)
        self._emit(Event(Kind.REFUSED, name="degradation", detail=f"{path}: {away}"))
        return Refusal(503, f"temporarily unavailable: {away}", self.options.retry_after)

    def glance(self) -> tuple[str, ...]:
        """Return what is known to be away, for a request that goes on without it."""
        away = self.health.glance().away
        if away:
            self.counts.degraded += 1
            self._emit(Event(Kind.DEGRADED, name="degradation", detail=", ".join(away)))
        return away

    def mark(self, headers: HeaderList, away: Sequence[str]) -> HeaderList:
        """Return *headers* whose Cache-Status says what is away (RFC 9211 section 2.8)."""
        detail = f"detail={'+'.join(name for name in away if TOKEN.match(name)) or 'something'}-away"
        made: HeaderList = []
        done = False
        for name, value in headers:
            if not done and name.lower() == "cache-status" and (found := self._member.search(value)):
                done = True
                if "detail=" not in found[0]:
                    value = f"{value[: found.end()]}; {detail}{value[found.end() :]}"
            made.append((name, value))
        if not done:
            made.append(("Cache-Status", f"{self.options.status_name}; fwd=bypass; {detail}"))
        return made
