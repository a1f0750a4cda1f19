"""Flights: who leads, who follows, who must not wait, and what an invalidation takes off the board."""

from __future__ import annotations

import contextvars

import pytest

from cachekit.flight import Flight, Flights, leading

SCOPE = object()


def test_the_first_leads_and_the_others_follow_until_it_lands() -> None:
    flights = Flights()
    first, leads = flights.join(SCOPE, "k", ["t"])
    assert leads
    assert flights.join(SCOPE, "k", []) == (first, False)
    assert flights.join(SCOPE, "other", [])[1]
    assert flights.join(object(), "k", [])[1]  # another loop
    assert flights.running(SCOPE, "k")
    flights.land(first)
    assert not flights.running(SCOPE, "k")
    assert flights.join(SCOPE, "k", [])[1]


def test_landing_twice_or_late_takes_nothing_else_off() -> None:
    flights = Flights()
    first, _ = flights.join(SCOPE, "k", [])
    flights.void(keys=["k"])
    second, leads = flights.join(SCOPE, "k", [])
    assert leads
    flights.land(first)
    assert flights.join(SCOPE, "k", []) == (second, False)


@pytest.mark.parametrize(
    ("void", "voided"),
    [
        ({"tags": ["t"]}, {"a", "b"}),
        ({"tags": ["t", "u"]}, {"a", "b", "c"}),
        ({"tags": ["nothing"]}, set()),
        ({"keys": ["a", "z"]}, {"a"}),
        ({"everything": True}, {"a", "b", "c"}),
    ],
)
def test_void(void, voided) -> None:
    flights = Flights()
    made = {name: flights.join(SCOPE, name, tags)[0] for name, tags in {"a": ["t"], "b": ["t"], "c": ["u"]}.items()}
    flights.void(**void)
    assert {name for name, flight in made.items() if flight.void} == voided
    assert {name for name in made if not flights.running(SCOPE, name)} == voided


def test_a_follower_cannot_cancel() -> None:
    flight = Flight(SCOPE, "k", [])
    assert flight.result.cancel() is False


def test_who_is_waited_for_must_not_wait() -> None:
    """a leads b; b waits for c; whatever c's loader would wait for must be neither a nor b."""
    flights = Flights()
    a, b, c = (flights.join(SCOPE, name, [])[0] for name in "abc")

    def in_loader_of(*flying):
        context = contextvars.copy_context()
        context.run(leading.set, flying)
        return context.run

    assert in_loader_of(a)(flights.join, SCOPE, "a", []) is None
    assert in_loader_of(a, b)(flights.join, SCOPE, "a", []) is None
    run = in_loader_of(a, b)
    assert run(flights.join, SCOPE, "c", []) == (c, False)
    for own in ("a", "b"):
        assert in_loader_of(c)(flights.join, SCOPE, own, []) is None, own
    run(flights.left, c)
    assert in_loader_of(c)(flights.join, SCOPE, "a", []) == (a, False)
