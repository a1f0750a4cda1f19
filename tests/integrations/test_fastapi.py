"""The Starlette adapter in front of FastAPI: signatures, dependencies and OpenAPI stay what they were."""

# Without postponed annotations: FastAPI has to see the models that are made inside of functions.
import asyncio
from typing import Annotated

import pytest

fastapi = pytest.importorskip("fastapi")

from cachekit_starlette import CacheKit, cached_route, cachekit_lifespan, get_cache  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

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


def behind(cache=None, **options):
    """Return an application behind the cache, without any route."""
    app = fastapi.FastAPI(**options)
    app.add_middleware(CacheKit, cache=cache or Cache())
    return app


def tell(token: Annotated[str, fastapi.Header(alias="X-Member")]) -> str:
    if token not in ("ann", "bob"):
        raise fastapi.HTTPException(403)
    return token


class Wanted(BaseModel):
    x_member: str
    currency: str = Field("EUR", alias="X-Currency")


def ask_in_the_endpoint(options):
    app = behind()

    @app.get("/me")
    @cached_route(ttl="5m", **options)
    def me(x_member: Annotated[str, fastapi.Header()]) -> str:
        return x_member

    return app


def ask_in_a_dependency(options):
    app, inner, outer = behind(), fastapi.APIRouter(prefix="/a"), fastapi.APIRouter(prefix="/b")

    def through(token: Annotated[str, fastapi.Depends(tell)]) -> str:
        return token

    @inner.get("/me")
    @cached_route(ttl="5m", **options)
    def me(token: Annotated[str, fastapi.Depends(through)]) -> str:
        return token

    outer.include_router(inner)
    app.include_router(outer)
    return app


def ask_in_a_router(options):
    app, inner, outer = behind(), fastapi.APIRouter(prefix="/a"), fastapi.APIRouter(prefix="/b")

    @inner.get("/me")
    @cached_route(ttl="5m", **options)
    def me(request: fastapi.Request) -> str:
        return request.headers["x-member"]

    outer.include_router(inner, dependencies=[fastapi.Depends(tell)])
    app.include_router(outer)
    return app


def ask_in_the_application(options):
    app = behind(dependencies=[fastapi.Depends(tell)])

    @app.get("/me")
    @cached_route(ttl="5m", **options)
    async def me(request: fastapi.Request) -> str:
        return request.headers["x-member"]

    return app


def ask_in_a_part(options):
    app, part = behind(), fastapi.FastAPI(dependencies=[fastapi.Depends(tell)])

    @part.get("/me")
    @cached_route(ttl="5m", **options)
    def me(request: fastapi.Request) -> str:
        return request.headers["x-member"]

    app.mount("/a", part)
    return app


def ask_by_a_model(options):
    app = behind()

    @app.get("/me")
    @cached_route(ttl="5m", **options)
    def me(wanted: Annotated[Wanted, fastapi.Header()]) -> str:
        return wanted.x_member

    return app


def ask_by_a_key(options):
    from fastapi.security import APIKeyHeader

    app = behind()

    @app.get("/me")
    @cached_route(ttl="5m", **options)
    def me(key: Annotated[str, fastapi.Security(APIKeyHeader(name="X-Member"))]) -> str:
        return key

    return app


