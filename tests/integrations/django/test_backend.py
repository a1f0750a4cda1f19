"""The cache backend: Django's API in both worlds, on every store."""

from __future__ import annotations

import asyncio
import threading
import warnings
from dataclasses import dataclass
from decimal import Decimal

import pytest
from cachekit_django import CacheBackend
from cachekit_django.values import codec
from django.core.cache import cache, caches
from django.core.cache.backends.base import CacheKeyWarning
from django.http import HttpResponse, QueryDict
from django.template import engines
from django.template.response import TemplateResponse
from django.test import RequestFactory, override_settings
from django.utils import translation
from django.utils.safestring import SafeString, mark_safe

from cachekit import ConfigError
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.errors import CodecError, StoreError
from tests.apps.django_shop.models import Category, Label, Money, Place, Product, Size, Twin


class _Stranger:
    pass


@dataclass
class Coin:
    cents: int


def test_the_whole_api(url):
    assert cache.get("a", "nothing") == "nothing"
    cache.set("a", [1, {"b": (2, None)}])
    assert cache.get("a") == [1, {"b": (2, None)}]
    assert "a" in cache and "b" not in cache
    assert cache.add("a", 1) is False and cache.add("n", 1) is True
    assert cache.incr("n", 4) == 5 and cache.decr("n") == 4
    with pytest.raises(ValueError, match="not found"):
        cache.incr("missing")
    with pytest.raises(TypeError, match="not a number"):
        cache.incr("a")
    assert cache.set_many({"x": 1, "y": None}) == []
    assert cache.get_many(["x", "y", "z"]) == {"x": 1, "y": None}
    cache.delete_many(["x", "z"])
    assert cache.get("x") is None and cache.delete("y") is True and cache.delete("y") is False
    assert cache.get_or_set("made", lambda: [1]) == [1] and cache.get_or_set("made", 2) == [1]
    assert cache.incr_version("n") == 2 and cache.get("n") is None and cache.get("n", version=2) == 4
    assert cache.decr_version("n", version=2) == 1
    cache.clear()
    assert cache.get("n") is None
    with pytest.raises(ValueError, match="not found"):
        cache.incr_version("n")


def test_numbers_of_every_kind_are_counted(url, arun):
    for before, after in ((1, 6), (1.5, 6.5), (Decimal("1.50"), Decimal("6.50")), (2**70, 2**70 + 5)):
        cache.set("n", before)
        assert cache.incr("n", 5) == after == cache.get("n") and type(cache.get("n")) is type(before)
        assert arun(cache.adecr("n", 5)) == before
    for value, name in (({"a": 1}, "dict"), (("a",), "tuple"), (True, "bool"), ("5", "str")):
        cache.set("n", value)
        for count in (cache.incr, lambda key: arun(cache.aincr(key))):
            with pytest.raises(TypeError, match=f"'n' is of type {name}, not a number"):
                count("n")


