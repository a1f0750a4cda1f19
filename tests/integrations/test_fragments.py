"""``{% cache %}`` in the templates of Flask and Starlette, and ``request.session``."""

from __future__ import annotations

import asyncio

import pytest

from cachekit import Cache, ConfigError
from cachekit.sessions import SessionOptions, Sessions

PAGE = """{% cache "5m", "menu", tags=["menu"] %}{{ count() }}{% endcache %}"""


def test_flask(tmp_path):
    flask = pytest.importorskip("flask")
    from cachekit_flask import CacheKit

    app, calls = flask.Flask("shop"), []
    kit = CacheKit(app, cache=Cache())

    @app.get("/")
    def page():
        return flask.render_template_string(PAGE, count=lambda: calls.append(1) or len(calls))

    client = app.test_client()
    assert [client.get("/").text for _ in range(2)] == ["1", "1"]
    kit.invalidate("menu")
    assert client.get("/").text == "2"


def test_starlette(tmp_path):
    pytest.importorskip("starlette")
    import httpx
    from cachekit_starlette import CacheKit, fragments
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from starlette.templating import Jinja2Templates

    (tmp_path / "page.html").write_text(PAGE)
    templates, cache, calls = Jinja2Templates(tmp_path), Cache(), []
    fragments(templates, cache)
    with pytest.raises(ConfigError, match="Jinja2Templates"):
        fragments("templates", cache)

    async def page(request):
        return templates.TemplateResponse(request, "page.html", {"count": lambda: calls.append(1) or len(calls)})

    async def visit(request):
        request.session["visits"] = request.session.get("visits", 0) + 1
        return JSONResponse(request.session["visits"])

    sessions = Sessions("memory://", SessionOptions(secrets="a long random text, not this one", development=True))
    app = Starlette(
        routes=[Route("/", page), Route("/visit", visit)],
        middleware=[Middleware(CacheKit, cache=cache, sessions=sessions)],
    )

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop") as client:
            first = [(await client.get("/")).text for _ in range(2)]
            await cache.ainvalidate("menu")
            return first, (await client.get("/")).text, [(await client.get("/visit")).json() for _ in range(3)]

    assert asyncio.run(main()) == (["1", "1"], "2", [1, 2, 3])
