"""Never run: decorated views and functions of the Flask adapter, and its session, to its type checkers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

from cachekit_flask import CacheKit, session
from flask import Flask
from flask.views import MethodView

app = Flask("shop")
kit = CacheKit(app)


@kit.memoize(ttl="5m", tags=["product:{number}"])
def price(number: int) -> float:
    return 9.99 * number


@kit.memoize(60)
async def stock(number: int) -> int:
    return number


class Tenant:
    @kit.memoize()
    def plan(self, month: str) -> str:
        return month


@app.get("/products/<int:number>")
@kit.cached(ttl="5m", shared=True)
def product(number: int) -> str:
    return str(number)


@app.get("/stock/<int:number>")
@kit.cached(60)
async def in_stock(number: int) -> dict[str, int]:
    return {"stock": await stock(number)}


class Page(MethodView):
    decorators = [kit.cached(60)]  # noqa: RUF012 - as Flask's users write it

    @kit.cached(60)
    def get(self, number: int) -> str:
        return str(number)


async def use() -> None:
    assert_type(price(1), float)
    assert_type(price.uncached(1), float)
    uncached: Callable[[int], float] = price.uncached
    assert_type(uncached(1), float)
    assert_type(price.invalidate(1), None)
    assert_type(price.refresh(1), float)
    assert_type(price.peek(1), float | None)
    assert_type(await stock(1), int)
    assert_type(await stock.uncached(1), int)
    assert_type(await stock.refresh(1), int)
    assert_type(Tenant().plan("may"), str)
    assert_type(Tenant.plan.uncached(Tenant(), "may"), str)
    assert_type(product(1), str)
    assert_type(product.uncached(1), str)
    assert_type(Page().get(1), str)
    assert_type(session.user, Any)
    session.bind("ann")
    session["visits"] = 1
    session.permanent = True
    price("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    product("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
