"""What was sent to the store and carried out, although nobody heard of it: it is neither done twice nor left behind."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from cachekit.errors import StoreTimeout
from tests.sessions.conftest import LONGEST_PAUSE, InBytes, Swapped, put


class Line:
    """Between the sessions and their store: loses answers, and holds commands up, as it is told."""

    WRITES = ("write", "append", "swap", "retire")

    def __init__(self, inner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lose = 0
        self.hold = 0
        self.held: list[Any] = []
        self.read = inner.read
        self.inner = inner
        for name in [name for name in self.WRITES if hasattr(inner, name)]:
            monkeypatch.setattr(inner, name, self._around(getattr(inner, name)), raising=True)
        monkeypatch.setattr(inner, "read", self._reading)
        self.after_read = 0

    def _around(self, command: Any) -> Any:
        async def sent(io: Any, *args: Any) -> Any:
            if self.hold:
                self.hold -= 1
                self.held.append((command, io, args))
                raise StoreTimeout("no answer in time")
            outcome = await command(io, *args)
            if self.lose:
                self.lose -= 1
                raise StoreTimeout("the answer was lost")
            return outcome

        return sent

    async def _reading(self, io: Any, *args: Any) -> Any:
        found = await self.read(io, *args)
        if self.after_read:  # what was held up arrives right after this
            self.after_read -= 1
            for command, _, given in self.held:
                done = command(io, *given)
                if inspect.isawaitable(done):
                    await done
            self.held.clear()
        return found


@pytest.fixture(params=[InBytes, Swapped])
def edge(site, clock, request):
    return site(request.param(clock=clock), counters=["hits"])


@pytest.fixture
def line(edge, monkeypatch):
    return Line(edge.sessions.store.inner, monkeypatch)


def back(edge, clock) -> None:
    """Let the pause pass, and what waits be delivered."""
    clock.advance(LONGEST_PAUSE)
    edge.sessions.deliver()


def once_more(session: Any) -> None:
    session["hits"] = session.get("hits", 0) + 1


def test_a_session_whose_beginning_was_not_answered_begins_once(edge, line, clock) -> None:
    browser = edge.browser()
    line.lose = 1

    def begin(session):
        once_more(session)
        session.flash("welcome")

    browser.ask(begin)
    browser.ask(once_more)
    back(edge, clock)
    assert browser.look(lambda s: (s["hits"], s.degraded)) == (2, False)
    assert browser.look(lambda s: s.flashed()) == [("message", "welcome")]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_delivery_that_was_not_answered_is_not_made_twice(edge, line, clock, times) -> None:
    browser = edge.browser()
    browser.ask(once_more)
    line.hold = 1  # this one never arrives
    browser.ask(once_more)
    for _ in range(times):
        line.lose = 1
        back(edge, clock)
        browser.ask(once_more)
    back(edge, clock)
    line.held.clear()
    back(edge, clock)
    assert browser.look(lambda s: (s["hits"], s.degraded)) == (2 + times, False)


def test_a_change_that_arrives_while_it_is_delivered_again_counts_once(edge, line, clock) -> None:
    browser = edge.browser()
    browser.ask(once_more)
    line.hold = 1
    browser.ask(once_more)
    browser.ask(once_more)
    line.after_read = 1
    back(edge, clock)
    assert not line.held
    assert browser.look(lambda s: (s["hits"], s.degraded)) == (3, False)


def test_the_old_id_dies_although_the_new_one_was_not_answered(edge, line, clock) -> None:
    browser = edge.browser()
    browser.ask(put("cart", ["x"]))
    thief = browser.copy()
    line.lose = 1
    browser.ask(lambda s: s.bind("ann"))
    back(edge, clock)
    clock.advance(3600)
    assert browser.look(lambda s: (s.user, s["cart"], s.degraded)) == ("ann", ["x"], False)
    assert thief.look(dict) == {}
    assert edge.sessions.count() == 1


def test_logging_out_ends_a_session_whose_beginning_was_not_answered(edge, line, clock) -> None:
    browser = edge.browser()
    line.lose = 1
    browser.ask(put("name", "ann"))
    other = browser.copy()
    browser.ask(lambda s: s.clear())
    back(edge, clock)
    assert other.look(dict) == {}
    assert edge.sessions.count() == 0


def test_a_new_id_leaves_nothing_behind_of_a_session_whose_beginning_was_not_answered(edge, line, clock) -> None:
    browser = edge.browser()
    line.lose = 1
    browser.ask(put("name", "ann"))
    other = browser.copy()
    browser.ask(lambda s: s.bind("ann"))
    back(edge, clock)
    assert browser.look(lambda s: (s.user, s["name"])) == ("ann", "ann")
    clock.advance(3600)
    assert other.look(dict) == {}
    assert edge.sessions.count() == 1
