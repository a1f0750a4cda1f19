"""What a request held is given back when it is over, and not only when the garbage collector comes by."""

from __future__ import annotations

import gc
import weakref

import pytest

from tests.sessions.conftest import put


@pytest.fixture(params=["memory", "valkey"])
def source(request):
    """Where the sessions of a test are kept."""
    return "memory://" if request.param == "memory" else request.getfixturevalue("valkey").url


def test_a_session_leaves_no_garbage(site, source) -> None:
    browser = site(source).browser()
    browser.ask(put("cart", ["kettle"] * 3000))
    seen = []

    def look(session):
        assert len(session["cart"]) == 3000
        seen.append(weakref.ref(session))

    def change(session):
        look(session)
        session["n"] = 1

    gc.collect()
    gc.disable()
    try:
        browser.ask(look)
        browser.ask(change)
        assert {ref() for ref in seen} == {None}
        assert len(seen) == 2
    finally:
        gc.enable()


def test_who_still_has_a_session_may_go_on(site, source) -> None:
    edge = site(source)
    browser = edge.browser()
    browser.ask(put("n", 1))
    kept = []
    browser.ask(kept.append)
    assert kept[0]["n"] == 1
    kept[0]["n"] = 2
    kept[0].save()
    assert browser.look() == {"n": 2}
