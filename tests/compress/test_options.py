"""What cannot be is refused when it is made, by name."""

from __future__ import annotations

from typing import Any

import pytest

from cachekit.compress import codings
from cachekit.compress.options import Compression
from cachekit.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"codings": ["deflate"]}, "unknown coding 'deflate': use some of zstd, br, gzip"),
        ({"codings": "gzip"}, "must be a list"),
        ({"codings": []}, "must be a list"),
        ({"levels": {"gzip": 10}}, "gzip=10 must be a whole number from 1 to 9"),
        ({"levels": {"gzip": True}}, "gzip=True must be"),
        ({"codings": ["gzip"], "levels": {"br": 3}}, "'br' is none of the codings gzip"),
        ({"minimum": -1}, "minimum=-1"),
        ({"offload": "1k"}, "offload='1k'"),
        ({"types": "text/html"}, "types='text/html' must be a list"),
        ({"types": ["html"]}, "must be a list such as"),
        ({"etag": "drop"}, "etag='drop' must be one of weaken, suffix"),
        ({"padding": "/account"}, "padding='/account'"),
        ({"padding": ["account"]}, "must be a string that begins with /"),
        ({"padding": True, "codings": ["zstd"]}, "padding needs one of the codings br and gzip"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Compression(**given)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codings, "find_spec", lambda _: None)
    assert codings.installed() == ("gzip",)
    with pytest.raises(ConfigError, match="needs the package brotli: install the extra 'compression'"):
        Compression(codings=["br"])


def test_levels_matter() -> None:
    body = b"".join(b'{"number": %d, "square": %d}' % (number, number * number) for number in range(500))
    for name, (low, high) in {"zstd": (1, 19), "br": (1, 11), "gzip": (1, 9)}.items():
        quick, small = (Compression(levels={name: level}).coding(name).whole(body) for level in (low, high))
        assert len(small) < len(quick)
