"""Server-side sessions for ASGI and WSGI: a signed cookie outside, one string in the store inside.

Knows nothing of what an application keeps in them.
"""

from cachekit.sessions.facade import SessionInfo, Sessions, SessionStats
from cachekit.sessions.options import AtReturn, Load, SessionOptions
from cachekit.sessions.session import Session

__all__ = [
    "AtReturn",
    "Load",
    "Session",
    "SessionInfo",
    "SessionOptions",
    "SessionStats",
    "Sessions",
]
