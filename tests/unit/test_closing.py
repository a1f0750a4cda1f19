"""A cache is closed once, at the end of the lifespan, whatever the application does with it."""

from __future__ import annotations

import asyncio

import pytest

from cachekit.closing import Closing


class Noted:
    def __init__(self, story: list[str], *, broken: bool = False) -> None:
        self.story, self.broken = story, broken

    async def aclose(self) -> None:
        self.story.append("closed")
        if self.broken:
            raise OSError("broken")


async def whole(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def starlette_like(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "its own"})
    raise OSError("its own")


async def refuses(scope, receive, send):
    raise KeyError("path")


async def refuses_late(scope, receive, send):
    await receive()
    raise NotImplementedError


async def ignores(scope, receive, send):
    return


async def breaks_at_the_end(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise OSError("its own")


async def fails_to_start(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed"})


def run(app, *, broken: bool = False) -> list[str]:
    story: list[str] = []
    messages = ["lifespan.startup", "lifespan.shutdown"]

    async def receive():
        return {"type": messages.pop(0)}

    async def send(message):
        story.append(message["type"].removeprefix("lifespan."))

    try:
        asyncio.run(Closing(app, Noted(story, broken=broken))({"type": "lifespan"}, receive, send))
    except OSError:
        story.append("raised")
    return story


GOOD = ["startup.complete", "closed", "shutdown.complete"]


@pytest.mark.parametrize(
    ("app", "story"),
    [
        (whole, GOOD),
        (refuses, GOOD),
        (refuses_late, GOOD),
        (ignores, GOOD),
        (starlette_like, ["startup.complete", "closed", "shutdown.failed", "raised"]),
        (breaks_at_the_end, ["startup.complete", "closed", "raised"]),
        (fails_to_start, ["startup.failed"]),
    ],
)
def test_the_cache_is_closed_at_the_end(app, story) -> None:
    assert run(app) == story


def test_a_cache_that_cannot_be_closed_keeps_nobody() -> None:
    assert run(whole, broken=True) == GOOD


def test_requests_pass() -> None:
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(Closing(app, Noted([]))({"type": "http"}, None, None))
    assert seen == ["http"]
