"""The ASGI edge of compression: messages of every kind keep their order, and what is not for it passes."""

from __future__ import annotations

import asyncio
import gzip
import threading
from typing import Any

import pytest

from cachekit.compress.asgi import Compress
from cachekit.compress.options import Compression
from tests.compress.conftest import TEXT

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def scope(**more: Any) -> dict[str, Any]:
    return {
        "type": "http", "method": "GET", "path": "/", "headers": [(b"accept-encoding", b"gzip")], **more
    }  # fmt: skip


def run(*messages: dict[str, Any], options: Compression | None = None, **more: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Compress(app, options)(scope(**more), None, send))  # type: ignore[arg-type]
    return sent


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_protocols_pass_untouched(kind: str) -> None:
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen.extend(given)

    given = ({"type": kind, "headers": []}, object(), object())
    asyncio.run(Compress(app)(*given))  # type: ignore[arg-type]
    assert all(ours is theirs for ours, theirs in zip(seen, given, strict=True))


def test_early_hints_go_first() -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}
    sent = run(hint, HEAD, hint, body(TEXT))
    assert [one["type"] for one in sent] == [hint["type"], hint["type"], "http.response.start", "http.response.body"]
    assert gzip.decompress(sent[-1]["body"]) == TEXT


def test_a_file_that_the_server_sends_passes() -> None:
    sent = run(HEAD, {"type": "http.response.pathsend", "path": "/etc/hostname"})
    assert sent == [HEAD, {"type": "http.response.pathsend", "path": "/etc/hostname"}]


def test_trailers_pass() -> None:
    trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False}
    sent = run({**HEAD, "trailers": True}, body(TEXT), trailers)
    assert sent[-1] == trailers
    assert gzip.decompress(sent[1]["body"]) == TEXT
    assert b"content-length" not in dict(sent[0]["headers"])


def test_a_head_without_a_body_is_sent_at_the_end() -> None:
    assert run(HEAD) == [HEAD]


def test_an_application_that_fails_before_its_body_has_sent_nothing() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        raise ValueError("broken")

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(Compress(app)(scope(), None, send))  # type: ignore[arg-type]
    assert sent == [], "whoever handles the error can still answer"


def test_an_application_that_fails_in_its_body_leaves_it_incomplete() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await send(body(TEXT, more=True))
        raise ValueError("broken")

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(Compress(app)(scope(), None, send))  # type: ignore[arg-type]
    assert sent[-1]["more_body"]


def test_a_client_that_left_ends_the_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await send(body(TEXT, more=True))
        pytest.fail("goes on for nobody")

    async def send(message: Any) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        asyncio.run(Compress(app)(scope(), None, send))  # type: ignore[arg-type]


@pytest.mark.parametrize("pieces", [[TEXT * 100], [TEXT * 100, TEXT * 100, b""]], ids=["whole", "stream"])
def test_a_large_body_is_encoded_off_the_loop(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    options = Compression(offload=1000)
    coding = options.coding("gzip")
    threads: set[int] = set()
    whole, stream = coding.whole, coding.stream

    def whole_here(data: bytes) -> bytes:
        threads.add(threading.get_ident())
        return whole(data)

    class Watched:
        def __init__(self) -> None:
            self.inner = stream()

        def feed(self, chunk: bytes, *, flush: bool) -> bytes:
            threads.add(threading.get_ident())
            return self.inner.feed(chunk, flush=flush)

        def finish(self) -> bytes:
            return self.inner.finish()

    monkeypatch.setattr(type(coding), "whole", property(lambda _: whole_here))
    monkeypatch.setattr(type(coding), "stream", property(lambda _: Watched))
    messages = [body(piece, more=number < len(pieces) - 1) for number, piece in enumerate(pieces)]
    sent = run(HEAD, *messages, options=options)
    assert gzip.decompress(b"".join(one["body"] for one in sent[1:])) == b"".join(pieces)
    assert threads
    assert threading.get_ident() not in threads


def test_the_codec_is_not_fooled_by_several_fields() -> None:
    fields = [(b"accept-encoding", b"br;q=0"), (b"accept-encoding", b"gzip")]
    sent = run(HEAD, body(TEXT), headers=fields)
    assert dict(sent[0]["headers"])[b"content-encoding"] == b"gzip"


@pytest.mark.parametrize("kind", [b"text/plain", b"image/png"])
def test_the_fields_may_be_an_iterable_of_lists(kind: bytes) -> None:
    fields = [[b"content-type", kind], [b"x-other", b"1"]]
    sent = run({**HEAD, "headers": iter(fields)}, body(TEXT))
    assert {tuple(field) for field in sent[0]["headers"]} >= {tuple(field) for field in fields}


@pytest.mark.parametrize(
    ("kind", "coding", "at_once"),
    [
        (b"text/event-stream", b"gzip", True),
        (b"text/event-stream", b"identity", True),
        (b"application/octet-stream", b"gzip", True),
        (b"text/plain", b"identity", True),
        (b"text/plain", b"gzip", False),
    ],
)
def test_a_head_is_held_only_where_the_body_decides(kind: bytes, coding: bytes, at_once: bool) -> None:
    sent: list[Any] = []
    before: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**HEAD, "headers": [(b"content-type", kind)]})
        before.append(len(sent))
        await send(body(b"data: 1\n\n", more=True))
        await send(body(b""))

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Compress(app)(scope(headers=[(b"accept-encoding", coding)]), None, send))  # type: ignore[arg-type]
    assert before == [int(at_once)]
    data = b"".join(one["body"] for one in sent[1:])
    encoded = dict(sent[0]["headers"]).get(b"content-encoding") == b"gzip"
    assert (gzip.decompress(data) if encoded else data) == b"data: 1\n\n"
    assert encoded is (coding == b"gzip" and kind.startswith(b"text/"))
