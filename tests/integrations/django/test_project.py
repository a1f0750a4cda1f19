"""Signals, sessions, checks, the command and the admin page."""

from __future__ import annotations

import io
import json

import pytest
from cachekit_django import CacheBackend, conf, invalidates
from cachekit_django.checks import check
from cachekit_django.sessions import SessionStore
from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache, caches
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import transaction
from django.test import Client, override_settings

from cachekit import ConfigError
from tests.apps.django_shop.models import Category, Label, Product
from tests.integrations.django.conftest import OURS, THEIRS, project
from tests.ports import free_port


class Derived(CacheBackend):
    """A backend of an application's own."""


# Signals


def test_saved_and_deleted_rows_drop_their_tags(kept):
    category = Category.objects.create(name="tools")
    product = Product.objects.create(name="saw", category=category)
    tags = (f"product:{product.pk}", f"category:{category.pk}", "named:saw", "product:0")
    left = kept(*tags)
    product.save()
    assert left() == {"product:0"}
    left = kept(*tags)
    product.delete()
    assert left() == {"product:0"}


def test_a_row_that_moves_drops_where_it_was_and_where_it_is(kept):
    one, two, three = (Category.objects.create(name=name) for name in "abc")
    product = Product.objects.get(pk=Product.objects.create(name="saw", category=one).pk)
    names = [f"category:{category.pk}" for category in (one, two, three)]
    left = kept(*names)
    product.category = two
    product.save()
    assert left() == {names[2]}
    left = kept(*names)
    product.category = three
    product.save()
    assert left() == {names[0]}


def test_nothing_is_dropped_before_the_commit_and_nothing_by_a_rollback(kept):
    product = Product.objects.create(name="saw")
    left = kept(f"product:{product.pk}")
    with transaction.atomic():
        product.save()
        assert left()
    assert not left()
    left = kept(f"product:{product.pk}")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        product.save()
        1 / 0
    assert left()


def test_relations_drop_both_ends(kept):
    product, label = Product.objects.create(name="saw"), Label.objects.create(name="sharp")
    tag = f"product:{product.pk}"
    for change in (
        lambda: product.labels.add(label), lambda: product.labels.remove(label), lambda: label.product_set.add(product),
        lambda: label.product_set.clear(), lambda: product.labels.set([label]), lambda: product.labels.clear(),
    ):  # fmt: skip
        left = kept(tag)
        change()
        assert not left(), change


def test_bulk_operations_of_the_query_set(kept):
    one, two = Category.objects.create(name="a"), Category.objects.create(name="b")
    product = Product.objects.create(name="saw", category=one)
    tags = (f"product:{product.pk}", f"category:{one.pk}", f"category:{two.pk}")
    left = kept(*tags)
    Product.objects.filter(name="saw").update(category=two)
    assert not left()
    left = kept(*tags)
    product.refresh_from_db()
    product.category = one
    Product.objects.bulk_update([product], ["category"])
    assert not left()
    left = kept(f"category:{two.pk}")
    Product.objects.bulk_create([Product(name="axe", category=two)])
    assert not left()
    left = kept(f"category:{two.pk}", f"category:{one.pk}")
    Product.objects.all().delete()
    assert not left()


def test_now(kept):
    product = Product.objects.create(name="saw")
    left = kept(f"product:{product.pk}", "menu")
    with transaction.atomic():
        invalidates.now(product, "menu")
        assert len(left()) == 2
    assert not left()
    with pytest.raises(ConfigError, match="needs tags"):
        invalidates()


def test_deferred_fields_are_not_loaded_for_the_signal(kept):
    product = Product.objects.create(name="saw", category=Category.objects.create(name="a"))
    left = kept(f"category:{product.category_id}", f"product:{product.pk}")
    Product.objects.defer("category").get().delete()
    assert f"product:{product.pk}" not in left()


# Checks


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"RUELS": []}, "it has RUELS .did you mean RULES"),
        ([], "must be a dictionary"),
        ({"URL": 5}, r'CACHEKIT\["URL"\]=5 must be a URL'),
        ({"URL": "mem://"}, "CACHEKIT: unknown URL scheme 'mem'"),
        ({"RULES": ["/x"]}, r'CACHEKIT\["RULES"\]=.* must be a list of Rule'),
        ({"OPTIONS": {"max_bodi": 1}}, r'CACHEKIT\["OPTIONS"\].*max_bodi .did you mean max_body'),
        ({"OPTIONS": {"heuristic": 5}}, "heuristic=5 must be a part"),
        ({"COMPRESSION": {"codings": ["lzw"]}}, "unknown coding 'lzw'"),
        ({"WARMER": "nowhere.warmer"}, "WARMER"),
        ({"URL": "memory://", "TIMEOUT": "x", "JITTER": 5}, "jitter=5"),
    ],
)
def test_wrong_settings_are_named(setting, message):
    import re

    with override_settings(CACHEKIT=setting):
        found = [str(one.msg) for one in check() if one.id == "cachekit.E001"]
    assert found and re.search(message, found[0]), found


def test_wrong_caches_are_named():
    with override_settings(CACHES={"default": {"BACKEND": "cachekit_django.CacheBackend", "LOCATION": "mem://"}}):
        assert "CACHES['default']: CACHES: unknown URL scheme 'mem'" in str(check()[0].msg)


@pytest.mark.parametrize("wrong", [{"X": 1}, {"URL": "redis//localhost"}])
def test_the_command_check_says_it_without_a_traceback(wrong):
    with override_settings(CACHEKIT=wrong):
        with pytest.raises(SystemCheckError, match="cachekit.E001") as caught:
            call_command("check")
        assert str(caught.value).count("cachekit.E001") == 1
        with pytest.raises(ConfigError):
            caches["default"].get("a")


