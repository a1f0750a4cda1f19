"""The session's cookie: what is signed into it, how it is read, and the line that sets it.

Owns its format. Reading is total: whatever a client sends gives a ticket or nothing. Must not know stores or values.

The signed text is ``<id>.<letter><seconds>`` and, with claims, ``.<claims>``. The letter says whether the session outlives
the browser, and whether it began while the store was away; the seconds say when the cookie was issued.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from itsdangerous import BadSignature, Signer
from msgpack import packb, unpackb

from cachekit.clock import random_token
from cachekit.errors import SessionTooLarge
from cachekit.policy import FOREVER, seconds
from cachekit.sessions.options import SessionOptions
from cachekit.sessions.store import Key, is_id

LONGEST: Final = 4096
"""Bytes of a cookie with its name that browsers keep (RFC 6265 section 6.1)."""

_FLAGS: Final = {"n": (False, False), "r": (True, False), "d": (False, True), "e": (True, True)}
_LETTERS: Final = {flags: letter for letter, flags in _FLAGS.items()}
_CANDIDATES: Final = 8
_VERIFIED: Final = 2048
_SHORT: Final = 1024
"""Characters of a field that is remembered as a whole."""
_MASK: Final = 32
_GONE: Final = "Thu, 01 Jan 1970 00:00:00 GMT"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a valid cookie says.

    Attributes:
        id: the id of the session.
        issued: when the cookie was made.
        remembered: whether the session outlives the browser.
        detached: whether it began while the store was away.
        claims: encoded values that are known without the store.
        user: the user that the session was bound to, where claims say it.
        text: the cookie as it was sent, where the newest secret signed it.
        key: under what the session is kept.
    """

    id: str
    issued: float
    remembered: bool = False
    detached: bool = False
    claims: Mapping[str, bytes] = field(default_factory=dict)
    user: str = ""
    text: str = ""
    key: Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", Key.of(self.id))  # once for all the requests with this cookie

    def tells(self, session_id: str, remembered: bool, detached: bool, claims: Mapping[str, bytes], user: str) -> bool:
        """Say whether the cookie, as it was sent, says all this."""
        said = (self.id, self.remembered, self.detached, self.claims, self.user)
        return self.text != "" and said == (session_id, remembered, detached, claims, user)


class _Signer(Signer):
    """A signer that derives each key once."""

    def __init__(self, secrets: Iterable[str], salt: str) -> None:
        super().__init__(list(secrets), salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)
        self._derived: dict[bytes | str | None, bytes] = {}

    def derive_key(self, secret_key: str | bytes | None = None) -> bytes:
        key = self._derived.get(secret_key)
        if key is None:
            key = self._derived[secret_key] = super().derive_key(secret_key)
        return key


