"""Compression in front of the HTTP cache: one stored response for all codings, encoded once for each."""

from __future__ import annotations

from typing import Any

import pytest

from cachekit import Cache
from cachekit.asgi import CacheKit as AsgiCacheKit
from cachekit.compress import asgi, wsgi
from cachekit.compress.options import Compression
from cachekit.http.rules import Rule
from cachekit.wsgi import CacheKit as WsgiCacheKit
from tests.compress.conftest import TEXT, AsgiEdge, Edge

CODINGS = ["zstd", "br", "gzip", None]


@pytest.fixture
def cached(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Edge:
    """The drop-in in the place of compression alone."""
    kind: Any = AsgiCacheKit if isinstance(edge, AsgiEdge) else WsgiCacheKit
    module: Any = asgi if isinstance(edge, AsgiEdge) else wsgi
    cache = Cache()
    made: list[Any] = []

    def instead(app: Any, options: Compression) -> Any:
        if not made:
            monkeypatch.setattr(module, "Compress", Compress)
            made.append(kind(app, cache=cache, rules=[Rule("/**", ttl="1h")], compression=options))
            monkeypatch.setattr(module, "Compress", instead)
        return made[0]

    Compress = module.Compress
    monkeypatch.setattr(module, "Compress", instead)
    return edge


def watch(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where the codings are noted that bodies are encoded with."""
    made: list[str] = []
    coding = edge.options.coding("gzip")
    originals = {name: edge.options.coding(name).whole for name in edge.options.offered}

    def whole(self: Any) -> Any:
        def work(body: bytes) -> bytes:
            made.append(self.name)
            return originals[self.name](body)

        return work

    monkeypatch.setattr(type(coding), "whole", property(whole))
    return made


def test_one_load_serves_every_coding(cached: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    made = watch(cached, monkeypatch)
    for _ in range(3):
        for coding in CODINGS:
            got = cached.ask(coding)
            assert (got.coding, got.body) == (coding, TEXT)
            assert got.get("vary") == "Accept-Encoding"
            assert got.all("content-length") == [str(len(got.raw))] or cached.kind == "wsgi"
    assert cached.calls == 1
    assert "accept-encoding" not in cached.seen, "the application is asked for what can be encoded in any way"
    assert sorted(made) == ["br", "gzip", "zstd", "zstd"], "the first answer was on its way to the cache"


def test_an_etag_of_the_encoded_form_is_answered_from_the_cache(cached: Edge) -> None:
    cached.headers.append(("ETag", '"v1"'))
    assert cached.ask("gzip").get("etag") == 'W/"v1"'
    got = cached.ask("gzip", if_none_match='W/"v1"')
    assert (got.status, got.raw, got.get("etag")) == (304, b"", 'W/"v1"')
    assert got.get("vary") == "Accept-Encoding"
    assert cached.calls == 1


def test_head_of_a_stored_response(cached: Edge) -> None:
    cached.ask("br")
    got = cached.ask("br", method="HEAD")
    assert (got.raw, got.coding, got.get("content-length")) == (b"", "br", None)
    assert cached.calls == 1


def test_a_part_of_a_stored_response_is_sent_plain(cached: Edge) -> None:
    cached.ask("gzip")
    got = cached.ask("gzip", range="bytes=0-9")
    assert (got.status, got.coding, got.raw) == (206, None, TEXT[:10])


def test_what_changed_is_encoded_anew(cached: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    made = watch(cached, monkeypatch)
    cached.ask("gzip")
    cached.ask("gzip")
    cached.pieces = [TEXT + b"new"]
    cached.status = 200
    assert cached.ask("gzip", method="POST").body == TEXT + b"new"  # which drops what is stored
    for _ in range(2):
        assert cached.ask("gzip").body == TEXT + b"new"
    assert cached.ask("gzip").body == TEXT + b"new"
    assert made.count("gzip") == 5


def test_a_client_that_accepts_nothing_is_refused(cached: Edge) -> None:
    assert cached.ask("identity;q=0").status == 406
    assert cached.ask("gzip, identity;q=0").body == TEXT
