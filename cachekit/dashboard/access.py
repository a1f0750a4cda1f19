"""Where the status page is, who may see it, and what is answered. Written once for both edges.

Owns the refusals: the names of functions and keys are nobody else's business, so a page without a password, a check of
your own or an explicit ``public=True`` cannot be made. Must not know ASGI or WSGI, nor how figures are shown.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeAlias

from cachekit._io import IO
from cachekit.dashboard.figures import Look, Subject
from cachekit.dashboard.page import document, policy, render
from cachekit.errors import ConfigError
from cachekit.observe.hotkeys import HotKeys

SHORTEST: Final = 12
"""Characters of a password: anybody may try one as often as the server allows."""

Allow: TypeAlias = Callable[[Any], bool]

_METHODS: Final = ("GET", "HEAD")
_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A status page and who may see it.

    Args:
        path: where ``CacheKit(app, dashboard=...)`` answers, such as ``/-/cachekit``; the JSON is at ``path.json`` too.
        password: asked for as HTTP Basic (RFC 7617), with any user name; at least 12 characters. Serve it over TLS.
        allow: says whether a request may see the page, from its ASGI scope or WSGI environ. Must not block.
        public: True says that anybody may.
        title: the heading of the page.
        refresh: seconds between updates of an open page; 0 for none.
        hot_keys: the hottest keys: True follows them from now on, False shows none, or a ``HotKeys`` that exists.
        sessions: a ``Sessions`` whose figures are shown too.

    Raises:
        ConfigError: neither *password* nor *allow* is given and *public* is not said, or a value cannot be used.

    Example:
        >>> Dashboard("/-/cachekit", password="correct horse battery").path
        '/-/cachekit'
        >>> Dashboard("/-/cachekit")
        Traceback (most recent call last):
        ...
        cachekit.errors.ConfigError: dashboard: anybody could see it: give it password= or allow=, or say public=True
    """

    path: str
    password: str | None = field(default=None, repr=False)
    allow: Allow | None = None
    public: bool = False
    title: str = "cachekit"
    refresh: float = 2.0
    hot_keys: HotKeys | bool = True
    sessions: Any = None

    def __post_init__(self) -> None:
        path: Any = self.path
        password: Any = self.password
        refresh: Any = self.refresh
        title: Any = self.title
        hot_keys: Any = self.hot_keys
        if not isinstance(path, str) or not path.startswith("/") or path.endswith("/") or set("?#%") & set(path):
            raise ConfigError(f"dashboard: path={path!r} must be a path such as /-/cachekit")
        if password is not None and not (isinstance(password, str) and len(password) >= SHORTEST):
            raise ConfigError(f"dashboard: password must be text of at least {SHORTEST} characters")
        if self.allow is not None and not callable(self.allow):
            raise ConfigError(f"dashboard: allow={self.allow!r} must be callable with a scope or environ")
        if self.public is not True and self.public is not False:
            raise ConfigError(f"dashboard: public={self.public!r} must be True or False")
        if self.public and (self.password is not None or self.allow is not None):
            raise ConfigError("dashboard: public=True and password= or allow= contradict each other")
        if not self.public and self.password is None and self.allow is None:
            raise ConfigError("dashboard: anybody could see it: give it password= or allow=, or say public=True")
        if isinstance(refresh, bool) or not isinstance(refresh, (int, float)) or not 0 <= refresh <= 3600:
            raise ConfigError(f"dashboard: refresh={refresh!r} must be a number of seconds from 0 to 3600")
        if not isinstance(title, str):
            raise ConfigError(f"dashboard: title={title!r} must be text")
        if not isinstance(hot_keys, (bool, HotKeys)):
            raise ConfigError(f"dashboard: hot_keys={hot_keys!r} must be True, False or a HotKeys")
        if self.sessions is not None and not callable(getattr(self.sessions, "stats", None)):
            raise ConfigError(f"dashboard: sessions={self.sessions!r} must be a Sessions")

    def answers(self, path: str) -> bool:
        """Say whether *path* is this page, or its twin."""
        return path in (self.path, self.path + ".json")


class Desk:
    """Answers requests for the page of one cache.

    Args:
        dashboard: who may see it.
        cache: whose figures are shown.
    """

    def __init__(self, dashboard: Dashboard, cache: Subject) -> None:
        self._dashboard = dashboard
        self._headers = (("Content-Security-Policy", policy()), *_HEADERS)
        self._look = Look(cache, dashboard.hot_keys, dashboard.sessions)

    async def answer(
        self, io: IO, request: Any, method: str, path: str, query: str, authorization: str | None
    ) -> Answer:
        """Return what is sent to *request*, an ASGI scope or WSGI environ."""
        dashboard = self._dashboard
        if dashboard.password is not None and not _is(dashboard.password, authorization):
            challenge = ("WWW-Authenticate", 'Basic realm="cachekit", charset="UTF-8"')
            return _plain(401, "the status page needs its password", challenge)
        if dashboard.allow is not None and dashboard.allow(request) is not True:
            return _plain(403, "you may not see the status page")
        if method not in _METHODS:
            return _plain(405, "the status page is only read", ("Allow", ", ".join(_METHODS)))
        figures = await self._look.take(io)
        if path.endswith(".json") or "format=json" in query.split("&"):
            return Answer(200, document(figures), (("Content-Type", "application/json"), *self._headers))
        page = render(figures, title=dashboard.title, refresh=dashboard.refresh)
        return Answer(200, page.encode(), (("Content-Type", "text/html; charset=utf-8"), *self._headers))


def _plain(status: int, text: str, *more: tuple[str, str]) -> Answer:
    return Answer(status, f"{text}\n".encode(), (("Content-Type", "text/plain; charset=utf-8"), *_HEADERS, *more))


def _is(password: str, authorization: str | None) -> bool:
    """Say whether *authorization* carries *password*, in a time that tells nothing about either."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(sha256(given).digest(), sha256(password.encode()).digest())
