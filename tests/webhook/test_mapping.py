"""From events to tags. Pure."""

from __future__ import annotations

import pytest

from cachekit import ConfigError
from cachekit.webhook import Effect, Events, catalogue
from cachekit.webhook.mapping import BadObject, UnknownEvent

PRODUCT = {"id": 42, "category_id": 7}


@pytest.mark.parametrize(
    ("event", "more", "tags"),
    [
        ("product.updated", {"changed": ["stock"]}, {"product:42"}),
        ("product.updated", {"changed": []}, {"product:42"}),
        ("product.updated", {"changed": ["price"]}, {"product:42", "search-results"}),
        ("product.updated", {"changed": ["name"]}, {"product:42", "search-results"}),
        ("product.updated", {"changed": {"tags": [1]}}, {"product:42", "search-results"}),
        ("product.updated", {"changed": ["category_id"]}, {"product:42", "category:7"}),
        (
            "product.updated",
            {"changed": ["category_id"], "previous": {"category_id": 5}},
            {"product:42", "category:7", "category:5"},
        ),
        ("product.updated", {}, {"product:42", "category:7", "search-results"}),
        ("product.created", {}, {"product:42", "category:7", "search-results"}),
        ("product.deleted", {}, {"product:42", "category:7", "search-results"}),
        ("category.updated", {}, {"category:42"}),
    ],
)
def test_the_catalogue(event: str, more: dict, tags: set[str]) -> None:
    assert set(catalogue().tags({"event": event, "data": PRODUCT, **more})) == tags


def test_other_tables_and_other_shapes() -> None:
    events = Events(
        {"push": Effect(["repo:{repository.full_name}"], {"ref": ["branch:{ref}"]})},
        event_field="meta.kind", data_field="", changed_field="meta.fields",
    )  # fmt: skip
    document = {"meta": {"kind": "push", "fields": ["ref"]}, "repository": {"full_name": "a/b"}, "ref": "main"}
    assert events.tags(document) == ("repo:a/b", "branch:main")


@pytest.mark.parametrize("name", [None, 5, "product.renamed", ["product.updated"], {}])
def test_unknown_events(name: object) -> None:
    with pytest.raises(UnknownEvent, match=r"known are product\.updated"):
        catalogue().tags({"event": name, "data": PRODUCT})


@pytest.mark.parametrize(
    "document",
    [
        {}, {"data": None}, {"data": [1]}, {"data": {}}, {"data": {"id": None}}, {"data": {"id": True}},
        {"data": {"id": 1.5}}, {"data": {"id": ""}}, {"data": {"id": [42]}}, {"data": {"id": {"a": 1}}},
        {"data": {"id": "a\nb"}}, {"data": {"id": "x" * 600}}, {"data": {"id": 1}, "changed": ["category_id"]},
        {"data": PRODUCT, "changed": "price"}, {"data": PRODUCT, "changed": [1]}, {"data": PRODUCT, "previous": [1]},
    ],
)  # fmt: skip
def test_objects_that_lack_what_is_needed(document: dict) -> None:
    with pytest.raises(BadObject):
        catalogue().tags({"event": "product.updated", **document})


def test_values_cannot_write_templates() -> None:
    events = Events({"e": Effect(["{a}:{b}"])})
    assert events.tags({"event": "e", "data": {"a": "{b}", "b": "secret"}}) == ("%7Bb%7D:secret",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Events({}), "events must be"),
        (lambda: Events({"a": ["tag"]}), "events must be"),  # type: ignore[dict-item]
        (lambda: Effect(), "must drop something"),
        (lambda: Effect("product"), "tags must be a list"),
        (lambda: Effect(["a:{0}"]), "must name fields"),
        (lambda: Effect(["a:{id"]), "brace"),
        (lambda: Effect([""]), "empty"),
        (lambda: Effect([], {"": ["a"]}), "must name fields"),
        (lambda: Effect([], {"price": "a"}), "changed 'price'"),
        (lambda: Events({"a": Effect(["b"])}, event_field="a b"), "event_field="),
    ],
)
def test_wrong_tables_are_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
