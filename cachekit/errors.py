"""What can go wrong, as one tree: branches by who must act.

Owns every exception that cachekit raises. A loader's own exceptions are never wrapped in one of these.
"""

from __future__ import annotations


class CacheKitError(Exception):
    """Root of every error that cachekit raises."""


class ConfigError(CacheKitError, ValueError):
    """A setting, a template or an argument is wrong: the developer must change the code or the configuration."""


class KeyArgumentError(ConfigError, TypeError):
    """An argument of a cached function cannot be part of a key.

    Attributes:
        argument: name of the parameter.
        path: where in its value the unusable part is, such as ``[0].owner``; empty for the value itself.
    """

    def __init__(self, message: str, *, argument: str, path: str = "") -> None:
        super().__init__(message)
        self.argument = argument
        self.path = path


class StoreError(CacheKitError):
    """A store could not do what it was asked: an operator must look at the server."""


class StoreUnavailable(StoreError):
    """The server cannot be reached, refuses the connection, or its breaker is open.

    Attributes:
        retry_after: seconds until a next try makes sense, or None when unknown.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreTimeout(StoreError):
    """The server did not answer within the configured time-out."""


class LoadTimeout(CacheKitError, TimeoutError):
    """A loader took longer than the hard time-out; it goes on behind, and its result is kept.

    Attributes:
        key: the key that is being loaded.
        seconds: the time-out.
    """

    def __init__(self, message: str, *, key: str, seconds: float) -> None:
        super().__init__(message)
        self.key = key
        self.seconds = seconds


class AppTimeout(CacheKitError, TimeoutError):
    """An application fell silent in the middle of its response, which is cut: an operator should look at it."""


class PurgeError(CacheKitError):
    """A CDN gave no answer, or none that can be used. The purge stays in the outbox; an operator should look."""


class SignatureError(CacheKitError):
    """A webhook delivery is not what its sender signed, or is too old: it is refused and changes nothing."""


class CodecError(CacheKitError):
    """A value cannot be encoded, or bytes cannot be decoded.

    Attributes:
        path: where in the value the problem is, such as ``[3]['owner']``; empty for the value itself.
        type_name: the type that cannot be encoded, or empty.
    """

    def __init__(self, message: str, *, path: str = "", type_name: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.type_name = type_name


class FrameError(CodecError):
    """Bytes read from a store are truncated, corrupt, foreign, or written by a newer version."""


class SessionError(CacheKitError):
    """A session was used in a way that cannot be carried out: the developer must change the code."""


class SessionTooLarge(SessionError):
    """A session, or what of it rides in the cookie, is larger than its bound; nothing of the change is kept.

    Attributes:
        size: the size in bytes.
        limit: the bound.
    """

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class AuthenticityError(FrameError):
    """Bytes read from a store were changed, belong somewhere else, or were not made with one of the configured keys."""
