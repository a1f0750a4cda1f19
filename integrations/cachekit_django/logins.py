"""All sessions of a user, and how many there are: ``from cachekit_django import logins``.

A *user* is an instance of the user model, or its primary key. All raise ``StoreError`` while the store is away.
"""

from __future__ import annotations

from typing import Any

from cachekit.sessions import SessionInfo
from cachekit_django.keeping import sessions


def of(user: Any) -> list[SessionInfo]:
    """Return the live sessions of *user*, the one used last first."""
    return sessions().of(name_of(user))


async def aof(user: Any) -> list[SessionInfo]:
    """Return the live sessions of *user*, the one used last first."""
    return await sessions().aof(name_of(user))


def revoke(user: Any, handle: str) -> bool:
    """End one session of *user*; False when they have none of that *handle*."""
    return sessions().revoke(name_of(user), handle)


async def arevoke(user: Any, handle: str) -> bool:
    """End one session of *user*; False when they have none of that *handle*."""
    return await sessions().arevoke(name_of(user), handle)


def revoke_all(user: Any) -> int:
    """End all sessions of *user*. Returns how many ended. For all but this one: ``request.session.revoke_others()``."""
    return sessions().revoke_all(name_of(user))


async def arevoke_all(user: Any) -> int:
    """End all sessions of *user*. Returns how many ended."""
    return await sessions().arevoke_all(name_of(user))


def count() -> int:
    """Return how many sessions live, of everybody."""
    return sessions().count()


async def acount() -> int:
    """Return how many sessions live, of everybody."""
    return await sessions().acount()


def end_all() -> int:
    """End the sessions of everybody. Returns how many ended."""
    return sessions().end_all()


async def aend_all() -> int:
    """End the sessions of everybody. Returns how many ended."""
    return await sessions().aend_all()


def name_of(user: Any) -> str:
    """Return under what the sessions of *user* are found: what Django keeps as ``_auth_user_id``."""
    meta = getattr(user, "_meta", None)
    return str(user) if meta is None else str(meta.pk.value_to_string(user))


def noted(*, request: Any = None, user: Any, **_: Any) -> None:
    """Note with whose session, and with what browser, somebody has logged in: the receiver of ``user_logged_in``."""
    from cachekit_django.sessions import SessionStore

    session = getattr(request, "session", None)
    session = getattr(session, "_wrapped", session)  # of Channels
    if isinstance(session, SessionStore):
        session.belong(name_of(user), request.META.get("HTTP_USER_AGENT", "") if hasattr(request, "META") else "")
