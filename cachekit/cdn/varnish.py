"""Varnish: ``PURGE`` of a URL, secondary keys by vmod_xkey, and ``BAN``.

Varnish has no purge API: its VCL decides what a method and a field do. This speaks to the VCL in docs/cdn.md: ``PURGE`` with
``xkey-purge`` or ``xkey-softpurge`` (the fields and ``xkey.purge``, ``xkey.softpurge`` of the vmod_xkey manual, which takes
keys that are separated by spaces or commas), ``PURGE`` of a URL (Varnish users guide, "Purging"), and ``BAN`` with
``x-ban-tag`` where the vmod is not installed (users guide, "Bans"). Each server is told by itself: one ``Varnish`` each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

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

MODES: Final = ("xkey", "ban")
_KEYS: Final = 64
"""Tags in one field: a tag has at most 512 bytes before encoding, and Varnish takes lines of 8 KB; 413 splits further."""
_LINE: Final = 6000


@dataclass(frozen=True, slots=True)
class Varnish:
    """Purges one Varnish server. Send the tags as ``xkey``: ``HttpOptions(tag_header="xkey")``.

    Args:
        url: the server, such as ``http://10.0.0.5:6081``.
        mode: ``xkey`` (vmod_xkey), or ``ban`` for servers without the vmod.
        soft: reset the lifetime and keep the object for grace, instead of dropping it; with ``xkey`` only.
        secret: sent as ``X-Purge-Token``, for a VCL that asks for one beside its ACL.
        name: what this purger's outbox and counters are called; ``varnish-`` and the address when left out.

    Raises:
        ConfigError: an argument cannot be used.

    Example:
        >>> purger = Varnish("http://10.0.0.5:6081")
        >>> call = purger.build(tags=["product:42", "catalog"])[0]
        >>> call.method, call.headers
        ('PURGE', (('xkey-purge', 'product:42 catalog'),))
    """

    url: str
    mode: str = "xkey"
    soft: bool = False
    secret: str | None = field(default=None, repr=False)
    name: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_base("url", self.url))
        if self.mode not in MODES:
            raise ConfigError(f"mode={self.mode!r} must be one of {', '.join(MODES)}")
        if type(self.soft) is not bool:
            raise ConfigError(f"soft={self.soft!r} must be True or False")
        if self.soft and self.mode == "ban":
            raise ConfigError('soft=True needs mode="xkey": a ban always drops')
        if self.secret is not None:
            check_secret("secret", self.secret)
        address = urlsplit(self.url).netloc.replace("[", "").replace("]", "")
        object.__setattr__(self, "name", check_name(self.name or f"varnish-{address}"))

    @property
    def rate(self) -> Rate | None:
        """Return None: a Varnish bears what one client sends."""
        return None

    @property
    def batches(self) -> Mapping[Scope, int]:
        """Return what one request takes."""
        return {Scope.TAG: _KEYS if self.mode == "xkey" else 1, Scope.URL: 1, Scope.ALL: 1}

    def build(self, tags: Sequence[str] = (), urls: Sequence[str] = (), *, everything: bool = False) -> list[HttpCall]:
        """Return the calls that drop *tags* and *urls*, or everything."""
        if everything:
            return [self._call("BAN", self.url + "/", Scope.ALL, [""], ("x-ban-all", "1"))]
        calls: list[HttpCall] = []
        if self.mode == "ban":
            calls += [
                self._call("BAN", self.url + "/", Scope.TAG, [tag], ("x-ban-tag", _literal(wire_tag(tag))))
                for tag in tags
            ]
        else:
            name = "xkey-softpurge" if self.soft else "xkey-purge"
            for batch in _lines(tags):
                keys = " ".join(map(wire_tag, batch))
                calls.append(self._call("PURGE", self.url + "/", Scope.TAG, batch, (name, keys)))
        for url in urls:
            parts = urlsplit(url)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            calls.append(self._call("PURGE", self.url + path, Scope.URL, [url], ("Host", parts.netloc)))
        return calls

    def _call(self, method: str, url: str, scope: Scope, values: Sequence[str], *headers: tuple[str, str]) -> HttpCall:
        secret = () if self.secret is None else (("X-Purge-Token", self.secret),)
        return HttpCall(
            method, url, targets(scope, values), (*headers, *secret), b"", () if self.secret is None else (self.secret,)
        )

    def check(self, call: HttpCall, reply: Reply) -> Outcome:
        """Say what *reply* means: any 2xx is a success, and so is 404, "nothing carries that key", for a key."""
        if reply.status == 404 and call.targets[0].scope is Scope.TAG:
            return DONE
        if reply.status == 405:
            return Outcome(Verdict.FAILED, f"405: the VCL does not know {call.method}, or its ACL refuses this host")
        return judge(call, reply) or DONE


def _lines(tags: Sequence[str]) -> list[list[str]]:
    """Return *tags* in batches whose keys fit into one line."""
    made: list[list[str]] = []
    for batch in in_batches(tags, _KEYS):
        room = 0
        for tag in batch:
            size = len(wire_tag(tag)) + 1
            if not made or room < size or len(made[-1]) >= _KEYS:
                made.append([])
                room = _LINE
            made[-1].append(tag)
            room -= size
    return made


def _literal(text: str) -> str:
    """Return *text* as a regular expression (PCRE) that finds just it."""
    return "".join(char if char.isalnum() or char in "_:" else f"\\{char}" for char in text)
