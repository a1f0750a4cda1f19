"""Rows with files, with what was fetched along, behind lazy objects, and those that Django names."""

from __future__ import annotations

import pytest
from django.core.cache import cache, caches
from django.core.files.base import ContentFile
from django.db import connection
from django.db.models import Prefetch
from django.db.models.fields.files import FieldFile
from django.db.models.utils import create_namedtuple_class
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

from cachekit.errors import CodecError
from tests.apps.django_shop.models import Book, Note, Product, Shelf

STRICT = {"BACKEND": "cachekit_django.CacheBackend", "LOCATION": "memory://", "OPTIONS": {"STRICT": True}}


def round_trip(value):
    cache.set("value", value)
    back = cache.get("value")
    assert back is not None, "it is kept"
    return back


@pytest.fixture
def shelf(rows):
    shelf = Shelf.objects.create(name="tools")
    for title in ("saw", "axe"):
        Book.objects.create(title=title, shelf=shelf, cover=f"{title}.png")
    return shelf


def test_a_row_whose_file_was_looked_at_or_just_saved(url, shelf):
    looked = Book.objects.get(title="saw")
    assert looked.cover.name == "saw.png"
    fresh = Book.objects.create(title="new", cover="new.png")
    bare = Book.objects.create(title="bare")
    assert not bare.cover
    for book in (looked, fresh, bare):
        back = round_trip(book)
        assert back == book and back.cover == book.cover
        assert (
            isinstance(back.cover, FieldFile) and back.cover.instance is back and bool(back.cover) is bool(book.cover)
        )
    back.cover = "other.png"
    back.save()
    assert Book.objects.get(title="bare").cover.name == "other.png"


def test_a_file_that_was_stored(url, rows, tmp_path):
    with override_settings(MEDIA_ROOT=tmp_path):
        book = Book.objects.create(title="saw")
        book.cover.save("saw.txt", ContentFile(b"steel"))
        with round_trip(book).cover.open() as file:
            assert file.read() == b"steel"
        with round_trip(book.cover).open() as file:
            assert file.read() == b"steel"
        assert round_trip([book.cover])[0].instance == book


def test_what_was_fetched_along_into_an_attribute(url, shelf):
    found = Shelf.objects.prefetch_related(
        Prefetch("books", Book.objects.order_by("title"), to_attr="found"), Prefetch("note_set", to_attr="none")
    )
    back = round_trip(found.get())
    with CaptureQueriesContext(connection) as asked:
        assert [book.title for book in back.found] == ["axe", "saw"] and back.none == []
    assert len(asked) == 0
    assert back.found[0].shelf == shelf, "which leads back, and is asked for"
    one = found.get()
    assert one.found[0].shelf is one
    both, first = round_trip([one, one.found[0]])
    assert [book.title for book in both.found] == ["axe", "saw"] and first.shelf == shelf
    forward = Book.objects.prefetch_related(Prefetch("shelf", to_attr="place")).first()
    assert round_trip(forward).place == shelf
    one.latest = one.found[1]
    assert round_trip(one).latest == one.found[1] != one


def test_what_was_prefetched_is_whole_or_asked_for(url, shelf):
    one = Shelf.objects.prefetch_related("books").get()
    book = one.books.all()[0]
    assert book.shelf is one, "leads to the list that it comes from"
    assert len(round_trip(book).shelf.books.all()) == 2
    assert len(round_trip(one).books.all()) == 2


def test_a_row_that_holds_itself_is_told_apart(memory, shelf):
    shelf.itself = [shelf]
    with override_settings(CACHES={"default": STRICT}), pytest.raises(CodecError, match="holds itself"):
        cache.set("a", shelf)


def test_what_cannot_be_kept_of_a_row_is_named(memory, shelf):
    class Stranger:
        pass

    shelf.extra = {"of": [Stranger()]}
    with override_settings(CACHES={"default": STRICT}):
        with pytest.raises(CodecError, match=r"at \[0\]\['extra'\]\['of'\]\[0\]: .*Stranger cannot be encoded"):
            cache.set("a", [shelf])


def test_lazy_objects(url, shelf):
    calls = []

    def load():
        calls.append(1)
        return shelf

    back = round_trip(SimpleLazyObject(load))
    assert (type(back), back, len(calls)) == (Shelf, shelf, 1)
    assert round_trip({"a": SimpleLazyObject(lambda: {"b": 1})}) == {"a": {"b": 1}}
    assert round_trip(SimpleLazyObject(lambda: SimpleLazyObject(load))) == shelf
    book = Note(text="mine", shelf=SimpleLazyObject(load))
    assert round_trip(book).shelf == shelf
    shelf.owner = SimpleLazyObject(lambda: Product(name="saw"))
    assert round_trip(shelf).owner.name == "saw"


def test_rows_that_django_names(url, shelf):
    given = list(Book.objects.order_by("title").values_list("title", "shelf_id", named=True))
    back = round_trip(given)
    assert back == given and [type(row) for row in back] == [type(row) for row in given]
    assert back[0].title == "axe" and back[0]._fields == ("title", "shelf_id")
    assert round_trip({"first": given[0]})["first"].shelf_id == shelf.pk


@pytest.mark.parametrize("name", [b"a b", b"def", b"_ab", b"a=1"])
def test_data_that_names_such_a_row_makes_nothing_but_a_tuple(memory, name):
    backend, row = caches["default"], create_namedtuple_class("abc")(5)
    written = backend._codec.encode(row).replace(b"\xa3abc", b"\xa3" + name)
    backend.cache.set(backend._key("a", None), [written])
    assert backend.get("a", "unreadable") == "unreadable"
