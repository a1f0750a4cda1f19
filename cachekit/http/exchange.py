"""One HTTP request through the cache, sans I/O: what to look up, what to do, what to send, what to keep.

Owns the decisions of RFC 9111 sections 3 and 4 and their order. The caller does what it says:

1. ``while (key := exchange.wants()): exchange.supply(read(key))``
2. ``exchange.decision(now)``
3. where that is ``Forward`` or ``Validate``: ``start`` with the head of the application's response, ``feed`` with each
   piece of its body, ``finish`` at the end, or ``failed`` when there is none.

A response that varies is a link in a chain: the first lies at the key of the URL and names, by its Vary and its
generation, the key where a request that it does not match looks next. Whoever finds nothing stores there. Every
entry is checked against the request by itself, and dropping the first makes the others unreachable.

Must not know about stores, clocks, ASGI or WSGI.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from cachekit.entry import Entry
from cachekit.http.asked import has_body, not_modified, request_control
from cachekit.http.decisions import Decision, Drop, Forward, Freshen, Keep, Outcome, Refuse, Relay, Serve, Validate
from cachekit.http.directives import CacheControl
from cachekit.http.headers import (
    HeaderList,
    Headers,
    first,
    loose_etag,
    parse_date,
    without,
)  # fmt: skip
from cachekit.http.invalidation import SAFE_METHODS, invalidated
from cachekit.http.message import Mark, Request, StoredResponse, variant_key
from cachekit.http.options import HttpOptions
from cachekit.http.parts import cut_part, part_key
from cachekit.http.ranges import cut
from cachekit.http.recording import Recording
from cachekit.http.rules import Rules
from cachekit.http.selecting import overlooks
from cachekit.http.status import CacheStatus
from cachekit.http.storable import unmet

_ERRORS: Final = frozenset({500, 502, 503, 504})
_UNREACHED: Final = (502, 504)
BYPASS: Final = ("if-match", "if-unmodified-since")
RANGES: Final = ("range", "if-range")
CONDITIONS: Final = ("if-none-match", "if-modified-since")
_NOT_IN_304: Final = frozenset(
    {"content-length", "content-type", "content-encoding", "content-language", "content-range"}
)
LONGEST_CHAIN: Final = 8
NEVER_PLAIN: Final = (*BYPASS, *CONDITIONS, *RANGES)
"""Request fields that ask for something else than the whole response."""


class Exchange:
    """One request and its way through the cache.

    Attributes:
        request: the request.
        key: the key of its URL, or None when it has none.
        tags: the tags that its rules give it.
        bypass: why the cache has no part in it, or empty.
        found: the stored response that the request selects.
        part: the stored part of it, where the request asks for a part and the whole is not stored.
        fwd: why it goes forward, in a word of RFC 9211.
        recording: the application's response.
        collapsed: whether it waited for the response to another request.
        unreadable: whether an entry was found that cannot be read.
    """

    __slots__ = (
        "_candidates", "_conditions", "_control", "_credentials", "_depth", "_drops", "_found_tags", "_freshened",
        "_generation", "_head", "_key", "_miss", "_next", "_options", "_parts", "_plain", "_ranged", "_stripped",
        "_validating", "_whole", "bypass", "collapsed", "found", "fwd", "key", "part", "recording", "request", "tags",
        "unreadable",
    )  # fmt: skip

    def __init__(self, request: Request, rules: Rules, options: HttpOptions) -> None:
        self.request = request
        self._options = options
        names = {name for name, _ in request.headers}
        self._head = request.method == "HEAD"
        self._credentials = options.credentials_in(names)
        self._conditions = any(name in names for name in CONDITIONS)
        self._ranged = "range" in names and not self._head
        self._plain = not any(name in names for name in BYPASS)
        self._control = request_control(request.headers, names) if options.request_directives else CacheControl()
        self._candidates = rules.candidates(request.method, request.path, request.query) if rules else ()
        self.tags: tuple[str, ...] = tuple(tag for match in self._candidates for tag in match.tags)
        self.key = options.keying.key(request)
        if request.method not in ("GET", "HEAD"):
            self.bypass = "method"
        elif self.key is None or has_body(request.headers, names):
            self.bypass = "bypass"
        else:
            self.bypass = ""
        self.collapsed = False
        self.reset()

    def reset(self) -> None:
        """Forget what was looked up and decided."""
        self._next: str | None = None if self.bypass or not self._plain else self.key
        self._key = self.key or ""
        self._depth = 0
        self._generation = ""
        self._miss = "uri-miss"
        self.unreadable = False
        self.found: StoredResponse | None = None
        self._found_tags: tuple[str, ...] = ()
        self.fwd = ""
        self._validating = self._stripped = False
        self._freshened: StoredResponse | None = None
        self._parts = False
        self._whole = "", ""  # where the whole would lie, and with what generation, while a part is asked for
        self.part: StoredResponse | None = None
        self._drops: tuple[str, ...] = ()
        self.recording = Recording(self.request, self._candidates, self._credentials, self._options)

    # 1. Lookup

    def wants(self) -> str | None:
        """Return the key to look up next, or None when there is nothing more to look up."""
        return self._next

    def supply(self, entry: Entry[Any] | None) -> None:
        """Take in what was found at the key that was wanted."""
        self._supply(entry)
        if self._next is None and self.found is None and self._ranged and not self._parts and self._options.store_parts:
            self._parts = True
            self._whole = self._key, self._generation
            self._depth = 0
            self._next = part_key(self.key or "")

    def _supply(self, entry: Entry[Any] | None) -> None:
        assert self._next is not None
        self._key = self._next
        self._next = None
        if entry is None:
            self._generation = ""
            return
        stored = StoredResponse.unpack(entry.value)
        if stored is None:
            self.unreadable = True
            self._generation = ""
            return
        self._generation = stored.generation
        vary = [name for name, _ in stored.vary]
        if overlooks(vary, self._options.key_cookies):
            return
        if not stored.selected_by(self.request.headers):
            self._miss = "vary-miss"
            self._depth += 1
            if self._depth < LONGEST_CHAIN:
                self._next = variant_key(self._key, stored.generation, self.request.headers, vary)
            return
        if (stored.status == 206) is not self._parts:
            return
        if unmet(self._credentials, stored.marks, vary, self._options) is None and self._parts:
            self.part = stored
        elif unmet(self._credentials, stored.marks, vary, self._options) is None:
            self.found = stored
            self._found_tags = entry.tags
        else:
            self._miss = "bypass"

    # 2. Decision

    def decision(self, now: float) -> Decision:
        """Say what to do with the request."""
        self.recording.ask(now, record=False)
        if self.bypass or not self._plain:
            self.fwd = self.bypass or "bypass"
            return Forward()
        control, found = self._control, self.found
        fwd = self._miss
        if found is not None:
            fwd = self._why_not(found, now)
            if not fwd:
                return self._serve(found, now, CacheStatus(hit=True))
            if fwd == "refresh":
                return replace(self._serve(found, now, CacheStatus(hit=True)), refresh=True)
        elif self.part is not None and not self._conditions and not self._why_not(self.part, now):
            headers = self._fields(self.part, now, CacheStatus(hit=True))
            if (cutting := cut_part(self.request.headers, self.part, headers)) is not None:
                return Serve(cutting[0], "", cutting[1], cutting[2])
        if "only-if-cached" in control:
            return self._refuse()
        self.fwd = fwd
        # A range that nothing stored can answer is for the application; its answer is at best a part.
        aside = found is None and (self._head or (self._ranged and not self._parts))
        part = found is None and self._ranged
        self.recording.ask(now, record=not aside and "no-store" not in control, part=part)
        if found is None or self._head:
            return Forward()
        # A range stays: preconditions come before it (RFC 9110 section 13.2.2), and who asked for a part gets one.
        kept = [field for field in self.request.headers if field[0] in RANGES]
        return Validate([*self._validation(found), *kept])

    @property
    def collapses(self) -> bool:
        """Say whether the request may wait for the response to another one."""
        if not self.recording.active or self._head or "no-cache" in self._control or not self._options.collapse:
            return False
        return not self._ranged and (self._stripped or not self._conditions)

    @property
    def flight_key(self) -> tuple[str, bool]:
        """Return what requests that may share one response have in common."""
        return self._key, bool(self._credentials)

    @property
    def store_key(self) -> str:
        """Return the key where a response to this request will be stored."""
        return self._key

    def follow(self, head: StoredResponse, now: float) -> Headers | None:
        """Return the fields to answer with while the response of *head* is still being made, None when it is not for this.

        What asks for a part, or under conditions, has to wait until all of it is there.
        """
        if self._conditions or self._ranged or self._head or not head.selected_by(self.request.headers):
            return None
        vary = [name for name, _ in head.vary]
        if unmet(self._credentials, head.marks, vary, self._options) is not None or self._why_not(head, now):
            return None
        self.collapsed = True
        return self._serve(head, now, CacheStatus(hit=True)).headers

    def refresh(self, now: float) -> Headers:
        """Turn a served exchange into its own revalidation; returns the fields to call the application with."""
        assert self.found is not None
        self.recording.ask(now, record=True)
        self.fwd = "stale"
        self._head = False
        return self._validation(self.found)

    def _why_not(self, found: StoredResponse, now: float) -> str:
        """Return "" when *found* may be served, "refresh" when it may while it is revalidated, else why it may not."""
        control = self._control
        if "no-cache" in control:
            return "request"
        age = found.age_at(now)
        left = found.lifetime - age
        may_be_stale = not found.marks & (Mark.FORBIDS_STALE | Mark.NO_CACHE)
        if control:
            limit = control.seconds("max-age")
            if limit is not None and age > limit:
                return "request"
            if left > 0 and left < (control.seconds("min-fresh") or 0.0):
                return "request"
        if found.marks & Mark.NO_CACHE:
            return "stale"
        if left > 0:
            return ""
        if may_be_stale and "max-stale" in control:
            bound = control.seconds("max-stale") if control.argument("max-stale") is not None else None
            if bound is None or -left <= bound:
                return ""
        # What answers a no-store is not stored, so it revalidates nothing behind (RFC 9111 section 5.2.1.5).
        return "refresh" if -left < found.swr and "no-store" not in control else "stale"

    def _validation(self, found: StoredResponse) -> HeaderList:
        self._stripped = True
        headers = without(self.request.headers, (*CONDITIONS, *RANGES))
        etag, modified = first(found.headers, "etag"), first(found.headers, "last-modified")
        if found.status == 200 and etag is not None and loose_etag(etag) is not None:
            headers.append(("if-none-match", etag))
            self._validating = True
        if found.status == 200 and parse_date(modified) is not None and modified is not None:
            headers.append(("if-modified-since", modified))
            self._validating = True
        return headers

    # Sending what is stored

    def _fields(self, found: StoredResponse, now: float, status: CacheStatus) -> HeaderList:
        age = found.age_at(now)
        headers = [*found.headers, *found.added, ("Age", str(int(age)))]
        if self.collapsed and status.hit:
            status = replace(status, hit=False, fwd=self._miss, collapsed=True)
        if self._options.cache_status:
            told = replace(status, ttl=found.lifetime - age, key=self._key)
            headers.append(("Cache-Status", told.print(self._options)))
        return headers

    def _serve(self, found: StoredResponse, now: float, status: CacheStatus) -> Serve:
        headers = self._fields(found, now, status)
        if self._conditions and found.status == 200 and not_modified(self.request.headers, headers):
            return Serve(304, "", without(headers, _NOT_IN_304), b"")
        if self._ranged and found.status == 200 and (part := cut(self.request.headers, found, headers)) is not None:
            return Serve(part[0], "", part[1], part[2])
        return Serve(found.status, found.reason, headers, b"" if self._head else found.body)

    def _refuse(self) -> Refuse:
        headers: HeaderList = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
        body = b"This response is not stored, and the request allows nothing else.\n"
        headers.append(("Content-Length", str(len(body))))
        if self._options.cache_status:
            headers.append(("Cache-Status", CacheStatus(detail="only-if-cached").print(self._options)))
        return Refuse(504, "", headers, b"" if self._head else body)

    # 3. The application's response

    def start(self, status: int, reason: str, headers: Headers, now: float, tags: Iterable[str] = ()) -> Serve | Relay:
        """Take in the head of the response and the *tags* that were used so far; returns what to send."""
        recording = self.recording
        if self._validating and status == 304 and self.found is not None:
            return self._freshen(self.found, headers, now, status, tags)
        if self._head and self.found is not None and self.recording.active:
            if status == 200 and same_as_head(self.found, headers):
                return self._freshen(self.found, headers, now, status, tags)
            if status in (200, 404, 410):
                self._drops = (self._key,)
            self.recording.spoil("head")
        if status in _ERRORS and (instead := self.failed(now, status)) is not None:
            return instead
        recording.head(status, reason, headers, now)
        if self.request.method not in SAFE_METHODS and status < 400:
            self._drops = invalidated(self.request, headers, self._options)
        sent = [*recording.kept, *recording.added, *recording.tag_fields(tags)]
        silent = self._stripped and self._conditions and status == 200 and not_modified(self.request.headers, sent)
        if self._options.cache_status:
            told = CacheStatus(
                fwd=self.fwd, fwd_status=status if silent else None, stored=recording.active, key=self.key,
                detail=recording.terms.refused,
            )  # fmt: skip
            sent.append(("Cache-Status", told.print(self._options)))
        if silent:
            return Relay(304, without(sent, _NOT_IN_304), silent=True)
        return Relay(status, sent)

    def failed(self, now: float, status: int | None = None, *, disconnected: bool = False) -> Serve | None:
        """Return the stale response to send in place of an error (RFC 5861 section 4), or None when there is none.

        *disconnected* says that the application could not reach what it asks (RFC 9111 section 4.2.4), as do 502 and 504.
        """
        found = self.found
        if found is None or found.marks & Mark.NO_CACHE:
            return None
        window = found.sie
        if not found.marks & Mark.FORBIDS_STALE:
            window = max(window, self._control.seconds("stale-if-error") or 0.0)
            if disconnected or status in _UNREACHED:
                window = max(window, self._options.span("stale_if_disconnected"))
        if found.age_at(now) - found.lifetime >= window:
            return None
        self.recording.spoil("error")
        return self._serve(found, now, CacheStatus(fwd=self.fwd, fwd_status=status))

    def finish(self, nonce: str, tags: Iterable[str] = ()) -> Outcome:
        """Return what is to be done now that the response is whole.

        Args:
            nonce: a random word, for the keys of variants.
            tags: the tags that were used while the response was made.
        """
        recording = self.recording
        if self._drops:
            return Drop(self._drops)
        if self._freshened is not None:
            if recording.active:
                return Freshen(self._key, recording.updated_entry(self._freshened, {*self._found_tags, *tags}, tags))
            return Drop((self._key,)) if recording.supersedes else None
        if recording.active:
            whole = self._parts and recording.completes(self.part)
            if whole:
                self._key, self._generation = self._whole
            entry = recording.entry(self._generation or nonce, tags, self.part)
            return None if entry is None else Keep(self._key, entry)
        return Drop((self._key,)) if self.found is not None and recording.supersedes else None

    def _freshen(self, found: StoredResponse, headers: Headers, now: float, status: int, used: Iterable[str]) -> Serve:
        """Update *found* by a 304 or the response to HEAD, and answer the request from it (RFC 9111 section 4.3.4)."""
        fresh, stays = self.recording.update(found, headers, now, used)
        self._freshened = fresh
        return self._serve(fresh, now, CacheStatus(fwd=self.fwd, fwd_status=status, stored=stays))


def same_as_head(found: StoredResponse, headers: Headers) -> bool:
    """Say whether the 200 to HEAD with *headers* speaks of *found* (RFC 9111 section 4.3.5): what it tells is the same."""
    for name in ("etag", "last-modified", "content-length"):
        told = first(headers, name)
        if told is not None and told != first(found.headers, name):
            return False
    return any(first(headers, name) is not None for name in ("etag", "last-modified"))
