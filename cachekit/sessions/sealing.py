"""Encryption at rest: the port, and AES-GCM from the package ``cryptography``.

What is sealed is bound to a *context* (the key it lies under), so that one session's bytes cannot be put in another's
place. Must not know what it seals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

from cachekit.clock import random_token
from cachekit.errors import CodecError, ConfigError

_NONCE: Final = 12
_MARK: Final = 4


class Sealer(Protocol):
    """Encrypts bytes and checks that nobody changed them."""

    def seal(self, data: bytes, context: bytes) -> bytes:
        """Return *data* encrypted, to be opened only with the same *context*."""
        ...

    def open(self, data: bytes, context: bytes) -> bytes:
        """Return what ``seal`` was given. Raises ``CodecError`` for anything else."""
        ...


class AesGcm:
    """AES-256-GCM (NIST SP 800-38D) with random nonces; needs the extra ``crypto``.

    Args:
        keys: one key of 32 bytes or several: the first encrypts, all decrypt.

    Raises:
        ConfigError: a key has another length, or the package ``cryptography`` is missing.

    Example:
        >>> sealer = AesGcm(bytes(32))
        >>> sealer.open(sealer.seal(b"secret", b"here"), b"here")
        b'secret'
    """

    __slots__ = ("_ciphers", "_mark")

    def __init__(self, keys: bytes | Sequence[bytes]) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as exc:
            raise ConfigError("AesGcm needs the extra `crypto` (the package cryptography), not installed") from exc
        given = (keys,) if isinstance(keys, bytes) else tuple(keys)
        if not given or any(len(key) != 32 for key in given):
            raise ConfigError("AesGcm takes keys of exactly 32 random bytes, the newest first")
        self._ciphers: dict[bytes, Any] = {_mark(key): AESGCM(key) for key in given}
        self._mark = _mark(given[0])

    def seal(self, data: bytes, context: bytes) -> bytes:
        """Return *data* encrypted with the newest key."""
        nonce = random_token(_NONCE)
        sealed: bytes = self._ciphers[self._mark].encrypt(nonce, data, context)
        return self._mark + nonce + sealed

    def open(self, data: bytes, context: bytes) -> bytes:
        """Return what was sealed. Raises ``CodecError``."""
        cipher = self._ciphers.get(data[:_MARK])
        if cipher is None:
            raise CodecError("sealed with a key that is not configured here, or not sealed at all")
        try:
            opened: bytes = cipher.decrypt(data[_MARK : _MARK + _NONCE], data[_MARK + _NONCE :], context)
        except Exception as exc:
            raise CodecError("the sealed bytes were changed, or moved here from elsewhere") from exc
        return opened


def _mark(key: bytes) -> bytes:
    return hashlib.sha256(b"cachekit" + key).digest()[:_MARK]
