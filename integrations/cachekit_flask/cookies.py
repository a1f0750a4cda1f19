"""The session's cookie as Flask's settings and the hooks of ``SessionInterface`` describe it.

Must not know how sessions are kept.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
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
        self._app = app

    def line(self, value: str, *, remembered: bool, left: float = FOREVER) -> str:  # noqa: ARG002 - Flask's lifetime holds
        session: Any = saving.get()
        if session is None:
            session = SimpleNamespace(permanent=remembered)
        return self._dumped(value, expires=self._interface.get_expiration_time(self._app, session))

    def removal(self) -> str:
        return self._dumped("", expires=0, max_age=0)

    def _dumped(self, value: str, **more: Any) -> str:
        interface, app = self._interface, self._app
        if (partitioned := getattr(interface, "get_cookie_partitioned", None)) is not None:  # since Flask 3.1
            more["partitioned"] = partitioned(app)
        return dump_cookie(
            self._name, value, path=interface.get_cookie_path(app), domain=interface.get_cookie_domain(app),
            secure=interface.get_cookie_secure(app), httponly=interface.get_cookie_httponly(app),
            samesite=interface.get_cookie_samesite(app), **more,
        )  # fmt: skip


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
