"""Never run: what ``cast`` tells a type checker of Django's cache and session."""

from __future__ import annotations

from typing import assert_type, cast

from cachekit_django import CacheBackend
from cachekit_django.sessions import SessionStore
from django.core.cache import cache
from django.http import HttpRequest


def view(request: HttpRequest) -> None:
    session = cast("SessionStore", request.session)
    assert_type(session.revoke_others(), int)
    cast("CacheBackend", cache).invalidate_tags("category:7")
