"""May the response of a view be kept: what it says of itself, and what the view did besides making it.

Must not know caches and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from flask import Response
from flask.globals import request_ctx

from cachekit_flask import users

_MAX_BODY: Final = 5 * 1024 * 1024


def refusal(
    response: Response,
    status: Collection[int],
    vary: Collection[str],
    response_filter: Callable[[Response], object] | None = None,
) -> str:
    """Return why *response* must not be kept, or nothing.

    Args:
        response: what the view made.
        status: the status codes that are kept.
        vary: the request fields that are part of the key, in lower case.
        response_filter: says which others are kept.
    """
    control = response.cache_control
    if response.status_code not in status:
        return f"status {response.status_code}"
    if "set-cookie" in response.headers:
        return "it sets a cookie"
    if control.private or control.no_store or control.no_cache:
        return "its Cache-Control"
    if not {one.lower() for one in response.vary} <= set(vary):
        return f"Vary: {response.vary}; name the fields in cached(vary=[...])"
    if response.direct_passthrough or not response.is_sequence:
        return "it is a stream or a file"
    if len(response.get_data()) > _MAX_BODY:
        return "its size"
    return "" if response_filter is None or response_filter(response) else "response_filter"


@dataclass(frozen=True, slots=True)
class Watch:
    """What a view does besides answering, which would be missing from an answer out of the cache."""

    session: Any
    accessed: bool
    after: int

    @classmethod
    def begin(cls) -> Watch:
        """Begin to watch this request."""
        session = _session()
        accessed = bool(getattr(session, "accessed", False))
        if session is not None:
            session.accessed = False
        return cls(session, accessed, _to_run_after())

    def end(self, *, shared: bool) -> str:
        """Say what the view did, or nothing. A stranger's session is empty, so that a look into it tells nothing."""
        session = self.session
        looked = bool(getattr(session, "accessed", False))
        if session is not None:
            session.accessed = looked or self.accessed
        if getattr(session, "modified", False):
            return "it changes the session"
        if not shared and users.is_known():
            return "Flask-Login knows who is asking"
        if shared and (looked or getattr(request_ctx, "flashes", None) is not None):
            return "it looks into the session, so it is not the same for everyone"
        return "it uses after_this_request" if _to_run_after() > self.after else ""


def _session() -> Any:
    """Return the session of the request without counting as access to it, or None."""
    found = getattr(request_ctx, "_session", None)
    return found if found is not None else vars(request_ctx).get("session")


def _to_run_after() -> int:
    return len(getattr(request_ctx, "_after_request_functions", ()))
