"""Whether a delivery is what its sender signed: HMAC-SHA256 over the raw body, and how senders write it down.

Pure: time comes in as ``now``. Must not know what a delivery says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cachekit.errors import ConfigError, SignatureError
from cachekit.policy import Duration, positive_seconds

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_FIELD: Final = re.compile(r"\{(\w+)\}")
_FIELDS: Final = frozenset({"id", "timestamp", "body"})
_MAX_SIGNATURES: Final = 16
_SHORTEST: Final = 8


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a sender signs.

    Attributes:
        signature_header: the field that carries the signature, or several, separated by spaces or commas.
        timestamp_header: the field that carries the time of signing in seconds; None when there is none, or when it is
            part of the signature field as ``t=``.
        id_header: the field that names a delivery; None when there is none.
        signed: what the signature covers, made of ``{id}``, ``{timestamp}`` and ``{body}``.
        prefix: what stands before the signature, such as ``sha256=``.
        encoding: ``hex`` or ``base64``.

    Raises:
        ConfigError: a value is wrong; the message names it.
    """

    signature_header: str = "X-Webhook-Signature"
    timestamp_header: str | None = "X-Webhook-Timestamp"
    id_header: str | None = "X-Webhook-Id"
    signed: str = "{timestamp}.{body}"
    prefix: str = "sha256="
    encoding: str = "hex"

    def __post_init__(self) -> None:
        for name in ("signature_header", "timestamp_header", "id_header"):
            value = getattr(self, name)
            if value is None and name != "signature_header":
                continue
            if not isinstance(value, str) or not _NAME.match(value):
                raise ConfigError(f"{name}={value!r} must be the name of a header")
        found = _FIELD.findall(str(self.signed))
        if not set(found) <= _FIELDS or found.count("body") != 1 or not self.signed.endswith("{body}"):
            raise ConfigError(f"signed={self.signed!r} must be made of {{id}} and {{timestamp}} and end in {{body}}")
        if "id" in found and self.id_header is None:
            raise ConfigError("signed names {id}, and there is no id_header")
        if self.encoding not in ("hex", "base64"):
            raise ConfigError(f"encoding={self.encoding!r} must be hex or base64")

    @property
    def is_timed(self) -> bool:
        """Say whether the signature covers a time, so that an old delivery can be told."""
        return "{timestamp}" in self.signed

    def content(self, delivery_id: str, timestamp: str, body: bytes) -> bytes:
        """Return the bytes that are signed."""
        head = self.signed.removesuffix("{body}").replace("{timestamp}", timestamp).replace("{id}", delivery_id)
        return head.encode("latin-1", "replace") + body


