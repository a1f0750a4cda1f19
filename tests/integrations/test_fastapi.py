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