def test_the_order_of_middlewares():
    assert check() == []
    with override_settings(MIDDLEWARE=[THEIRS[0], *OURS]):
        assert [one.id for one in check()] == ["cachekit.W001", "cachekit.W001"]
    with override_settings(MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", *OURS]):
        assert [one.id for one in check()] == ["cachekit.W002"]


# The command


def command(*args):
    out = io.StringIO()
    call_command("cachekit", *args, stdout=out)
    return out.getvalue()


def test_a_setting_of_django_redis_that_nothing_reads_is_named():
    with override_settings(DJANGO_REDIS_IGNORE_EXCEPTIONS=True):
        (said,) = check()
        assert (said.id, "DJANGO_REDIS_IGNORE_EXCEPTIONS" in said.msg) == ("cachekit.W004", True)
        beside = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://localhost"}
        with override_settings(CACHES={**settings.CACHES, "old": beside}):
            assert check() == []
    assert check() == []


@pytest.mark.parametrize("name", ["CLIENT_CLASS", "CONNECTION_POOL_KWARGS", "IGNORE_EXCEPTIONS", "COMPRESSOR"])
def test_an_option_of_django_redis_is_refused_by_name(name):
    left = {"BACKEND": "cachekit_django.CacheBackend", "LOCATION": "memory://", "OPTIONS": {name: "x"}}
    with override_settings(CACHES={"default": left}):
        assert [(one.id, name in one.msg) for one in check()] == [("cachekit.E001", True)]


def test_stats_of_stores_that_cannot_be_reached():
    """The command is a process of its own: before it asks, it knows nothing of its stores."""
    out = io.StringIO()
    for url in project(f"redis://127.0.0.1:{free_port()}"):
        with pytest.raises(CommandError, match=rf"cannot be reached: {url} .CACHEKIT.*, Sessions"):
            call_command("cachekit", "stats", "--json", stdout=out)
        overview, *_, sessions = json.loads(out.getvalue())
    assert overview["rows"][0][1] == "away"
    assert sessions["rows"][0] == ["store", "away"]


def test_the_command(shared_url):
    url = shared_url
    cache.set("a", 1, tags=["x"])
    cache.get("a")
    assert "hit rate" in command("stats")
    assert json.loads(command("stats", "--json"))[0]["title"] == "Caches of this process"
    command("invalidate", "x", "y")
    assert cache.get("a") is None
    SessionStore().create()
    cache.set("a", 1)
    command("clear", "--no-input")
    assert cache.get("a") is None
    assert "1 sessions" in command("sessions")
    assert "1 sessions ended" in command("sessions", "--end")
    assert "0 sessions" in command("sessions")
    with pytest.raises(CommandError, match="WARMER"):
        command("warm")
    with override_settings(CACHEKIT={"URL": url, "WARMER": "tests.integrations.django.conftest.Warm"}):
        assert "warmed" in command("warm")


def test_clear_asks(shared_url, monkeypatch):
    cache.set("a", 1)

    def nobody(_):
        raise EOFError

    for answer in (lambda _: "n", nobody):
        monkeypatch.setattr("builtins.input", answer)
        with pytest.raises(CommandError, match="nothing"):
            command("clear")
        assert cache.get("a") == 1
    command("clear", "--noinput")
    assert cache.get("a") is None


@pytest.mark.parametrize("args", [["invalidate", "a"], ["clear", "--no-input"], ["sessions"], ["sessions", "--end"]])
def test_a_command_says_what_it_cannot_reach(memory, args):
    with pytest.raises(CommandError, match="in the memory of each process"):
        command(*args)


@pytest.mark.parametrize("args", [["invalidate", "a"], ["clear", "--no-input"], ["sessions", "--end"]])
def test_a_command_whose_store_is_away_fails(args):
    """What waits for the store ends with the command's process: nobody will deliver it."""
    for _ in project(f"redis://:secret@127.0.0.1:{free_port()}"):
        with pytest.raises(CommandError, match="away|cannot be reached") as caught:
            command(*args)
        assert "secret" not in str(caught.value)


def test_a_command_reaches_caches_that_nobody_has_used_yet(shared_url):
    """Where checks are skipped nothing has made them before."""
    other = {"BACKEND": f"{__name__}.Derived", "LOCATION": shared_url, "OPTIONS": {"NAMESPACE": "other"}}
    both = {**settings.CACHES, "other": other}
    with override_settings(CACHES=both):
        caches["other"].set("a", 1, tags=["x"])
    for one in conf._made.values():
        one.close()
    conf._made.clear()
    with override_settings(CACHES=both):
        command("invalidate", "x")
        assert caches["other"].get("a") is None


# The admin page


def test_the_admin_page(memory, rows):
    User.objects.create_superuser("boss", password="x")
    User.objects.create_user("guest", password="x")
    client = Client()
    assert client.get("/admin/cachekit_django/figures/").status_code == 302
    client.login(username="guest", password="x")
    assert client.get("/admin/cachekit_django/figures/").status_code == 302
    client.login(username="boss", password="x")
    first = client.get("/admin/cachekit_django/figures/")
    assert "–" in first.content.decode(), "where nobody asked there is no hit rate"
    cache.get("a")
    page = client.get("/admin/cachekit_django/figures/")
    assert (
        page.status_code == 200
        and b"Sessions" in page.content
        and b"hit rate" in page.content
        and b"direct use" in page.content
    )
    assert b"CACHES[&#x27;default&#x27;]" in page.content, "caches are told apart by their settings"
    assert b"/admin/cachekit_django/figures/" in client.get("/admin/").content
