"""Keys and tags: how values are rendered, what templates accept, what is refused and how the error helps."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import zoneinfo
from collections import OrderedDict
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple
from uuid import UUID

import pydantic
import pytest

from cachekit import ConfigError, KeyArgumentError
from cachekit.keys import MAX_KEY_BYTES, KeyTemplate, TagTemplates, Unrenderable, bounded, check_tag, check_tags, render


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    RED = "red"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int


class Point2(NamedTuple):
    x: int


@dataclass
class Pair:
    x: int
    note: str = field(default="", compare=False)


@dataclass(eq=False)
class Identity:
    x: int


class Model(pydantic.BaseModel):
    x: int


class Box2(NamedTuple):
    x: str
    y: str


class Own:
    def __init__(self, x, extra=None):
        self.x, self.extra = x, extra

    def __cache_key__(self):
        return (self.x,)


class OwnProperty:
    @property
    def __cache_key__(self):
        return "p"


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


UTC = dt.UTC
DISTINCT = [
    1, 1.0, True, "1", b"1", Whole(1), Decimal(1), Decimal("1.0"), Fraction(1), 1j, Number.RED, Colour.RED, Access(1),
    0, 0.0, -0.0, False, None, "None", "True", "", " ", "'", "''", "a", "a'", "a,b", "%27", "a%27", "é", "e\u0301",
    "\ud800", "?", "1e5", "nan", "inf", float("nan"), float("inf"), b"", b"a", Text("a"), Word.RED, "red", "word.RED",
    (), (1,), ((1,),), (1, 2), ("1", 2), [], [1], [[1], 2], [[1, 2]], {1}, frozenset({1}), set(), frozenset(), {},
    {1: 2}, {"1": 2}, {(1, 2): 3}, {"a": 1, "b": 2}, [("a", 1), ("b", 2)], ("a", "b"), ("a,b",), ("ab",),
    ["ab"], ["a", "b"], (12,), {"a": 12}, {"ab"}, {"a", "b"},
    Box2("a", "b"), Box2("ab", ""), ("a", ",b"), ["a", ["b"]],
    Point(1), Point2(1), Pair(1), Pair(2), Own(1), Own(2), OwnProperty(), Model(x=1), Model(x=2), int, str, Own,
    dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=UTC), dt.datetime(2020, 1, 1, fold=1),
    dt.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/London")),
    dt.datetime(2020, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
    dt.time(1), dt.timedelta(1), UUID(int=1), range(1), PurePosixPath("a"), PureWindowsPath("a"),
    ipaddress.ip_address("::1"), ipaddress.ip_address("127.0.0.1"), ipaddress.ip_network("10.0.0.0/8"),
]  # fmt: skip


def test_what_differs_in_value_or_type_is_rendered_differently() -> None:
    made = [render(value) for value in DISTINCT]
    twins = [(a, b) for i, a in enumerate(DISTINCT) for j, b in enumerate(DISTINCT[:i]) if made[i] == made[j]]
    assert twins == []
    assert all(text.isprintable() for text in made)
    special = [render(value, special=",") for value in DISTINCT]
    assert len({*special}) == len(special)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({3, 1, 2}, {2, 3, 1}),
        (Pair(1, "x"), Pair(1, "y")),
        (Own(1, "x"), Own(1, "y")),
        (Model(x=1), Model(x="1")),
        (float("nan"), float("nan")),
    ],
    ids=str,
)
def test_what_means_the_same_is_rendered_the_same(one, other) -> None:
    assert render(one) == render(other)


@pytest.mark.parametrize("value", ["abc", "user@example.org", "a/b.c-d_e+f", "été"[:0] or "x1"])
def test_plain_words_stay_readable(value) -> None:
    assert render(value) == value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), ""), (Identity(1), ""), (lambda: 1, ""), (iter([]), ""), ([1, object()], "[1]"),
        ({"a": [object()]}, "['a'][0]"), ({object(): 1}, ".key("), (Point(object()), ".x"), (Pair(object()), ".x"),
        ({1, frozenset({Identity})} | {Identity(1)}, "{...}"), (Own(object()), ".__cache_key__"), (OrderedDict(a=1), ""),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_has_no_stable_text_is_refused_with_its_place(value, path) -> None:
    with pytest.raises(Unrenderable) as caught:
        render(value)
    assert path in caught.value.path


def test_what_contains_itself_is_refused() -> None:
    loop: dict = {}
    loop["again"] = [loop]
    with pytest.raises(Unrenderable, match="again"):
        render(loop)


# -- bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a" * 200, "é" * 100, "\ud800" * 66, "☃" * 66])
def test_keys_up_to_the_bound_stay(key) -> None:
    assert bounded(key) is key


@pytest.mark.parametrize("key", ["a" * 201, "é" * 101, "\ud800" * 67, "☃" * 67, "a" * 156 + "é" * 50, "x" * 100_000])
def test_longer_keys_keep_their_head_and_get_a_digest(key) -> None:
    made = bounded(key)
    assert len(made.encode("utf-8", "surrogatepass")) <= MAX_KEY_BYTES
    assert made != bounded(key + "x") and made == bounded(key)
    assert key.startswith(made.partition("~#")[0])


@pytest.mark.parametrize("key", ["", None, 5, b"k", ("a",)])
def test_bad_keys(key) -> None:
    with pytest.raises(ConfigError, match="key must"):
        bounded(key)


@pytest.mark.parametrize("tag", ["a", "user:42", "ключ", "with space", "a" * 512, "é" * 256, "{}%,"])
def test_good_tags(tag) -> None:
    assert check_tag(tag) is tag


@pytest.mark.parametrize(
    "tag", ["", "a\n", "\x00", "\x7f", "\u2028", "\ud800", "a" * 513, "é" * 257, "☃" * 171, None, 5, b"t", ["t"]]
)
def test_bad_tags(tag) -> None:
    with pytest.raises(ConfigError, match="tag"):
        check_tag(tag)


def test_lists_of_tags() -> None:
    assert check_tags(["b", "a", "b"]) == ("b", "a")
    assert check_tags({"a": 1}) == check_tags(iter(["a"])) == ("a",)
    for bad in ("a", None, 5, [None], b"ab"):
        with pytest.raises(ConfigError):
            check_tags(bad)


# -- templates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "arguments", "key"),
    [
        ("user:{id}", {"id": 5}, "user:5"),
        ("user:{id}", {"id": "5"}, "user:'5'"),
        ("{a}:{b}", {"a": "x:y", "b": "z"}, "'x:y':z"),
        ("{a}:{b}", {"a": "x", "b": "y:z"}, "x:'y:z'"),
        ("{user.id}:{row[0]}:{row[1].id}", {"user": Point(1), "row": [2, 3j]}, None),
        ("{d[a]}", {"d": {"a": 1}}, "1"),
        ("all", {}, "all"),
        ("{{x}}:{x}", {"x": 1}, "{x}:1"),
    ],
)
def test_key_templates(template, arguments, key) -> None:
    made = KeyTemplate(template, [*arguments])
    if key is None:
        with pytest.raises(AttributeError):
            made.render("f", arguments)
        return
    assert made.render("f", arguments) == key


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{y}", r"names \{y\}, which is no parameter \(parameters: x, z\)"),
        ("{}", "no parameter"),
        ("{0}", "no parameter"),
        ("{y.x}", "no parameter"),
        ("{x", "not a valid template"),
        ("x}", "not a valid template"),
        ("{x!r}", "conversion or a format"),
        ("{x:>5}", "conversion or a format"),
        ("{x}{z}", "separate"),
        ("{x}a{z}", "separate"),
        ("{x}.{z}", "separate"),
        ("{x}+{z}", "separate"),
    ],
)
def test_bad_key_templates(template, says) -> None:
    with pytest.raises(ConfigError, match=says):
        KeyTemplate(template, ["x", "z"])


def test_a_field_that_cannot_be_rendered_names_function_and_argument() -> None:
    with pytest.raises(KeyArgumentError, match=r"shop\.price: argument x\[0\] of type object.*__cache_key__") as caught:
        KeyTemplate("k:{x}", ["x"]).render("shop.price", {"x": [object()]})
    assert (caught.value.argument, caught.value.path) == ("x", "[0]")
    assert isinstance(caught.value, TypeError)


def test_tag_templates() -> None:
    tags = TagTemplates(["all", "user:{user.x}", "{kind}:{n}", "all", "{{x}}"], ["user", "kind", "n"])
    assert not tags.is_static
    rendered = tags.render({"user": Point(1), "kind": "k", "n": 2})
    assert rendered == ("all", "{x}", "user:1", "k:2") or set(rendered) == {"all", "{x}", "user:1", "k:2"}
    assert len(rendered) == len({*rendered})
    for n in (42, "42"):
        assert TagTemplates(["p:{n}"], ["n"]).render({"n": n}) == ("p:42",)
    assert TagTemplates(["a", "b"], []).is_static
    by_call = TagTemplates(lambda a, *, b: [f"{a}", f"{b}"], ["a", "b"])
    assert by_call.render({}, lambda: ((1,), {"b": 2})) == ("1", "2")


@pytest.mark.parametrize("bad", ["text", 5, None, [5], [None], ["{y}"], ["{x"], ["{x!r}"], [""], ["a\n"], ["a" * 513]])
def test_bad_tag_templates(bad) -> None:
    with pytest.raises(ConfigError):
        TagTemplates(bad, ["x"])


@pytest.mark.parametrize("value", ["", "a\nb", "a" * 600, "\x00"])
def test_values_that_make_no_tag(value) -> None:
    with pytest.raises(ConfigError, match="tag"):
        TagTemplates(["{x}"], ["x"]).render({"x": value})
    for returned in (value, [value], None):
        with pytest.raises(ConfigError, match="tag"):
            TagTemplates(lambda x, returned=returned: returned, ["x"]).render({}, lambda: ((1,), {}))
