"""``claims`` through the settings of Flask and of Starlette: an outage of the store logs nobody out, in any process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cachekit import Cache
from cachekit.sessions import SessionOptions, Sessions
from tests.conftest import Server

pytestmark = pytest.mark.server


def flask_site(kind: str, url: str) -> Any:
    flask = pytest.importorskip("flask")
    from cachekit_flask import CacheKit, CacheKitSessionInterface

    app = flask.Flask("shop")
    app.config.update(SECRET_KEY="a long random text", TESTING=True)
    if kind == "settings":
        app.config.update(CACHEKIT_SESSIONS={"secrets": "a long random text", "claims": ["user"], "development": True})
        CacheKit(app, cache=Cache(url))
    else:
        app.session_interface = CacheKitSessionInterface(Cache(url), claims=["user"])

    @app.get("/enter")
    def enter():
        flask.session.update(user="ann", cart=[1])
        return "in"

    @app.get("/who")
    def who():
        return f"{flask.session.get('user')} {flask.session.get('cart')}"

    return app


@pytest.mark.parametrize("kind", ["settings", "interface"])
def test_flask(own_server: Server, kind: str) -> None:
    one, other = flask_site(kind, own_server.url), flask_site(kind, own_server.url)
    browser, elsewhere = one.test_client(), other.test_client()
    browser.get("/enter")
    cookie = next(iter(browser._cookies.values()))
    elsewhere.set_cookie(cookie.key, cookie.value)
    assert elsewhere.get("/who").text == "ann [1]"
    own_server.stop()
    assert elsewhere.get("/who").text == "ann None"
    assert other.test_client().get("/who").text == "None None"


def starlette_site(kind: str, url: str) -> Any:
    pytest.importorskip("starlette")
    from cachekit_starlette import CacheKit, SessionMiddleware
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def enter(request):
        request.session.update(user="ann", cart=[1])
        return PlainTextResponse("in")

    async def who(request):
        return PlainTextResponse(f"{request.session.get('user')} {request.session.get('cart')}")

    secret = "a long random text"
    if kind == "settings":
        options = SessionOptions(secrets=secret, claims=["user"])
        made = Middleware(CacheKit, cache=Cache(url), sessions=Sessions(Cache(url), options))
    else:
        made = Middleware(
            SessionMiddleware, secret_key=secret, store=Cache(url), https_only=True, options={"claims": ["user"]}
        )
    return Starlette(routes=[Route("/enter", enter), Route("/who", who)], middleware=[made])


@pytest.mark.parametrize("kind", ["settings", "own"])
def test_starlette(own_server: Server, kind: str) -> None:
    httpx = pytest.importorskip("httpx")
    one, other = starlette_site(kind, own_server.url), starlette_site(kind, own_server.url)

    async def main() -> None:
        def client(site: Any) -> Any:
            return httpx.AsyncClient(transport=httpx.ASGITransport(app=site), base_url="https://shop")

        async with client(one) as browser, client(other) as elsewhere, client(other) as stranger:
            await browser.get("/enter")
            elsewhere.cookies.update(browser.cookies)
            assert (await elsewhere.get("/who")).text == "ann [1]"
            own_server.stop()
            assert (await elsewhere.get("/who")).text == "ann None"
            assert (await stranger.get("/who")).text == "None None"

    asyncio.run(main())
