"""One response on its way to a client, sans I/O: whether it is encoded, and what its head says then.

Owns the rules of RFC 9110 sections 8.4 (Content-Encoding), 8.8.3 (ETag), 12.5.3 and 12.5.5 (negotiation, Vary). The
edge holds the head back until the first piece of the body is there, asks ``judge``, and does what it says. Written once
for fields of text (WSGI) and of bytes (ASGI). Must not know ASGI, WSGI or threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import lru_cache, partial
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from cachekit.compress.codings import Coding, Stream
from cachekit.compress.negotiate import NOTHING, Choice
from cachekit.compress.options import Compression, EtagForm
from cachekit.http.headers import HeaderList, Headers, parse_etag, parse_etags, values

log = logging.getLogger("cachekit")

S = TypeVar("S", str, bytes)
Fields: TypeAlias = Sequence[tuple[S, S]]

CONDITIONS: Final = ("if-none-match", "if-match")
EVENT_STREAM: Final = "text/event-stream"
_BODILESS: Final = frozenset({204, 205, 304})


class Verdict(Enum):
    """What is done with a response."""

    LEAVE = "leave"
    """It goes on as it is."""
    PLAIN = "plain"
    """It goes on without a coding, and says that others might get one."""
    ENCODE = "encode"
    REFUSE = "refuse"
    """The client accepts no coding that there is, nor a response without one: 406."""


class _Meaning(IntEnum):
    """What a field of a response means here."""

    TYPE = 1
    ENCODING = 2
    CONTROL = 3
    RANGE = 4
    LENGTH = 5
    ETAG = 6
    VARY = 7
    BYTES = 8
    """It describes the bytes as the application sent them."""


_SHORT: Final = 100
_NAMES: Final = {
    "content-type": _Meaning.TYPE, "content-encoding": _Meaning.ENCODING, "cache-control": _Meaning.CONTROL,
    "content-range": _Meaning.RANGE, "content-length": _Meaning.LENGTH, "etag": _Meaning.ETAG, "vary": _Meaning.VARY,
    "accept-ranges": _Meaning.BYTES, "content-md5": _Meaning.BYTES, "digest": _Meaning.BYTES,
    "content-digest": _Meaning.BYTES, "repr-digest": _Meaning.BYTES,
}  # fmt: skip


class Words(Generic[S]):
    """The words that heads are written in: text, or bytes."""

    __slots__ = (
        "accept_encoding", "age", "any", "codings", "content_encoding", "content_length", "empty", "form", "identity",
        "meanings", "no_transform", "text", "varies", "weak",
    )  # fmt: skip

    def __init__(self, form: Callable[[str], S], text: Callable[[S], str], title: Callable[[str], str]) -> None:
        self.form: Callable[[str], S] = form
        self.text: Callable[[S], str] = text
        self.meanings: dict[S, int] = {form(name): int(meaning) for name, meaning in _NAMES.items()}
        self.content_encoding: S = form(title("Content-Encoding"))
        self.content_length: S = form(title("Content-Length"))
        self.varies: tuple[S, S] = (form(title("Vary")), form("Accept-Encoding"))
        self.accept_encoding: S = form("accept-encoding")
        self.age: S = form("age")
        self.no_transform: S = form("no-transform")
        self.identity: S = form("identity")
        self.empty: S = form("")
        self.weak: S = form("W/")
        self.any: S = form("*")
        self.codings: dict[str, tuple[S, S]] = {}

    def length(self, size: int) -> tuple[S, S]:
        """Return the field that tells the length *size*."""
        return self.content_length, self.form(str(size))

    def coding(self, name: str) -> tuple[S, S]:
        """Return the field that tells the coding *name*."""
        field = self.codings.get(name)
        if field is None:
            field = self.codings[name] = (self.content_encoding, self.form(name))
        return field


TEXT: Final[Words[str]] = Words(str, str, str)
BYTES: Final[Words[bytes]] = Words(
    partial(str.encode, encoding="latin-1"), partial(bytes.decode, encoding="latin-1"), str.lower
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says about codings.

    Attributes:
        method: upper case.
        choice: what the client accepts of what is on offer.
        padded: whether the response gets bytes of random length.
        allowed: False where the request forbids transformations (RFC 9111 section 5.2.1.6).
        condition: If-None-Match, or None.
    """

    method: str
    choice: Choice = NOTHING
    padded: bool = False
    allowed: bool = True
    condition: str | None = None

    @property
    def hopeless(self) -> bool:
        """Say whether no response could be acceptable, so that the application need not be asked."""
        return not self.choice.identity and self.choice.coding is None and not self.choice.others


