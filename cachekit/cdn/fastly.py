"""Fastly: surrogate keys, singly and in batches, soft or hard; URLs; the whole service.

Sources: fastly.com/documentation/reference/api/purging (``POST /service/{id}/purge`` takes up to 256 keys, ``/purge/{key}``
one, ``/purge_all`` everything and is never soft; ``POST /purge/{url}`` one URL; ``Fastly-Soft-Purge: 1`` marks stale instead
of dropping; a batch answers a purge id for each key) and fastly.com/documentation/reference/api/#rate-limiting (1,000
writes an hour, from which purges by key and URL are exempt; 429 beyond). ``Fastly-Key`` carries the token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

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

_KEYS: Final = 256
_SERVICE: Final = re.compile(r"[0-9A-Za-z]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Fastly:
    """Purges a service of Fastly. Send the tags as ``Surrogate-Key``: ``HttpOptions(tag_header="Surrogate-Key")``.

    Args:
        service: the service's id.
        token: an API token with the scope ``purge_select``, or ``purge_all`` if everything is to be purged.
        soft: mark stale, so that Fastly may serve it while it revalidates or when the origin is broken, instead of
            dropping. Purging everything is always hard.
        base_url: the API.
        name: what this purger's outbox and counters are called; ``fastly-`` and the service when left out.

    Raises:
        ConfigError: an argument cannot be used.

    Example:
        >>> purger = Fastly(service="SU1Z0isxPaozGVKXdv0eY", token="secret", soft=True)
        >>> purger.build(tags=["product:42"])[0].url
        'https://api.fastly.com/service/SU1Z0isxPaozGVKXdv0eY/purge/product:42'
    """

    service: str
    token: str = field(repr=False)
    soft: bool = False
    base_url: str = field(default="https://api.fastly.com", repr=False)
    name: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not _SERVICE.match(str(self.service)):
            raise ConfigError(f"service={self.service!r} must be the id of a service, such as SU1Z0isxPaozGVKXdv0eY")
        check_secret("token", self.token)
        if type(self.soft) is not bool:
            raise ConfigError(f"soft={self.soft!r} must be True or False")
        object.__setattr__(self, "base_url", check_base("base_url", self.base_url))
        object.__setattr__(self, "name", check_name(self.name or f"fastly-{self.service}"))

    @property
    def rate(self) -> Rate:
        """Return a pace that no account minds; purges have no limit of their own."""
        return Rate(20, 100)

    @property
    def batches(self) -> Mapping[Scope, int]:
        """Return what one request takes."""
        return {Scope.TAG: _KEYS, Scope.URL: 1, Scope.ALL: 1}

    def build(self, tags: Sequence[str] = (), urls: Sequence[str] = (), *, everything: bool = False) -> list[HttpCall]:
        """Return the calls that drop *tags* and *urls*, or everything."""
        if everything:
            return [self._call(f"/service/{self.service}/purge_all", Scope.ALL, [""], soft=False)]
        calls: list[HttpCall] = []
        for batch in in_batches(tags, _KEYS):
            keys = [*map(wire_tag, batch)]
            if len(keys) == 1:
                key = quote(keys[0], safe=":@!$&'()*+,;=-._~")  # what is percent-encoded in the key is so once more
                calls.append(self._call(f"/service/{self.service}/purge/{key}", Scope.TAG, batch))
            else:
                body = json.dumps({"surrogate_keys": keys}).encode()
                calls.append(self._call(f"/service/{self.service}/purge", Scope.TAG, batch, body=body))
        for url in urls:
            parts = urlsplit(url)
            query = f"?{parts.query}" if parts.query else ""
            calls.append(self._call(f"/purge/{parts.netloc}{parts.path or '/'}{query}", Scope.URL, [url]))
        return calls

    def _call(
        self, path: str, scope: Scope, values: Sequence[str], *, body: bytes = b"", soft: bool | None = None
    ) -> HttpCall:
        headers = [("Fastly-Key", self.token), ("Accept", "application/json")]
        if self.soft if soft is None else soft:
            headers.append(("Fastly-Soft-Purge", "1"))
        if body:
            headers.append(("Content-Type", "application/json"))
        return HttpCall(
            "POST", self.base_url + path, targets(scope, values), tuple(headers), body, (self.token,)
        )  # fmt: skip

    def check(self, call: HttpCall, reply: Reply) -> Outcome:
        """Say what *reply* means: ``{"status": "ok"}``, or for a batch an id for each key that was purged."""
        if (judged := judge(call, reply)) is not None:
            return judged
        try:
            document = json.loads(reply.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            return Outcome(Verdict.RETRY, f"{reply.status}, but not the API's JSON: {reply.excerpt}", reply.retry_after)
        if document.get("status") == "ok":
            return DONE
        if len(call.targets) > 1:
            landed = tuple(target for target in call.targets if document.get(wire_tag(target.value)))
            if len(landed) == len(call.targets):
                return DONE
            return Outcome(
                Verdict.RETRY,
                f"{len(call.targets) - len(landed)} keys were not purged",
                landed=landed,
                everywhere=False,
            )
        return Outcome(Verdict.RETRY, f"status is {document.get('status')!r}: {reply.excerpt}")
