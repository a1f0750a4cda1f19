"""The session's cookie as Flask's settings and the hooks of ``SessionInterface`` describe it.

Must not know how sessions are kept.
"""

from __future__ import annotations

import hashlib
import weakref
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup
from werkzeug.http import dump_cookie

from cachekit import ConfigError
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.policy import FOREVER
from cachekit.sessions import SessionOptions
from cachekit.sessions.cookie import Cookies

if TYPE_CHECKING:
    from flask import Flask
    from flask.sessions import SessionInterface

saving: Final[ContextVar[Any]] = ContextVar("cachekit_flask_saving", default=None)
"""The session whose cookie is about to be written, for ``get_expiration_time``."""

CODEC: Final = MsgpackCodec()
CODEC.adapt(Markup, "markupsafe.Markup", take=lambda text: [str.__str__(text)], build=lambda made: Markup(made[0]))  # noqa: S704


_LONGEST: Final = 4093
"""Characters of a line that every browser takes, as Werkzeug says."""


@lru_cache(maxsize=64)
def _attributes(name: str, **said: Any) -> str:
    """Return what follows the value in the line of a cookie; the values of ours need no quotes."""
    return dump_cookie(name, "", **said).partition("=")[2]


class FlaskCookies(Cookies):
    """Writes the cookie with Flask's names. What decides is asked when it is written.

    Args:
        options: the name and the secrets.
        interface: has the hooks.
        app: has the settings.
    """

    def __init__(self, options: SessionOptions, interface: SessionInterface, app: Flask) -> None:
        super().__init__(options)
        self._interface = interface
        self._of = weakref.ref(app)  # the sessions of an application do not keep it alive

    def line(self, value: str, *, remembered: bool, left: float = FOREVER) -> str:  # noqa: ARG002 - Flask's lifetime holds
        session: Any = saving.get()
        if session is None:
            session = SimpleNamespace(permanent=remembered)
        expires = self._interface.get_expiration_time(self._app, session)
        if isinstance(expires, datetime):
            expires = expires.replace(microsecond=0)  # as it is written
        return self._dumped(value, expires=expires)

    def removal(self) -> str:
        return self._dumped("", expires=0, max_age=0)

    @property
    def _app(self) -> Flask:
        app = self._of()
        assert app is not None  # it is the one who asks
        return app

    def _dumped(self, value: str, **more: Any) -> str:
        interface, app = self._interface, self._app
        if (partitioned := getattr(interface, "get_cookie_partitioned", None)) is not None:  # since Flask 3.1
            more["partitioned"] = partitioned(app)
        more.update(
            path=interface.get_cookie_path(app), domain=interface.get_cookie_domain(app),
            secure=interface.get_cookie_secure(app), httponly=interface.get_cookie_httponly(app),
            samesite=interface.get_cookie_samesite(app),
        )  # fmt: skip
        line = f"{self._name}={value}{_attributes(self._name, **more)}"
        return line if len(line) <= _LONGEST else dump_cookie(self._name, value, **more)  # which warns of it


def secrets_of(app: Flask) -> list[str]:
    """Return the secrets of *app*, the newest first, each of one length; none where it has no secret key.

    Flask takes secrets of any length and kind, and signs other cookies with the same one.
    """
    given = (app.config["SECRET_KEY"], *(app.config.get("SECRET_KEY_FALLBACKS") or ()))
    if not given[0]:
        return []
    return [hashlib.sha256(b"cachekit.flask" + _bytes(secret)).hexdigest() for secret in given if secret]


def _bytes(secret: Any) -> bytes:
    if not isinstance(secret, str | bytes):
        raise ConfigError(f"SECRET_KEY and SECRET_KEY_FALLBACKS must hold text or bytes, not {type(secret).__name__}")
    return secret.encode() if isinstance(secret, str) else secret