def test_the_whole_api_async_without_a_thread(url, arun, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("a thread")

    async def main():
        monkeypatch.setattr("django.core.cache.backends.base.sync_to_async", forbidden)
        monkeypatch.setattr(asyncio, "to_thread", forbidden)
        before = threading.active_count()
        await cache.aset("a", [1], tags=["t"])
        assert await cache.aget("a") == [1] and await cache.ahas_key("a")
        assert await cache.aadd("a", 2) is False
        await cache.aset("n", 1)
        assert await cache.aincr("n", 4) == 5 and await cache.adecr("n") == 4
        assert await cache.aset_many({"x": 1, "y": 2}) == []
        assert await cache.aget_many(["x", "y", "z"]) == {"x": 1, "y": 2}
        await cache.adelete_many(["x"])
        assert await cache.adelete("y") is True

        async def load():
            return "made"

        assert await cache.aget_or_set("made", load) == "made"
        assert await cache.aget_or_set("plain", 5, timeout=0) == 5
        assert await cache.aincr_version("n") == 2 and await cache.aget("n", version=2) == 4
        assert await cache.adecr_version("n", version=2) == 1
        assert await cache.atouch("n", 100) is True and 99 < await cache.attl("n") <= 100
        assert sorted(await cache.akeys("*")) == ["a", "made", "n"]
        assert await cache.adelete_pattern("ma*", itersize=100) == 1
        await cache.ainvalidate_tags("t")
        assert await cache.aget("a") is None
        await cache.aset("a", 1, timeout=0)
        assert await cache.aadd("zero", 1, timeout=0) is True and await cache.aget("zero") is None
        assert await cache.aset_many({"x": 1}, timeout=-1) == []
        assert await cache.atouch("n", 0) is True and await cache.aget("n") is None
        await cache.aclear()
        assert await cache.akeys() == []
        assert threading.active_count() == before
        monkeypatch.undo()

    arun(main())


def test_timeouts(url):
    for timeout in (0, -1):
        cache.set("a", 1)
        cache.set("a", 2, timeout=timeout)
        assert cache.get("a") is None
    cache.set("a", 1, timeout=None)
    assert cache.ttl("a") is None
    cache.set("a", 1, timeout="5m")
    assert 299 < cache.ttl("a") <= 300
    cache.set("a", 1)
    assert 299 < cache.ttl("a") <= 300
    assert cache.touch("a", 50) is True and 49 < cache.ttl("a") <= 50
    assert cache.touch("a", 0) is True and cache.get("a") is None and cache.touch("a") is False
    assert cache.ttl("a") == 0
    assert cache.add("a", 1, timeout=0) is True and cache.get("a") is None
    assert cache.get_or_set("a", lambda: 3, timeout=0) == 3 and cache.get("a") is None


def test_tags(url):
    cache.set("a", 1, tags=["product:42", "menu"])
    cache.set_many({"b": 2, "c": 3}, tags=["menu"])
    cache.add("d", 4, tags=["product:42"])
    cache.get_or_set("e", lambda: 5, tags=["product:42"])
    cache.incr_version("d")  # tags move along
    cache.invalidate_tags("product:42")
    assert cache.get_many("abcde") == {"b": 2, "c": 3} and cache.get("d", version=2) is None
    cache.invalidate_tags("menu", "other")
    assert cache.get_many("abcde") == {}


def test_patterns_and_versions(url):
    other = CacheBackend(url, {"KEY_PREFIX": "p*", "VERSION": 2})
    cache.set_many({"user:1": 1, "user:2": 2, "post:1": 3, "a[1]": 4})
    other.set("user:3", 1)
    CacheBackend(url, {"KEY_PREFIX": "pq", "VERSION": 2}).set("user:5", 1)
    assert sorted(cache.keys("user:*")) == ["user:1", "user:2"]
    assert list(other.iter_keys(itersize=5)) == ["user:3"] and cache.keys(r"a\[*") == ["a[1]"]
    assert cache.keys(version=5) == []
    cache.set("user:4", 1, tags=["gone"])
    cache.invalidate_tags("gone")
    assert "user:4" not in list(cache.iter_keys())
    assert (
        cache.delete_pattern("user:?", itersize=100) >= 2 and cache.keys("user:*") == [] and other.keys() == ["user:3"]
    )


def test_what_is_got_is_nobody_elses(url):
    given = {"list": [1]}
    cache.set("a", given)
    given["list"].append(2)
    cache.get("a")["list"].append(3)
    assert cache.get("a") == {"list": [1]}


def test_get_or_set_runs_once_for_many_threads(url, thread):
    runs, gate = [], threading.Barrier(8)

    def load():
        runs.append(1)
        return "made"

    def ask():
        gate.wait(10)
        return cache.get_or_set("slow", load)

    assert {each.result() for each in [thread(ask) for _ in range(8)]} == {"made"}
    assert len(runs) == 1


def test_key_warnings():
    with warnings.catch_warnings(), pytest.raises(CacheKeyWarning):
        warnings.simplefilter("error")
        CacheBackend("memory://", {}).get("key with spaces")
    options = {"REVERSE_KEY_FUNCTION": lambda key: key.partition("/")[2]}
    key_function = lambda key, prefix, version: f"{version}/{key}"
    for params in ({"OPTIONS": options}, options):  # django-redis has it beside OPTIONS
        backend = CacheBackend("memory://", {"KEY_FUNCTION": key_function, **params})
        backend.set("mine", 1)
        assert backend.keys("m*") == ["mine"]


@pytest.mark.parametrize(("given", "kept"), [("60", 60), (60, 60), ("1m", 60), (None, None), (1.5, 1.5)])
def test_the_default_timeout(memory, given, kept):
    backend = CacheBackend("memory://", {"TIMEOUT": given})
    backend.set("a", 1)
    assert backend.default_timeout == kept and (backend.ttl("a") is None) is (kept is None)
    for nothing in (0, -1):
        backend = CacheBackend("memory://", {"TIMEOUT": nothing})
        backend.set("a", 1)
        assert backend.get("a") is None


@pytest.mark.parametrize(
    ("location", "params", "message"),
    [
        ("memory://", {"OPTIONS": {"TIMOUT": 1}}, "it has TIMOUT .did you mean TIMEOUT"),
        ("memory://", {"OPTIONS": {"MAX_ENTRIES": -1}}, "max_entries=-1"),
        ("memory://", {"TIMEOUT": "soon"}, "CACHES TIMEOUT='soon'"),
        ("memory://", {"TIMEOUT": [1]}, "CACHES TIMEOUT=.1. must be"),
        ("memori://", {}, "unknown URL scheme 'memori'"),
        ("", {"OPTIONS": {"TIMEOUT": 1}}, "need a LOCATION"),
        ("memory://", {"OPTIONS": {"TYPES": ["shop.Nothing"]}}, "'shop.Nothing' cannot be imported"),
    ],
)
def test_wrong_settings_are_named(location, params, message):
    backend = CacheBackend(location, params)
    for use in (lambda: backend.get("a"), lambda: backend.set("a", 1), lambda: backend.incr("a"), backend.clear):
        with pytest.raises(ConfigError, match=message):
            use()


def test_a_server_that_is_away_breaks_nothing(own_server):
    backend = CacheBackend(own_server.url, {})
    backend.set("a", 1)
    own_server.stop()
    assert backend.get("a", "gone") == "gone"
    backend.set("a", 2)
    assert backend.add("b", 1) is False and backend.get_or_set("c", lambda: 3) == 3
    assert backend.keys() == [] and backend.has_key("a") is False
    assert backend.touch("a") is False and backend.ttl("a") == 0
    backend.cache.close()


def test_a_count_without_a_server_is_one_that_is_not_there(own_server, arun):
    """Packages that limit rates catch the ``ValueError``, and go by their own settings."""
    backend = CacheBackend(own_server.url, {})
    backend.set("a", 1)
    own_server.stop()
    for use in (backend.incr, backend.decr, lambda key: arun(backend.aincr(key))):
        for kind in (ValueError, StoreError):
            with pytest.raises(kind, match="'a'"):
                use("a")
    with pytest.raises(ValueError, match="not found"):
        backend.incr_version("a")
    backend.cache.close()


# What Django puts in


def round_trip(value):
    cache.set("value", value)
    return cache.get("value")


def test_models(url, rows):
    category = Category.objects.create(name="tools")
    product = Product.objects.create(name="saw", category=category)
    product.labels.add(Label.objects.create(name="sharp"))
    loaded = Product.objects.select_related("category").prefetch_related("labels").get(pk=product.pk)
    back = round_trip(loaded)
    assert (type(back), back, back.price, back._state.db, back._state.adding) == (
        Product, product, loaded.price, "default", False,
    )  # fmt: skip
    assert back.category == category and back._state.fields_cache.keys() == {"category"}
    assert [label.name for label in back.labels.all()] == ["sharp"]
    back.name = "axe"
    back.save()
    assert Product.objects.get().name == "axe"


def test_deferred_fields_stay_deferred(url, rows):
    Product.objects.create(name="saw")
    back = round_trip(Product.objects.defer("name").get())
    assert back.get_deferred_fields() == {"name"} and back.name == "saw"


def test_related_in_a_circle(url, rows):
    one = Twin.objects.create()
    two = Twin.objects.create(other=one)
    assert one.back is two
    back = round_trip(one)
    assert back.back == two and back.back.other == one


def test_query_sets(url, rows):
    Product.objects.create(name="saw")
    back = round_trip(Product.objects.all())
    assert [product.name for product in back] == ["saw"] and back.filter(name="saw").count() == 1
    with pytest.raises(CodecError, match="list"):
        CacheBackend(url, {"OPTIONS": {"STRICT": True}}).set("values", Product.objects.values())


def test_responses(url):
    response = HttpResponse("text", status=201, headers={"X-Own": "1"}, content_type="text/plain; charset=latin-1")
    response.set_cookie("a", "b c", max_age=5, samesite="Lax")
    back = round_trip(response)
    assert (back.status_code, back.content, back["X-Own"], back.charset) == (201, b"text", "1", "latin-1")
    assert back.cookies.output() == response.cookies.output() and back.serialize() == response.serialize()
    shown = TemplateResponse(RequestFactory().get("/"), engines["django"].from_string("hello"))
    with pytest.raises(CodecError, match="render"):
        CacheBackend(url, {"OPTIONS": {"STRICT": True}}).set("early", shown)
    back = round_trip(shown.render())
    assert type(back) is TemplateResponse and back.is_rendered and back.content == b"hello"


def test_texts_and_queries(url):
    assert type(round_trip(mark_safe("<b>"))) is SafeString
    lazy = round_trip(translation.gettext_lazy("Yes"))
    with translation.override("de"):
        assert str(lazy) == "Ja"
    assert round_trip(QueryDict("a=1&a=2")).getlist("a") == ["1", "2"]


def test_other_classes_are_refused_or_allowed_by_name(memory):
    types = [f"{Money.__module__}.Money", f"{__name__}.Coin", "builtins.len"]
    backend = CacheBackend("memory://", {"OPTIONS": {"TYPES": types, "STRICT": True}})
    backend.set("m", [Coin(5), Money, len])
    assert backend.get("m") == [Coin(5), Money, len]
    with pytest.raises(CodecError, match="TYPES"):
        backend.set("m", print)
    with pytest.raises(CodecError, match="_Stranger"):
        backend.get_or_set("s", _Stranger)


def test_plain_types_of_installed_applications_need_not_be_named(url):
    kept = [Money(5), Size.LARGE, Place("Oslo", (1, 2))]
    back = round_trip(kept)
    assert back == kept and type(back[2]) is Place
    packed = caches["default"]._codec.encode(kept)
    assert codec().decode(packed) == kept  # by a process that has not kept one yet
    with override_settings(INSTALLED_APPS=["cachekit_django"]), pytest.raises(CodecError, match="not registered"):
        codec().decode(packed)


@pytest.mark.parametrize("name", [
    "tests.apps.django_shop.models:models.Model", "tests.apps.django_shop.models:dataclass", "os:stat_result",
    "tests.apps.django_shop.absent:Place", "tests.apps.django_shop.models:Decoy.Place", "tests.apps.django_shop", "",
])  # fmt: skip
def test_data_that_names_anything_else_is_not_built(memory, monkeypatch, name):
    from tests.apps.django_shop import models

    monkeypatch.setattr(models, "Decoy", models, raising=False)
    writing = MsgpackCodec()
    writing.register(Place, name)
    with pytest.raises(CodecError, match="not registered"):
        codec().decode(writing.encode(Place("Oslo", (1, 2))))


def test_what_cannot_be_kept_breaks_nobody(url, caplog, arun):
    stranger = _Stranger()
    cache.set("s", "before")
    cache.set("s", stranger)
    assert cache.get("s") is None, "what was there before is not what was set"
    assert cache.add("s", stranger) is False and cache.get("s") is None
    cache.set("b", "before")
    assert cache.set_many({"a": 1, "b": stranger}) == ["b"] and cache.get_many(["a", "b"]) == {"a": 1}
    assert cache.get_or_set("s", lambda: stranger) is stranger and cache.get("s") is None
    assert cache.get_or_set("s", stranger, timeout=0) is stranger
    assert len([one for one in caplog.records if '["TYPES"]' in one.getMessage()]) == 1
    assert "_Stranger" in caplog.text

    async def again():
        await cache.aset("s", "before")
        await cache.aset("s", stranger)
        assert await cache.aadd("s", stranger) is False and await cache.aget("s") is None
        assert await cache.aset_many({"a": 2, "b": stranger}) == ["b"] and await cache.aget("a") == 2
        assert await cache.aget_or_set("s", lambda: stranger) is stranger
        assert await cache.aget_or_set("s", stranger, timeout=0) is stranger

    arun(again())
    assert caches["default"].cache.stats().events["unencodable"] == 10
    cache.set("c", Money)  # the class itself, as a mark
    assert cache.get("c") is None and f"{Money.__module__}:Money is not among OPTIONS['TYPES']" in caplog.text


def test_text_that_cannot_be_encoded_breaks_nobody(url, arun):
    broken = "cut in half: \ud800"
    cache.set("s", "before")
    cache.set("s", broken)
    assert cache.get("s") is None
    assert cache.set_many({"a": "größer", "b": broken}) == ["b"] and cache.get("a") == "größer"
    assert cache.get_or_set("s", lambda: broken) == broken
    arun(cache.aset("s", broken))
    assert caches["default"].cache.stats().events["unencodable"] == 4


def test_a_location_is_one_url():
    several = (
        ["redis://primary", "redis://replica"], "redis://primary:1,redis://replica:1", "redis://primary; redis://replica",
        "unix:///a.sock,unix:///b.sock",
    )  # fmt: skip
    for location in several:
        wrong = CacheBackend(location, {}).wrong
        assert "must be one URL" in str(wrong) and "replicas are not read" in str(wrong)
    assert CacheBackend("sentinel://one:1,two:2/main", {}).wrong is None


def test_data_that_names_what_is_not_allowed_is_not_built(memory):
    evil = CacheBackend("memory://", {"OPTIONS": {"TYPES": ["os.system"]}})
    packed = evil._codec.encode(__import__("os").system)
    backend = caches["default"]
    backend.cache.set(backend._key("a", None), [packed])
    assert backend.get("a", "unreadable") == "unreadable" and backend.get_many(["a"]) == {}
    assert backend.cache.stats().events["unreadable"] == 2
    assert backend.get_or_set("a", lambda: [5]) == [5] == backend.get("a")


@override_settings(MIDDLEWARE=[
    "django.middleware.cache.UpdateCacheMiddleware", "django.middleware.cache.FetchFromCacheMiddleware",
])  # fmt: skip
def test_djangos_own_cache_middleware(memory, client_of):
    first, second = client_of.get("/big"), client_of.get("/big")
    assert first.content == second.content and second.cookies["seen"].value == "yes"


@pytest.fixture
def client_of():
    from django.test import Client

    return Client()
