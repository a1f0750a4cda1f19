"""The shop: plain Starlette, with the HTTP cache and sessions of cachekit around it.

The shelf is the same for everybody and comes out of the HTTP cache; whatever looks at a session never does.
``SHOP_STORE`` names the store (``embedded://`` by default), ``SHOP_SECRETS`` the secrets, the newest first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from cachekit import Cache, StoreError
from cachekit.asgi import CacheKit
from cachekit.sessions import SessionOptions, Sessions
from examples.shop import pages
from examples.shop.catalogue import PRODUCTS

MOST = 99


def create_app(sessions: Sessions) -> Starlette:
    """Return the application alone."""

    def foot() -> str:
        return f"Answered by worker {os.getpid()}. Prices are made up."

    async def form(request: Request) -> dict[str, str]:
        async with request.form() as given:
            return {name: value for name, value in given.items() if isinstance(value, str)}

    async def checked(request: Request) -> dict[str, str] | None:
        """Return the form, or None when no page of this visitor's session has sent it."""
        given = await form(request)
        return given if request.session.is_csrf_token(given.get("token")) else None  # type: ignore[attr-defined]

    def forged() -> Response:
        return PlainTextResponse("This form is too old, or not from here: go back and reload.", 403)

    async def shelf(_: Request) -> Response:
        page = pages.page("Shop", pages.shelf(), "Prices are made up.")
        return HTMLResponse(page, headers={"Cache-Control": "public, max-age=0, s-maxage=60"})

    async def cart(request: Request) -> Response:
        session: Any = request.session
        token, user = session.csrf_token(), session.user
        try:
            listed = await sessions.aof(user) if user else []
        except StoreError:
            listed = []
        body = pages.cart(session.get("cart", {}), session.flashed(), token, degraded=session.degraded)
        return HTMLResponse(pages.page("Your cart", body + pages.account(user, listed, session.handle, token), foot()))

    async def state(request: Request) -> Response:
        """Return what the session holds, for the load generator."""
        session: Any = request.session
        found = {"cart": session.get("cart", {}), "user": session.user, "degraded": session.degraded}
        return JSONResponse({**found, "worker": os.getpid()})

    async def add(request: Request) -> Response:
        # The shelf is for everybody, so that no token can stand in it; browsers say where a form comes from.
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return forged()
        sku = (await form(request)).get("sku", "")
        if sku not in PRODUCTS:
            return PlainTextResponse("There is no such thing here.", 404)
        lines = request.session.setdefault("cart", {})
        lines[sku] = min(MOST, lines.get(sku, 0) + 1)  # deep inside the session: noticed
        request.session.flash(f"{PRODUCTS[sku].name} is in your cart.")  # type: ignore[attr-defined]
        return RedirectResponse("/cart", 303)

    async def change(request: Request) -> Response:
        given = await checked(request)
        if given is None:
            return forged()
        sku, count = given.get("sku", ""), given.get("count", "")
        if sku not in PRODUCTS or not count.isdecimal() or int(count) > MOST:
            return PlainTextResponse("That cannot be put in a cart.", 422)
        lines = request.session.setdefault("cart", {})
        lines.pop(sku, None)
        if int(count):
            lines[sku] = int(count)
        return RedirectResponse("/cart", 303)

    async def login(request: Request) -> Response:
        given = await checked(request)
        if given is None:
            return forged()
        name = given.get("name", "").strip()[:40]
        if not name:
            return PlainTextResponse("Who are you?", 422)
        session: Any = request.session
        session.bind(name)  # a new id: whoever knew the old one is out
        session.remember("remember" in given)
        session.flash(f"Welcome, {name}.")
        return RedirectResponse("/cart", 303)

    async def logout(request: Request) -> Response:
        if await checked(request) is None:
            return forged()
        request.session.clear()
        return RedirectResponse("/", 303)

    async def logout_others(request: Request) -> Response:
        if await checked(request) is None:
            return forged()
        session: Any = request.session
        ended = await sessions.arevoke_others(session)
        session.flash(f"Logged out in {ended} other places.")
        return RedirectResponse("/cart", 303)

    def started() -> None:
        if ready := os.environ.get("SHOP_READY"):
            Path(ready).touch()

    routes = [
        Route("/", shelf), Route("/cart", cart), Route("/state", state), Route("/add", add, methods=["POST"]),
        Route("/set", change, methods=["POST"]), Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]), Route("/logout-others", logout_others, methods=["POST"]),
    ]  # fmt: skip
    return Starlette(routes=routes, lifespan=_lifespan(started, sessions))


def _lifespan(started: Any, sessions: Sessions) -> Any:
    import contextlib

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> Any:
        started()
        yield
        await sessions.aclose()  # what waits for the store is delivered

    return lifespan


def create() -> CacheKit:
    """Return what a worker serves."""
    store = os.environ.get("SHOP_STORE", "embedded://")
    secrets = os.environ.get("SHOP_SECRETS", "an example that is never used in production").split(",")
    # Plain HTTP on this machine, so `development`; it says in the log what that weakens.
    sessions = Sessions(store, SessionOptions(secrets=secrets, development=True))
    return CacheKit(create_app(sessions), cache=Cache(), sessions=sessions)
