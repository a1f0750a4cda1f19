"""What is done with a delivery: checked, mapped, dropped, remembered, answered. Written once for both edges.

Owns the status codes and the order of things. Nothing is remembered as done before it would survive this process, so that a
sender who hears anything but 200 sends again, and nothing is lost. Must not know ASGI or WSGI.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cachekit._io import IO
from cachekit.clock import Clock
from cachekit.entry import Entry
from cachekit.errors import ConfigError, SignatureError
from cachekit.policy import Duration, positive_seconds
from cachekit.webhook.mapping import BadObject, Events, UnknownEvent, catalogue
from cachekit.webhook.signature import DEFAULT, Delivery, Scheme, Verifier

log = logging.getLogger("cachekit")

_RETRY_AFTER: Final = 5


class CachePort(Protocol):
    """What a webhook needs of a cache; ``cachekit.Cache`` has it."""

    @property
    def clock(self) -> Clock:
        """Return the clock of the cache."""
        ...

    async def read(self, io: IO, key: str) -> Entry[Any] | None:
        """Return the valid entry of *key*; None also when the store is away."""
        ...

    async def keep(self, io: IO, key: str, value: Any, ttl: Duration) -> None:
        """Keep *value*, as far as the store is there."""
        ...

    async def drop_tags(self, io: IO, tags: Iterable[str]) -> bool:
        """Invalidate *tags*. Returns False when that would be lost if this process ended now."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]


class Webhook:
    """Receives signed deliveries and invalidates what they say.

    Args:
        secrets: one or, while they are rotated, several.
        events: the table of events; that of a catalogue when left out.
        path: where ``CacheKit(app, webhook=...)`` answers.
        scheme: how the sender signs: ``default``, ``github``, ``stripe``, ``standard``, or a ``Scheme``.
        tolerance: by how much a signed time may differ from now.
        max_body: the largest body in bytes.
        remember: how long a delivery is known, so that a repeated one is not carried out again.
        name: sets the deliveries of one sender apart from those of another.

    Raises:
        ConfigError: an argument cannot be used.
    """

    def __init__(
        self,
        secrets: str | bytes | Sequence[str | bytes],
        events: Events | None = None,
        *,
        path: str = "/-/webhook",
        scheme: Scheme | str = DEFAULT,
        tolerance: Duration = "5m",
        max_body: int = 256 * 1024,
        remember: Duration = "1d",
        name: str = "default",
    ) -> None:
        self.verifier = Verifier(secrets, scheme=scheme, tolerance=tolerance)
        self.events = catalogue() if events is None else events
        if not isinstance(self.events, Events):
            raise ConfigError(f"events={events!r} must be Events({{...}})")
        if not str(path).startswith("/") or not path.isprintable():
            raise ConfigError(f"path={path!r} must begin with /")
        if type(max_body) is not int or max_body < 1:
            raise ConfigError(f"max_body={max_body!r} must be a positive number of bytes")
        self.path = path
        self.max_body = max_body
        self.remember = positive_seconds(remember, "remember")
        if self.remember < 2 * self.verifier.tolerance:
            raise ConfigError(
                "remember must be at least twice the tolerance: older deliveries are refused by their time"
            )
        self.name = name

    def refusal(self, method: str, length: str | None) -> Answer | None:
        """Return the answer to a request whose body need not be read, or None."""
        if method != "POST":
            return _answer(405, {"error": "only POST is answered here"}, ("Allow", "POST"))
        if length is not None and not (length.isascii() and length.isdecimal()):
            return _answer(400, {"error": "Content-Length is no number"})
        return self.too_large() if length is not None and int(length[:18]) > self.max_body else None

    def too_large(self) -> Answer:
        """Return the answer to a body over the bound."""
        return _answer(413, {"error": f"the body is over {self.max_body} bytes"})

    def truncated(self) -> Answer:
        """Return the answer to a body that is shorter than announced."""
        return _answer(400, {"error": "the body is shorter than its Content-Length"})

    async def receive(self, io: IO, cache: CachePort, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """Carry out a delivery and return the answer. Never raises."""
        try:
            return await self._receive(io, cache, headers, body)
        except SignatureError as exc:
            log.warning("webhook %s: refused a delivery: %s", self.name, exc)
            return _answer(401, {"error": str(exc)})
        except Exception:
            log.exception("webhook %s: a delivery could not be carried out", self.name)
            return _answer(500, {"error": "internal error; send it again"}, ("Retry-After", str(_RETRY_AFTER)))

    async def _receive(self, io: IO, cache: CachePort, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        delivery = self.verifier.verify(headers, body, cache.clock())
        if (known := await self._known(io, cache, delivery)) is not None:
            return _answer(200, {**known, "repeated": True})
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return _answer(400, {"error": "the body is not JSON"})
        if not isinstance(document, dict):
            return _answer(422, {"error": "the body must be a JSON object"})
        try:
            name = self.events.name_of(document)
            tags = self.events.tags(document)
        except (UnknownEvent, BadObject) as exc:
            return _answer(422, {"error": str(exc)})
        result = {"id": delivery.id, "event": name, "invalidated": list(tags)}
        if tags and not await cache.drop_tags(io, tags):
            # It is carried out as soon as the store is back, unless this process ends before: the sender is to repeat it.
            return _answer(
                503, {**result, "error": "the store is away; send it again"}, ("Retry-After", str(_RETRY_AFTER))
            )
        await self._remember(io, cache, delivery, result)
        return _answer(200, {**result, "repeated": False})

    async def _known(self, io: IO, cache: CachePort, delivery: Delivery) -> dict[str, Any] | None:
        """Return what was answered to this delivery before. Raises ``SignatureError`` for a replay in its name."""
        entry = await cache.read(io, self._key("id", delivery.id))
        value = None if entry is None or cache.clock() >= entry.fresh_until else entry.value
        if isinstance(value, dict):
            if value.get("body") != hashlib.sha256(delivery.body).hexdigest():
                raise SignatureError("the delivery id was used for another body")
            return dict(value["result"])
        if self.verifier.scheme.is_timed and await cache.read(io, self._key("sig", delivery.signature)) is not None:
            raise SignatureError("the delivery was replayed under another id")
        return None

    async def _remember(self, io: IO, cache: CachePort, delivery: Delivery, result: dict[str, Any]) -> None:
        value = {"body": hashlib.sha256(delivery.body).hexdigest(), "result": result}
        await cache.keep(io, self._key("id", delivery.id), value, self.remember)
        if self.verifier.scheme.is_timed:
            await cache.keep(io, self._key("sig", delivery.signature), True, 2 * self.verifier.tolerance)

    def _key(self, kind: str, value: str) -> str:
        return f"webhook:{self.name}:{kind}:{value}"


def _answer(status: int, document: dict[str, Any], *headers: tuple[str, str]) -> Answer:
    body = json.dumps(document).encode()
    fixed = (
        ("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")
    )  # fmt: skip
    return Answer(status, body, (*fixed, *headers))
