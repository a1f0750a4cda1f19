"""Reads of a server take short ways: what they remember and compare as a whole must not let anything wrong through."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from cachekit import Cache
from cachekit.decorator import Handle
from cachekit.stores.expected import Expected
from cachekit.stores.record import read_record, write_head
from tests.conftest import Server


@pytest.fixture
def cache(server: Server) -> Iterator[Cache]:
    with Cache(server.url) as made:
        yield made


def test_equal_arguments_of_other_types_are_other_keys(cache: Cache) -> None:
    seen = []

    @cache.cached(ttl="5m", tags=["item:{number}"])
    def load(number):
        seen.append(number)
        return repr(number)

    for _ in range(3):
        assert [load(number) for number in (1, True, "1", 1.0)] == ["1", "True", "'1'", "1.0"]
    assert len(seen) == 4


def test_arguments_without_a_hash_are_no_obstacle(cache: Cache) -> None:
    @cache.cached(ttl="5m", key="list:{numbers}")
    def load(numbers):
        return sum(numbers)

    assert [load([1, 2]), load([1, 2]), load([3])] == [3, 3, 3]


def test_a_tag_may_contain_a_percent_sign(cache: Cache) -> None:
    calls = []

    @cache.cached(ttl="5m", tags=["off:{what}"])
    def load(what):
        calls.append(what)
        return what

    for _ in range(3):
        assert load("10%b %s") == "10%b %s"
    assert len(calls) == 1
    cache.invalidate("off:10%b %s")
    load("10%b %s")
    assert len(calls) == 2


def test_tags_that_change_with_the_result_are_followed(cache: Cache) -> None:
    """The tags that were expected are not those that it carries now."""
    owner = ["ann"]

    @cache.cached(ttl="5m", key="doc", result_tags=lambda found: [f"owner:{found}"])
    def load():
        return owner[0]

    assert [load(), load(), load()] == ["ann"] * 3
    owner[0] = "bob"
    cache.invalidate("owner:ann")
    assert [load(), load(), load()] == ["bob"] * 3
    owner[0] = "cleo"
    cache.invalidate("owner:ann")
    assert load() == "bob"
    cache.invalidate("owner:bob")
    assert load() == "cleo"


@pytest.mark.parametrize("tags", [("",), ("", "a"), ("", "a%", "%b", "\u00fcber")])
def test_a_head_is_recognised_only_as_a_whole(tags: tuple[str, ...]) -> None:
    stamps = {tag: bytes([number]) * 16 for number, tag in enumerate(tags)}
    data = write_head(stamps) + b"frame"
    known: list[bytes | None] = list(stamps.values())
    read = Expected(tags[1:], tags, ())

    def begins(data: bytes, given: tuple[bytes, object] | None) -> bool:
        assert given is not None
        return data.startswith(given[0])

    assert read.given(known) == (data.removesuffix(b"frame"), tuple(stamps.items())[1:])
    assert read.given(list(known)) is not None, "as before"
    assert read_record(data).stamps == stamps
    assert read.given([None, *known[1:]]) is None
    assert not begins(data, read.given([b"x" * 16, *known[1:]]))
    assert not begins(data[:10], read.given(known))
    assert begins(data, read.given(known))
    assert not begins(data, Expected((*tags[1:], "more"), (*tags, "more"), ()).given([*known, b"x" * 16]))


def test_long_arguments_are_not_held_on_to(cache: Cache) -> None:
    @cache.cached(ttl="5m", key="length:{text}")
    def length(text):
        return len(text)

    for text in ("short", "long" * 5_000):
        assert [length(text), length(text)] == [len(text)] * 2
    (handle,) = [one for one in gc.get_objects() if isinstance(one, Handle) and one.function is length]
    assert [values for _, values in handle._asked] == [("short",)]
