"""Never run: the drop-ins of the Starlette adapter are middleware to its type checkers too."""
# pyright: strict

from __future__ import annotations

from typing import cast

from cachekit_starlette import CacheKit, GZipMiddleware, Session, SessionMiddleware, cached_route
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from cachekit import Cache

own = [
    Middleware(CacheKit, cache=Cache(), compression=True),
    Middleware(SessionMiddleware, secret_key="x", store="redis://localhost", options={"counters": ["hits"]}),
    Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5),
]
app = Starlette(middleware=own)
app.add_middleware(SessionMiddleware, secret_key="x", session_cookie="sid", max_age=None, https_only=True)
visits: int = Session({"visits": 1})["visits"]


def view(request: Request) -> None:
    cast("Session", request.session).bind("ann")


@cached_route(ttl="5m", tags=lambda request: [f"page:{request.url.path}"])
async def page(request: Request) -> Response:
    return PlainTextResponse(request.url.path)


async def whoever(request: Request) -> Response:
    return await page(request)
