"""A store behind its breaker: what it keeps for later, and when it delivers it."""

from __future__ import annotations

import math
from asyncio import CancelledError

import pytest

from cachekit import Event, Kind, StoreError, StoreUnavailable
from cachekit._io import BLOCKING, drive
from cachekit.breaker import Breaker
from cachekit.entry import Entry
from cachekit.stores.guarded import Guarded
from cachekit.stores.memory import Memory
from cachekit.testing import FlakyStore, ManualClock


class NoBackground:
    """The blocking world without jobs behind: what is delivered is delivered by a caller."""

    def __getattr__(self, name):
        return getattr(BLOCKING, name)

    def spawn(self, job) -> None:
        job.close()


IO = NoBackground()
ENTRY = Entry(1, 0.0, math.inf, math.inf, math.inf)


@pytest.fixture
def flaky(clock: ManualClock) -> FlakyStore:
    return FlakyStore(Memory(clock=clock))


@pytest.fixture
def guarded(flaky: FlakyStore, clock: ManualClock, watch) -> Guarded:
    return Guarded(flaky, Breaker(), clock=clock, emit=watch)


def test_while_open_the_store_is_left_alone(guarded: Guarded, flaky: FlakyStore, clock: ManualClock, watch) -> None:
    flaky.down = True
    for _ in range(10):
        with pytest.raises(StoreUnavailable):
            drive(guarded.get(IO, "k"))
    assert len(flaky.calls) == 3
    assert len(watch.of(Kind.BREAKER_OPENED)) == 1
    with pytest.raises(StoreUnavailable) as caught:
        drive(guarded.get(IO, "k"))
    assert caught.value.retry_after == 0.5
    clock.advance(0.5)
    flaky.down = False
    assert drive(guarded.get(IO, "k")) is None
    assert len(watch.of(Kind.BREAKER_CLOSED)) == 1


def test_what_could_not_be_delivered_goes_first(guarded: Guarded, flaky: FlakyStore, clock: ManualClock) -> None:
    flaky.down = True
    drive(guarded.invalidate(IO, ["t"]))
    assert drive(guarded.delete(IO, ["k"])) == 0
    drive(guarded.clear(IO))
    with pytest.raises(StoreUnavailable):
        drive(guarded.set_many(IO, {"l": None}))
    assert guarded.pending == 4
    flaky.down, flaky.calls = False, []
    clock.advance(1)
    drive(guarded.get(IO, "k"))
    assert flaky.calls == ["clear", "invalidate", "delete", "get"]
    assert guarded.pending == 0
    drive(guarded.get(IO, "k"))
    assert flaky.calls[4:] == ["get"]


def test_what_fails_while_it_is_delivered_is_kept(guarded: Guarded, flaky: FlakyStore, clock: ManualClock) -> None:
    flaky.down = True
    drive(guarded.invalidate(IO, ["a", "b"]))
    drive(guarded.clear(IO))
    clock.advance(1)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            drive(guarded.get(IO, "k"))
        clock.advance(60)
    assert guarded.pending == 3


@pytest.mark.parametrize(("change", "name"), [("invalidate", "invalidate"), ("delete", "delete"), ("clear", "clear")])
def test_what_failed_again_while_it_was_delivered_is_delivered_again(
    guarded: Guarded, flaky: FlakyStore, clock: ManualClock, change, name
) -> None:
    """The first delivery may have been carried out before a load began that the second has to overtake."""
    args = () if change == "clear" else (["x"],)
    flaky.down = True
    drive(getattr(guarded, change)(IO, *args))
    flaky.down = False
    clock.advance(1)
    deliver, again = getattr(flaky.inner, name), []

    async def meanwhile(io, *given):
        if not again:
            again.append(True)
            flaky.down = True
            drive(getattr(guarded, change)(IO, *args))
            flaky.down = False
        return await deliver(io, *given)

    setattr(flaky.inner, name, meanwhile)
    drive(guarded.get(IO, "k"))
    assert guarded.pending == 1
    flaky.calls = []
    clock.advance(60)
    drive(guarded.get(IO, "k"))
    assert flaky.calls == [name, "get"]
    assert guarded.pending == 0


class Lender(FlakyStore):
    """A store of which other processes would notice that a lease lies on."""

    def __init__(self, inner: Memory) -> None:
        super().__init__(inner)
        self.owed: list[object] = []
        self.given: list[object] = []

    @property
    def owes(self) -> bool:
        return bool(self.owed)

    def owe(self, ticket) -> None:
        self.owed.append(ticket)

    async def give_back(self, io) -> None:  # noqa: ARG002 - the port
        self._check("give_back")
        self.given, self.owed = self.given + self.owed, []


class Behind(NoBackground):
    """Keeps jobs for later, and sleeps no second."""

    def __init__(self) -> None:
        self.jobs: list[object] = []
        self.slept: list[float] = []

    def spawn(self, job) -> None:
        self.jobs.append(job)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def lender(clock: ManualClock) -> Lender:
    return Lender(Memory(clock=clock))


@pytest.fixture
def lending(lender: Lender, clock: ManualClock, watch) -> Guarded:
    return Guarded(lender, Breaker(), clock=clock, emit=watch)


