"""Rows that change their tags: what they had before is dropped with what they have, however they are changed."""

from __future__ import annotations

import copy
import pickle
import shutil
import threading

import pytest
from asgiref.sync import sync_to_async
from cachekit_django import Invalidating, rows
from cachekit_django.checks import check
from django.apps import apps
from django.core import serializers
from django.core.cache import cache
from django.db import connection, connections, models, router, transaction
from django.db.migrations.state import ModelState
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from tests.apps.django_shop.models import Book, Item, Note, Pass, Sheet, Shelf, Ticket, Tool, noted


class Failed(Exception):
    pass


@pytest.fixture
def shelves(kept):
    return [Shelf.objects.create(name=name) for name in "abcd"]


@pytest.fixture
def book(shelves):
    return Book.objects.create(title="saw", shelf=shelves[0])


@pytest.fixture
def dropped(kept, shelves):
    """Says which of the shelves lose what is kept of them while something is done."""

    def ask(change):
        tags = [f"shelf:{one.pk}" for one in shelves]
        left = kept(*tags)
        change()
        still = left()
        return [index for index, tag in enumerate(tags) if tag not in still]

    return ask


def move(row, shelf, **how):
    row.shelf = shelf
    row.save(**how)


def anew(book, *fields):
    """The row, as a request loads it."""
    return Book.objects.only(*fields).get(pk=book.pk) if fields else Book.objects.get(pk=book.pk)


@pytest.fixture
def other(shelves, book, monkeypatch, tmp_path):
    """The database "other", a copy of what is in the first."""
    connections.close_all()
    own = connections["default"].settings_dict
    made = connections["default"].copy("other")
    made.settings_dict = {**own, "NAME": shutil.copy(own["NAME"], tmp_path / "db")}
    monkeypatch.setitem(connections.databases, "other", made.settings_dict)
    connections["other"] = made
    yield made
    made.close()
    del connections["other"]


class Replica:
    """Reads from there what is not about to be changed."""

    def db_for_read(self, model, **hints):
        return "other"

    def db_for_write(self, model, **hints):
        return "default"

    def allow_relation(self, *rows, **hints):
        return True


# What Django changes with queries of its own


def test_related_managers(dropped, shelves, book):
    assert dropped(lambda: shelves[1].books.add(book)) == [0, 1]
    assert dropped(lambda: shelves[2].books.set([book])) == [1, 2]
    assert dropped(lambda: shelves[2].books.remove(book)) == [2]
    assert dropped(lambda: shelves[3].books.add(anew(book), bulk=False)) == [3]
    assert dropped(lambda: shelves[3].books.clear()) == [3]
    assert dropped(lambda: Note.objects.create(shelf=shelves[0])) == [0]
    assert dropped(lambda: shelves[1].note_set.set(Note.objects.all())) == [0, 1], "without a manager of its own"


def test_the_end_of_a_related_row(dropped, shelves, book, kept):
    assert dropped(shelves[0].delete) == [0]
    move(anew(book), shelves[1])
    left = kept(f"book:{book.pk}")
    shelves[1].delete()
    assert not left() and anew(book).shelf_id is None


def test_the_base_manager_is_djangos_own_in_all_else(book):
    manager = Book._base_manager
    assert (type(manager.get_queryset()), manager.name, manager.auto_created) == (Invalidating, "_base_manager", True)
    assert manager not in Book._meta.managers and type(Shelf._base_manager) is models.Manager


def test_the_base_manager_stays_when_classes_come_and_go(dropped, shelves, book):
    apps.clear_cache()
    assert dropped(lambda: shelves[1].books.add(book)) == [0, 1]
    assert ModelState.from_model(Note).managers == [], "migrations know nothing of it"


def test_a_base_manager_that_tells_of_nothing_is_named(book, monkeypatch):
    assert check() == []
    plain = models.Manager()
    plain.model = Book
    monkeypatch.setitem(vars(Book._meta), "base_manager", plain)
    monkeypatch.setattr(Book._meta, "base_manager_name", "plain")
    (said,) = check()
    assert (said.id, "django_shop.Book" in said.msg, "'plain'" in said.hint) == ("cachekit.W005", True, True)


# What a row was


