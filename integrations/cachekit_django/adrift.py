"""Requests that come with a key which another request has just changed, as after a login whose answer did not arrive.

Owns what Django is told of such a session, so that its page works and its browser is told nothing of keys: that may hold the
new one by now. Must not know how sessions are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.middleware.csrf import CSRF_SECRET_LENGTH, CSRF_SESSION_KEY
from django.utils.crypto import salted_hmac

_SALT = "cachekit_django.adrift"


class Answer:
    """What ``is_empty`` answers of a session that is adrift. Django's middleware asks it for two things, one by one.

    First whether the cookie is to go: no, it may be a newer one. Then, where the session would be saved and its key sent,
    whether there is nothing to save: yes, what was changed is dropped.

    Args:
        drop: drops what was changed.
    """

    __slots__ = ("_drop", "_stays")

    def __init__(self, drop: Callable[[], None]) -> None:
        self._drop = drop
        self._stays = False

    def __bool__(self) -> bool:
        if self._stays:
            self._drop()
            return True
        self._stays = True
        return False


def left(key: str) -> Mapping[str, Any]:
    """Return what a session that is adrift holds under CSRF_USE_SESSIONS: the secret of its forms.

    Nothing can be kept until the form comes back, so the secret follows from *key*, which comes with it. It is good for
    requests with this key alone, and for as long as the store remembers that it was changed.
    """
    return {CSRF_SESSION_KEY: salted_hmac(_SALT, key, algorithm="sha256").hexdigest()[:CSRF_SECRET_LENGTH]}
