"""Cloudflare: ``POST /zones/{zone}/purge_cache`` by tag, by URL, or of everything.

Sources, read in 2026: developers.cloudflare.com/api/resources/cache/methods/purge (bodies and answers) and
developers.cloudflare.com/cache/how-to/purge-cache (every plan may purge by tag; at most 100 operations a request, 500 URLs
for Enterprise; token buckets of 5 requests a minute and 25 at once for Free, 5 a second and 25 for Pro, 10 and 50 for
Business, 50 and 500 for Enterprise). A success says that the request was taken, not that anything was cached.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cachekit.cdn.base import (
    DONE,
    HttpCall,
    Outcome,
    Rate,
    Reply,
    Scope,
    Verdict,
    check_base,
    check_name,
    check_secret,
    in_batches,
    judge,
    targets,
)
from cachekit.errors import ConfigError
from cachekit.keys import wire_tag

PLANS: Final[Mapping[str, tuple[Rate, int]]] = {
    "free": (Rate(5 / 60, 25), 100),
    "pro": (Rate(5, 25), 100),
    "business": (Rate(10, 50), 100),
    "enterprise": (Rate(50, 500), 500),
}
"""Requests that each plan bears, and URLs in one of them."""

_TAGS: Final = 100
_ZONE: Final = re.compile(r"[0-9a-zA-Z_-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Cloudflare:
    """Purges a zone of Cloudflare.

    Args:
        zone: the zone's id.
        token: an API token with the permission "Cache Purge".
        plan: ``free``, ``pro``, ``business`` or ``enterprise``: how many calls the API takes.
        base_url: the API.
        name: what this purger's outbox and counters are called; ``cloudflare-`` and the zone when left out.

    Raises:
        ConfigError: an argument cannot be used.

    Example:
        >>> purger = Cloudflare(zone="023e105f4ecef8ad9ca31a8372d0c353", token="secret")
        >>> purger
        Cloudflare(zone='023e105f4ecef8ad9ca31a8372d0c353', plan='free')
        >>> purger.build(tags=["product:42"])[0].body
        b'{"tags": ["product:42"]}'
    """

    zone: str
    token: str = field(repr=False)
    plan: str = "free"
    base_url: str = field(default="https://api.cloudflare.com/client/v4", repr=False)
    name: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not _ZONE.match(str(self.zone)):
            raise ConfigError(f"zone={self.zone!r} must be the id of a zone, such as 023e105f4ecef8ad9ca31a8372d0c353")
        check_secret("token", self.token)
        if self.plan not in PLANS:
            raise ConfigError(f"plan={self.plan!r} must be one of {', '.join(PLANS)}")
        object.__setattr__(self, "base_url", check_base("base_url", self.base_url))
        object.__setattr__(self, "name", check_name(self.name or f"cloudflare-{self.zone}"))

    @property
    def rate(self) -> Rate:
        """Return what the plan bears."""
        return PLANS[self.plan][0]

    @property
    def batches(self) -> Mapping[Scope, int]:
        """Return what one request takes."""
        return {Scope.TAG: _TAGS, Scope.URL: PLANS[self.plan][1], Scope.ALL: 1}

    def build(self, tags: Sequence[str] = (), urls: Sequence[str] = (), *, everything: bool = False) -> list[HttpCall]:
        """Return the calls that drop *tags* and *urls*, or everything."""
        if everything:
            return [self._call({"purge_everything": True}, Scope.ALL, [""])]
        by_tag = in_batches(tags, self.batches[Scope.TAG])
        by_url = in_batches(urls, self.batches[Scope.URL])
        return [
            *(self._call({"tags": [*map(wire_tag, batch)]}, Scope.TAG, batch) for batch in by_tag),
            *(self._call({"files": batch}, Scope.URL, batch) for batch in by_url),
        ]

    def _call(self, body: Mapping[str, Any], scope: Scope, values: Sequence[str]) -> HttpCall:
        return HttpCall(
            "POST",
            f"{self.base_url}/zones/{self.zone}/purge_cache",
            targets(scope, values),
            (("Authorization", f"Bearer {self.token}"), ("Content-Type", "application/json")),
            json.dumps(body).encode(),
            (self.token,),
        )

    def check(self, call: HttpCall, reply: Reply) -> Outcome:
        """Say what *reply* means: only a JSON object with ``"success": true`` is a success."""
        try:
            document = json.loads(reply.body)
        except ValueError:
            document = None
        told = _errors(document)
        judged = judge(call, reply)
        if judged is not None:
            return judged if not told else Outcome(
                judged.verdict, f"{reply.status}: {told}", judged.retry_after, everywhere=judged.everywhere
            )  # fmt: skip
        if not isinstance(document, dict):
            return Outcome(Verdict.RETRY, f"{reply.status}, but not the API's JSON: {reply.excerpt}", reply.retry_after)
        if document.get("success") is True:
            return DONE
        return Outcome(Verdict.RETRY, told or f"success is {document.get('success')!r}", reply.retry_after)


def _errors(document: object) -> str:
    """Return the errors that the API lists: ``[{"code": 1012, "message": "..."}]``."""
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        return ""
    found = [f"{e.get('code')} {e.get('message')}" for e in errors[:5] if isinstance(e, dict)]
    return "; ".join(found)[:400]