KINDS = [
    ("/me", ask_in_the_endpoint), ("/b/a/me", ask_in_a_dependency), ("/b/a/me", ask_in_a_router),
    ("/me", ask_in_the_application), ("/a/me", ask_in_a_part), ("/me", ask_by_a_model), ("/me", ask_by_a_key),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:The 'alias' attribute")  # an older FastAPI under a newer pydantic
@pytest.mark.parametrize(("path", "build"), KINDS, ids=[build.__name__ for _, build in KINDS])
def test_what_a_header_parameter_tells_apart_is_not_mixed_up(path, build):
    app = build({})
    for name in ("ann", "bob", "ann"):
        answer = get(app, path, headers={"x-member": name})[0]
        assert answer.json() == name
        assert "x-member" in answer.headers["vary"]
    refused = get(app, path)[0]
    assert refused.status_code in (401, 403, 422)
    hit = "; hit" in get(app, path, headers={"x-member": "ann"})[0].headers["cache-status"]
    assert hit == (build is not ask_by_a_key)  # an API key is a credential: its owner is asked for each time
    shared = build({"shared": True})
    for name in ("ann", "bob"):
        answer = get(shared, path, headers={"x-member": name})[0]
        assert answer.json() == "ann"
        assert "vary" not in answer.headers


def test_what_is_given_all_fields_is_not_kept():
    class Fields(BaseModel):
        model_config = {"extra": "allow"}
        x_token: str = ""

    app = behind()

    @app.get("/me")
    @cached_route(ttl="5m")
    def me(fields: Annotated[Fields, fastapi.Header()]) -> str:
        return (fields.model_extra or {}).get("x-who", "nobody")

    for name in ("ann", "bob"):
        answer = get(app, "/me", headers={"x-who": name})[0]
        assert answer.json() == name
        assert "*" in answer.headers["vary"].split(", ")


def test_nobody_waits_for_the_response_of_another_header():
    import httpx

    app, gate, running = behind(), asyncio.Event(), []

    @app.get("/me")
    @cached_route(ttl="5m")
    async def me(x_member: Annotated[str, fastapi.Header()]) -> str:
        running.append(x_member)
        await gate.wait()
        return x_member

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop") as client:
            asked = [
                asyncio.create_task(client.get("/me", headers={"x-member": name})) for name in ("ann", "bob", "ann")
            ]
            while not running:
                await asyncio.sleep(0)
            gate.set()
            return [answer.json() for answer in await asyncio.gather(*asked)]

    assert asyncio.run(main()) == ["ann", "bob", "ann"]


def test_one_vary_says_all():
    """Who adds to it further out may look at the first line alone, as older releases of Starlette do."""
    app = behind()

    @app.get("/price")
    @cached_route(ttl="5m")
    def price(response: fastapi.Response, x_shop: Annotated[str, fastapi.Header()]) -> str:
        response.headers.append("Vary", "Accept-Language")
        response.headers.append("Vary", "Accept")
        return x_shop

    answer = get(app, "/price", headers={"x-shop": "one"})[0]
    assert answer.headers.get_list("vary") == ["Accept-Language, Accept, x-shop"]


def test_what_the_cache_answers_by_itself_tells_nothing_apart():
    app, seen = behind(), []

    @app.get("/price")
    @cached_route(ttl="5m")
    def price(
        response: fastapi.Response,
        if_none_match: Annotated[str | None, fastapi.Header()] = None,
        authorization: Annotated[str | None, fastapi.Header()] = None,
    ) -> int:
        seen.append(if_none_match)
        response.headers["etag"] = '"1"'
        return 1

    assert "vary" not in get(app, "/price")[0].headers
    assert get(app, "/price", headers={"if-none-match": '"1"'})[0].status_code == 304
    assert len(seen) == 1


def test_methods_of_instances():
    class Shop:
        def __init__(self, name: str) -> None:
            self.name, self.calls = name, 0

        async def stock(self, number: int, *, size: int = 1) -> dict[str, object]:
            self.calls += 1
            return {"shop": self.name, "number": number, "size": size, "calls": self.calls}

        def plain(self) -> str:
            return self.name

    one, two, app = Shop("one"), Shop("two"), behind()
    app.get("/one/{number}")(cached_route(ttl="5m", tags=["one:{number}"])(one.stock))
    app.get("/two/{number}")(cached_route(ttl="5m", tags=["two:{number}"])(two.stock))
    app.get("/never/{number}")(two.stock)
    app.get("/plain")(cached_route(ttl="5m")(one.plain))
    answers = get(app, "/one/1", "/one/1", "/two/1?size=3", "/two/1?size=3", "/never/1", "/never/1", "/plain")
    assert [answer.json() for answer in answers[:6]] == [
        {"shop": shop, "number": 1, "size": size, "calls": calls}
        for shop, size, calls in [("one", 1, 1)] * 2 + [("two", 3, 1)] * 2 + [("two", 1, 2), ("two", 1, 3)]
    ]
    assert [answer.headers.get("cache-tag") for answer in answers[1:6:2]] == ["one:1", "two:1", None]
    assert answers[6].json() == "one"
    assert app.openapi()["paths"]["/one/{number}"]["get"]["operationId"] == "stock_one__number__get"


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
