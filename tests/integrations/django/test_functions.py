"""Results of functions that only Django knows how to keep: rows, query sets, texts; and the setting TYPES."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from cachekit_django import conf
from django.core.cache import cache, caches
from django.test import override_settings
from django.utils import translation
from django.utils.safestring import mark_safe

from cachekit import Cache, ConfigError
from tests.apps.django_shop.models import Category, Money, Place, Product

BACKEND = "cachekit_django.CacheBackend"


@dataclass
class Coin:
    cents: int


def test_functions_that_return_rows(url, rows):
    product = Product.objects.create(name="saw", category=Category.objects.create(name="tools"))
    loads = []

    @conf.cache().cached(ttl="1h")
    def found(pk):
        loads.append(pk)
        return Product.objects.select_related("category").get(pk=pk)

    @conf.cache().cached(ttl="1h")
    def listed() -> list[Product]:
        loads.append("all")
        return list(Product.objects.all())

    @conf.cache().cached(ttl="1h")
    def texts():
        loads.append("texts")
        return [mark_safe("<b>"), Money(5), translation.gettext_lazy("Yes"), Product.objects.filter(name="saw")]

    for _ in range(3):
        assert found(product.pk) == product and found(product.pk).category.name == "tools"
        assert listed() == [product]
        assert texts()[1] == Money(5) and list(texts()[3]) == [product]
    assert loads == [product.pk, "all", "texts"]


def test_types_of_the_setting_hold_for_functions(shared_url):
    """Those of CACHEKIT, and those of an entry of CACHES that has the same server."""
    here = f"{__name__}.Coin"
    before = caches["default"]
    for settings in (
        {"CACHEKIT": {"URL": shared_url, "TYPES": [here]}, "CACHES": {"default": {"BACKEND": BACKEND}}},
        {"CACHES": {"default": {"BACKEND": BACKEND, "LOCATION": shared_url, "OPTIONS": {"TYPES": [here]}}}},
    ):
        loads = []
        for one in conf._made.values():
            one.close()
        conf._made.clear()
        with override_settings(**settings):
            cache.set("coin", Coin(2))
            assert cache.get("coin") == Coin(2)

            @caches["default"].cache.cached(ttl="1h", key="purse{number}")
            def purse(number, loads=loads):
                loads.append(1)
                return [Coin(number)]

            assert purse(1) == purse(1) == [Coin(1)] and len(loads) == 1
            purse.invalidate(1)
    assert before.wrong is None


def test_types_of_the_setting_that_cannot_be():
    for types, message in {
        "shop.Money": "must be a list",
        ("shop.Nothing",): "'shop.Nothing' cannot be imported",
    }.items():
        with (
            override_settings(CACHEKIT={"URL": "memory://", "TYPES": types}),
            pytest.raises(ConfigError, match=message),
        ):
            conf.cache()


def test_a_default_cache_that_is_not_of_the_settings(valkey, rows, monkeypatch):
    """Such as that of CACHEKIT_URL, or one that a program hands over."""
    product, loads = Product.objects.create(name="saw"), []
    with Cache(valkey.url, namespace="handed", timeout=5.0) as own:
        monkeypatch.setattr(conf, "default_cache", lambda: own)
        with override_settings(CACHEKIT={"TYPES": [f"{__name__}.Coin"]}):
            assert conf.cache() is own is conf.cache()

            @own.cached(ttl="1h")
            def found():
                loads.append(1)
                return [Product.objects.get(), Coin(1)]

            assert found() == found() == [product, Coin(1)] and len(loads) == 1


def test_what_was_kept_without_django_is_read(shared_url, rows):
    """By a version of the project before it had rows, or by another program on the same server."""
    with Cache(shared_url, timeout=5.0) as other:
        other.codec.register(Place)
        other.set("plain", {"a": [1, (2,)], "place": Place("Oslo", (1, 2))})
    assert conf.cache().get("plain") == {"a": [1, (2,)], "place": Place("Oslo", (1, 2))}
