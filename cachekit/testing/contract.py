"""What every store does: the suite that cachekit runs against its own.

Inherit from it and give it a ``store`` fixture:

    class TestMemcached(StoreContract):
        @pytest.fixture
        def store(self, clock):
            yield MemcachedStore(clock=clock)
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

from cachekit._io import BLOCKING, IO, drive
from cachekit.entry import seal
from cachekit.policy import Policy
from cachekit.stores.base import AnyEntry, Store, Ticket
from cachekit.stores.changes import Added, Prolonged
from cachekit.testing.doubles import ManualClock, World


class StoreContract:
    """What every store must do, in both worlds. Needs pytest, and a ``store`` fixture in the class that inherits it."""

    HOUR: Final = Policy(ttl=3600)

    @staticmethod
    def entry(clock: Callable[[], float], value: Any, *tags: str, ttl: float = 3600) -> AnyEntry:
        """Return an entry made now."""
        return seal(value, Policy(ttl=ttl), clock(), tags=tags)

    def put(self, world: World, store: Store, clock: ManualClock, key: str, value: Any, *tags: str) -> bool:
        """Load *value* under *key* as the engine does: ticket first, then commit."""

        async def job(io: IO) -> bool:
            ticket = await store.begin(io, key, tags, 30.0)
            return await store.commit(io, ticket, self.entry(clock, value, *tags)) is not None

        return world.run(job)

    def value(self, world: World, store: Store, key: str, *tags: str) -> Any:
        """Return the value of *key*, or the text ``absent``."""
        entry = world.run(lambda io: store.get(io, key, tags))
        return "absent" if entry is None else entry.value

    def test_absent(self, world: World, store: Store) -> None:
        assert world.run(lambda io: store.get(io, "nothing")) is None

    def test_none_is_a_value(self, world: World, store: Store, clock: ManualClock) -> None:
        world.run(lambda io: store.set_many(io, {"k": self.entry(clock, None)}))
        entry = world.run(lambda io: store.get(io, "k"))
        assert entry is not None and entry.value is None

    def test_entry_comes_back_whole(self, world: World, store: Store, clock: ManualClock) -> None:
        entry = seal(
            {"a": [1, "x"]},
            Policy(ttl=60, stale_while_revalidate=5, stale_if_error=9),
            clock(),
            tags=("t:1", "t:2"),
            delta=0.25,
        )
        world.run(lambda io: store.set_many(io, {"k": entry}))
        found = world.run(lambda io: store.get(io, "k"))
        assert found is not None
        assert (found.value, found.created_at, found.fresh_until, found.swr_until, found.dead_at, found.delta) == (
            entry.value, entry.created_at, entry.fresh_until, entry.swr_until, entry.dead_at, entry.delta,
        )  # fmt: skip
        assert set(found.tags) == {"t:1", "t:2"}

    def test_dead_entry_is_absent(self, world: World, store: Store, clock: ManualClock) -> None:
        world.run(lambda io: store.set_many(io, {"k": self.entry(clock, 1, ttl=10)}))
        clock.advance(9.9)
        assert self.value(world, store, "k") == 1
        clock.advance(0.2)
        assert self.value(world, store, "k") == "absent"

    def test_many(self, world: World, store: Store, clock: ManualClock) -> None:
        entries = {f"k{i}": self.entry(clock, i, f"t{i % 2}") for i in range(5)}
        world.run(lambda io: store.set_many(io, entries))
        found = world.run(lambda io: store.get_many(io, ["k0", "k3", "missing"]))
        assert {key: entry.value for key, entry in found.items()} == {"k0": 0, "k3": 3}
        world.run(lambda io: store.invalidate(io, ["t1"]))
        found = world.run(lambda io: store.get_many(io, [f"k{i}" for i in range(5)]))
        assert {key: entry.value for key, entry in found.items()} == {"k0": 0, "k2": 2, "k4": 4}
        assert world.run(lambda io: store.get_many(io, [])) == {}

    def test_delete(self, world: World, store: Store, clock: ManualClock) -> None:
        world.run(lambda io: store.set_many(io, {"a": self.entry(clock, 1), "b": self.entry(clock, 2)}))
        assert world.run(lambda io: store.delete(io, ["a", "nothing"])) == 1
        assert self.value(world, store, "a") == "absent"
        assert self.value(world, store, "b") == 2

    def test_odd_keys(self, world: World, store: Store, clock: ManualClock) -> None:
        keys = ["a}b", "a%7Db", "{x}", "with space", "ключ", "a:b", "~#", "l:a", "\u2603" * 20]
        world.run(lambda io: store.set_many(io, {key: self.entry(clock, key, f"t:{key}") for key in keys}))
        assert [self.value(world, store, key) for key in keys] == keys
        world.run(lambda io: store.invalidate(io, ["t:a}b"]))
        assert self.value(world, store, "a}b") == "absent"
        assert self.value(world, store, "a%7Db") == "a%7Db"

    def test_invalidate_drops_what_carries_the_tag(self, world: World, store: Store, clock: ManualClock) -> None:
        self.put(world, store, clock, "a", 1, "x", "y")
        self.put(world, store, clock, "b", 2, "y")
        self.put(world, store, clock, "c", 3)
        world.run(lambda io: store.invalidate(io, ["x"]))
        assert [self.value(world, store, key) for key in "abc"] == ["absent", 2, 3]
        self.put(world, store, clock, "a", 4, "x")
        assert self.value(world, store, "a") == 4
        world.run(lambda io: store.invalidate(io, ["x", "y"]))
        assert [self.value(world, store, key) for key in "abc"] == ["absent", "absent", 3]

    def test_expected_tags_may_be_wrong(self, world: World, store: Store, clock: ManualClock) -> None:
        self.put(world, store, clock, "a", 1, "x", "y")
        for expected in ((), ("x",), ("x", "y"), ("z",), ("x", "y", "z")):
            assert self.value(world, store, "a", *expected) == 1
        world.run(lambda io: store.invalidate(io, ["y"]))
        for expected in ((), ("x",), ("x", "y"), ("z",)):
            assert self.value(world, store, "a", *expected) == "absent"

    @staticmethod
    def _races() -> Iterator[tuple[str, Callable[[Store, IO], Coroutine[Any, Any, object]]]]:
        yield "invalidate", lambda store, io: store.invalidate(io, ["t"])
        yield "delete", lambda store, io: store.delete(io, ["k"])
        yield "clear", lambda store, io: store.clear(io)

    def test_load_that_was_overtaken_is_refused(self, world: World, store: Store, clock: ManualClock) -> None:
        for name, overtake in self._races():

            async def job(io: IO, overtake: Any = overtake) -> bool:
                ticket = await store.begin(io, "k", ["t"], 30.0)
                await overtake(store, io)
                return await store.commit(io, ticket, self.entry(clock, "old", "t")) is not None

            assert world.run(job) is False, name
            assert self.value(world, store, "k") == "absent", name
            assert self.put(world, store, clock, "k", "new", "t"), name
            assert self.value(world, store, "k") == "new", name

    def test_load_overtaken_by_a_write_is_refused(self, world: World, store: Store, clock: ManualClock) -> None:
        async def job(io: IO) -> bool:
            ticket = await store.begin(io, "k", [], 30.0)
            await store.set_many(io, {"k": self.entry(clock, "written")})
            return await store.commit(io, ticket, self.entry(clock, "old")) is not None

        assert world.run(job) is False
        assert self.value(world, store, "k") == "written"

    def test_tag_learnt_from_the_result_is_checked(self, world: World, store: Store, clock: ManualClock) -> None:
        async def job(io: IO, *, overtaken: bool) -> bool:
            ticket = await store.begin(io, "k", ["known"], 30.0)
            if overtaken:
                await store.invalidate(io, ["learnt"])
            return await store.commit(io, ticket, self.entry(clock, "v", "known", "learnt")) is not None

        assert world.run(lambda io: job(io, overtaken=True)) is False
        assert self.value(world, store, "k") == "absent"
        assert world.run(lambda io: job(io, overtaken=False)) is True
        assert self.value(world, store, "k") == "v"
        world.run(lambda io: store.invalidate(io, ["learnt"]))
        assert self.value(world, store, "k") == "absent"

    def test_begin_shows_what_appeared(self, world: World, store: Store, clock: ManualClock) -> None:
        self.put(world, store, clock, "k", 1, "t")

        async def job(io: IO) -> Ticket:
            ticket = await store.begin(io, "k", ["t"], 30.0)
            await store.release(io, ticket)
            return ticket

        found = world.run(job).found
        assert found is not None and found.value == 1
        world.run(lambda io: store.invalidate(io, ["t"]))
        assert world.run(job).found is None

    def test_released_ticket_frees_the_key(self, world: World, store: Store, clock: ManualClock) -> None:
        async def job(io: IO) -> None:
            await store.release(io, await store.begin(io, "k", [], 30.0))

        world.run(job)
        assert self.put(world, store, clock, "k", 1)

    def test_one_who_takes_over_wins(self, world: World, store: Store, clock: ManualClock) -> None:
        async def job(io: IO) -> tuple[bool, bool]:
            first = await store.begin(io, "k", [], 30.0)
            second = await store.begin(io, "k", [], 30.0, exclusive=False)
            newer = await store.commit(io, second, self.entry(clock, "newer")) is not None
            await store.commit(io, first, self.entry(clock, "older"))
            return second.leads, newer

        assert world.run(job) == (True, True)
        assert self.value(world, store, "k") == "newer"

    def test_clear(self, world: World, store: Store, clock: ManualClock) -> None:
        for i in range(20):
            self.put(world, store, clock, f"k{i}", i, "t")
        world.run(store.clear)
        assert [self.value(world, store, f"k{i}") for i in range(20)] == ["absent"] * 20
        self.put(world, store, clock, "k1", "again", "t")
        assert self.value(world, store, "k1") == "again"

    def test_update(self, world: World, store: Store, clock: ManualClock) -> None:
        made = self.entry(clock, 1, "t")
        assert world.run(lambda io: store.update(io, "k", lambda old: made if old is None else old)) is made
        assert self.value(world, store, "k") == 1

        def add(old: AnyEntry | None) -> AnyEntry | None:
            assert old is not None
            return self.entry(clock, old.value + 1, *old.tags)

        world.run(lambda io: store.update(io, "k", add))
        assert self.value(world, store, "k") == 2
        world.run(lambda io: store.update(io, "k", lambda old: old))
        assert self.value(world, store, "k") == 2
        world.run(lambda io: store.invalidate(io, ["t"]))
        assert self.value(world, store, "k") == "absent"
        world.run(lambda io: store.update(io, "k", lambda old: made if old is None else old))
        world.run(lambda io: store.update(io, "k", lambda _: None))
        assert self.value(world, store, "k") == "absent"

    def test_update_of_what_is_invalidated_meanwhile(self, world: World, store: Store, clock: ManualClock) -> None:
        """Who changes a value must not bring it back under the tags that were invalidated since it was read."""
        for title, overtake in self._races():
            self.put(world, store, clock, "k", 1, "t")
            seen: list[Any] = []

            def add(old: AnyEntry | None, overtake: Any = overtake, seen: list[Any] = seen) -> AnyEntry | None:
                seen.append(None if old is None else old.value)
                if len(seen) == 1:
                    drive(overtake(store, BLOCKING))
                return None if old is None else old._replace(value=old.value + 1)

            assert world.run(lambda io, add=add: store.update(io, "k", add)) is None, title  # type: ignore[misc]
            assert seen == [1, None], title
            assert self.value(world, store, "k") == "absent", title

    def test_adding(self, world: World, store: Store, clock: ManualClock) -> None:
        """A store that counts where the number lies comes to what ``update`` comes to."""

        def general(old: AnyEntry | None, delta: int) -> AnyEntry:
            return self.entry(clock, delta) if old is None else old._replace(value=old.value + delta)

        def add(delta: int) -> Any:
            change = Added(delta, clock(), lambda old: general(old, delta))
            entry = world.run(lambda io: store.update(io, "k", change))
            assert entry is not None
            return entry.value

        edges = (0, 1, -1, 127, 128, -32, -33, -128, 255, -(2**15), 2**16, 2**31, -(2**31), 2**32, 2**53 - 2, 2**63)
        for start in edges:
            for delta in (1, -1, 7, -300, 2**40, 2**60):
                self.put(world, store, clock, "k", start, "t")
                assert add(delta) == self.value(world, store, "k") == start + delta, (start, delta)
        self.put(world, store, clock, "k", 1.5, "t")
        assert add(2) == self.value(world, store, "k") == 3.5
        for overtake in (lambda io: store.invalidate(io, ["t"]), store.clear, lambda io: store.delete(io, ["k"])):
            self.put(world, store, clock, "k", 41, "t")
            world.run(overtake)
            assert add(1) == self.value(world, store, "k") == 1  # not what was there
        self.put(world, store, clock, "k", 41, "t")
        assert add(1) == 42
        world.run(lambda io: store.invalidate(io, ["t"]))
        assert self.value(world, store, "k") == "absent"
        self.put(world, store, clock, "k", 41)
        clock.advance(4000)
        assert add(1) == 1

    def test_prolonging(self, world: World, store: Store, clock: ManualClock) -> None:
        def prolong(ttl: float) -> AnyEntry | None:
            change = Prolonged(self.entry(clock, None, ttl=ttl))
            return world.run(lambda io: store.update(io, "k", change))

        assert prolong(10) is None
        for value in (1, "text", "text" * 5000, bytes(range(256)) * 30, list(range(100))):
            self.put(world, store, clock, "k", value, "t", "u")
            found = prolong(5000)
            assert found is not None and found.fresh_until == clock() + 5000
            clock.advance(4000)
            entry = world.run(lambda io: store.get(io, "k"))
            assert entry is not None and entry.fresh_until == clock() + 1000
            assert (entry.value, set(entry.tags)) == (value, {"t", "u"})
            clock.advance(1000)
            assert self.value(world, store, "k") == "absent"
            assert prolong(10) is None
            assert self.value(world, store, "k") == "absent"
        for overtake in (lambda io: store.invalidate(io, ["t"]), store.clear, lambda io: store.delete(io, ["k"])):
            self.put(world, store, clock, "k", 41, "t")
            world.run(overtake)
            assert prolong(10) is None
            assert self.value(world, store, "k") == "absent"
        self.put(world, store, clock, "k", 41, "t")
        assert prolong(math.inf) is not None
        clock.advance(1_000_000)
        assert self.value(world, store, "k") == 41
        world.run(lambda io: store.invalidate(io, ["t"]))
        assert self.value(world, store, "k") == "absent"

    def test_a_load_that_a_change_overtook_is_refused(self, world: World, store: Store, clock: ManualClock) -> None:
        changes = (
            Prolonged(self.entry(clock, None, ttl=10)),
            Added(1, clock(), lambda old: None if old is None else old._replace(value=old.value + 1)),
        )
        for change in changes:
            self.put(world, store, clock, "k", 1)

            async def job(io: IO, change: Any = change) -> bool:
                ticket = await store.begin(io, "k", [], 30.0)
                await store.update(io, "k", change)
                return await store.commit(io, ticket, self.entry(clock, "old")) is not None

            assert world.run(job) is False

    def test_update_loses_nothing(self, world: World, store: Store, clock: ManualClock) -> None:
        threads, rounds = 4, 25
        failures: list[BaseException] = []

        def add(old: AnyEntry | None) -> AnyEntry:
            return self.entry(clock, 1 if old is None else old.value + 1)

        def work() -> None:
            own = World(world.name)
            try:
                for _ in range(rounds):
                    own.run(lambda io: store.update(io, "n", add))
                if own.name == "asyncio":
                    own.run(getattr(getattr(getattr(store, "l2", store), "inner", store), "close", _nothing))
            except BaseException as exc:  # noqa: BLE001 - shown below
                failures.append(exc)
            finally:
                own.close()

        pool = [threading.Thread(target=work) for _ in range(threads if world.name == "blocking" else 1)]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()
        assert not failures
        assert self.value(world, store, "n") == len(pool) * rounds

    def test_interleavings(self, world: World, store: Store, clock: ManualClock) -> None:
        """Every order of one load and one invalidation ends with no old value in the store.

        The source of truth holds 0 and becomes 1; whoever changes it invalidates afterwards. A load reads the truth
        between its ticket and its commit.
        """
        load = ("begin", "read", "commit")
        change = ("write", "invalidate")
        for tags, learnt in ((("t",), ()), ((), ("t",))):
            for order in _merges(load, change):
                world.run(store.clear)

                async def job(
                    io: IO,
                    order: tuple[str, ...] = order,
                    tags: tuple[str, ...] = tags,
                    learnt: tuple[str, ...] = learnt,
                ) -> None:
                    truth, value, ticket = 0, None, None
                    for step in order:
                        if step == "begin":
                            ticket = await store.begin(io, "k", tags, 30.0)
                        elif step == "read":
                            value = truth
                        elif step == "commit":
                            assert ticket is not None
                            await store.commit(io, ticket, self.entry(clock, value, *tags, *learnt))
                        elif step == "write":
                            truth = 1
                        else:
                            await store.invalidate(io, ["t"])

                world.run(job)
                assert self.value(world, store, "k") in (1, "absent"), (order, tags, learnt)


async def _nothing(_: IO) -> None:
    return None


def _merges(first: Sequence[str], second: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every interleaving of two sequences of steps."""
    total = len(first) + len(second)
    for places in itertools.combinations(range(total), len(first)):
        left, right = iter(first), iter(second)
        yield tuple(next(left) if i in places else next(right) for i in range(total))