class Cookies:
    """Reads and writes the cookie of sessions.

    Args:
        options: its name, its attributes and the secrets.
    """

    def __init__(self, options: SessionOptions) -> None:
        self._name = options.cookie
        oldest_first = options.keys[::-1]
        self._signer = _Signer(oldest_first, "cachekit.session")
        self._verified: dict[str, Ticket] = {}  # the same text always is the same ticket
        self._lines: dict[str, Ticket] = {}  # and so is the same field
        self._csrf = [_derived(secret) for secret in options.keys]
        self._remember = seconds(options.remember_ttl)
        self._claims_ttl = seconds(options.claims_ttl)
        self._attributes = _attributes(options)

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, lines: Iterable[str]) -> Ticket | None:
        """Return what the Cookie fields *lines* of a request say, or None for no valid cookie of ours.

        A cookie of the same name that somebody else planted does not hide the valid one.
        """
        tried = 0
        for line in lines:
            if (ticket := self._lines.get(line)) is not None:
                return ticket
            if self._name not in line:
                continue
            for part in line.split(";"):
                name, found, value = part.partition("=")
                if found and name.strip(" \t") == self._name and tried < _CANDIDATES:
                    tried += 1
                    if (ticket := self._opened(value.strip(" \t"))) is not None:
                        if len(line) <= _SHORT:
                            _put(self._lines, line, ticket)
                        return ticket
        return None

    def _opened(self, text: str) -> Ticket | None:
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1]
        if not 64 <= len(text) <= LONGEST or not text.isascii():
            return None
        if (ticket := self._verified.get(text)) is not None:
            return ticket
        ticket = self._checked(text)
        if ticket is not None:
            _put(self._verified, text, ticket)
        return ticket

    def _checked(self, text: str) -> Ticket | None:
        try:
            parts = self._signer.unsign(text).decode("ascii").split(".")
            flags, issued = parts[1][0], float(int(parts[1][1:]))
            if len(parts) > 3 or not is_id(parts[0]) or flags not in _FLAGS:
                return None
            user, claims = _claims(parts[2]) if len(parts) == 3 else ("", {})
        except (BadSignature, ValueError, IndexError):
            return None
        except Exception:  # noqa: BLE001 - reading is total: whatever a client sends is no error
            return None
        newest = self._signer.sign(text.rpartition(".")[0]) == text.encode()  # no secret: others have verified it
        return Ticket(parts[0], issued, *_FLAGS[flags], claims, user, text if newest else "")

    # -- writing --------------------------------------------------------------------------------------------------

    def issue(self, ticket: Ticket, now: float) -> str:
        """Return the signed value for *ticket*, issued *now*. Raises ``SessionTooLarge`` for too many claims."""
        text = f"{ticket.id}.{_LETTERS[ticket.remembered, ticket.detached]}{max(0, int(now))}"
        if ticket.claims or ticket.user:
            packed = cast("bytes", packb([ticket.user, dict(ticket.claims)]))
            text += "." + base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
        signed = self._signer.sign(text).decode()
        if (size := len(self._name) + len(signed) + 1) > LONGEST:
            raise SessionTooLarge(
                f"the claims make the cookie {size} bytes long, and browsers keep {LONGEST}: claim less",
                size=size, limit=LONGEST,
            )  # fmt: skip
        return signed

    def line(self, value: str, *, remembered: bool, left: float = FOREVER) -> str:
        """Return the Set-Cookie line of *value*; one that is remembered lasts at most *left* seconds."""
        age = f"; Max-Age={int(min(self._remember, left))}" if remembered else ""
        return f"{self._name}={value}{self._attributes}{age}"

    def removal(self) -> str:
        """Return the Set-Cookie line that removes the cookie."""
        return f"{self._name}=null{self._attributes}; Max-Age=0; Expires={_GONE}"

    def is_due(self, ticket: Ticket, now: float, *, claimed: bool) -> bool:
        """Say whether a cookie has to be issued again, because it, or its claims, would end before the session."""
        age = now - ticket.issued
        return (ticket.remembered and age > self._remember / 10) or (claimed and age > self._claims_ttl / 2)

    def believes(self, ticket: Ticket, now: float) -> bool:
        """Say whether the claims of *ticket* still hold without the store."""
        return now - ticket.issued < self._claims_ttl

    # -- forgery protection ---------------------------------------------------------------------------------------

    def csrf(self, session_id: str) -> str:
        """Return a token that only pages of this session can know, another text each time (against BREACH)."""
        mask = random_token(_MASK)
        return _text(mask + _xor(mask, _mac(self._csrf[0], session_id)))

    def is_csrf(self, session_id: str, token: str) -> bool:
        """Say whether *token* was made by ``csrf`` for this session."""
        try:
            data = base64.urlsafe_b64decode(token.encode("ascii") + b"==")
        except (ValueError, AttributeError):
            return False
        if len(data) != 2 * _MASK:
            return False
        said = _xor(data[:_MASK], data[_MASK:])
        return any(hmac.compare_digest(said, _mac(key, session_id)) for key in self._csrf)


def _put(known: dict[str, Ticket], text: str, ticket: Ticket) -> None:
    if len(known) >= _VERIFIED:
        known.clear()
    known[text] = ticket


def _claims(text: str) -> tuple[str, dict[str, bytes]]:
    user, claims = unpackb(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    if type(user) is not str or type(claims) is not dict:
        raise ValueError("no claims")
    return user, {key: value for key, value in claims.items() if type(key) is str and type(value) is bytes}


def _attributes(options: SessionOptions) -> str:
    parts: list[Any] = [
        f"; Path={options.path}",
        f"; Domain={options.domain}" if options.domain is not None else "",
        "; HttpOnly",
        "" if options.development else "; Secure",
        f"; SameSite={options.same_site.capitalize()}",
        "; Partitioned" if options.partitioned else "",
    ]
    return "".join(parts)


def _derived(secret: str) -> bytes:
    return hmac.new(secret.encode(), b"cachekit.csrf", hashlib.sha256).digest()


def _mac(key: bytes, session_id: str) -> bytes:
    return hmac.new(key, session_id.encode(), hashlib.sha256).digest()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