def test_a_row_that_moves_again_after_a_rollback(dropped, shelves, book):
    def twice():
        with pytest.raises(Failed), transaction.atomic():
            move(book, shelves[1])
            raise Failed
        move(book, shelves[2])

    assert dropped(twice) == [0, 1, 2]
    assert dropped(lambda: move(book, shelves[3])) == [2, 3], "and what it was before that is forgotten with the commit"


def test_a_row_that_is_saved_once_more_after_a_rollback(dropped, shelves, book):
    with pytest.raises(Failed), transaction.atomic():
        move(book, shelves[1])
        raise Failed
    assert dropped(book.save) == [0, 1]


def test_a_savepoint_that_is_rolled_back(dropped, shelves, book):
    def work():
        with transaction.atomic():
            move(book, shelves[1])
            with pytest.raises(Failed), transaction.atomic():
                move(book, shelves[2])
                raise Failed
            move(book, shelves[3])

    assert dropped(work) == [0, 1, 2, 3]


def test_many_saves_in_one_transaction_remember_two_states(shelves, book):
    with transaction.atomic():
        for shelf in shelves[1:] * 5:
            move(book, shelf)
        committed, last = vars(book)[rows.BEFORE]
        assert (committed["shelf_id"], last["shelf_id"]) == (shelves[0].pk, shelves[3].pk)
    committed, last = vars(book)[rows.BEFORE]
    assert committed is last


def test_a_row_that_was_loaded_anew(dropped, shelves, book, arun):
    def elsewhere(shelf):
        anew(book).shelf_id  # noqa: B018 - another process
        connection.cursor().execute(f"UPDATE {Book._meta.db_table} SET shelf_id = {shelf.pk}")

    elsewhere(shelves[1])
    book.refresh_from_db()
    assert dropped(lambda: move(book, shelves[2])) == [0, 1, 2]
    elsewhere(shelves[3])
    book.refresh_from_db(fields=["shelf"])
    assert dropped(lambda: move(book, shelves[0])) == [0, 2, 3]
    elsewhere(shelves[1])
    book.refresh_from_db(None, ["title"])
    book.refresh_from_db(None, ["shelf_id"])
    assert dropped(lambda: move(book, shelves[2])) == [0, 1, 2]
    elsewhere(shelves[3])

    async def refreshed():
        await book.arefresh_from_db()
        await sync_to_async(connections.close_all)()

    arun(refreshed())
    assert dropped(lambda: move(book, shelves[0])) == [0, 2, 3]


def test_what_was_not_saved_is_not_what_was(dropped, shelves, book):
    book.shelf = shelves[1]
    book.save(update_fields=["title"])
    assert dropped(lambda: move(book, shelves[2])) == [0, 2]
    book.shelf = shelves[1]
    assert dropped(book.delete) == [1, 2]


def test_deferred_fields(dropped, shelves, book):
    one = anew(book, "title")
    with CaptureQueriesContext(connection) as asked:
        one.save()
    assert len(asked) == 1, "nothing is loaded that was left out"
    assert one.shelf_id == shelves[0].pk
    assert dropped(lambda: move(one, shelves[1])) == [0, 1], "loaded when it was looked at"
    assert dropped(lambda: move(anew(book, "title"), shelves[2])) == [1, 2], "never looked at"
    note = Note.objects.only("text").get(pk=Note.objects.create(shelf=shelves[0]).pk)
    assert dropped(lambda: move(note, shelves[1])) == [0, 1]


def test_tags_of_a_function(dropped, shelves):
    note = Note.objects.get(pk=Note.objects.create(shelf=shelves[0]).pk)
    assert dropped(lambda: move(note, shelves[1])) == [0, 1]
    note.shelf = shelves[2]
    assert dropped(note.delete) == [1, 2]
    note = Note.objects.select_related("shelf").get(pk=Note.objects.create(shelf=shelves[0]).pk)
    with CaptureQueriesContext(connection) as asked:
        note.save()
    assert len(asked) == 1, "what has not moved is not asked for"


def test_a_row_that_was_made_over_one_that_is_there(dropped, shelves, book):
    assert dropped(Book(pk=book.pk, title="axe", shelf=shelves[1]).save) == [0, 1]
    text = serializers.serialize("json", [Book(pk=book.pk, title="axe", shelf=shelves[2])])
    assert dropped(lambda: [one.save() for one in serializers.deserialize("json", text)]) == [1, 2]
    assert dropped(Book(pk=book.pk).delete) == [2]
    assert dropped(Book(pk=book.pk, title="new", shelf=shelves[3]).save) == [3]


