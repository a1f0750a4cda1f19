"""What is loaded from rows that are not committed: whoever asked gets it, and nobody else ever does."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from cachekit_django import Rule, conf, invalidates
from django.core.cache import cache
from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.http import HttpResponse
from django.template import engines
from django.test import Client, TestCase, override_settings
from django.urls import path

import cachekit
from cachekit import Cache, Kind, uncommitted
from tests.apps.django_shop.models import Category, Product


class Failed(Exception):
    pass


def failing(request):
    """What ATOMIC_REQUESTS rolls back."""
    product = Product.objects.get()
    product.name = "free"
    product.save()
    assert conf._named_here(product.pk) == "free"
    raise Failed


def undone(request):
    """What shows a row as it was in a savepoint that is rolled back, as after an exception that is handled."""
    product = Product.objects.get()
    with transaction.atomic():
        product.name = "free"
        product.save()
        found = conf._named_here(product.pk)
        transaction.set_rollback(True)
    return HttpResponse(found, status=int(request.GET.get("status", "200")))


urlpatterns = [path("fails", failing), path("undone", undone)]


@pytest.fixture
def name(url, rows, monkeypatch):
    """A cached function over one row, which is tagged with it; it counts its loads."""

    @conf.cache().cached(ttl="1h", tags=["product:{pk}"])
    def name(pk):
        name.loads += 1
        return Product.objects.get(pk=pk).name

    name.loads = 0
    monkeypatch.setattr(conf, "_named_here", name, raising=False)
    return name


@pytest.fixture
def product(rows):
    return Product.objects.create(name="saw")


def rename(product, to="free"):
    product.name = to
    product.save()


def test_what_is_rolled_back_is_kept_for_nobody(name, product):
    with pytest.raises(Failed), transaction.atomic():
        rename(product)
        assert name(product.pk) == "free"
        raise Failed
    assert name(product.pk) == "saw" == name(product.pk)
    assert name.loads == 2


@pytest.mark.parametrize("status", [200, 404])
def test_a_page_that_was_made_of_it_is_kept_for_nobody(url, name, product, status):
    rules = [Rule("/**", ttl="1h", status=[200, 404])]
    with override_settings(ROOT_URLCONF=__name__, CACHEKIT={"URL": url, "RULES": rules, "TIMEOUT": 5.0}):
        conf._named_here = conf.cache().cached(ttl="1h", tags=["product:{pk}"])(name.__wrapped__)
        client, where = Client(), f"/undone?status={status}"
        assert client.get(where).content == b"free"
        assert client.get(where)["Cache-Status"] == "cachekit; fwd=uri-miss"
        assert conf._named_here(product.pk) == "saw"


def test_what_is_made_around_a_rolled_back_savepoint_is_kept_for_nobody(name, product):
    @conf.cache().cached(ttl="1h")
    def around(outcome):
        try:
            with transaction.atomic():
                rename(product)
                found = name(product.pk)
                if outcome == "fails":
                    raise Failed
        except Failed:
            pass
        return found

    @conf.cache().cached(ttl="1h")
    def further(outcome):
        return around(outcome) + "!"

    assert further("fails") == "free!"
    assert further.peek("fails") is None is around.peek("fails")


def test_nobody_else_sees_it_before_the_commit(name, product, thread):
    with transaction.atomic():
        rename(product)
        assert name(product.pk) == "free"
        assert thread(lambda: name.peek(product.pk)).result() is None
    assert name(product.pk) == "free" == name(product.pk)
    assert name.loads == 2


def test_nobody_else_gets_it_who_waited_for_it(rows, thread):
    """What turns out only while it loads to be made of such rows is not for those who have joined the load."""
    product, loads, others, joined = Product.objects.create(name="saw"), [], [], threading.Event()
    own = Cache(observers=[lambda event: joined.set() if event.kind is Kind.COLLAPSED else None])

    @own.cached(ttl="1h")
    def name(pk):
        loads.append(Product.objects.get(pk=pk).name)
        if len(loads) > 1:
            connections.close_all()  # of this thread
            return "as others see it"
        others.append(thread(lambda: name(pk)))
        assert joined.wait(10)
        cachekit.tag(f"product:{pk}")
        return loads[0]

    with pytest.raises(Failed), transaction.atomic():
        rename(product)
        assert name(product.pk) == "free"
        assert others[0].result() == "as others see it"
        raise Failed


def test_a_tag_that_is_noted_while_loading_counts(url, product):
    loads = []

    @conf.cache().cached(ttl="1h")
    def listing():
        loads.append([])
        for one in Product.objects.all():
            cachekit.tag(f"product:{one.pk}")
            loads[-1].append(one.name)
        return loads[-1]

    @conf.cache().cached(ttl="1h", result_tags=lambda found: [f"product:{product.pk}"])
    def found():
        loads.append([])
        return Product.objects.get().name

    with pytest.raises(Failed), transaction.atomic():
        rename(product)
        assert listing() == ["free"] and found() == "free"
        raise Failed
    assert listing() == ["saw"] and found() == "saw"


def test_a_load_that_goes_on_behind_is_made_once(memory, product):
    """It has a time-out, so it runs in a thread of its own, with a connection of its own."""
    loads = []

    @conf.cache().cached(ttl="1h", hard_timeout="30s")
    def name(pk):
        loads.append(pk)
        cachekit.tag(f"product:{pk}")
        try:
            return Product.objects.get(pk=pk).name
        finally:
            connections.close_all()  # of that thread

    with transaction.atomic():
        rename(product)
        assert name(product.pk) == "saw" and len(loads) == 1
    assert name(product.pk) == "free" and len(loads) == 2


def test_what_has_other_tags_is_kept(url, product):
    loads = []

    @conf.cache().cached(ttl="1h", tags=["rates"])
    def rates():
        loads.append(1)
        return 5

    with transaction.atomic():
        rename(product)
        assert rates() == rates() == 5
    assert rates() == 5 and len(loads) == 1


def test_a_result_of_results_is_not_kept_either(url, name, product):
    @conf.cache().cached(ttl="1h")
    def title(pk):
        return name(pk).upper()

    with pytest.raises(Failed), transaction.atomic():
        rename(product)
        assert title(product.pk) == "FREE"
        raise Failed
    assert title(product.pk) == "SAW"


def test_failures_and_many_values(url, product):
    @conf.cache().cached(ttl="1h", tags=["product:{pk}"], exceptions={Product.DoesNotExist: "1h"})
    def name(pk):
        return Product.objects.get(pk=pk).name

    @conf.cache().cached_many(key="product:{item}", tags=["product:{item}"], ttl="1h")
    def names(items):
        return {one.pk: one.name for one in Product.objects.filter(pk__in=items)}

    pk = product.pk
    with pytest.raises(Failed), transaction.atomic():
        rename(product)
        assert names([pk]) == {pk: "free"}
        product.delete()
        with pytest.raises(Product.DoesNotExist):
            name(pk)
        raise Failed
    assert name(pk) == "saw" and names([pk]) == {pk: "saw"}


def test_values_and_fragments(url, product):
    text = '{% load cachekit %}{% cache "5m" part tags=tags %}{{ name }}{% endcache %}'
    fragment = engines["django"].from_string(text)

    def shown():
        tags = [f"product:{product.pk}"]
        name = Product.objects.get().name
        return [fragment.render({"tags": tags, "name": name}), cache.get_or_set("n", lambda: name, tags=tags)]

    with pytest.raises(Failed), transaction.atomic():
        rename(product)
        assert shown() == ["free", "free"]
        raise Failed
    assert shown() == ["saw", "saw"]


def test_a_savepoint_that_is_rolled_back_leaves_what_was_saved_around_it(name, product):
    with pytest.raises(Failed), transaction.atomic():
        rename(product, "axe")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            rename(product)
            assert name(product.pk) == "free"
            1 / 0
        assert name(product.pk) == "axe"
        raise Failed
    assert name(product.pk) == "saw" == name(product.pk)


def test_a_savepoint_that_is_rolled_back_and_another_row_in_its_place(name, product):
    """What waits for the commit is as much as before, and something else."""
    other = Product.objects.create(name="axe")
    with transaction.atomic():
        with pytest.raises(Failed), transaction.atomic():
            rename(product)
            assert name(product.pk) == "free"
            raise Failed
        rename(other, "hoe")
        assert len(connection.run_on_commit) == 1
        assert name(other.pk) == "hoe" and name.peek(other.pk) is None
        assert name(product.pk) == "saw" == name.peek(product.pk)


def test_threads_that_ask_at_once(name, product):
    """One of them looks while another reads what is new."""
    other = Product.objects.create(name="axe")

    class Meanwhile(tuple):
        def __iter__(self):
            if not asked:
                asked.append(1)
                assert uncommitted.concerns([f"product:{product.pk}"])
            return super().__iter__()

    asked = []
    with transaction.atomic():
        rename(product)
        waiting = connection.run_on_commit[0][1]
        waiting.tags = Meanwhile(waiting.tags)
        assert uncommitted.concerns([f"product:{product.pk}"]) and asked
        rename(other)
        assert uncommitted.concerns([f"product:{other.pk}"])


def test_what_is_loaded_after_a_transaction_is_kept(name, product):
    with pytest.raises(Failed), transaction.atomic():
        rename(product)
        raise Failed
    with transaction.atomic():  # another one, that has changed nothing
        assert name(product.pk) == "saw" == name(product.pk)
    with transaction.atomic():
        rename(product)
    assert name(product.pk) == "free" == name(product.pk)
    assert name.loads == 2 and not uncommitted.concerns([f"product:{product.pk}"])


def test_tags_that_are_told_by_hand(name, product):
    with pytest.raises(Failed), transaction.atomic():
        Product.objects.filter(pk=product.pk)._update([(Product._meta.get_field("name"), None, "free")])
        invalidates.now(f"product:{product.pk}")
        assert name(product.pk) == "free"
        raise Failed
    assert name(product.pk) == "saw"


def test_refreshing_gives_what_is_there_and_keeps_nothing(name, product):
    assert name(product.pk) == "saw"
    with pytest.raises(Failed), transaction.atomic():
        rename(product)
        assert name.refresh(product.pk) == "free"
        raise Failed
    assert name(product.pk) == "saw"


def test_atomic_requests(name, product):
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        with override_settings(ROOT_URLCONF=__name__), pytest.raises(Failed):
            Client().get("/fails")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert name(product.pk) == "saw" == Product.objects.get().name


def test_async_functions_in_a_transaction(url, product, arun):
    """The loop runs elsewhere, its loaders come back to the thread of the transaction."""

    @conf.cache().cached(ttl="1h", tags=["product:{pk}"])
    async def name(pk):
        return (await Product.objects.aget(pk=pk)).name

    async def ask():
        return await name(product.pk)

    def work():
        with transaction.atomic():
            rename(product)
            assert async_to_sync(ask)() == "free"
            raise Failed

    async def main():
        with pytest.raises(Failed):
            await sync_to_async(work)()
        found = [await ask(), await asyncio.create_task(ask())]
        await sync_to_async(connections.close_all)()
        return found

    assert arun(main()) == ["saw", "saw"]


def test_each_database_has_its_own_transactions(name, product, monkeypatch, tmp_path):
    other = connections[DEFAULT_DB_ALIAS].copy("other")
    other.settings_dict = {**other.settings_dict, "NAME": str(tmp_path / "db")}
    monkeypatch.setitem(connections.databases, "other", other.settings_dict)
    connections["other"] = other
    try:
        with transaction.atomic(using="other"):
            invalidates.now(f"product:{product.pk}", using="other")
            with transaction.atomic():
                rename(product)
                assert name(product.pk) == "free"
            assert name(product.pk) == "free"
            assert name.loads == 2, "the other one may have changed it, too"
        assert name(product.pk) == "free" == name(product.pk)
        assert name.loads == 3
    finally:
        other.close()
        del connections["other"]


def test_a_test_case_of_django_that_runs_the_callbacks_goes_on_as_after_a_commit(name, product):
    with pytest.raises(Failed), transaction.atomic():
        with TestCase.captureOnCommitCallbacks(execute=True):
            rename(product)
            assert name(product.pk) == "free"
        assert name(product.pk) == "free" == name(product.pk)
        assert name.loads == 2
        cache.clear()
        raise Failed


def test_a_transaction_of_the_cache_keeps_it_to_itself(name, product):
    with pytest.raises(Failed), conf.cache().transaction(), transaction.atomic():
        rename(product)
        assert name(product.pk) == "free" == name(product.pk)
        assert name.loads == 1
        raise Failed
    assert name(product.pk) == "saw"


def test_a_row_that_moves_tells_of_both_places(url, rows):
    one, two = Category.objects.create(name="a"), Category.objects.create(name="b")
    product = Product.objects.create(name="saw", category=one)

    @conf.cache().cached(ttl="1h", tags=["category:{pk}"])
    def shelf(pk):
        return [product.name for product in Product.objects.filter(category=pk)]

    with pytest.raises(Failed), transaction.atomic():
        product.category = two
        product.save()
        assert shelf(one.pk) == [] and shelf(two.pk) == ["saw"]
        raise Failed
    assert shelf(one.pk) == ["saw"] and shelf(two.pk) == []


@pytest.mark.parametrize("where", ["tasks", "a context"])
def test_it_counts_in_whichever_context_the_rows_were_changed(name, product, where):
    """A task has a context of its own, which ends with it, while the connection and its transaction go on."""

    async def together():
        product.name = "free"
        await asyncio.gather(product.asave(), Category(name="other").asave())

    def job():
        with pytest.raises(Failed), transaction.atomic():
            if where == "tasks":
                async_to_sync(together)()
            else:
                contextvars.copy_context().run(rename, product)
            assert name(product.pk) == "free"
            raise Failed

    contextvars.Context().run(job)  # where nothing was noted before
    assert name(product.pk) == "saw"
