"""Methods: nothing keeps an instance alive, no two instances share, except those that say they are the same."""

from __future__ import annotations

import asyncio
import gc
import weakref
from itertools import count

import pytest

from cachekit import Cache, KeyArgumentError, instances


@pytest.fixture
def no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Plain:
    pass


def _class(cache: Cache):
    class Shop:
        runs = count()

        @cache.cached
        def load(self, x):
            return [next(self.runs), x]

        @cache.cached(copy=True)
        def copied(self, x):
            return [next(self.runs), x]

        @cache.cached(key="t:{self.tenant}:{x}")
        def templated(self, x):
            return [next(self.runs), x]

        @cache.cached
        async def aload(self, x):
            return [next(self.runs), x]

        tenant = 1

    return Shop


def test_an_instance_dies_with_its_last_reference(cache: Cache, no_gc) -> None:
    shop_class = _class(cache)
    for use in (
        lambda shop: [shop.load(1), shop.load(1), shop.load(2)],
        lambda shop: [shop.copied(1), shop.copied(1)],
        lambda shop: [shop.templated(1), shop.templated(1)],
        lambda shop: [asyncio.run(shop.aload(1)), asyncio.run(shop.aload(1))],
        lambda shop: shop_class.load.invalidate(shop, 1),
        lambda shop: shop_class.load.refresh(shop, 1),
        lambda shop: shop_class.load.key_for(shop, 1),
    ):
        shop = shop_class()
        ref = weakref.ref(shop)
        use(shop)
        del shop
        assert ref() is None


def test_nothing_is_left_of_instances_that_died(cache: Cache) -> None:
    shop_class = _class(cache)
    tokens, memos = len(instances._tokens), len(instances._memos)
    for _ in range(100):
        shop = shop_class()
        shop.load(1), shop.load(1), shop.templated(1)
    del shop
    assert (len(instances._tokens), len(instances._memos)) == (tokens, memos)


def test_instances_never_share(cache: Cache) -> None:
    """Addresses are used again; tokens are not."""
    shop_class = _class(cache)
    seen = []
    for _ in range(200):
        shop = shop_class()
        seen.append(shop.load(1)[0])
        assert shop.load(1)[0] == seen[-1]
    assert len({*seen}) == 200
    one, other = shop_class(), shop_class()
    assert one.load(1) != other.load(1)
    assert shop_class.load.key_for(one, 1) != shop_class.load.key_for(other, 1)


def test_those_with_a_key_of_their_own_share(cache: Cache) -> None:
    runs = count()

    class Repo:
        def __init__(self, tenant):
            self.tenant = tenant

        def __cache_key__(self):
            return self.tenant

        @cache.cached
        def load(self, x):
            return next(runs)

    assert [Repo(1).load(5), Repo(1).load(5), Repo(2).load(5), Repo("1").load(5)] == [0, 0, 1, 2]
    repo = Repo(1)
    assert repo.load(5) == 0
    repo.tenant = 2
    assert repo.load(5) == 1


def test_what_cannot_be_referred_to_weakly_is_refused(cache: Cache) -> None:
    class Slotted:
        __slots__ = ("x",)

        @cache.cached
        def load(self):
            return 1

        @cache.cached(ignore=("self",))
        def shared(self):
            return 2

    with pytest.raises(KeyArgumentError, match="Slotted cannot be told apart.*__weakref__"):
        Slotted().load()
    assert Slotted().shared() == 2


def test_two_threads_take_one_token(monkeypatch) -> None:
    """The second thread takes its token between the first one's look and its writing."""
    plain, inner = Plain(), []
    numbers = count()

    class Interleaved:
        def __next__(self):
            if not inner:
                inner.append(None)
                inner[0] = instances.token_of(plain, "f")
            return next(numbers)

    monkeypatch.setattr(instances, "_numbers", Interleaved())
    assert instances.token_of(plain, "f") == inner[0] == instances.token_of(plain, "f")


def test_a_forked_child_takes_tokens_of_its_own() -> None:
    plain = Plain()
    before = instances.token_of(plain, "f")
    instances._here.renew()
    assert instances.token_of(plain, "f") != before
