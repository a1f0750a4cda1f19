"""The Starlette adapter in front of FastAPI: signatures, dependencies and OpenAPI stay what they were."""

# Without postponed annotations: FastAPI has to see the models that are made inside of functions.
import asyncio
from typing import Annotated

import pytest

fastapi = pytest.importorskip("fastapi")

from cachekit_starlette import CacheKit, cached_route, cachekit_lifespan, get_cache  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from cachekit import Cache, ConfigError  # noqa: E402


def get(app, *paths, headers=None):
    """Return what *app* answers to *paths*, one after the other."""
    import httpx

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop") as client:
            return [await client.get(path, headers=headers) for path in paths]

    return asyncio.run(main())


def test_fastapi():
    cache, seen, asked = Cache(), [], []

    class Product(BaseModel):
        number: int
        calls: int

    def user(authorization: Annotated[str | None, fastapi.Header()] = None) -> str:
        asked.append(authorization)
        return authorization or "anonymous"

    def build(decorate):
        app = fastapi.FastAPI(lifespan=cachekit_lifespan(cache))
        app.add_middleware(CacheKit, cache=cache)
        router = fastapi.APIRouter(prefix="/shop")

        @router.get("/products/{number}")
        @decorate(ttl="5m", tags=["product:{number}"])
        async def product(number: int, name: Annotated[str, fastapi.Depends(user)], size: int = 1) -> Product:
            seen.append(number)
            return Product(number=number, calls=len(seen))

        @router.get("/plain/{number}", response_model=Product)
        @decorate(ttl="5m", tags=["product:{number}"])
        def plain(number: int, found: Annotated[Cache, fastapi.Depends(get_cache)]):
            """Say what there is."""
            assert found is cache
            seen.append(number)
            return {"number": number, "calls": len(seen)}

        app.include_router(router)
        return app

    app = build(cached_route)
    assert app.openapi() == build(lambda **options: lambda fn: fn).openapi()
    answers = get(app, "/shop/products/1", "/shop/products/1", "/shop/plain/1", "/shop/plain/1")
    assert [r.json()["calls"] for r in answers] == [1, 1, 2, 2]
    assert answers[1].headers["cache-tag"] == "product:1"
    cache.invalidate("product:1")
    assert [r.json()["calls"] for r in get(app, "/shop/products/1", "/shop/plain/1")] == [3, 4]
    before = len(asked)
    get(app, "/shop/products/1", headers={"authorization": "me"})  # who says who he is, is asked for it
    assert len(asked) == before + 1
    assert get(app, "/shop/products/x")[0].status_code == 422
    with pytest.raises(ConfigError, match="prices"):
        get(build(lambda **options: cached_route("prices")), "/shop/products/1")


def test_parameters_of_the_prefix_are_known():
    cache, router, app = Cache(), fastapi.APIRouter(), fastapi.FastAPI()
    app.add_middleware(CacheKit, cache=cache)

    @router.get("/products/{number}")
    @cached_route(ttl="5m", tags=["shop:{shop}:{number}"])
    def product(shop: str, number: int) -> str:
        return f"{number} of {shop}"

    app.include_router(router, prefix="/{shop}")
    assert [r.headers["cache-tag"] for r in get(app, "/a/products/1", "/a/products/1")] == ["shop:a:1"] * 2


def test_a_whole_application():
    """Login, private pages, forms of data, a stream, a background task, an error and a websocket, behind one middleware."""
    import httpx
    from cachekit_starlette import Rule
    from fastapi.responses import StreamingResponse

    from cachekit.sessions import SessionOptions, Sessions

    cache, log = Cache(), []
    stock = {1: 10}
    app = fastapi.FastAPI(lifespan=cachekit_lifespan(cache))
    sessions = Sessions("memory://", SessionOptions(secrets="a secret that is long enough"))
    app.add_middleware(CacheKit, cache=cache, sessions=sessions, compression=True, rules=[Rule("/public/**", ttl="1h")])

    class Order(BaseModel):
        number: int
        count: int

    def user(request: fastapi.Request) -> str:
        if not request.session.user:
            raise fastapi.HTTPException(401)
        return request.session.user

    @app.get("/public/{number}")
    @cached_route(ttl="5m", tags=["stock:{number}"])
    def left(number: int) -> dict[str, int]:
        return {"left": stock[number]}

    @app.post("/login/{name}")
    async def login(name: str, request: fastapi.Request) -> str:
        request.session.bind(name)
        return name

    @app.get("/me")
    @cached_route(ttl="5m")
    def me(name: Annotated[str, fastapi.Depends(user)]) -> str:
        return name

    @app.post("/orders", status_code=201)
    async def order(
        wanted: Order,
        tasks: fastapi.BackgroundTasks,
        name: Annotated[str, fastapi.Depends(user)],
        kept: Annotated[Cache, fastapi.Depends(get_cache)],
    ) -> Order:
        stock[wanted.number] -= wanted.count
        await kept.ainvalidate(f"stock:{wanted.number}")
        tasks.add_task(log.append, f"{name} ordered")
        return wanted

    @app.get("/report")
    def report() -> StreamingResponse:
        return StreamingResponse((f"{n}\n" for n in range(500)), media_type="text/csv")

    @app.get("/broken")
    @cached_route(ttl="5m")
    def broken() -> None:
        raise RuntimeError("secret")

    @app.websocket("/talk")
    async def talk(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.session.user)
        await websocket.close()

    async def main():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with (
            httpx.AsyncClient(transport=transport, base_url="https://shop") as stranger,
            httpx.AsyncClient(transport=transport, base_url="https://shop") as ann,
        ):
            assert [(await stranger.get("/public/1")).json() for _ in range(2)] == [{"left": 10}] * 2
            assert (await stranger.get("/me")).status_code == 401
            await ann.post("/login/ann")
            assert [(await ann.get("/me")).json() for _ in range(2)] == ["ann", "ann"]
            assert (await stranger.get("/me")).status_code == 401
            assert (await stranger.post("/orders", json={"number": 1, "count": 1})).status_code == 401
            assert (await ann.post("/orders", json={"number": 1, "count": "x"})).status_code == 422
            assert (await ann.post("/orders", json={"number": 1, "count": 3})).status_code == 201
            assert log == ["ann ordered"]
            assert (await stranger.get("/public/1")).json() == {"left": 7}
            assert (await stranger.get("/report")).text == "".join(f"{n}\n" for n in range(500))
            for _ in range(2):
                failed = await stranger.get("/broken")
                assert (failed.status_code, "secret" in failed.text) == (500, False)
            said = []

            async def hear():
                return {"type": "websocket.connect"}

            async def say(message):
                said.append(message)

            cookie = "; ".join(f"{name}={value}" for name, value in ann.cookies.items()).encode()
            scope = {
                "type": "websocket", "path": "/talk", "headers": [(b"cookie", cookie)], "query_string": b"",
                "subprotocols": [],
            }  # fmt: skip
            await app(scope, hear, say)
            assert said[1]["text"] == "ann"

    asyncio.run(main())
