"""Values at rest that nobody else can read, or change: authenticated encryption, or signatures alone.

Owns keys and what they do to the bytes of a frame. Every protected value is bound to a context (the name it is kept
under), so that one cannot be put in another's place. Must not know frames, keys of a cache or stores.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, Protocol

from cachekit.clock import random_token
from cachekit.errors import AuthenticityError, ConfigError

KEY_SIZE: Final = 32
_ID: Final = 4
_NONCE: Final = 24
_TAG: Final = 16
_MAC: Final = 32


class Protection(Protocol):
    """Protects bytes, and gives them back if they are what was protected."""

    @property
    def flag(self) -> int:
        """Return the bit that says in the head of a frame how its body is protected."""
        ...

    def protect(self, body: bytes, context: bytes) -> bytes:
        """Return *body* protected and bound to *context*."""
        ...

    def reveal(self, data: bytes, context: bytes) -> bytes:
        """Return the body of *data*. Raises ``AuthenticityError`` unless a key of ours made it, for this *context*."""
        ...


def _key(given: Any, index: int) -> bytes:
    what = f"keys[{index}]"
    if isinstance(given, str):
        try:
            given = urlsafe_b64decode(given)
        except (binascii.Error, ValueError) as exc:
            raise ConfigError(f"{what} is no base64 text: make one with base64.urlsafe_b64encode") from exc
    if not isinstance(given, bytes) or len(given) != KEY_SIZE:
        raise ConfigError(
            f"{what} must be {KEY_SIZE} random bytes, or these as base64 text: make one with secrets.token_bytes({KEY_SIZE})"
        )
    return given


def _identity(key: bytes) -> bytes:
    return blake2b(key, digest_size=_ID, person=b"cachekit-key-id").digest()


class _Keys:
    """The keys by their identity; the first one is for new values."""

    def __init__(self, keys: Sequence[bytes | str]) -> None:
        if isinstance(keys, (str, bytes)) or not keys:
            raise ConfigError("keys must be a list of keys, the one for new values first: keys=[new, old]")
        checked = [_key(given, index) for index, given in enumerate(keys)]
        self._keys = {_identity(key): key for key in checked}
        if len(self._keys) != len(checked):
            raise ConfigError("keys holds one key twice")
        self.first = _identity(checked[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._keys)} keys)"  # never the keys

    def _find(self, data: bytes, least: int) -> bytes:
        if len(data) < least:
            raise AuthenticityError("the protected value is truncated")
        key = self._keys.get(data[:_ID])
        if key is None:
            raise AuthenticityError(
                f"the value was protected with key {data[:_ID].hex()}, which is not configured here"
            )
        return key


class Encryption(_Keys):
    """Encrypts values with AES-256-GCM, and refuses those that were changed or moved. Needs the extra ``encryption``.

    The nonces have 192 random bits (XAES-256-GCM, https://c2sp.org/XAES-256-GCM): with the 96 of plain GCM a busy cache
    would come too close to using one twice (NIST SP 800-38D section 8.3 allows 2^32 values for a key).

    Args:
        keys: keys of 32 random bytes, or these as URL-safe base64 text. The first encrypts, all decrypt: put a new key
            first and leave the old one behind it for as long as values live.

    Raises:
        ConfigError: a key cannot be used, or ``cryptography`` is not installed.

    Example:
        >>> import secrets
        >>> sealed = Encryption([secrets.token_bytes(32)])
        >>> data = sealed.protect(b"value", b"context")
        >>> sealed.reveal(data, b"context")
        b'value'
    """

    flag: int = 0x02

    def __init__(self, keys: Sequence[bytes | str]) -> None:
        super().__init__(keys)
        try:
            import cryptography  # noqa: F401
        except ImportError as exc:
            raise ConfigError("encryption needs the package cryptography: install the extra `encryption`") from exc
        self._derive = {identity: _derivation(key) for identity, key in self._keys.items()}

    def protect(self, body: bytes, context: bytes) -> bytes:
        nonce = random_token(_NONCE)
        sealed: bytes = self._derive[self.first](nonce[:12]).encrypt(nonce[12:], body, context)
        return self.first + nonce + sealed

    def reveal(self, data: bytes, context: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        self._find(data, _ID + _NONCE + _TAG)
        nonce = data[_ID : _ID + _NONCE]
        try:
            body: bytes = self._derive[data[:_ID]](nonce[:12]).decrypt(nonce[12:], data[_ID + _NONCE :], context)
        except InvalidTag as exc:
            raise AuthenticityError("the value was changed, or belongs under another key") from exc
        return body


def _derivation(key: bytes) -> Callable[[bytes], Any]:
    """Return what makes the AES-GCM key of a message from the first 12 bytes of its nonce (XAES-256-GCM).

    The key is derived with CMAC (NIST SP 800-108r1 in counter mode): two blocks of AES.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 - single blocks, as CMAC is defined
    number = int.from_bytes(cipher.encryptor().update(bytes(16)), "big") << 1
    if number >> 128:
        number ^= (1 << 128) | 0x87
    subkey = number.to_bytes(16, "big")

    def derive(half: bytes) -> Any:
        blocks = (bytes((0, count, 0x58, 0)) + half for count in (1, 2))
        masked = b"".join(bytes(a ^ b for a, b in zip(block, subkey, strict=True)) for block in blocks)
        return AESGCM(cipher.encryptor().update(masked))

    return derive


class Signing(_Keys):
    """Signs values with HMAC-SHA256 (RFC 2104), and refuses those that were changed or moved. They can be read by all.

    Args:
        keys: keys of 32 random bytes, or these as URL-safe base64 text. The first signs, all verify.

    Raises:
        ConfigError: a key cannot be used.
    """

    flag: int = 0x04

    def _mac(self, identity: bytes, body: bytes, context: bytes) -> bytes:
        size = len(context).to_bytes(4, "big")  # so that no byte can move from the context to the body
        return hmac.digest(self._keys[identity], b"".join((identity, size, context, body)), "sha256")

    def protect(self, body: bytes, context: bytes) -> bytes:
        return self.first + self._mac(self.first, body, context) + body

    def reveal(self, data: bytes, context: bytes) -> bytes:
        self._find(data, _ID + _MAC)
        body = data[_ID + _MAC :]
        if not hmac.compare_digest(self._mac(data[:_ID], body, context), data[_ID : _ID + _MAC]):
            raise AuthenticityError("the value was changed, or belongs under another key")
        return body