@pytest.mark.parametrize("end", ["release", "commit"])
def test_a_lease_that_could_not_be_given_back_is_given_back_behind(lending: Guarded, lender: Lender, end) -> None:
    ticket = drive(lending.begin(IO, "k", (), 30))
    lender.down, world = True, Behind()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            drive(lending.release(world, ticket) if end == "release" else lending.commit(world, ticket, ENTRY))
    assert (lender.owed, lending.pending) == ([ticket, ticket], 0), "pending counts invalidations"
    assert len(world.jobs) == 1
    lender.down, lender.calls = False, []
    drive(lending.get_many(world, ["k"]))
    assert lender.calls == ["get_many"], "nobody waits for what others wait for"
    drive(world.jobs[0])
    assert lender.given == [ticket, ticket]


def test_it_is_tried_until_the_store_takes_it(lending: Guarded, lender: Lender, clock: ManualClock) -> None:
    ticket = drive(lending.begin(IO, "k", (), 30))
    lender.down, world = True, Behind()

    async def sleep(seconds: float) -> None:
        world.slept.append(seconds)
        clock.advance(seconds)
        lender.down = len(world.slept) < 6

    world.sleep = sleep
    with pytest.raises(StoreUnavailable):
        drive(lending.release(world, ticket))
    drive(world.jobs[0])
    assert lender.given == [ticket]
    assert world.slept[0] == 0.05 and world.slept == sorted(set(world.slept)), "and less and less often"
    assert not lending.breaker.is_open


def test_a_job_that_ended_unbegun_is_followed_by_another(lending: Guarded, lender: Lender) -> None:
    """As when its event loop is closed; then the next load of this process begins another."""
    ticket = drive(lending.begin(IO, "k", (), 30))
    lender.down = True
    with pytest.raises(StoreUnavailable):
        drive(lending.release(IO, ticket))  # whose jobs are closed at once
    lender.down, world = False, Behind()
    drive(lending.begin(world, "other", (), 30))
    assert world.slept == []
    drive(world.jobs[0])
    assert (lender.given, world.slept) == ([ticket], [0.0])
    drive(lending.begin(world, "another", (), 30))
    assert len(world.jobs) == 1


def test_nothing_is_given_back_once_it_is_closed(lending: Guarded, lender: Lender) -> None:
    ticket = drive(lending.begin(IO, "k", (), 30))
    lender.down, world = True, Behind()
    with pytest.raises(StoreUnavailable):
        drive(lending.release(world, ticket))
    drive(lending.close(world))
    drive(world.jobs[0])
    assert lender.given == []


@pytest.mark.parametrize("drop", ["invalidate", "delete", "clear", "set_many"])
def test_what_a_caller_dropped_who_was_cancelled_is_dropped_later(guarded: Guarded, flaky: FlakyStore, drop) -> None:
    """It may have reached the server, or not: nobody knows."""

    async def gone(*_: object) -> None:
        raise CancelledError

    arguments = {"invalidate": [["t"]], "delete": [["k"]], "clear": [], "set_many": [{"k": ENTRY}]}[drop]
    setattr(flaky, drop, gone)
    with pytest.raises(CancelledError):
        drive(getattr(guarded, drop)(IO, *arguments))
    assert guarded.pending == 1


def test_pending_is_bounded(guarded: Guarded, flaky: FlakyStore, monkeypatch) -> None:
    monkeypatch.setattr("cachekit.stores.guarded.MAX_PENDING", 10)
    flaky.down = True
    for i in range(100):
        drive(guarded.invalidate(IO, [f"t{i}"]))
        assert guarded.pending <= 11
    assert guarded._pending_clear is not None


def test_every_failure_is_an_event(guarded: Guarded, flaky: FlakyStore, watch) -> None:
    flaky.down = True
    drive(guarded.invalidate(IO, ["t", "u"]))
    assert [type(event) for event in watch.events] == [Event] * len(watch.events)
    assert watch.of(Kind.INVALIDATION_PENDING)[0].detail == "t, u"
    assert isinstance(watch.of(Kind.STORE_ERROR)[0].error, StoreUnavailable)


def test_a_server_that_refuses_is_not_away(guarded: Guarded, flaky: FlakyStore, watch, monkeypatch) -> None:
    """A full server still has what it has: its refusals must not keep readers from it."""

    async def refuse(*_: object, **__: object) -> None:
        raise StoreError("refuses writes")

    monkeypatch.setattr(flaky, "set_many", refuse)
    for _ in range(5):
        with pytest.raises(StoreError, match="refuses writes"):
            drive(guarded.set_many(BLOCKING, {}))
    assert not guarded.breaker.is_open
    assert drive(guarded.get(BLOCKING, "k")) is None


def test_refusals_are_in_the_log_but_do_not_fill_it(
    guarded: Guarded, flaky: FlakyStore, clock: ManualClock, monkeypatch, caplog
) -> None:
    """Nothing is kept on a full server, or a replica, and the breaker does not say so."""

    async def refuse(*_: object, **__: object) -> None:
        raise StoreError("refuses writes")

    monkeypatch.setattr(flaky, "set_many", refuse)

    def tries(count: int) -> list[str]:
        caplog.clear()
        for _ in range(count):
            with pytest.raises(StoreError):
                drive(guarded.set_many(IO, {}))
        return [f"{record.levelname}: {record.getMessage()}" for record in caplog.records]

    said = "WARNING: the store answers with a refusal, going on without what it refuses: refuses writes"
    assert tries(5) == [said]
    clock.advance(59.9)
    assert tries(5) == []
    clock.advance(0.1)
    assert tries(5) == [f"{said} (10 refusals since this was last said)"]
    clock.advance(-3600)
    assert tries(2) == [f"{said} (5 refusals since this was last said)"]
