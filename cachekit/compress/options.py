"""What compression does, checked when it is made. Pure. Must not know the edges."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final

from cachekit.compress.codings import Coding, installed, make
from cachekit.compress.negotiate import Choice, choose
from cachekit.errors import ConfigError
from cachekit.http.rules import Rule

TYPES: Final = (
    "text/*", "application/json", "application/*+json", "application/javascript", "application/ecmascript",
    "application/xml", "application/*+xml", "application/graphql", "application/wasm", "application/x-ndjson",
    "application/x-javascript", "application/x-www-form-urlencoded", "application/yaml", "application/sql",
    "application/toml", "application/rtf", "application/vnd.ms-fontobject", "font/ttf", "font/otf", "image/svg+xml",
    "image/bmp", "image/x-icon", "image/vnd.microsoft.icon", "multipart/x-mixed-replace",
)  # fmt: skip
"""Media types that grow smaller. Images, sound, video and archives are compressed already."""

_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+*-]+/[a-z0-9!#$&^_.+*-]+\Z")
_CACHED_TYPES: Final = 1024


class EtagForm(StrEnum):
    """What becomes of a strong ETag when the response is encoded: the bytes are others, so it cannot stay."""

    WEAKEN = "weaken"
    """``"v1"`` becomes ``W/"v1"``."""
    SUFFIX = "suffix"
    """``"v1"`` becomes ``"v1-gzip"``, and is given back to the application as ``"v1"``."""


@dataclass(frozen=True, slots=True)
class Compression:
    """Settings of compression.

    Attributes:
        codings: those on offer, the best first; all that are installed when left out.
        levels: level of each coding; higher is smaller and slower.
        minimum: bytes below which a body is left alone.
        types: media types that are compressed, ``*`` within them for anything.
        etag: what becomes of a strong ETag: ``"weaken"`` or ``"suffix"``.
        padding: add bytes of random length, so that the length of a page does not tell what it contains (BREACH,
            breachattack.com): for every response, or for paths such as ``["/account/**"]``. zstd is then not offered.
        offload: bytes from which an event loop leaves a body to a thread.
        memo: bytes of encoded stored responses that are kept to be sent again.

    Raises:
        ConfigError: a value is wrong; the message names it.
    """

    BY_SIZE_ALONE: ClassVar[bool] = False
    """Whether the minimum alone decides: nobody gets what is smaller encoded, and what is not is encoded though it grow."""

    codings: Sequence[str] | None = None
    levels: Mapping[str, int] = field(default_factory=dict)
    minimum: int = 500
    types: Sequence[str] = TYPES
    etag: EtagForm | str = EtagForm.WEAKEN
    padding: bool | Sequence[str] = False
    offload: int = 128 * 1024
    memo: int = 32 * 1024 * 1024
    _made: dict[str, Coding] = field(init=False, repr=False, compare=False)
    _names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _padders: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _padded: tuple[Rule, ...] = field(init=False, repr=False, compare=False)
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _kinds: dict[str | bytes, bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = installed() if self.codings is None else self.codings
        if isinstance(names, str) or not names:
            raise ConfigError(f'codings={self.codings!r} must be a list such as ["zstd", "br", "gzip"]')
        for name in self.levels:
            if name not in names:
                raise ConfigError(f"levels: {name!r} is none of the codings {', '.join(names)}")
        made = {name: make(name, self.levels.get(name)) for name in names}
        for option in ("minimum", "offload", "memo"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"{option}={value!r} must be a number of bytes, 0 or more")
        if isinstance(self.types, str) or not all(_TYPE.match(str(one).lower()) for one in self.types):
            raise ConfigError(f'types={self.types!r} must be a list such as ["text/*", "application/json"]')
        try:
            self._set("etag", EtagForm(self.etag))
        except ValueError as exc:
            raise ConfigError(f"etag={self.etag!r} must be one of {', '.join(EtagForm)}") from exc
        if isinstance(self.padding, str):
            raise ConfigError(f'padding={self.padding!r} must be True, False or a list such as ["/account/**"]')
        paths = () if isinstance(self.padding, bool) else tuple(self.padding)
        padders = tuple(name for name, coding in made.items() if coding.padded is not None)
        if self.padding and not padders:
            raise ConfigError(f"padding needs one of the codings br and gzip, codings has only {', '.join(made)}")
        kinds = "|".join(re.escape(one.lower()).replace(r"\*", ".*") for one in self.types)
        self._set("_made", made)
        self._set("_names", tuple(made))
        self._set("_padders", padders)
        self._set("_padded", tuple(Rule(path) for path in paths))
        self._set("_pattern", re.compile(f"(?:{kinds})\\Z"))
        self._set("_kinds", {})

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def choose(self, accept: str | None, *, padded: bool = False) -> Choice:
        """Return what a client with this Accept-Encoding gets."""
        return choose(accept, self._padders if padded else self._names)

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the codings on offer, the best first."""
        return self._names

    def coding(self, name: str) -> Coding:
        """Return the coding *name*, one of those on offer."""
        return self._made[name]

    def pads(self, path: str) -> bool:
        """Say whether the responses of *path* (percent-decoded) are padded."""
        if isinstance(self.padding, bool):
            return self.padding
        return any(rule.match("GET", path) is not None for rule in self._padded)

    def compresses(self, content_type: str | bytes) -> bool:
        """Say whether bodies of this Content-Type grow smaller."""
        known = self._kinds.get(content_type)
        if known is None:
            text = content_type if isinstance(content_type, str) else content_type.decode("latin-1")
            kind = text.partition(";")[0].strip(" \t").lower()
            known = self._pattern.match(kind) is not None
            if len(self._kinds) < _CACHED_TYPES:
                self._kinds[content_type] = known
        return known
