"""Flask's ``session``, kept by ``cachekit.sessions``. Wiring only.

``session.permanent`` is what elsewhere is ``remember()``: the cookie outlives the browser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flask.sessions import SessionInterface, SessionMixin

from cachekit import Cache, ConfigError
from cachekit.sessions import Session, SessionOptions, Sessions

if TYPE_CHECKING:
    from flask import Flask, Request, Response


class FlaskSession(Session, SessionMixin):  # type: ignore[override,unused-ignore]
    """A session with the names that Flask's users know."""

    exchange: Any = None

    @property
    def permanent(self) -> bool:
        """Say whether it outlives the browser."""
        self.mark_accessed()
        return self.about.remembered

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if bool(value) is not self.permanent:
            self.remember(bool(value))


class CacheKitSessionInterface(SessionInterface):
    """What ``app.session_interface`` takes.

    Args:
        sessions: where sessions are kept.
    """

    session_class = FlaskSession

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def open_session(self, app: Flask, request: Request) -> FlaskSession:  # noqa: ARG002 - Flask's signature
        cookie = request.environ.get("HTTP_COOKIE")
        exchange = self.sessions.driver.open(
            (cookie,) if cookie else (),
            method=request.method,
            agent=request.environ.get("HTTP_USER_AGENT", ""),
            kind=FlaskSession,
        )
        found = exchange.session
        assert isinstance(found, FlaskSession)
        found.exchange = exchange
        return found

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:  # noqa: ARG002 - Flask's
        if not isinstance(session, FlaskSession):
            raise ConfigError("flask.session was replaced by something else: change it in place")
        exchange: Any = session.exchange
        fields = exchange.begin_response(response.status_code, list(response.headers))
        response.headers.clear()
        response.headers.extend(fields)
        if response.is_streamed and not response.direct_passthrough:
            response.response = _Finishing(response.response, exchange)
        else:
            exchange.end_response()


class _Finishing:
    """Passes a body on, and keeps at its end what it changed. A server may close it without having read any of it."""

    def __init__(self, body: Any, exchange: Any) -> None:
        self._body = body
        self._iterator: Iterator[Any] = iter(body)
        self._exchange = exchange

    def __iter__(self) -> _Finishing:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            self._end()
            raise

    def close(self) -> None:
        """Close the body."""
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            self._end()

    def _end(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.end_response()


def install(app: Flask, given: Any, cache: Cache) -> Sessions:
    """Make *app* keep its sessions as *given* says: True, ``SessionOptions``, or ``Sessions``.

    Raises:
        ConfigError: *given* is something else, or the application has no secret key.
    """
    sessions = given if isinstance(given, Sessions) else Sessions(cache, _options(app, given))
    app.session_interface = CacheKitSessionInterface(sessions)
    return sessions


def _options(app: Flask, given: Any) -> SessionOptions:
    if isinstance(given, SessionOptions):
        return given
    if given is not True:
        raise ConfigError(f"sessions={given!r} must be True, SessionOptions(...) or Sessions(...)")
    config = app.config
    secrets = [secret for secret in (config["SECRET_KEY"], *(config.get("SECRET_KEY_FALLBACKS") or ())) if secret]
    if not secrets:
        raise ConfigError("sessions need a secret: set app.secret_key before CacheKit(app) or init_app(app)")
    name = config["SESSION_COOKIE_NAME"]
    return SessionOptions(
        # Flask takes secrets of any length and kind, and signs other cookies with the same one.
        secrets=[hashlib.sha256(b"cachekit.flask" + _bytes(secret)).hexdigest() for secret in secrets],
        remember_ttl=app.permanent_session_lifetime.total_seconds(),
        cookie_name="" if name == "session" else name,
        path=config["SESSION_COOKIE_PATH"] or config["APPLICATION_ROOT"] or "/",
        domain=config["SESSION_COOKIE_DOMAIN"] or None,
        same_site=str(config["SESSION_COOKIE_SAMESITE"] or "lax").lower(),
        partitioned=bool(config.get("SESSION_COOKIE_PARTITIONED")),
        development=bool(app.debug and not config["SESSION_COOKIE_SECURE"]),
    )


def _bytes(secret: str | bytes) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret
