"""Flask's ``session``, kept by ``cachekit.sessions``. Wiring only.

``session.permanent`` is what elsewhere is ``remember()``: the cookie outlives the browser.
"""

from __future__ import annotations

import dataclasses
import difflib
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakKeyDictionary

import flask
from flask.sessions import SessionInterface, SessionMixin

from cachekit import Cache, ConfigError, default_cache
from cachekit.clock import system_clock
from cachekit.http.personal import concerns
from cachekit.sessions import Session, SessionOptions, Sessions
from cachekit_flask import jobs
from cachekit_flask.cookies import CODEC, FlaskCookies, saving, secrets_of

if TYPE_CHECKING:
    from flask import Flask, Request, Response

_OWN: Final = frozenset(
    {"secrets", "cookie_name", "path", "domain", "same_site", "partitioned", "development", "ttl", "remember_ttl"}
)
_OPTIONS: Final = tuple(one.name for one in dataclasses.fields(SessionOptions) if one.init and one.name not in _OWN)


class FlaskSession(Session, SessionMixin):  # type: ignore[override,unused-ignore]
    """A session with the names that Flask's users know."""

    exchange: Any = None
    touched = False
    """Whether anything was set, if only to what it was: in Flask that sends the cookie."""
    by_cookie = False
    """Whether ``permanent`` is what its cookie says: while nobody but Flask asks, that is no reason to read it."""
    _compared: tuple[dict[str, bytes] | None] | None = None

    def compare(self) -> None:
        """Compare it now with what was read: until ``trust_no_more``, or a change, ``changes`` says what was found."""
        self._compared = (super().changes(),)

    def trust_no_more(self) -> None:
        """Have ``changes`` compare again."""
        self._compared = None

    def changes(self) -> dict[str, bytes] | None:
        """Return all values encoded, or None when they are what the store holds. Raises ``CodecError``."""
        found = self._compared
        return super().changes() if found is None or self._forced else found[0]

    def commit(self, base: Mapping[str, bytes]) -> None:
        """Take *base* for what the store holds from now on."""
        self._compared = None
        super().commit(base)

    def _forget(self) -> None:
        self._compared = None
        super()._forget()

    @property
    def modified(self) -> bool:
        """Say whether something has changed in this request."""
        return self.touched or bool(Session.modified.fget(self))  # type: ignore[attr-defined]

    @modified.setter
    def modified(self, value: bool) -> None:
        self.touched = bool(value)
        if value:
            self.mark_modified()

    def _touch_key(self, key: object) -> None:
        super()._touch_key(key)
        self.touched, self._compared = True, None

    @property
    def user(self) -> Any:
        """Return what the view has put in under that name, as templates expect; else the user it is bound to."""
        return self["user"] if "user" in self else super().user

    @property
    def permanent(self) -> bool:
        """Say whether it outlives the browser."""
        if self.by_cookie and not self.loaded:
            return bool(self.exchange.remembered)
        self.mark_accessed()
        return self.about.remembered

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if bool(value) is not self.permanent:
            self.remember(bool(value))


session: Final = cast("FlaskSession", flask.session)
"""``flask.session`` itself, of which type checkers know what a session here can do besides."""


class CacheKitSessionInterface(SessionInterface):
    """What ``app.session_interface`` takes.

    Given ``Sessions``, their options hold. Given anything else, Flask's own settings hold as they do for its own interface:
    the secret key with its fallbacks, ``SESSION_COOKIE_...``, ``PERMANENT_SESSION_LIFETIME``,
    ``SESSION_REFRESH_EACH_REQUEST`` and the methods that a subclass may override. One such interface may
    serve several applications.

    Args:
        sessions: where sessions are kept: ``Sessions``, a ``Cache``, a URL or a store; the default cache when left out.
        **options: the other settings of ``SessionOptions``, such as ``counters``; not beside ``Sessions``.

    Raises:
        ConfigError: an option is unknown, or cannot be used.

    Example:
        >>> from flask import Flask
        >>> app = Flask("shop")
        >>> app.session_interface = CacheKitSessionInterface(Cache())
    """

    session_class = FlaskSession

    def __init__(self, sessions: Sessions | Cache | str | Any | None = None, **options: Any) -> None:
        jobs.register()  # of functions of an application that has no more of ours than this
        self.sessions = sessions if isinstance(sessions, Sessions) else None
        self._source: Any = sessions
        self._options = options
        self._made: WeakKeyDictionary[Any, tuple[Any, Sessions]] = WeakKeyDictionary()
        self._lock = threading.Lock()
        for name in options:
            if self.sessions is not None or name not in _OPTIONS:
                close = difflib.get_close_matches(name, _OPTIONS, 1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                known = "none beside Sessions" if self.sessions is not None else ", ".join(_OPTIONS)
                raise ConfigError(f"CacheKitSessionInterface has no option {name!r}{hint}: there are {known}")
        if self.sessions is None:
            self._source = sessions if sessions is not None else default_cache()
            nobodys = SessionOptions(secrets="of no application, signs nothing", **options)
            self._clock = self._source.clock if isinstance(self._source, Cache) else system_clock
            # What is wrong is said here, and the store is shared by all applications.
            self._source = Sessions(self._source, nobodys, clock=self._clock)

    def sessions_of(self, app: Flask) -> Sessions | None:
        """Return the sessions of *app*, as its settings are now; None while it has no secret key."""
        if self.sessions is not None:
            return self.sessions
        secrets = app.config["SECRET_KEY"]
        if not secrets:
            return None
        fallbacks = app.config.get("SECRET_KEY_FALLBACKS")
        settings = (
            secrets, tuple(fallbacks) if fallbacks else (), self.get_cookie_name(app), app.permanent_session_lifetime
        )  # fmt: skip
        found = self._made.get(app)
        if found is None or found[0] != settings:
            with self._lock:
                found = self._made[app] = (settings, self._make(app, settings[2]))
        return found[1]

    def _make(self, app: Flask, name: str) -> Sessions:
        life = max(1.0, app.permanent_session_lifetime.total_seconds())
        given = {"codec": CODEC, **self._options}
        options = SessionOptions(secrets=secrets_of(app), cookie_name=name, ttl=life, remember_ttl=life, **given)
        return Sessions(self._source, options, clock=self._clock, cookies=FlaskCookies(options, self, app))

    def open_session(self, app: Flask, request: Request) -> FlaskSession | None:  # type: ignore[override,unused-ignore]
        sessions = self.sessions_of(app)
        if sessions is None:
            return None  # Flask then gives a session that says what is missing
        cookie = request.environ.get("HTTP_COOKIE")
        exchange = sessions.driver.open(
            (cookie,) if cookie else (),
            method=request.method,
            agent=request.environ.get("HTTP_USER_AGENT", ""),
            kind=self.session_class,
        )
        if cookie:
            exchange.foresee(request.path)
        found = exchange.session
        assert isinstance(found, FlaskSession)
        found.exchange = exchange
        return found

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if not isinstance(session, FlaskSession):
            raise ConfigError("flask.session was replaced by something else: change it in place")
        exchange: Any = session.exchange
        if session.loaded:
            session.compare()  # once: nothing of the application runs until the head is made
            session.touched = session.modified  # afterwards nothing differs from the store any more
            if session.touched and not session.new and not session.about.user and session.bare:
                session.clear()  # as in Flask: one that was emptied is no session any more
        if self.sessions is None and (session.loaded or exchange.remembered):
            session.by_cookie = True
            refresh = self.should_set_cookie(app, session)
            session.by_cookie = False
            if refresh:
                session.mark_accessed()  # a cookie goes out for what is there alone
                exchange.renew()
        removal = "" if not session.ended or exchange.has_cookie else self._removal_of_foreign(app)
        headers = response.headers
        said = list(headers)
        streamed = response.is_streamed and not response.direct_passthrough
        if streamed:
            exchange.streams(response.status_code, said)
        stays = True not in [concerns(name) for name, _ in said]  # whatever is added
        token = saving.set(session)
        try:
            fields = exchange.begin_response(response.status_code, [] if stays else said)
        finally:
            saving.reset(token)
            session.trust_no_more()
        if not stays:
            headers.clear()
        for name, value in fields:
            headers.add(name, value)
        if removal and session.new:
            headers.add("Set-Cookie", removal)
        if streamed:
            response.response = _Finishing(response.response, exchange)
        else:
            exchange.body_sent()  # all of its changes were kept with the head, just now
            exchange.let_go()

    def _removal_of_foreign(self, app: Flask) -> str:
        """Return the line that takes away a cookie of our name that is not ours, as Flask's own; or an empty text."""
        sessions = self.sessions_of(app)
        if sessions is None or sessions.options.cookie not in flask.request.cookies:
            return ""
        return sessions.driver.cookies.removal()


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
            exchange.let_go()


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
    secrets = secrets_of(app)
    if not secrets:
        raise ConfigError("sessions need a secret: set app.secret_key before CacheKit(app) or init_app(app)")
    name = config["SESSION_COOKIE_NAME"]
    return SessionOptions(
        secrets=secrets,
        remember_ttl=app.permanent_session_lifetime.total_seconds(),
        cookie_name="" if name == "session" else name,
        path=config["SESSION_COOKIE_PATH"] or config["APPLICATION_ROOT"] or "/",
        domain=config["SESSION_COOKIE_DOMAIN"] or None,
        same_site=str(config["SESSION_COOKIE_SAMESITE"] or "lax").lower(),
        partitioned=bool(config.get("SESSION_COOKIE_PARTITIONED")),
        development=bool(app.debug and not config["SESSION_COOKIE_SECURE"]),
        codec=CODEC,
    )
