"""What is made of data that is not committed: it is given to whoever asked, and kept for nobody."""

from __future__ import annotations

import contextvars

import pytest

from cachekit import Cache, Kind, tag, uncommitted


class Changes:
    """Changes of a database that wait for their commit."""

    def __init__(self, *tags: str) -> None:
        self.waiting = set(tags)

    def tags(self) -> set[str]:
        return self.waiting


def within(changes, call):
    """Call *call* where *changes* were made."""

    def job():
        uncommitted.note(changes)
        return call()

    return contextvars.copy_context().run(job)


@pytest.mark.parametrize("known", ["before", "while it loads"])
@pytest.mark.parametrize("what", ["a value", "a failure"])
def test_nothing_is_kept_of_it(what, known, watch) -> None:
    cache, loads = Cache(observers=[watch]), []

    @cache.cached(ttl="1h", tags=["product:{number}"] if known == "before" else [], exceptions={LookupError: "1h"})
    def price(number: int) -> int:
        loads.append(number)
        tag(f"product:{number}")
        if what == "a failure":
            raise LookupError(number)
        return number

    def ask(number: int) -> object:
        try:
            return price(number)
        except LookupError:
            return "none"

    changes = Changes("product:1")
    assert [within(changes, lambda: (ask(1), ask(2))) for _ in range(2)]
    assert loads == [1, 2, 1], "of the other all is committed"
    changes.waiting.clear()
    for _ in range(2):
        within(changes, lambda: ask(1))
    assert loads == [1, 2, 1, 1], "after the commit"
    ask(1)
    assert loads == [1, 2, 1, 1]
    if what == "a value":
        assert [event.key for event in watch.of(Kind.NOT_STORED)] == [price.key_for(1)] * 2
