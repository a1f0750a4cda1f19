"""What is said to a client that is refused: a status, Retry-After, and a body in one of two forms. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from cachekit.errors import ConfigError

PROBLEM: Final = "problem"

Body: TypeAlias = str | Mapping[str, Any]
"""``"problem"`` for application/problem+json (RFC 9457), or an object to send as application/json as it is."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer that says no.

    Attributes:
        status: 502, 503 or 504.
        detail: words for the client's developer.
        retry_after: seconds after which a next try makes sense, or None.
    """

    status: int
    detail: str
    retry_after: int | None = None

    @property
    def phrase(self) -> str:
        """Return the phrase of the status."""
        return HTTPStatus(self.status).phrase

    def render(self, body: Body, method: str) -> tuple[list[tuple[str, str]], bytes]:
        """Return the fields and the body."""
        if isinstance(body, str):
            document: Mapping[str, Any] = {
                "type": "about:blank", "title": self.phrase, "status": self.status, "detail": self.detail
            }  # fmt: skip
            kind = "application/problem+json"
        else:
            document, kind = body, "application/json"
        content = json.dumps(document).encode()
        headers = [
            ("Content-Type", kind), ("Content-Length", str(len(content))), ("Cache-Control", "no-store")
        ]  # fmt: skip
        if self.retry_after is not None:
            headers.append(("Retry-After", str(self.retry_after)))
        return headers, b"" if method == "HEAD" else content


class Refused(Exception):
    """Raised to say no with *refusal*."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


def check_body(body: object) -> Body:
    """Return *body* as given. Raises ``ConfigError`` unless it can be sent."""
    if body == PROBLEM and isinstance(body, str):
        return body
    if isinstance(body, Mapping):
        try:
            json.dumps(dict(body))
        except (TypeError, ValueError) as exc:
            raise ConfigError(f"body={body!r} cannot be sent as JSON: {exc}") from exc
        return dict(body)
    raise ConfigError(f'body={body!r} must be "problem", or an object to send as JSON')
