"""The contract of every session store: inherit from it, and give it a ``sessions`` fixture.

    class TestMine(SessionStoreContract):
        @pytest.fixture
        def sessions(self, clock):
            return MySessions(clock=clock)

Needs pytest, and the fixtures ``world`` and ``passing`` (lets seconds pass for the store).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cachekit._io import IO
from cachekit.sessions.store import (
    FullStore,
    Key,
    Moved,
    Record,
    Verdict,
    new_id,
    new_version,
    owner_of,
    shard_of,
)

TTL: Final = 600.0


class SessionStoreContract:
    """What every session store must do, in both worlds."""

    ANN: Final = owner_of("ann")
    BOB: Final = owner_of("bob")

    @staticmethod
    def key(owner: str = "") -> Key:
        """Return the key of a new session."""
        return Key.of(new_id(shard_of(owner) if owner else None))

    @staticmethod
    def record(body: bytes = b"body", owner: str = "", **changes: Any) -> Record:
        """Return a record with a version of its own."""
        return Record(body, new_version(), TTL, owner=owner)._replace(**changes)

    def keep(self, world: Any, sessions: FullStore, body: bytes = b"body", owner: str = "", **changes: Any) -> Key:
        """Keep a new session, and return its key."""
        key = self.key(owner)
        outcome = world.run(lambda io: sessions.write(io, key, self.record(body, owner, **changes), None))
        assert outcome.verdict is Verdict.DONE
        return key

    def find(self, world: Any, sessions: FullStore, key: Key, ttl: float = TTL) -> Any:
        """Return what is kept under *key*."""
        return world.run(lambda io: sessions.read(io, key, ttl))

    def test_absent(self, world: Any, sessions: FullStore) -> None:
        assert self.find(world, sessions, self.key()) is None

    def test_what_is_kept_is_found(self, world: Any, sessions: FullStore) -> None:
        body = bytes(range(256)) * 20
        key = self.key(self.ANN)
        record = self.record(body, self.ANN)
        world.run(lambda io: sessions.write(io, key, record, None))
        found = self.find(world, sessions, key)
        assert (found.body, found.version, found.ttl, found.owner) == (body, record.version, TTL, self.ANN)
        assert found.created == found.seen > 0

    def test_nobody_makes_a_session_twice(self, world: Any, sessions: FullStore) -> None:
        key = self.keep(world, sessions, b"first")
        outcome = world.run(lambda io: sessions.write(io, key, self.record(b"second"), None))
        assert outcome.verdict is Verdict.CONFLICT
        assert self.find(world, sessions, key).body == b"first"

    def test_a_write_needs_the_version_that_is_there(self, world: Any, sessions: FullStore) -> None:
        key = self.keep(world, sessions, b"0")
        read = self.find(world, sessions, key)
        one, two = self.record(b"1"), self.record(b"2")
        assert world.run(lambda io: sessions.write(io, key, one, read.version)).verdict is Verdict.DONE
        outcome = world.run(lambda io: sessions.write(io, key, two, read.version))
        assert (outcome.verdict, outcome.found.body, outcome.found.version) == (Verdict.CONFLICT, b"1", one.version)
        assert world.run(lambda io: sessions.write(io, key, two, one.version)).verdict is Verdict.DONE
        found = self.find(world, sessions, key)
        assert (found.body, found.created) == (b"2", read.created)

    def test_what_is_added_follows_what_is_there(self, world: Any, sessions: FullStore) -> None:
        """Stores that can add to a session keep all of it but the version; of others nothing is asked."""
        add = self.adding(sessions)
        if add is None:
            return
        key = self.keep(world, sessions, b"body", self.ANN, ttl=1000.0, deadline=5000.0)
        before = self.find(world, sessions, key, 1000.0)
        first, second = new_version(), new_version()
        assert world.run(lambda io: add(io, key, b"+1", first, before.version)).verdict is Verdict.DONE
        assert world.run(lambda io: add(io, key, b"+2" * 9999, second, first)).verdict is Verdict.DONE
        after = self.find(world, sessions, key, 1000.0)
        assert (after.body, after.version) == (b"body+1" + b"+2" * 9999, second)
        assert (after.ttl, after.created, after.owner) == (before.ttl, before.created, before.owner)
        assert after.deadline == before.deadline
        outcome = world.run(lambda io: add(io, key, b"late", new_version(), first))
        assert (outcome.verdict, outcome.found.version) == (Verdict.CONFLICT, second)
        assert outcome.found.body == after.body
        assert [each for each, _ in world.run(lambda io: sessions.sessions(io, self.ANN))] == [key]
        moved = Moved(self.key(), "")
        world.run(lambda io: sessions.retire(io, key, after, moved, 60.0))
        outcome = world.run(lambda io: add(io, key, b"late", new_version(), second))
        assert (outcome.verdict, outcome.found) == (Verdict.MOVED, moved)

    def test_adding_brings_nothing_back(
        self, world: Any, sessions: FullStore, passing: Callable[[float], None]
    ) -> None:
        add = self.adding(sessions)
        if add is None:
            return
        key = self.keep(world, sessions)
        read = self.find(world, sessions, key)
        world.run(lambda io: sessions.destroy(io, key, ""))
        assert world.run(lambda io: add(io, key, b"late", new_version(), read.version)).verdict is Verdict.GONE
        assert self.find(world, sessions, key) is None
        ended = self.keep(world, sessions, owner=self.ANN, deadline=40.0)
        read = self.find(world, sessions, ended)
        passing(50.0)
        assert world.run(lambda io: add(io, ended, b"late", new_version(), read.version)).verdict is Verdict.GONE
        assert world.run(lambda io: sessions.sessions(io, self.ANN)) == []

    def test_adding_slides(self, world: Any, sessions: FullStore, passing: Callable[[float], None]) -> None:
        add = self.adding(sessions)
        if add is None:
            return
        key = self.keep(world, sessions, owner=self.ANN, ttl=15.0)
        version = self.find(world, sessions, key, 15.0).version
        passing(9.0)
        following = new_version()
        assert world.run(lambda io: add(io, key, b"+", following, version)).verdict is Verdict.DONE
        passing(9.0)
        assert self.find(world, sessions, key, 15.0).body == b"body+"
        assert [each for each, _ in world.run(lambda io: sessions.sessions(io, self.ANN))] == [key]

    def test_swapping(self, world: Any, sessions: FullStore) -> None:
        swap = self.swapping(sessions)
        if swap is None:
            return
        key = self.keep(world, sessions, b"body", self.ANN, ttl=1000.0, deadline=5000.0)
        before = self.find(world, sessions, key, 5.0)
        first, second = new_version(), new_version()
        if not world.run(lambda io: swap(io, key, before, b"new", first)):  # the server does not know how
            assert self.find(world, sessions, key, 1000.0) == before
            return
        after = self.find(world, sessions, key, 0.0)
        assert after == before._replace(body=b"new", version=first)
        assert not world.run(lambda io: swap(io, key, before, b"late", second))
        assert self.find(world, sessions, key, 0.0) == after
        assert world.run(lambda io: swap(io, key, after, b"newer", second))
        assert [each for each, _ in world.run(lambda io: sessions.sessions(io, self.ANN))] == [key]
        last = after._replace(body=b"newer", version=second)
        for other in (
            {"body": b"news"}, {"version": first}, {"ttl": 999.0}, {"owner": self.BOB}, {"owner": ""},
            {"seen": last.seen + 1}, {"created": last.created - 1}, {"deadline": last.deadline + 1},
        ):  # fmt: skip
            was = last._replace(**other)
            assert not world.run(lambda io, was=was: swap(io, key, was, b"late", new_version()))
        assert self.find(world, sessions, key, 0.0) == last

    def test_swapping_slides(self, world: Any, sessions: FullStore, passing: Callable[[float], None]) -> None:
        swap = self.swapping(sessions)
        if swap is None:
            return
        key = self.keep(world, sessions, ttl=15.0)
        passing(9.0)
        read = self.find(world, sessions, key, 0.0)
        if world.run(lambda io: swap(io, key, read, b"new", new_version())):
            passing(9.0)
            assert self.find(world, sessions, key, 0.0).body == b"new"

    def test_swapping_brings_nothing_back(self, world: Any, sessions: FullStore) -> None:
        swap = self.swapping(sessions)
        if swap is None:
            return
        ended, moved, used = (self.keep(world, sessions, owner=self.ANN) for _ in range(3))
        was = {key: self.find(world, sessions, key) for key in (ended, moved, used)}
        note = Moved(self.key(self.ANN), self.ANN)
        world.run(lambda io: sessions.destroy(io, ended, self.ANN))
        world.run(lambda io: sessions.retire(io, moved, was[moved], note, 60.0))
        world.run(lambda io: sessions.revoke(io, self.ANN))
        for key, read in was.items():
            assert not world.run(lambda io, key=key, read=read: swap(io, key, read, b"late", new_version()))
        assert [self.find(world, sessions, key) for key in was] == [None, note, None]

    @staticmethod
    def swapping(sessions: Any) -> Any:
        """Return the ``swap`` of a store that has one, else None."""
        can = hasattr(sessions, "swap") and getattr(sessions, "swaps", None) is not None
        return sessions.swap if can else None

    @staticmethod
    def adding(sessions: Any) -> Any:
        """Return the ``append`` of a store that has one, else None."""
        return getattr(sessions, "append", None) if getattr(sessions, "appends", True) else None

    def test_a_write_brings_nothing_back(self, world: Any, sessions: FullStore) -> None:
        key = self.keep(world, sessions)
        read = self.find(world, sessions, key)
        assert world.run(lambda io: sessions.destroy(io, key, "")).verdict is Verdict.DONE
        assert world.run(lambda io: sessions.write(io, key, self.record(), read.version)).verdict is Verdict.GONE
        assert self.find(world, sessions, key) is None
        assert world.run(lambda io: sessions.destroy(io, key, "")).verdict is Verdict.GONE
        assert world.run(lambda io: sessions.touch(io, key, TTL)) is False
        assert self.find(world, sessions, key) is None

    def test_a_retired_session_leaves_a_note(self, world: Any, sessions: FullStore) -> None:
        key = self.keep(world, sessions, b"old")
        read = self.find(world, sessions, key)
        moved = Moved(self.key(self.ANN), self.ANN)

        async def retire(io: IO, record: Record) -> Any:
            return await sessions.retire(io, key, record, moved, 60.0)

        stale = read._replace(version=new_version())
        assert world.run(lambda io: retire(io, stale)).verdict is Verdict.CONFLICT
        assert world.run(lambda io: retire(io, read)).verdict is Verdict.DONE
        assert self.find(world, sessions, key) == moved
        for job in (
            lambda io: retire(io, read),
            lambda io: sessions.write(io, key, self.record(), read.version),
            lambda io: sessions.destroy(io, key, ""),
        ):
            outcome = world.run(job)
            assert (outcome.verdict, outcome.found) == (Verdict.MOVED, moved)
        assert world.run(lambda io: sessions.touch(io, key, TTL)) is False
        assert world.run(sessions.count) == 0

    def test_a_note_does_not_outlive_its_grace(
        self, world: Any, sessions: FullStore, passing: Callable[[float], None]
    ) -> None:
        key = self.keep(world, sessions)
        read = self.find(world, sessions, key)
        moved = Moved(self.key(), "")
        world.run(lambda io: sessions.retire(io, key, read, moved, 30.0))
        assert self.find(world, sessions, key) == moved
        passing(40.0)
        assert self.find(world, sessions, key) is None

    def test_reading_slides(self, world: Any, sessions: FullStore, passing: Callable[[float], None]) -> None:
        key = self.keep(world, sessions, ttl=15.0)
        for _ in range(2):
            passing(8.0)
            assert self.find(world, sessions, key, 15.0) is not None
        passing(16.0)
        assert self.find(world, sessions, key, 15.0) is None

    def test_reading_without_sliding(self, world: Any, sessions: FullStore, passing: Callable[[float], None]) -> None:
        key = self.keep(world, sessions, ttl=15.0)
        passing(8.0)
        assert self.find(world, sessions, key, 0.0) is not None
        passing(9.0)
        assert self.find(world, sessions, key, 0.0) is None

    def test_ending_all(self, world: Any, sessions: FullStore) -> None:
        keys = [self.keep(world, sessions, owner=owner) for owner in (self.ANN, self.ANN, self.BOB, "", "")]
        assert world.run(sessions.clear) == 5
        assert [self.find(world, sessions, key) for key in keys] == [None] * 5
        assert world.run(sessions.count) == world.run(sessions.clear) == 0
        assert world.run(lambda io: sessions.sessions(io, self.ANN)) == []

    def test_the_deadline_holds_for_writes(
        self, world: Any, sessions: FullStore, passing: Callable[[float], None]
    ) -> None:
        key = self.keep(world, sessions, deadline=40.0)
        read = self.find(world, sessions, key)
        assert 39.9 < read.deadline - read.created < 40.1
        passing(50.0)
        outcome = world.run(lambda io: sessions.write(io, key, self.record(), read.version))
        assert outcome.verdict is Verdict.GONE
        assert world.run(lambda io: sessions.touch(io, key, TTL)) is False

    def test_the_deadline_holds_for_reads(
        self, world: Any, sessions: FullStore, passing: Callable[[float], None]
    ) -> None:
        sliding, still = (self.keep(world, sessions, deadline=40.0) for _ in range(2))
        for key in (sliding, still):
            assert self.find(world, sessions, key, TTL) is not None
        passing(39.0)
        assert self.find(world, sessions, sliding, TTL) is not None
        passing(2.0)
        assert self.find(world, sessions, still, 0.0) is None
        assert self.find(world, sessions, sliding, TTL) is None
        assert self.find(world, sessions, sliding, 0.0) is None

    def test_a_new_place_keeps_the_deadline(self, world: Any, sessions: FullStore) -> None:
        first = self.find(world, sessions, self.keep(world, sessions, deadline=100.0))
        again = self.find(world, sessions, self.keep(world, sessions, created=first.created, deadline=first.deadline))
        assert (round(again.created, 2), round(again.deadline, 2)) == (
            round(first.created, 2),
            round(first.deadline, 2),
        )

    def test_touching(self, world: Any, sessions: FullStore, passing: Callable[[float], None]) -> None:
        key = self.keep(world, sessions, owner=self.ANN, ttl=15.0)
        before = self.find(world, sessions, key, 15.0)
        passing(8.0)
        assert world.run(lambda io: sessions.touch(io, key, 15.0)) is True
        passing(9.0)
        after = self.find(world, sessions, key, 15.0)
        assert after.seen - after.created > before.seen - before.created  # where time passes, all of it grows older
        assert (after.version, after.body) == (before.version, before.body)
        assert [each for each, _ in world.run(lambda io: sessions.sessions(io, self.ANN))] == [key]

    def test_the_sessions_of_a_user(self, world: Any, sessions: FullStore) -> None:
        anns = [self.keep(world, sessions, b"a" * 5000, self.ANN) for _ in range(3)]
        bobs = self.keep(world, sessions, b"b", self.BOB)
        self.keep(world, sessions)
        found = dict(world.run(lambda io: sessions.sessions(io, self.ANN)))
        assert found.keys() == set(anns)
        assert all(record.body.startswith(b"a" * 900) and record.created > 0 for record in found.values())
        assert world.run(sessions.count) == 5
        assert world.run(lambda io: sessions.revoke(io, self.BOB, only=anns[0])) == 0
        assert world.run(lambda io: sessions.revoke(io, self.ANN, only=anns[0])) == 1
        assert world.run(lambda io: sessions.revoke(io, self.ANN, keep=anns[1])) == 1
        assert [self.find(world, sessions, key) is None for key in anns] == [True, False, True]
        assert world.run(lambda io: sessions.revoke(io, self.ANN)) == 1
        assert world.run(lambda io: sessions.sessions(io, self.ANN)) == []
        assert self.find(world, sessions, bobs) is not None
        assert world.run(sessions.count) == 2

    def test_what_has_expired_is_neither_listed_nor_counted(
        self, world: Any, sessions: FullStore, passing: Callable[[float], None]
    ) -> None:
        self.keep(world, sessions, owner=self.ANN, ttl=20.0)
        lasting = self.keep(world, sessions, owner=self.ANN)
        assert world.run(sessions.count) == 2
        passing(40.0)
        assert [key for key, _ in world.run(lambda io: sessions.sessions(io, self.ANN))] == [lasting]
        assert world.run(sessions.count) == 1