class Judgement(NamedTuple):
    """What is done with a response.

    Attributes:
        verdict: what is done.
        headers: the fields to send; without Content-Length where the body is encoded.
        whole: whether the piece of the body that is there is all of it.
        flush: whether each piece is sent at once.
    """

    verdict: Verdict
    headers: Any
    whole: bool = True
    flush: bool = False


def asked(options: Compression, method: str, path: str, headers: Headers) -> Asked:
    """Return what a request says; *headers* has lower-case names."""
    accept = control = condition = None
    for name, value in headers:
        if name == "accept-encoding":
            accept = value if accept is None else f"{accept},{value}"
        elif name == "cache-control":
            control = value if control is None else f"{control},{value}"
        elif name == "if-none-match":
            condition = value
    padded = bool(options.padding) and options.pads(path)
    allowed = control is None or not _forbids(control)
    return Asked(method, options.choose(accept, padded=padded), padded, allowed, condition)


def judge(
    words: Words[S], options: Compression, asked: Asked, status: int, headers: Fields[S], size: int, *, last: bool
) -> Judgement:
    """Say what is done with a response.

    Args:
        words: how its fields are written.
        options: the settings.
        asked: what the request says.
        status: status code.
        headers: the fields as the application sent them.
        size: bytes of the piece of the body that is there.
        last: whether it is the last one.
    """
    if status in _BODILESS or status < 200:
        return Judgement(Verdict.LEAVE, _not_modified(words, options, asked, headers) if status == 304 else headers)
    meanings = words.meanings
    kind = length = etag = vary = None
    allowed = True
    made: list[tuple[S, S]] = []
    for field in headers:
        name, value = field
        meaning = meanings.get(name.lower())
        if meaning is None:
            made.append(field)
        elif meaning == 1:
            kind = value
            made.append(field)
        elif meaning == 5:
            length = value
        elif meaning == 7:
            vary = len(made)
            made.append(field)
        elif meaning == 3:
            if words.no_transform in value.lower() and _forbids(words.text(value)):
                allowed = False
            made.append(field)
        elif meaning == 6:
            etag = len(made)
            made.append(field)
        elif meaning == 4 or (meaning == 2 and value.strip().lower() not in (words.identity, words.empty)):
            allowed = False
    if not allowed or not asked.allowed or status == 206:
        return Judgement(Verdict.LEAVE, headers)
    stated = None
    if length is not None and length.isdigit() and len(length) < 19:
        stated = int(length)
    whole = last or stated == size
    known = stated if asked.method == "HEAD" or not whole else size
    choice = asked.choice
    streams = False
    if choice.identity or known == 0:
        if not options.compresses(words.empty if kind is None else kind):
            return Judgement(Verdict.LEAVE, headers)
        small = known is not None and known < options.minimum
        if small and options.BY_SIZE_ALONE:
            return Judgement(Verdict.LEAVE, headers)
        if choice.coding is None or small:
            return Judgement(Verdict.PLAIN, plain(words, headers))
    elif choice.coding is None:
        return Judgement(Verdict.REFUSE, headers)
    if not whole:
        streams = known is None or _streams_events(words.text(kind or words.empty))
    if etag is not None:
        made[etag] = (made[etag][0], _etag(words, made[etag][1], choice.coding or "", options))
    if vary is None:
        made.append(words.varies)
    else:
        made[vary] = (made[vary][0], _varied(words, made[vary][1]))
    made.append(words.coding(choice.coding or ""))
    return Judgement(Verdict.ENCODE, made, whole, streams)


def is_event_stream(words: Words[S], headers: Fields[S]) -> bool:
    """Say whether a response is a stream of events, whose first may be long in coming."""
    return any(words.meanings.get(name.lower()) == 1 and _streams_events(words.text(value)) for name, value in headers)


def _streams_events(kind: str) -> bool:
    return kind.partition(";")[0].strip(" \t").lower() == EVENT_STREAM


def _forbids(control: str) -> bool:
    return "no-transform" in {part.strip(" \t").lower() for part in control.split(",")}


def plain(words: Words[S], headers: Fields[S]) -> list[tuple[S, S]]:
    """Return *headers* with Accept-Encoding in Vary."""
    made = list(headers)
    vary = None
    for index, (name, _) in enumerate(made):
        if words.meanings.get(name.lower()) == 7:
            vary = index
    if vary is None:
        made.append(words.varies)
    else:
        made[vary] = (made[vary][0], _varied(words, made[vary][1]))
    return made


def _varied(words: Words[S], value: S) -> S:
    if words.accept_encoding in value.lower() or words.any in value:
        names = {part.strip(" \t").lower() for part in words.text(value).split(",")}
        if "*" in names or "accept-encoding" in names:
            return value
    stripped = value.strip()
    made: S = stripped + words.form(", ") + words.varies[1] if stripped else words.varies[1]
    return made


