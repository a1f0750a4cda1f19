"""Results come back as what the annotation says, and what cannot be read is a miss: every store, both worlds."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from itertools import count
from typing import Annotated, Any, NamedTuple, NotRequired, Optional, Required, TypedDict

import pytest
from pydantic import BaseModel

from cachekit import Cache, Kind
from cachekit.codecs.frame import VERSION
from tests.conftest import Facade


class Colour(Enum):
    RED = "r"


class Point(NamedTuple):
    x: int
    y: Decimal


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    colour: Colour = Colour.RED


class Size(TypedDict, total=False):
    width: Required[Decimal]
    part: NotRequired[Part]


class Product(TypedDict):
    id: int
    price: Annotated[Decimal, "EUR"]
    sizes: list[Size]
    made: date | None
    at: NotRequired[Point]


@dataclass
class Order:
    number: int
    product: Product
    parts: dict[str, list[Part | None]] = field(default_factory=dict)
    first: Optional[Size] = None  # noqa: UP045 - the older spelling


class Owner(BaseModel):
    name: str
    part: Part | None = None


SIZE = Size(width=Decimal("1.5"), part=Part("lid"))
PRODUCT = Product(id=1, price=Decimal("9.99"), sizes=[SIZE, Size(width=Decimal(2))], made=date(2024, 2, 29))
ORDER = Order(7, PRODUCT, {"a": [Part("b"), None]}, SIZE)


def product() -> Product:
    return PRODUCT


def order() -> Order:
    return ORDER


def products() -> list[Product]:
    return [PRODUCT, {**PRODUCT, "at": Point(1, Decimal(2))}]


def maybe() -> Optional[Product]:  # noqa: UP045 - the older spelling
    return PRODUCT


def union() -> dict[str, Owner | Point | Product]:
    return {"owner": Owner(name="ann", part=Part("lid")), "point": Point(1, Decimal(2)), "product": PRODUCT}


def nested() -> tuple[dict[int, list[Order]], ...]:
    return ({1: [ORDER]},)


def strings() -> list[Order]:
    return [ORDER]


@pytest.fixture
def far(store_url, world, clock, watch):
    """Two caches over one store: what one writes the other reads; over ``memory://`` they are the same."""
    one = Facade(Cache(store_url, clock=clock, timeout=5.0, observers=[watch]), world)
    two = (
        one
        if store_url == "memory://"
        else Facade(Cache(store_url, clock=clock, timeout=5.0, observers=[watch]), world)
    )
    yield one, two
    for facade in {id(f): f for f in (one, two)}.values():
        facade.close()


@pytest.mark.parametrize("fn", [product, order, products, maybe, union, nested, strings])
def test_it_comes_back_as_it_was(far, fn) -> None:
    write, read = (facade.made(fn, key="result") for facade in far) if far[0] is not far[1] else (far[0].made(fn),) * 2
    runs = write()
    found = read.peek_or("nothing")
    assert found == runs == fn()
    assert repr(found) == repr(fn())  # the same types at every depth
    assert type(found) is type(fn())


def test_an_annotation_may_name_what_is_defined_later(far) -> None:
    def result() -> Later:  # noqa: F821 - that is the point
        return globals()["Later"](1)

    made = [facade.made(result, key="late") for facade in {id(f): f for f in far}.values()]
    globals()["Later"] = make_dataclass("Later", [("x", int)], namespace={"__module__": __name__})
    try:
        made[0]()
        assert made[-1]() == made[-1].peek() == globals()["Later"](1)
        assert not far[0].cache.stats().events.get("unencodable")
    finally:
        del globals()["Later"]


def changed(**fields: Any) -> type:
    """Return another version of one dataclass, as a newer release of an application has it."""
    made = make_dataclass("Report", list(fields.items()), namespace={"__module__": __name__})
    made.__qualname__ = "Report"
    return made


def _reporting(facade, kind, values):
    runs = count()

    def report():
        next(runs)
        return [kind(*values)]

    report.__annotations__["return"] = list[kind]
    return facade.made(report, key="report"), runs


@pytest.mark.server
@pytest.mark.parametrize(
    "after",
    [
        {"number": int, "text": str},  # a field more
        {"count": int},  # renamed
        {"number": str},  # of another type
        {},  # gone
    ],
)
def test_a_dataclass_that_changed_shape_is_a_miss(valkey, world, clock, watch, after) -> None:
    with valkey.client() as client:
        client.flushall()
    Before, After = changed(number=int), changed(**after)
    for kind, values in ((Before, [1]), (After, [None] * len(after))):
        facade = Facade(Cache(valkey.url, clock=clock, timeout=5.0, observers=[watch]), world)
        load, runs = _reporting(facade, kind, values)
        assert load() == load() == [kind(*values)]
        assert next(runs) == 1  # loaded once, and read back once
        facade.close()
    assert {event.key for event in watch.of(Kind.UNREADABLE)} == {"report"}
    assert "have changed since" in watch.of(Kind.UNREADABLE)[0].detail


@pytest.mark.server
@pytest.mark.parametrize("layer", ["frame", "record"])
def test_what_a_newer_cachekit_wrote_is_a_miss(server, world, clock, watch, layer) -> None:
    facade = Facade(Cache(server.url, clock=clock, timeout=5.0, observers=[watch]), world)
    facade.set("k", "theirs")
    with server.client() as client:
        raw = client.get("cachekit:v:{k}")
        at = raw.index(b"\xfeK") + 2 if layer == "frame" else 1
        client.set("cachekit:v:{k}", raw[:at] + bytes([(VERSION if layer == "frame" else 1) + 1]) + raw[at + 1 :])
    assert facade.get("k", "miss") == "miss"
    (event,) = watch.of(Kind.UNREADABLE)
    assert (event.key, "newer" in event.detail) == ("k", True)
    assert facade.get_or_set("k", lambda: "ours") == "ours"
    assert facade.get("k") == "ours"
    facade.close()
