"""The first wiring of the framework adapters, each in front of a real application of its framework."""

from __future__ import annotations

import pytest

from cachekit import Cache, ConfigError


def test_flask():
    flask = pytest.importorskip("flask")
    from cachekit_flask import CacheKit, Rule

    app = flask.Flask("shop")
    calls = []

    @app.get("/products/<number>")
    def product(number):
        calls.append(number)
        return {"number": number}

    kit = CacheKit(app, cache=Cache(), rules=[Rule("/products/{number}", ttl="1h", tags=["product:{number}"])])
    client = app.test_client()
    assert client.get("/products/1").json == client.get("/products/1").json == {"number": "1"}
    assert calls == ["1"]
    kit.cache.invalidate("product:1")
    client.get("/products/1")
    assert calls == ["1", "1"]
    with pytest.raises(ConfigError, match="already"):
        kit.init_app(app)
    with pytest.raises(ConfigError, match="init_app"):
        _ = CacheKit().cache


def test_flask_reads_its_config():
    flask = pytest.importorskip("flask")
    from cachekit_flask import CacheKit

    app = flask.Flask("shop")
    app.config["CACHEKIT_URL"] = "memory://own"
    kit = CacheKit()
    kit.init_app(app)
    assert kit.cache.url == "memory://own"


def test_starlette():
    pytest.importorskip("starlette")
    import httpx
    from cachekit_starlette import CacheKit, Rule
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    calls = []
    cache = Cache()

    @cache.cached(ttl="5m", tags=["product:{number}"])
    def product(number):
        calls.append(number)
        return {"number": number}

    app = Starlette(
        routes=[Route("/products/{number}", lambda request: JSONResponse(product(request.path_params["number"])))],
        middleware=[Middleware(CacheKit, cache=cache, rules=[Rule("/products/{number}", ttl="1h")])],
    )

    async def main():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            await client.get("/products/1")
            hit = await client.get("/products/1")
            assert "hit" in hit.headers["cache-status"]
            await cache.ainvalidate("product:1")  # the function's tag drops the page
            assert "fwd" in (await client.get("/products/1")).headers["cache-status"]

    import asyncio

    asyncio.run(main())
    assert calls == ["1", "1"]


DJANGO = """
import sys
from django.conf import settings
from cachekit_django import Rule

settings.configure(
    ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], SECRET_KEY="x", CACHEKIT=eval(sys.argv[2])
)
from django.http import JsonResponse
from django.urls import path

calls = []

def product(request, number):
    calls.append(number)
    return JsonResponse({"calls": len(calls)})

urlpatterns = [path("products/<int:number>", product)]

import httpx
if sys.argv[1] == "wsgi":
    from cachekit_django import get_wsgi_application
    client = httpx.Client(transport=httpx.WSGITransport(app=get_wsgi_application()), base_url="http://shop")
    print([client.get("/products/1").json()["calls"] for _ in range(3)])
else:
    import asyncio
    from cachekit_django import get_asgi_application

    async def main():
        transport = httpx.ASGITransport(app=get_asgi_application())
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            print([(await client.get("/products/1")).json()["calls"] for _ in range(3)])

    asyncio.run(main())
"""


@pytest.mark.parametrize("edge", ["asgi", "wsgi"])
def test_django(edge, tmp_path):
    pytest.importorskip("django")
    import subprocess
    import sys

    program = tmp_path / "shop.py"
    program.write_text(DJANGO)
    settings = '{"RULES": [Rule("/products/{number}", ttl="1h")]}'
    done = subprocess.run([sys.executable, str(program), edge, settings], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[1, 1, 1]", done.stderr
    done = subprocess.run(
        [sys.executable, str(program), edge, '{"RUELS": []}'], capture_output=True, text=True, timeout=60
    )
    assert "URL, RULES, OPTIONS, PURGERS" in done.stderr and "it has RUELS (did you mean RULES?)" in done.stderr