def test_a_row_that_takes_the_place_of_another(dropped, shelves, book):
    other = Book.objects.create(title="axe", shelf=shelves[1])
    other.pk, other.title = book.pk, "saw"
    assert dropped(other.save) == [0, 1]


def test_a_row_of_another_database(dropped, shelves, book, other):
    Book.objects.using("other").update(shelf=shelves[1])
    for row in (Book.objects.using("other").get(), Book(pk=book.pk, title="saw", shelf=shelves[1])):
        row.save(using="other")
        assert dropped(lambda row=row: row.save(using="default")) == [0, 1]
        with CaptureQueriesContext(connection) as asked:
            move(row, shelves[0])
        assert len(asked) == 1, "it is known by now"


def test_a_row_that_is_said_to_be_there(dropped, shelves, book):
    """By hand, though it was never loaded."""
    for one in (Book(pk=book.pk, title="saw", shelf=shelves[1]), Book(pk=book.pk, title="saw", shelf_id=shelves[0].pk)):
        one._state.adding = False
        assert dropped(one.save) == [0, 1]


def test_a_key_that_is_made_up_costs_no_query(kept):
    with CaptureQueriesContext(connection) as asked:
        ticket = Ticket.objects.create(guest="ann")
        Pass(guest="ann").save()
    assert not [one for one in asked if one["sql"].startswith("SELECT")]
    one = Ticket(pk=ticket.pk, guest="bob")
    one._state.adding = False
    left = kept("guest:ann", "guest:bob")
    one.save()
    assert not left()


@pytest.mark.parametrize("key", ["item_ptr_id", "id"])
def test_a_row_that_extends_one_that_is_there(kept, key):
    item = Item.objects.create(kind="saw")
    left = kept("kind:saw", "kind:axe", "kind:hoe")
    Tool(**{key: item.pk}, kind="axe", handle="long").save()
    assert left() == {"kind:hoe"} and Item.objects.get().kind == "axe"
    tool = Tool.objects.get()
    left = kept("kind:saw", "kind:axe", "kind:hoe")
    tool.kind = "hoe"
    tool.save()
    assert left() == {"kind:saw"}
    with CaptureQueriesContext(connection) as asked:
        Tool.objects.create(kind="new")
    assert not [one for one in asked if one["sql"].startswith("SELECT")]