DEFAULT: Final = Scheme()
GITHUB: Final = Scheme("X-Hub-Signature-256", None, "X-GitHub-Delivery", "{body}")
"""docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries: no time is signed, so nothing is ever old."""
STRIPE: Final = Scheme("Stripe-Signature", None, None, "{timestamp}.{body}", "v1=")
"""docs.stripe.com/webhooks/signature: ``t=1492774577,v1=...`` in one field."""
STANDARD: Final = Scheme(
    "webhook-signature", "webhook-timestamp", "webhook-id", "{id}.{timestamp}.{body}", "v1,", "base64"
)
"""standardwebhooks.com: the id is signed too; secrets are base64 after ``whsec_``."""
SCHEMES: Final = {"default": DEFAULT, "github": GITHUB, "stripe": STRIPE, "standard": STANDARD}


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery whose signature is right.

    Attributes:
        id: what names it: the sender's id, else a digest of what was signed.
        signature: a digest that no other signed content has.
        body: the raw body.
    """

    id: str
    signature: str
    body: bytes = field(repr=False)


class Verifier:
    """Checks signatures.

    Args:
        secrets: one or, while they are rotated, several; each is tried.
        scheme: how the sender signs, or the name of one: ``default``, ``github``, ``stripe``, ``standard``.
        tolerance: seconds by which a signed time may differ from now, in either direction.

    Raises:
        ConfigError: there is no secret, one is short, or another argument cannot be used.
    """

    __slots__ = ("_keys", "scheme", "tolerance")

    def __init__(
        self,
        secrets: str | bytes | Sequence[str | bytes],
        *,
        scheme: Scheme | str = DEFAULT,
        tolerance: Duration = "5m",
    ) -> None:
        if isinstance(scheme, str) and scheme not in SCHEMES:
            raise ConfigError(f"scheme={scheme!r} must be one of {', '.join(SCHEMES)}, or a Scheme")
        self.scheme = SCHEMES[scheme] if isinstance(scheme, str) else scheme
        self.tolerance = positive_seconds(tolerance, "tolerance")
        given = [secrets] if isinstance(secrets, (str, bytes)) else list(secrets)
        self._keys = tuple(_key(secret) for secret in given)
        if not self._keys:
            raise ConfigError("secrets must have at least one secret")

    def __repr__(self) -> str:
        return f"Verifier({len(self._keys)} secrets, scheme={self.scheme!r})"

    def verify(self, headers: Sequence[tuple[str, str]], body: bytes, now: float) -> Delivery:
        """Return the delivery. Raises ``SignatureError`` when a field is missing, the signature is wrong or it is old."""
        scheme = self.scheme
        line = _field(headers, scheme.signature_header, "signature")
        timestamp = ""
        if scheme.is_timed:
            timestamp = (
                _within(line, "t")
                if scheme.timestamp_header is None
                else _field(headers, scheme.timestamp_header, "timestamp")
            )
        delivery_id = ""
        if scheme.id_header is not None:
            delivery_id = _field(headers, scheme.id_header, "delivery id", optional="{id}" not in scheme.signed)
        content = scheme.content(delivery_id, timestamp, body)
        given = self._signatures(line)
        right = False
        for key in self._keys:
            expected = hmac.new(key, content, hashlib.sha256).digest()
            for signature in given:
                right |= hmac.compare_digest(expected, signature)  # every pair, so that time tells nothing
        if not right:
            raise SignatureError("the signature is wrong")
        if scheme.is_timed:  # afterwards: an unsigned time says nothing
            self._check_age(timestamp, now)
        digest = hashlib.sha256(content).hexdigest()
        return Delivery(delivery_id or digest, digest, body)

    def _signatures(self, line: str) -> list[bytes]:
        scheme = self.scheme
        parts = re.split(r"\s+" if "," in scheme.prefix else r"[\s,]+", line.strip())[:_MAX_SIGNATURES]
        found: list[bytes] = []
        for part in parts:
            if part.startswith(scheme.prefix):
                text = part[len(scheme.prefix) :]
                try:
                    found.append(
                        bytes.fromhex(text) if scheme.encoding == "hex" else base64.b64decode(text, validate=True)
                    )
                except (ValueError, binascii.Error):
                    continue
        if not found:
            raise SignatureError(f"{scheme.signature_header} has no signature of the form {scheme.prefix}...")
        return found

    def _check_age(self, timestamp: str, now: float) -> None:
        if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
            raise SignatureError("the timestamp is no whole number of seconds")
        age = now - int(timestamp)
        if abs(age) > self.tolerance:
            when = "old" if age > 0 else "ahead of time"
            raise SignatureError(f"the delivery is {abs(age):.0f} s {when}; the tolerance is {self.tolerance:.0f} s")


def sign(
    secret: str | bytes, body: bytes, *, delivery_id: str = "", now: float, scheme: Scheme = DEFAULT
) -> list[tuple[str, str]]:
    """Return the fields that a sender adds: for senders written in Python, and for tests.

    Example:
        >>> fields = sign("a long secret", b"{}", delivery_id="d1", now=1_700_000_000)
        >>> Verifier("a long secret").verify(fields, b"{}", 1_700_000_060).id
        'd1'
    """
    timestamp = str(math.floor(now)) if scheme.is_timed else ""
    mac = hmac.new(_key(secret), scheme.content(delivery_id, timestamp, body), hashlib.sha256)
    text = mac.hexdigest() if scheme.encoding == "hex" else base64.b64encode(mac.digest()).decode()
    line = scheme.prefix + text
    fields: list[tuple[str, str]] = []
    if timestamp and scheme.timestamp_header is None:
        line = f"t={timestamp},{line}"
    elif timestamp and scheme.timestamp_header is not None:
        fields.append((scheme.timestamp_header, timestamp))
    if delivery_id and scheme.id_header is not None:
        fields.append((scheme.id_header, delivery_id))
    return [(scheme.signature_header, line), *fields]


def _key(secret: object) -> bytes:
    if isinstance(secret, str):
        if secret.startswith("whsec_"):
            try:
                return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
            except binascii.Error:
                raise ConfigError("a secret that begins with whsec_ must be base64") from None
        secret = secret.encode()
    if not isinstance(secret, bytes) or len(secret) < _SHORTEST:
        raise ConfigError(f"a webhook secret must be a string of at least {_SHORTEST} bytes")
    return secret


def _field(headers: Sequence[tuple[str, str]], name: str, what: str, *, optional: bool = False) -> str:
    found = [value for field_name, value in headers if field_name.lower() == name.lower()]
    if len(found) > 1:
        raise SignatureError(f"the {what} is given twice ({name})")
    if not found or not found[0].strip():
        if optional:
            return ""
        raise SignatureError(f"the {what} is missing ({name})")
    value = found[0].strip()
    if len(value) > 2048 or not value.isascii() or not value.isprintable():
        raise SignatureError(f"the {what} cannot be read ({name})")
    return value


def _within(line: str, name: str) -> str:
    for part in line.split(","):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    raise SignatureError(f"the timestamp is missing ({name}=)")


__all__ = ["DEFAULT", "GITHUB", "SCHEMES", "STANDARD", "STRIPE", "Delivery", "Scheme", "Verifier", "sign"]