def _etag(words: Words[S], value: S, coding: str, options: Compression) -> S:
    form = options.etag is EtagForm.SUFFIX
    made: S = _known_etag(words, value, coding, form) if len(value) < _SHORT else _new_etag(words, value, coding, form)
    return made


def _new_etag(words: Words[S], value: S, coding: str, suffix: bool) -> S:
    tag = parse_etag(words.text(value))
    if tag is None or tag.weak:
        return value
    if suffix:
        suffixed: S = words.form(f'"{tag.opaque}-{coding}"')
        return suffixed
    return words.weak + value


_known_etag = lru_cache(maxsize=1024)(_new_etag)


def _not_modified(words: Words[S], options: Compression, asked: Asked, headers: Fields[S]) -> Fields[S]:
    """Return the head of a 304: the Vary of the 200 that it stands for (RFC 9110 section 15.4.5), and its ETag."""
    found = _same_etag(words, options, asked, headers)
    return plain(words, found) if asked.allowed and _may_be_encoded(words, options, headers) else found


def _may_be_encoded(words: Words[S], options: Compression, headers: Fields[S]) -> bool:
    """Say whether the head of a 304, which mostly has no Content-Type, leaves it open that the 200 is encoded."""
    said = {words.meanings.get(name.lower()): value for name, value in headers}
    kind, control = said.get(_Meaning.TYPE), said.get(_Meaning.CONTROL)
    return (kind is None or options.compresses(kind)) and (control is None or not _forbids(words.text(control)))


def _same_etag(words: Words[S], options: Compression, asked: Asked, headers: Fields[S]) -> Fields[S]:
    """Return the head of a 304 with the ETag of what the client has, which may be an encoded form."""
    if asked.condition is None:
        return headers
    for field in headers:
        name, value = field
        if words.meanings.get(name.lower()) != 6:
            continue
        own = parse_etag(words.text(value))
        if own is None or own.weak:
            return headers
        for known in parse_etags(asked.condition):
            weakened = known.weak and known.opaque == own.opaque
            suffixed = options.etag is EtagForm.SUFFIX and own.opaque == _bare(known.opaque, options)
            if weakened or suffixed:
                text = f'W/"{known.opaque}"' if known.weak else f'"{known.opaque}"'
                return [(name, words.form(text)) if other is field else other for other in headers]
    return headers


def _bare(opaque: str, options: Compression) -> str:
    """Return *opaque* without the suffix of a coding."""
    for name in options.offered:
        if opaque.endswith(f"-{name}"):
            return opaque[: -len(name) - 1]
    return opaque


def conditions(options: Compression, headers: Headers) -> HeaderList | None:
    """Return the request fields with the ETags that the application knows; None where they are as they should be.

    The tag as it came stays in the list: an application may end tags of its own like a suffix.
    """
    if options.etag is not EtagForm.SUFFIX:
        return None
    changed = False
    made: HeaderList = []
    for name, value in headers:
        if name.lower() in CONDITIONS:
            more = [bare for tag in parse_etags(value) if (bare := _bare(tag.opaque, options)) != tag.opaque]
            if more:
                value = ", ".join([value, *(f'"{bare}"' for bare in more)])
                changed = True
        made.append((name, value))
    return made if changed else None


def is_stored(words: Words[S], headers: Fields[S]) -> bool:
    """Say whether a response comes out of a cache: only those tell their age (RFC 9111 section 5.1)."""
    age = words.age
    for name, _ in headers:  # noqa: SIM110 - on the way of every hit, where a generator costs more than the loop
        if name == age or name.lower() == age:
            return True
    return False


def encode(coding: Coding, asked: Asked, body: bytes) -> bytes:
    """Return the whole *body* encoded."""
    if not asked.padded or coding.padded is None:
        return coding.whole(body)
    stream = coding.padded()
    return stream.feed(body, flush=False) + stream.finish()


def begin(coding: Coding, asked: Asked) -> Stream | None:
    """Return what encodes a body piece by piece, or None when that fails: the body then travels as it is."""
    try:
        return coding.padded() if asked.padded and coding.padded is not None else coding.stream()
    except Exception:
        log.exception("compression failed; the response is sent without it")
        return None


def feed(stream: Stream, chunk: bytes, flush: bool, last: bool) -> bytes:
    """Return what there is to send for *chunk*, the *last* one or not."""
    made = stream.feed(chunk, flush=flush and not last) if chunk else b""
    return made + stream.finish() if last else made


REFUSAL: Final = b"None of the content codings that this response can have is acceptable.\n"


def refusal(headers: Headers = ()) -> HeaderList:
    """Return the head of the answer 406 (RFC 9110 section 15.5.7); what else the refused one says is kept back."""
    return [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(REFUSAL))),
        ("Vary", ", ".join([*values(headers, "vary"), "Accept-Encoding"])),
        ("Cache-Control", "no-store"),
    ]
