"""Keys: two argument lists share a key exactly when they are the same values of the same types."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from hypothesis import assume, example, given
from hypothesis import strategies as st

from cachekit import Cache
from cachekit.keys import KeyTemplate, bounded, render


class Colour(Enum):
    RED = "r"
    BLUE = 1


class Level(IntEnum):
    LOW = 0
    HIGH = 1


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Box:
    content: Any


class Text(str):
    __slots__ = ()


TRICKY = st.sampled_from(
    [
        "",
        "'",
        "''",
        "%",
        "%27",
        ",",
        ":",
        "a,b",
        "a:b",
        "(a,)",
        "[1,]",
        "1",
        "1.0",
        "True",
        "None",
        "b'61'",
        "Text(a)",
        "~",
    ]
    + ["\x00", "\ud800", "é"]
)
TEXT = TRICKY | st.text(max_size=6) | st.text(alphabet="a1',:%()[]{}=<>~", max_size=5)
ATOMS = st.one_of(
    TEXT, st.integers(-3, 300), st.floats(), st.booleans(), st.none(), st.binary(max_size=3),
    st.sampled_from([*Colour, *Level]), st.decimals(allow_nan=False), st.fractions(), st.uuids(), st.dates(), st.times(),
    st.datetimes(timezones=st.none() | st.just(dt.UTC)), st.timedeltas(), TEXT.map(Text), TEXT.map(PurePosixPath),
    st.complex_numbers(allow_nan=False), st.sampled_from([int, str, Box]),
)  # fmt: skip
KEYS = ATOMS.filter(lambda value: value == value)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.frozensets(KEYS, max_size=3)
        | st.sets(KEYS, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Box, inner)
    )


VALUES = st.recursive(ATOMS, _nested, max_leaves=6)


def same(a: Any, b: Any) -> bool:
    """Whether *a* and *b* are the same value of the same type, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, complex):
        return repr(a) == repr(b)
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(any(same(k, m) and same(v, w) for m, w in b.items()) for k, v in a.items())
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, Box):
        return same(a.content, b.content)
    if isinstance(a, (dt.datetime, dt.time)):
        return a == b and a.tzinfo == b.tzinfo and a.fold == b.fold
    if isinstance(a, Fraction):
        return a == b
    return bool(a == b)


PIECES = st.sampled_from(["a", "b", "ab", ",", "a,", "'", "x=1", 1, 2, 12, "", None, "?", "\ud800", "%3F"])
ALIKE = st.recursive(PIECES, _nested, max_leaves=4)
"""Values from so small a stock that two of them are often nearly the same."""


@given(VALUES | ALIKE, VALUES | ALIKE)
@example("a'", "a")
@example(("a", "b"), ("ab",))
@example("\ud800", "?")
@example(("a", "b"), ("a,b",))
@example([1, [2]], [[1], 2])
@example({"a": 1}, {"a=1,": 1})
@example(-0.0, 0.0)
def test_different_values_have_different_texts(a: Any, b: Any) -> None:
    for special in ("", ",", ":/"):
        assert (render(a, special=special) == render(b, special=special)) is same(a, b)


@given(VALUES)
def test_a_text_is_stable_and_printable(value: Any) -> None:
    assert render(value) == render(value)
    assert render(value).isprintable() or not repr(value).isprintable()


@given(st.dictionaries(KEYS, ATOMS, max_size=4), st.randoms())
def test_the_order_of_a_mapping_or_set_does_not_matter(mapping: dict[Any, Any], rng: Any) -> None:
    items = list(mapping.items())
    rng.shuffle(items)
    assert render(dict(items)) == render(mapping)
    assert render({key for key, _ in items}) == render(set(mapping))


TEMPLATES = [
    "{a}:{b}",
    "x:{a}/{b}",
    "{a}-{b}",
    "{a}, {b}",
    "{a}|{b}:end",
    "{a}::{b}",
    "{a}_{b}",
    "{a}~{b}",
    "{a}'{b}",
    "{a}%{b}",
]


@given(st.sampled_from(TEMPLATES), VALUES, VALUES, VALUES, VALUES)
@example("{a}:{b}", "x:y", "z", "x", "y:z")
@example("{a}'{b}", "x", "'y", "x'", "y")
@example("{a}-{b}", 1, -1, "1-", 1)
@example("{a}-{b}", dt.date(2020, 1, 1), 1, dt.date(2020, 1, 1), "1")
@example("{a}, {b}", (1,), "x", (1, ", x"), "")
def test_templates_keep_fields_apart(template: str, a: Any, b: Any, c: Any, d: Any) -> None:
    made = KeyTemplate(template, ["a", "b"])
    one, other = made.render("f", {"a": a, "b": b}), made.render("f", {"a": c, "b": d})
    assert (one == other) is (same(a, c) and same(b, d))


@given(TEXT | st.text(min_size=150, max_size=300), TEXT | st.text(min_size=150, max_size=300))
def test_bounding_keeps_keys_apart(a: str, b: str) -> None:
    assume(a and b)
    assert (bounded(a) == bounded(b)) is (a == b)
    assert len(bounded(a).encode("utf-8", "surrogatepass")) <= 200


@given(st.lists(st.tuples(VALUES, VALUES), max_size=6))
def test_a_cached_function_never_gives_the_result_of_other_arguments(calls: list[tuple[Any, Any]]) -> None:
    cache = Cache()

    @cache.cached
    def load(a: Any, b: Any = "default") -> Any:
        return (a, b)

    for _ in range(3):
        for a, b in calls:
            assert same(load(a, b), (a, b))
            assert same(load(b=b, a=a), (a, b))
            assert same(load(a), (a, "default"))
