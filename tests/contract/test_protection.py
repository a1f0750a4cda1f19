"""Encrypted and signed values on servers, in both worlds: what does not authenticate is a miss, never a wrong value."""

from __future__ import annotations

from itertools import count

import pytest

from cachekit import Cache, Encryption, Kind, Signing
from tests.conftest import Facade

pytestmark = pytest.mark.server

OLD, NEW = b"o" * 32, b"n" * 32
STORES = ["valkey", "redis", "tiered+valkey", "tiered+redis"]


@pytest.fixture(params=STORES)
def server_and_url(request):
    server = request.getfixturevalue("redis_server" if request.param.endswith("redis") else "valkey")
    with server.client() as client:
        client.flushall()
    return server, ("tiered+" if request.param.startswith("tiered") else "") + server.url


@pytest.fixture
def opened(server_and_url, world, clock, watch):
    made = []

    def start(protection, **options):
        made.append(
            Facade(
                Cache(server_and_url[1], clock=clock, timeout=5.0, observers=[watch], protection=protection, **options),
                world,
            )
        )
        return made[-1]

    yield start
    for facade in made:
        facade.close()


@pytest.mark.parametrize("way", [Encryption, Signing])
def test_everything_works_as_without(opened, server_and_url, watch, way) -> None:
    facade = opened(way([OLD]))
    runs = count()
    load = facade.made(lambda x: {"secret": "s3cret" * 500, "run": next(runs)}, tags=["t:{x}"])
    assert [load(1)["run"], load(1)["run"]] == [0, 0]
    facade.set_many({"a": "s3cret", "b": 2})
    assert facade.get_many(["a", "b"]) == {"a": "s3cret", "b": 2}
    assert facade.incr("n") == 1 and facade.incr("n") == 2
    facade.invalidate("t:1")
    assert load(1)["run"] == 1
    with server_and_url[0].client() as client:
        raw = client.get(b"cachekit:v:{a}")
    assert (b"s3cret" in raw) is (way is Signing)
    assert watch.of(Kind.UNAUTHENTIC) == watch.of(Kind.UNREADABLE) == []
    other = opened(way([OLD]))
    assert other.get("a") == "s3cret"


@pytest.mark.parametrize("way", [Encryption, Signing])
def test_a_value_that_was_moved_to_another_key_is_a_miss(opened, server_and_url, watch, way) -> None:
    facade = opened(way([OLD]))
    facade.set("account:1", 100)
    facade.set("account:2", 5)
    with server_and_url[0].client() as client:
        client.copy("cachekit:v:{account:1}", "cachekit:v:{account:2}", replace=True)
    assert facade.get("account:1") == 100
    assert facade.get("account:2", "miss") == "miss"
    assert [event.key for event in watch.of(Kind.UNAUTHENTIC)] == ["account:2"]


@pytest.mark.parametrize("way", [Encryption, Signing])
def test_a_value_of_another_namespace_is_a_miss(opened, server_and_url, watch, way) -> None:
    one, two = opened(way([OLD]), namespace="one"), opened(way([OLD]), namespace="two")
    one.set("k", 1)
    two.set("k", 2)
    with server_and_url[0].client() as client:
        client.copy("one:v:{k}", "two:v:{k}", replace=True)
        client.copy("one:t:", "two:t:", replace=True)
    assert two.get("k", "miss") == "miss"
    assert watch.of(Kind.UNAUTHENTIC)


def test_keys_rotate_without_a_miss(opened, watch) -> None:
    opened(Encryption([OLD])).set("before", 1)
    turning = opened(Encryption([NEW, OLD]))
    turning.set("after", 2)
    assert turning.get_many(["before", "after"]) == {"before": 1, "after": 2}
    after = opened(Encryption([NEW]))
    assert after.get_many(["before", "after"]) == {"after": 2}
    (event,) = watch.of(Kind.UNAUTHENTIC)
    assert (event.key, "not configured here" in event.detail) == ("before", True)


@pytest.mark.parametrize("way", [Encryption, Signing])
def test_turning_it_on_and_off_are_misses(opened, watch, way) -> None:
    plain, protected = opened(None), opened(way([OLD]))
    plain.set("k", "plain")
    runs = count()
    assert protected.get_or_set("k", lambda: next(runs)) == 0
    assert protected.get("k") == 0
    assert plain.get("k", "miss") == "miss"
    assert len(watch.of(Kind.UNAUTHENTIC)) >= 2


def test_the_first_level_holds_live_objects(opened, server_and_url) -> None:
    facade = opened(Encryption([OLD]))
    if facade.cache.l1 is None:
        pytest.skip("has no first level")
    value = ["a"]
    assert facade.get_or_set("k", lambda: value) is value
    assert facade.get("k") is value