def test_a_row_that_comes_from_a_cache(dropped, shelves, book):
    cache.set("book", anew(book))
    assert dropped(lambda: move(cache.get("book"), shelves[1])) == [0, 1]
    for again in (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        one = again(anew(book))
        assert dropped(lambda one=one: move(one, shelves[2])) == [1, 2]
        move(one, shelves[1])


def test_a_new_row_costs_no_query_and_drops_its_own_tags_alone(dropped, shelves):
    book = Book(title="new", shelf=shelves[0])
    with CaptureQueriesContext(connection) as asked:
        assert dropped(lambda: move(book, shelves[1])) == [1]
        move(book, shelves[1])
    assert len(asked) == 2


def test_values_that_only_the_database_knows(dropped, shelves, book):
    assert dropped(lambda: Book.objects.filter(pk=book.pk).update(title=F("title"), shelf=shelves[1])) == [0, 1]
    book = anew(book)
    book.shelf_id = F("shelf_id") + 1
    assert 1 in dropped(book.save)


def test_what_cannot_be_compared_breaks_no_save(dropped, shelves):
    class Vector(str):
        __hash__ = None

        def __eq__(self, other):
            raise ValueError("ambiguous")

    note = Note.objects.get(pk=Note.objects.create(shelf=shelves[0], text="a").pk)
    note.text = Vector("b")
    assert dropped(note.save) == [0]
    note.text = Vector("c")
    assert dropped(note.save) == [0]


def test_what_is_changed_in_place(kept):
    sheet = Sheet.objects.create(topics=["a"])
    left = kept("topic:a", "topic:b")
    sheet.topics[0] = "b"
    sheet.save()
    assert not left()
    sheet = Sheet.objects.get()
    left = kept("topic:b", "topic:c")
    sheet.topics.clear()
    sheet.save(update_fields=["topics"])
    assert left() == {"topic:c"}
    with transaction.atomic():
        sheet.topics.append("b")
        sheet.save()
        left = kept("topic:b", "topic:c")
        sheet.topics[0] = "c"
        sheet.save()
    assert not left()


def test_what_cannot_be_copied_breaks_no_row():
    """An open file, a lock, what a project's own field gives."""
    lock = threading.Lock()
    sheet = Sheet(topics=["a"], scan=lock)
    assert rows.state_of(sheet)["scan"] is lock
    sheet.scan = F("topics")
    assert rows.state_of(sheet)["scan"] is sheet.scan


def test_files_are_remembered_by_their_names(kept):
    sheet = Sheet.objects.create(proof="a.pdf")
    sheet = Sheet.objects.get()
    assert sheet.proof.name == "a.pdf"  # looked at, it holds its row
    sheet.save()
    assert type(rows.state_of(sheet)["proof"]) is str and rows.tags_before(sheet) == []
    sheet.proof.name = "b.pdf"
    assert rows.tags_before(sheet) == [f"on:{sheet.pk}"]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_views_of_memory_go_where_their_row_goes(kept, again):
    """As databases return what is binary."""
    sheet = Sheet(topics=["a"], scan=memoryview(b"a"))
    assert bytes(again(sheet).scan) == b"a"
    sheet.save()
    assert bytes(again(sheet).scan) == b"a" and rows.tags_before(sheet) == [], "and nothing has changed"


def test_a_function_that_fails_for_the_row_as_it_was_breaks_no_save(kept, shelves, monkeypatch, caplog):
    monkeypatch.setattr(rows, "_sources", {**rows._sources, Book: (lambda book: [f"on:{book.shelf.name}"],)})
    rows._watched.clear()
    try:
        connection.cursor().execute("INSERT INTO django_shop_book (title, cover) VALUES ('saw', '')")
        left = kept("on:a", "on:b")
        move(Book.objects.get(), shelves[0])
        assert left() == {"on:b"} and "failed for the row as it was" in caplog.text
    finally:
        monkeypatch.undo()
        rows._watched.clear()


def test_receivers_of_the_project_come_after(kept):
    """What one of them loads of the row that was just saved is not to be kept before the commit."""
    noted.clear()
    with transaction.atomic():
        Note.objects.create()
    assert noted == [1]


# Many rows at once


def test_updates_of_other_kinds_of_query_sets(dropped, shelves, book):
    some = Book.objects.filter(title="saw")
    assert dropped(lambda: some.only("title").update(shelf=shelves[1])) == [0, 1]
    assert dropped(lambda: some.defer("shelf").update(shelf=shelves[2])) == [1, 2]
    for number, kind in enumerate([some.values("title"), some.values_list("pk"), some.values_list("pk", flat=True)]):
        assert dropped(lambda kind=kind, to=shelves[number]: kind.update(shelf=to)) == sorted(
            {(number - 1) % 3, number}
        )
    assert dropped(lambda: some.select_related("shelf").order_by("shelf__name").update(shelf=shelves[3])) == [2, 3]
    with pytest.raises(TypeError, match="slice"):
        some[:1].update(title="axe")


@pytest.mark.parametrize("kind", ["all", "values", "only"])
def test_rows_are_read_where_they_are_changed(dropped, shelves, book, other, monkeypatch, kind):
    Book.objects.using("other").update(shelf=shelves[3])
    monkeypatch.setattr(router, "routers", [Replica()])
    some = Book.objects.filter(title="saw")
    some = {"all": some, "values": some.values("title"), "only": some.only("title")}[kind]
    assert Book.objects.get().shelf_id == shelves[3].pk
    assert dropped(lambda: some.update(shelf=shelves[1])) == [0, 1]
    given = Book(pk=book.pk, title="saw", shelf=shelves[2])
    assert dropped(lambda: Book.objects.bulk_update([given], ["shelf"])) == [1, 2]
    given.shelf = shelves[0]
    upsert = {"update_conflicts": True, "unique_fields": ["pk"], "update_fields": ["shelf"]}
    assert dropped(lambda: Book.objects.bulk_create([given], **upsert)) == [0, 2]
    assert dropped(lambda: move(Book.objects.get(), shelves[1])) == [0, 1]


@pytest.mark.parametrize("names", [["hall", "seat"], ["hall", "number"]])
def test_fields_that_must_be_unique_together(kept, names):
    there = Ticket.objects.create(guest="ann", seat=1, number=2, hall=3)
    given = Ticket(guest="bob", **{name: getattr(there, name) for name in names})
    assert list(Invalidating(Ticket)._conflicting([given], None)) == [there]
    for name in names:
        given = Ticket(guest="ann", **{each: getattr(there, each) + (each == name) for each in names})
        assert list(Invalidating(Ticket)._conflicting([given], None)) == []


@pytest.mark.parametrize("unique", [["title"], ["pk"]])
def test_rows_that_are_created_over_others(dropped, shelves, book, unique):
    given = [Book(pk=book.pk, title="saw", shelf=shelves[1]), Book(title="new", shelf=shelves[2])]
    if unique == ["title"]:
        given[0].pk = None

    def create():
        Book.objects.bulk_create(given, update_conflicts=True, unique_fields=unique, update_fields=["shelf"])

    with CaptureQueriesContext(connection) as asked:
        assert dropped(create) == [0, 1, 2]
    assert Book.objects.get(pk=book.pk).shelf == shelves[1]
    assert len([one for one in asked if one["sql"].startswith("SELECT")]) == 1


def test_which_rows_a_database_that_is_not_told_would_replace(shelves, book):
    found = Book.objects.all()._conflicting([Book(title="saw"), Book(pk=5), Book(title="x")], None)
    assert {one.pk for one in found} == {book.pk}
    many = [Book(title=str(number)) for number in range(250)] + [Book(title="saw")]
    with CaptureQueriesContext(connection) as asked:
        assert list(Book.objects.all()._conflicting(many, ["title"])) == [book]
    assert len(asked) == 3


def test_what_was_changed_in_bulk_knows_what_it_is(dropped, shelves, book):
    book.shelf = shelves[1]
    Book.objects.bulk_update([book], ["shelf"])
    assert dropped(lambda: move(book, shelves[2])) == [1, 2]
    (made,) = Book.objects.bulk_create([Book(title="new", shelf=shelves[0])])
    assert dropped(lambda: move(made, shelves[3])) == [0, 3]

    def fails():
        with pytest.raises(Failed), transaction.atomic():
            made.shelf = shelves[1]
            Book.objects.bulk_update([made], ["shelf"])
            raise Failed

    assert dropped(fails) == []
    assert dropped(lambda: move(made, shelves[2])) == [1, 2, 3]


def test_a_row_of_a_transaction_is_not_held_until_its_commit(shelves):
    import gc
    import weakref

    with transaction.atomic():
        known = weakref.ref(Book.objects.create(title="new", shelf=shelves[0]))
        gc.collect()
        assert known() is None


def test_tags_that_are_asked_for_by_name_and_by_relation(shelves, monkeypatch):
    assert rows.watched(Book) == ("id", "shelf_id") and set(rows.watched(Note)) == {"id", "text", "shelf_id"}
    assert rows.watched(Shelf) == ()
    monkeypatch.setattr(rows, "_sources", {})
    for tag, expected in {
        "book:{pk}": (), "{shelf}": ("id", "shelf_id"), "{shelf.name}": ("id", "shelf_id"), "{id}": (),
        "{unknown}": ("id", "cover", "shelf_id", "title"),
    }.items():  # fmt: skip
        rows._sources.clear()
        rows._watched.clear()
        rows._sources[Book] = (tag,)
        assert rows.watched(Book) == expected, tag
    rows._watched.clear()


def test_a_tag_over_a_relation_sees_that_it_moves(kept, shelves, monkeypatch):
    monkeypatch.setattr(rows, "_sources", {**rows._sources, Book: ("on:{shelf.name}",)})
    rows._watched.clear()
    try:
        book = Book.objects.get(pk=Book.objects.create(title="saw", shelf=shelves[0]).pk)
        left = kept("on:a", "on:b", "on:c")
        move(book, shelves[1])
        assert left() == {"on:c"}
    finally:
        rows._watched.clear()
        monkeypatch.undo()
        rows._watched.clear()


def test_a_project_that_loads_anew_in_its_own_way():
    from cachekit_django import signals

    class Own:
        def refresh_from_db(self, **kwargs):
            loaded.append(kwargs)

    loaded = []
    signals._note_refreshing(Own)
    signals._note_refreshing(Own)
    Own().refresh_from_db(fields=["title"])
    assert loaded == [{"fields": ["title"]}]
