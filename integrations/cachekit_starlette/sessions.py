"""``SessionMiddleware`` with the arguments of Starlette's own, and the data on the server: a migration in one import line.

Owns what Starlette calls things and how it writes its cookie. Must not know how sessions are kept.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from starlette.datastructures import Secret
from starlette.types import ASGIApp, Receive, Scope, Send

from cachekit import Cache, ConfigError, default_cache
from cachekit.clock import system_clock
from cachekit.sessions import Session as _Session
from cachekit.sessions import SessionOptions, Sessions
from cachekit.sessions.asgi import SessionMiddleware as _SessionMiddleware
from cachekit.sessions.cookie import Cookies, Ticket
from cachekit.sessions.payload import Payloads

log = logging.getLogger("cachekit")

_LIFE: Final = 14 * 24 * 60 * 60
_OWN: Final = ("cookie_name", "domain", "partitioned", "path", "same_site", "secrets", "ttl", "development", "keys")
_OPTIONS: Final = tuple(one.name for one in dataclasses.fields(SessionOptions) if one.init and one.name not in _OWN)
_NOBODYS: Final = SessionOptions(secrets="a session that stands alone is never signed")


class Session(_Session):
    """What ``request.session`` is. ``Session({"a": 1})`` stands alone, for tests of what takes one.

    Args:
        source: where it comes from; or the values of one that stands alone.
        codec: turns values into bytes, where it comes from somewhere.
    """

    def __new__(cls, source: Any = (), codec: Payloads | None = None) -> Session:  # noqa: ARG004, PYI034 - see _Alone
        kind: Any = _Alone if codec is None else cls
        made: Session = super().__new__(kind)
        return made

    def __init__(self, source: Any = (), codec: Payloads | None = None) -> None:
        super().__init__(source, codec or Payloads(_NOBODYS))

    @property
    def user(self) -> Any:
        """Return what an endpoint has put in under that name, as templates expect; else the user it is bound to."""
        return self["user"] if "user" in self else super().user


class _Alone(Session):
    """A session of no request: there is nothing to read, so that looking at it is nothing to note."""

    def __init__(self, source: Any = (), codec: Payloads | None = None) -> None:
        codec = codec or Payloads(_NOBODYS)
        super().__init__(source, codec)
        values = {key: codec.encode(value) for key, value in dict(source).items()}
        self.fill(values, values, self.about, new=False)

    def _look(self) -> None: ...

    def _touch_key(self, key: object) -> None:
        super()._touch_key(key)
        self.accessed = True


class _OfRequest(Session):
    """What a request gets: made for each of them, so without detours."""

    __new__ = dict.__new__  # type: ignore[assignment]
    __init__ = _Session.__init__  # pyright: ignore[reportAssignmentType]


class SessionMiddleware(_SessionMiddleware):
    """Give each request its ``request.session``, kept on the server. The arguments are those of Starlette's own.

    Args:
        app: the application; Starlette gives it.
        secret_key: signs the cookie; or several, the newest first: the first signs, all are accepted.
        session_cookie: the name of the cookie.
        max_age: seconds that a session lives after it was last used; None lets the cookie end with the browser.
        path: the path of the cookie.
        same_site: ``lax``, ``strict`` or ``none``.
        https_only: send the cookie over HTTPS alone. Always in production.
        domain: its domain.
        partitioned: keep the cookie apart for each top-level site.
        store: where sessions are kept: a URL, a ``Cache`` or a store; the default cache when left out.
        options: the other settings of ``SessionOptions``, such as ``{"counters": ["hits"]}``.

    Raises:
        ConfigError: an argument cannot be used; the message names it.

    Example:
        >>> from starlette.applications import Starlette
        >>> from starlette.middleware import Middleware
        >>> own = Middleware(SessionMiddleware, secret_key="a long random text", store=Cache(), https_only=True)
        >>> app = Starlette(middleware=[own])
    """

    kind = _OfRequest

    def __init__(
        self,
        app: ASGIApp,
        secret_key: str | Secret | Sequence[str | Secret],
        session_cookie: str = "session",
        max_age: int | None = _LIFE,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool = False,
        domain: str | None = None,
        partitioned: bool = False,
        *,
        store: str | Cache | Any | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        more: Any = {} if options is None else options
        if not isinstance(more, Mapping):
            raise ConfigError(
                f"SessionMiddleware: options={options!r} must be a dictionary of settings of SessionOptions"
            )
        for name in more:
            if name not in _OPTIONS:
                close = difflib.get_close_matches(str(name), _OPTIONS, 1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ConfigError(f"SessionMiddleware: options has no {name!r}{hint}: there are {', '.join(_OPTIONS)}")
        cookie: Any = session_cookie
        if not isinstance(cookie, str) or not cookie:
            raise ConfigError(f"SessionMiddleware: session_cookie={session_cookie!r} must be the name of a cookie")
        if max_age is not None and (isinstance(max_age, bool) or not isinstance(max_age, int)):
            raise ConfigError(f"SessionMiddleware: max_age={max_age!r} must be a whole number of seconds, or None")
        for name, value in (("https_only", https_only), ("partitioned", partitioned)):
            if not isinstance(value, bool):
                raise ConfigError(f"SessionMiddleware: {name}={value!r} must be True or False")
        if not https_only and (same_site == "none" or partitioned):
            said = f"same_site={same_site!r}" if same_site == "none" else "partitioned=True"
            raise ConfigError(f"SessionMiddleware: {said} needs https_only=True: browsers drop the cookie otherwise")
        try:
            made = SessionOptions(
                secrets=_secrets(secret_key), ttl=max(max_age, 1) if max_age is not None else _LIFE,
                cookie_name=session_cookie, path=path, domain=domain, same_site=same_site, partitioned=partitioned,
                **more,
            )  # fmt: skip
        except ConfigError as exc:
            said = str(exc).replace("cookie_name", "session_cookie")
            raise ConfigError(f"SessionMiddleware: {said}") from exc
        if not https_only:
            log.warning(
                "SessionMiddleware: https_only=False lets the cookie travel over plain HTTP: never in production"
            )
        kind = _Over if max_age is not None and max_age <= 0 else _Cookies
        cookies = kind(made, max_age, https_only=https_only)
        try:
            source = store if store is not None else default_cache()
            clock = source.clock if isinstance(source, Cache) else system_clock
            sessions = Sessions(source, made, clock=clock, cookies=cookies)
        except ConfigError as exc:
            raise ConfigError(f"SessionMiddleware: store={store!r}: {exc}") from exc
        super().__init__(app, sessions)

    async def _beside(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super()._beside(scope, receive, send)
        if scope["type"] == "lifespan":
            await self.sessions.aclose()


class _Cookies(Cookies):
    """Writes the cookie as Starlette does: every session outlives the browser, unless *max_age* is None."""

    def __init__(self, options: SessionOptions, max_age: int | None, *, https_only: bool) -> None:
        super().__init__(options)
        self._max_age = max_age
        flags = f"httponly; samesite={options.same_site}"
        flags += "; secure" if https_only else ""
        flags += f"; domain={options.domain}" if options.domain is not None else ""
        self._flags = flags + ("; partitioned" if options.partitioned else "")
        self._path = options.path

    def line(self, value: str, *, remembered: bool, left: float = float("inf")) -> str:
        age = self._remember if remembered else self._max_age
        said = f"Max-Age={int(min(age, left))}; " if age is not None else ""
        return f"{self._name}={value}; path={self._path}; {said}{self._flags}"

    def removal(self) -> str:
        return f"{self._name}=null; path={self._path}; expires=Thu, 01 Jan 1970 00:00:00 GMT; {self._flags}"

    def is_due(self, ticket: Ticket, now: float, *, claimed: bool) -> bool:
        if self._max_age is not None and not ticket.remembered and now - ticket.issued > self._max_age / 10:
            return True
        return super().is_due(ticket, now, claimed=claimed)


class _Over(_Cookies):
    """Cookies of sessions that have ended when they begin."""

    def read(self, lines: Iterable[str]) -> Ticket | None:  # noqa: ARG002 - whatever it says
        return None


def _secrets(given: Any) -> list[str]:
    """Return secrets of one length. Starlette takes those of any length, so that theirs must be good by themselves."""
    each = [given] if isinstance(given, str | Secret) else list(given) if isinstance(given, Iterable) else []
    if not each or not all(isinstance(one, str | Secret) and str(one) for one in each):
        raise ConfigError("secret_key must be a text that is not empty, or several, the newest first")
    return [hashlib.sha256(b"cachekit.starlette" + str(one).encode()).hexdigest() for one in each]
