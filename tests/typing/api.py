"""The typed API: never executed, but mypy --strict and pyright must accept every line of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, assert_type

import cachekit
from cachekit import Cache, ConfigError, Event, Figures, Kind, Policy, Stats, cached, collecting, tag

cache = Cache(
    "tiered+redis://localhost",
    ttl="5m",
    ttl_classes={"quick": 5, "slow": Policy(ttl=60), "day": timedelta(days=1)},
    jitter=0.1,
    stale_if_error="1h",
    observers=[lambda event: event.kind],
)

# -- functions ------------------------------------------------------------------------------------------------------------


@cache.cached
def bare(x: int, *, y: str = "") -> float:
    return x + len(y)


assert_type(bare(1), float)
assert_type(bare(1, y="a"), float)
assert_type(bare.invalidate(1, y="a"), None)
assert_type(bare.refresh(1), float)
assert_type(bare.key_for(x=1), str)
assert_type(bare.peek(1, y="a"), float | None)
assert_type(bare.peek_or("nothing", 1), float | str)
assert_type(bare.invalidate_all(), None)
bare.peek("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare.invalidate_all(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bare("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare.invalidate("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bare.refresh()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bare.key_for(1, z=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@cache.cached(ttl="5m", tags=["user:{user_id}"], result_tags=lambda user: [f"org:{user['org']}"], ignore=["db"])
def user(user_id: int, db: object = None) -> dict[str, int]:
    return {"id": user_id}


assert_type(user(1), dict[str, int])
assert_type(user.refresh(1, None), dict[str, int])


@cache.cached(ttl=Policy(ttl=5), key="price:{product}", lock=False, copy=True, stale_while_revalidate=5, beta=1.0)
async def price(product: str) -> float | None:
    return None


async def use_price() -> None:
    coroutine: Coroutine[Any, Any, float | None] = price("a")
    assert_type(await coroutine, float | None)
    assert_type(await price.refresh("a"), float | None)
    assert_type(await price.invalidate("a"), None)
    assert_type(await price.peek("a"), float | None)
    assert_type(await price.peek_or(0, "a"), float | int | None)
    assert_type(await price.invalidate_all(), None)
    assert_type(await bare.apeek(1), float | None)
    assert_type(await bare.apeek_or("nothing", 1), float | str)
    assert_type(await bare.ainvalidate_all(), None)
    assert_type(price.key_for("a"), str)
    _ = await price(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@cached
def module_bare(x: int) -> list[int]:
    return [x]


@cached(ttl="1h", tags=lambda x: [f"x:{x}"])
async def module_options(x: int) -> list[int]:
    return [x]


async def use_module_functions() -> None:
    assert_type(module_bare(1), list[int])
    assert_type(await module_options(1), list[int])


cache.cached(tll=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache.cached(ttl=[5])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


@cache.cached_many(key="user:{item}")
def users(numbers: list[int]) -> dict[int, str]:
    return {}


@cache.cached_many(key="auser:{item}")
async def ausers(numbers: list[int], *, deep: bool = False) -> dict[int, str]:
    return {}


assert_type(users([1]), dict[int, str])
assert_type(users.invalidate([1]), None)
assert_type(users.invalidate_all(), None)


async def use_many() -> None:
    assert_type(await ausers([1], deep=True), dict[int, str])
    assert_type(await ausers.invalidate([1]), None)
    assert_type(await ausers.invalidate_all(), None)


# -- methods --------------------------------------------------------------------------------------------------------------


class Shop:
    @cache.cached
    def total(self, cart: int) -> float:
        return cart * 1.5

    @cache.cached(ttl="5m")
    async def rows(self, cart: int, *, limit: int = 10) -> Sequence[str]:
        return [str(cart)] * limit

    @staticmethod
    @cache.cached(ttl="5m")
    def rate(currency: str) -> float:
        return len(currency)


shop = Shop()
assert_type(shop.total(1), float)
assert_type(Shop.total(shop, 1), float)
assert_type(Shop.total.invalidate(shop, 1), None)
assert_type(Shop.total.refresh(shop, cart=1), float)
assert_type(Shop.total.peek(shop, 1), float | None)
assert_type(Shop.total.invalidate_all(), None)
assert_type(Shop.rate("EUR"), float)
shop.total("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def use_methods() -> None:
    assert_type(await shop.rows(1, limit=5), Sequence[str])
    assert_type(await Shop.rows(shop, 1), Sequence[str])
    assert_type(await Shop.rows.refresh(shop, 1), Sequence[str])


def takes_callable(fn: Callable[[int], float]) -> None: ...


takes_callable(bare)
takes_callable(shop.total)

# -- the facade -----------------------------------------------------------------------------------------------------------

assert_type(cache.get("k"), Any)
assert_type(cache.get_many(["k"]), dict[str, Any])
assert_type(cache.set("k", 1, ttl="5m", tags=["t"]), None)
assert_type(cache.set_many({"k": 1}, ttl=5), None)
assert_type(cache.delete("k"), bool)
assert_type(cache.delete_many({"k"}), int)
assert_type(cache.add("k", 1), bool)
assert_type(cache.touch("k", ttl="quick"), bool)
assert_type(cache.incr("n", 2, initial=5), int)
assert_type(cache.get_or_set("k", lambda: 1, lock=False), Any)
assert_type(cache.invalidate("a", "b"), None)
assert_type(cache.clear(), None)
assert_type(cache.close(), None)
assert_type(cache.stats(), Stats)
assert_type(cache.stats().total, Figures)
assert_type(cache.ttl_classes, tuple[str, ...])
cache.get(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.set("k")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cache.invalidate(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def use_cache() -> None:
    assert_type(await cache.aget("k", None), Any)
    assert_type(await cache.aget_many(["k"]), dict[str, Any])
    assert_type(await cache.aset("k", 1, ttl=timedelta(seconds=5)), None)
    assert_type(await cache.adelete("k"), bool)
    assert_type(await cache.aincr("n"), int)
    assert_type(await cache.aget_or_set("k", lambda: 1), Any)
    assert_type(await cache.ainvalidate("a"), None)
    async with cache as same:
        assert_type(same, Cache)


with Cache() as opened:
    assert_type(opened, Cache)

# -- the rest -------------------------------------------------------------------------------------------------------------

assert_type(cachekit.cache, Cache)
assert_type(cachekit.default_cache(), Cache)
assert_type(cachekit.use(cache), Cache)
assert_type(tag("a", "b"), None)
with collecting() as tags:
    assert_type("a" in tags, bool)
    for name in tags:
        assert_type(name, str)


def observer(event: Event) -> None:
    assert_type(event.kind, Kind)
    assert_type(event.error, BaseException | None)


try:
    Cache("nonsense://", observers=[observer])
except ConfigError as error:
    assert_type(error, ConfigError)

# -- watching and warming -------------------------------------------------------------------------------------------------

from cachekit.observe.monitor import Crossing, HitRateMonitor  # noqa: E402
from cachekit.observe.otel import CacheInstruments  # noqa: E402
from cachekit.observe.prometheus import CacheCollector  # noqa: E402
from cachekit.testing import calls  # noqa: E402
from cachekit.warm import Report, Warmer  # noqa: E402

warmer = Warmer(deadline="20s", progress=False)


@cache.cached
async def by_period(tenant: int, period: str = "day") -> str:
    return f"{tenant} {period}"


async def busiest() -> list[tuple[int, str]]:
    return [(1, "day")]


warmer.add(bare, 1, y="a")
warmer.add(by_period, 1)
warmer.add(by_period.refresh, 1, period="week")
warmer.add(bare, "no number")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
warmer.add_each(by_period, [(1, "day"), (2, "week")])
warmer.add_each(by_period, busiest)


@warmer.job
async def warm_up() -> None: ...


@warmer.job  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
def needs_arguments(x: int) -> None: ...


assert_type(warmer.run(), Report)
CacheCollector({"products": cache}).add("other", cache)
CacheInstruments(cache, name="products")


def alarm(crossing: Crossing) -> None:
    assert_type(crossing.hit_rate, float)


HitRateMonitor(cache, on_low=alarm).start()
with calls(cache) as seen:
    assert_type(seen.hits, int)
    assert_type(seen.of(bare), Figures)


with cache.transaction() as tx:
    assert_type(tx.commit(), None)
    assert_type(tx.rollback(), None)


async def use_transaction() -> None:
    async with cache.transaction(on_commit=lambda apply: apply()) as atx:
        assert_type(await atx.acommit(), None)


Cache("redis://localhost", protection=cachekit.Encryption([b"", "text"]))
Cache("redis://localhost", protection=cachekit.Signing([b""]))
Cache("redis://localhost", protection=b"key")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
