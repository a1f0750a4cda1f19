"""A response on its way through: what the rules make of its head, whether it is kept, and the entry that it becomes.

Owns recording within a bound of memory, the update by a 304 and the tags. Pure. Must not know how requests are decided.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from cachekit.entry import Entry
from cachekit.errors import ConfigError
from cachekit.http.credentials import SOMEBODY
from cachekit.http.freshness import initial_age
from cachekit.http.headers import (
    HeaderList,
    Headers,
    end_to_end,
    first,
    loose_etag,
    parse_date,
    parse_tags,
    tag_lines,
    values,
    without,
)  # fmt: skip
from cachekit.http.message import Mark, Request, StoredResponse, content_length
from cachekit.http.options import EmitTags, HttpOptions
from cachekit.http.parts import combined, content_range
from cachekit.http.rules import Match, choose
from cachekit.http.selecting import nominated
from cachekit.http.storable import Terms, apply_rule, is_personal, judge_response, refuse
from cachekit.keys import check_tag

log = logging.getLogger("cachekit")

_KEPT_BY_304: Final = frozenset({"content-length", "content-encoding", "content-range", "set-cookie"})
"""What says how the stored bytes are to be read, and what is for one client."""
_SUPERSEDING: Final = frozenset({"no-store", "private", "no-freshness", "rule", "vary-any", "stale", "etag"})


class Recording:
    """One response of the application, recorded while ``active``.

    Attributes:
        active: whether it is still going to be stored.
        terms: on what terms, or why not.
        status: status code, 0 before the head.
        kept: fields of the application that are sent on.
        added: fields that the rules add to them.
    """

    __slots__ = (
        "_age", "_asked_at", "_candidates", "_chunks", "_credentials", "_expected", "_made_at", "_match", "_options",
        "_part", "_reason", "_request", "_size", "active", "added", "kept", "status", "terms",
    )  # fmt: skip

    def __init__(
        self, request: Request, candidates: Sequence[Match], credentials: Sequence[str], options: HttpOptions
    ) -> None:
        self._request = request
        self._candidates = candidates
        self._credentials = credentials
        self._options = options
        self._match: Match | None = None
        self._asked_at = self._made_at = self._age = 0.0
        self._reason = ""
        self._chunks: list[bytes] = []
        self._size = 0
        self._expected: int | None = None
        self._part = False
        self.active = False
        self.terms = refuse("not-asked")
        self.status = 0
        self.kept: Headers = ()
        self.added: HeaderList = []

    def ask(self, now: float, *, record: bool, part: bool = False) -> None:
        """Note that the application is called at *now*, and whether what it answers, or a *part*, may be kept."""
        self._asked_at = now
        self.active = record
        self._part = part

    def recognise(self) -> None:
        """Note that the application has found out who is asking."""
        if SOMEBODY in self._options.credentials and SOMEBODY not in self._credentials:
            self._credentials = (*self._credentials, SOMEBODY)

    def head(self, status: int, reason: str, headers: Headers, now: float) -> None:
        """Take in the head of the response: apply the rules, and decide whether to go on recording."""
        self._match = choose(self._candidates, status, first(headers, "content-type"))
        self.kept, self.added = apply_rule(self._match, headers, self._credentials, self._options)
        if not self.active:
            return
        self.status, self._reason = status, reason
        self._made_at, self._age = now, initial_age(headers, self._asked_at, now)
        self._expected = content_length(headers)
        self.terms = self._judge(status, headers, now)
        if not self.terms.refused:
            if self._part and status == 200 and first(headers, "content-range") is None:
                self._part = False  # who asked for a part got all of it
            if self._part is not (status == 206) or (self._part and content_range(headers) is None):
                self.terms = refuse("partial")
            elif not self._is_of_use(headers):
                self.terms = refuse("stale")
            elif self._expected is not None and self._expected < 0:
                self.terms = refuse("length")
            elif self._expected is not None and self._expected > self._options.max_body:
                self.terms = refuse("size")
        self.active = not self.terms.refused

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the body."""
        if not self.active or not chunk:
            return
        self._size += len(chunk)
        if self._size > self._options.max_body:
            self.spoil("size")
        elif self._expected is not None and self._size > self._expected:
            self.spoil("length")
        else:
            self._chunks.append(bytes(chunk))

    def spoil(self, reason: str) -> None:
        """Stop recording, for *reason*."""
        if self.active:
            self.active = False
            self.terms = refuse(reason)
        self._chunks = []

    @property
    def complete(self) -> bool:
        """Say whether the whole body that Content-Length announced is there."""
        return self.active and self._expected is not None and self._size == self._expected

    @property
    def supersedes(self) -> bool:
        """Say whether the response, not stored itself, makes what was stored before it wrong."""
        if self.active or self.status == 0 or self.status >= 500:
            return False
        return self.terms.refused in _SUPERSEDING or self.status in (404, 410)

    @property
    def uncacheable(self) -> bool:
        """Say whether the next response to such a request will probably not be stored either."""
        if self.active or self.status == 0 or self.status >= 500:
            return False
        return self.terms.refused not in ("", "status", "not-asked", "error", "incomplete", "no-ticket", "fault")

    def completes(self, held: StoredResponse | None) -> bool:
        """Say whether the response is the whole: all of it came, or what came and the part *held* are all of it together."""
        if not self._part:
            return True
        headers, body = combined(held, list(self.kept), b"".join(self._chunks), self._options.max_body)
        part = content_range(headers)
        return part is not None and (part.begin, part.end) == (0, part.whole) and len(body) == part.whole

    def entry(self, generation: str, tags: Iterable[str], held: StoredResponse | None = None) -> Entry[Any] | None:
        """Return the entry that the whole response makes, or None when it is not whole.

        Args:
            generation: a word for the keys of its variants.
            tags: the tags that were used while it was made.
            held: a stored part that a new one is combined with.
        """
        if not self.active:
            return None
        if self._expected is not None and self._size != self._expected:
            self.spoil("incomplete")
            return None
        if not self._follow(tags):
            self.spoil("stale")
            return None
        body = b"".join(self._chunks)
        self._chunks = []
        headers = without(end_to_end(self.kept), ("age",))
        if self._expected is None and self.status != 204:
            headers.append(("Content-Length", str(len(body))))
        if self._part:
            part = content_range(headers)
            if part is None or part.end - part.begin != len(body):
                self.spoil("incomplete")
                return None
            headers, body = combined(held, headers, body, self._options.max_body)
            if len(body) == part.whole:  # RFC 9110 section 15.3.7.3: together they are a complete 200
                headers = without(headers, ("content-range",))
                self.status, self._reason = 200, ""
        marks = self.terms.marks
        added = [*self.added, *self.tag_fields(tags)]
        if self._options.generate_etag and self.status == 200 and first(headers, "etag") is None:
            added.append(("ETag", f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'))
            marks |= Mark.OWN_ETAG
        return self._seal(headers, added, body, marks, generation, self._all_tags(tags))

    def preview(self) -> StoredResponse:
        """Return what the response will be stored as, of which only the head is known yet."""
        headers = without(end_to_end(self.kept), {"age", *self.terms.left_out})
        vary = tuple((name, nominated(self._request.headers, name)) for name in self.terms.vary)
        terms = self.terms
        return StoredResponse(
            self.status, self._reason, headers, b"", self._made_at, self._age, terms.lifetime, terms.swr, terms.sie,
            int(terms.marks), vary, "", list(self.added),
        )  # fmt: skip

    def tags(self, used: Iterable[str]) -> tuple[str, ...]:
        """Return the tags known so far, with those *used*."""
        return self._all_tags(used)

    def tag_fields(self, used: Iterable[str]) -> HeaderList:
        """Return the field that tells the tags to caches further out, as the options want it."""
        emit = self._options.emit_tags
        if emit == EmitTags.NONE:
            return []
        tags = list(self._match.tags) if self._match is not None else []
        if emit == EmitTags.ALL and self._request.method in ("GET", "HEAD"):
            tags += sorted(used)
        if not tags or is_personal(self.kept, self._options):
            return []
        name = self._options.tag_header
        separator = " " if name.lower() in ("surrogate-key", "xkey") else ","
        lines, left_out = tag_lines(dict.fromkeys(tags), separator)
        if left_out:
            log.warning("%s has no place for %d tags: purging them reaches no cache further out", name, len(left_out))
        return [(name, line) for line in lines]

    def update(
        self, found: StoredResponse, headers: Headers, now: float, used: Iterable[str] = ()
    ) -> tuple[StoredResponse, bool]:
        """Return *found* as the 304 with *headers* updates it, and whether it may stay (RFC 9111 section 3.2).

        Fields that the rules added are not the application's: they are made anew. A 304 that names another entity tag
        speaks of another response. The tags that it *used* are told beside those that were.
        """
        fields = without(end_to_end(headers), _KEPT_BY_304)
        replaced = {name.lower() for name, _ in fields} | {"age"}
        if first(fields, "date") is None:
            replaced.add("date")
        own = [*without(found.headers, replaced), *without(fields, ("age",))]
        self._match = choose(self._candidates, found.status, first(own, "content-type"))
        self.kept, self.added = apply_rule(self._match, own, self._credentials, self._options)
        self.status, self._reason = found.status, found.reason
        self._made_at, self._age = now, initial_age(fields, self._asked_at, now)
        cookies = [("Set-Cookie", value) for value in values(headers, "set-cookie")]
        self.terms = terms = self._judge(found.status, [*own, *cookies], now, cookies)
        before, after = loose_etag(first(found.headers, "etag")), loose_etag(first(fields, "etag"))
        if before is not None and after is not None and (before.opaque != after.opaque or before.weak > after.weak):
            self.terms = refuse("etag")
        self.active = self.active and not self.terms.refused
        if not self.active or "set-cookie" in terms.left_out:
            shown = [*self.kept, *cookies]
        else:
            shown = list(self.kept)
        name = self._options.tag_header
        separator = " " if name.lower() in ("surrogate-key", "xkey") else ","
        told = [tag for field, value in found.added if field == name for tag in parse_tags(value, separator)]
        ours = [pair for pair in found.added if pair[0] == "ETag"]
        ours += self.tag_fields({*told, *used})
        marks = int(terms.marks) | (found.marks & Mark.OWN_ETAG)
        fresh = replace(
            found, headers=shown, added=[*self.added, *ours], made_at=now, age=self._age, lifetime=terms.lifetime,
            swr=terms.swr, sie=terms.sie, marks=marks,
        )  # fmt: skip
        return fresh, self.active

    def _follow(self, tags: Iterable[str]) -> bool:
        """Let the freshness end with that of what was used, where the options say so; False when nothing is left of it."""
        until: float = getattr(tags, "until", math.inf) if self._options.follow_functions else math.inf
        left = max(0.0, until - self._made_at) + self._age
        if left >= self.terms.lifetime:
            return True
        self.terms = replace(self.terms, lifetime=left)
        return self._is_of_use(self.kept)

    def updated_entry(self, fresh: StoredResponse, tags: Iterable[str], used: Iterable[str] = ()) -> Entry[Any]:
        """Return the entry of the updated response *fresh*, with *tags*, those that it *used* anew among them."""
        self._follow(used)
        return self._seal(fresh.headers, fresh.added, fresh.body, fresh.marks, fresh.generation, self._all_tags(tags))

    # Parts of the above

    def _judge(self, status: int, own: Headers, now: float, more: Headers = ()) -> Terms:
        effective = [*self.kept, *self.added, *more]
        return judge_response(status, own, effective, self._match, self._credentials, self._options, now)

    def _is_of_use(self, headers: Headers) -> bool:
        terms = self.terms
        if terms.lifetime > self._age and not terms.marks & Mark.NO_CACHE:
            return True
        return bool(terms.swr or terms.sie) or has_validator(headers)

    def _seal(
        self, headers: Headers, added: Headers, body: bytes, marks: int, generation: str, tags: tuple[str, ...]
    ) -> Entry[Any]:
        terms, request = self.terms, self._request.headers
        vary = tuple((name, nominated(request, name)) for name in terms.vary)
        if terms.left_out:
            headers = without(headers, terms.left_out)
        stored = StoredResponse(
            self.status, self._reason, headers, body, self._made_at, self._age, terms.lifetime, terms.swr, terms.sie,
            int(marks), vary, generation, added,
        )  # fmt: skip
        fresh_until = self._made_at + max(0.0, terms.lifetime - self._age)
        if terms.marks & Mark.NO_CACHE:
            fresh_until = self._made_at
        swr_until = fresh_until + terms.swr if terms.swr else fresh_until
        # What varies is kept too: the keys of the other variants are made with it.
        keep = self._options.span("keep_stale") if vary or has_validator(headers) else 0.0
        if not terms.marks & Mark.FORBIDS_STALE:
            keep = max(keep, self._options.span("stale_if_disconnected"))
        dead_at = max(swr_until, fresh_until + terms.sie, self._made_at + max(0.0, terms.lifetime - self._age) + keep)
        return Entry(stored.pack(), self._made_at, fresh_until, swr_until, dead_at, tags)

    def _all_tags(self, used: Iterable[str]) -> tuple[str, ...]:
        ruled = self._match.tags if self._match is not None else ()
        own = [tag for value in values(self.kept, "cache-tag") for tag in parse_tags(value)]
        for name in ("surrogate-key", "xkey"):
            own += [tag for value in values(self.kept, name) for tag in parse_tags(value, " ")]
        return tuple(dict.fromkeys([*ruled, *sorted(used), *filter(_is_tag, own)]))


def has_validator(headers: Headers) -> bool:
    """Say whether a response with *headers* can be revalidated."""
    return loose_etag(first(headers, "etag")) is not None or parse_date(first(headers, "last-modified")) is not None


def _is_tag(tag: str) -> bool:
    try:
        return bool(check_tag(tag))
    except ConfigError:
        return False
