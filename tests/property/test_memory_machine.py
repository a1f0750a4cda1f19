"""The in-process store against a plain model: loads in flight, invalidations and time, in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from cachekit import Policy
from cachekit._io import BLOCKING, drive
from cachekit.entry import seal
from cachekit.stores.memory import Memory
from cachekit.testing import ManualClock

KEYS = st.sampled_from("ab")
TAGS = st.lists(st.sampled_from("xyz"), max_size=2, unique=True).map(tuple)
LIFE = st.sampled_from([1.0, 5.0, 100.0])


@dataclass(eq=False)
class Load:
    """A load in flight, and what happened since it began."""

    key: str
    ticket: object
    overtaken: set[str] = field(default_factory=set)


@dataclass
class Held:
    value: int
    tags: tuple[str, ...]
    dead_at: float
    began: int


class MemoryMachine(RuleBasedStateMachine):
    loads = Bundle("loads")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.memory = Memory(clock=self.clock, max_marks=1000)
        self.model: dict[str, Held] = {}
        self.running: list[Load] = []
        self.number = 0

    def _entry(self, tags, ttl):
        self.number += 1
        return seal(self.number, Policy(ttl=ttl), self.clock(), tags=tags)

    def _overtake(self, *names: str) -> None:
        for load in self.running:
            load.overtaken.update(names)

    def _present(self, key: str) -> bool:
        return key in self.model and self.clock() < self.model[key].dead_at

    @rule(target=loads, key=KEYS, tags=TAGS)
    def begin(self, key, tags):
        return self._begin(key, tags)

    @rule(target=loads, key=KEYS, marks=st.sampled_from([(), ("x",), ("y",)]))
    def begin_after_a_mark(self, key, marks):
        """Loads that differ in their number, without a change that overtakes both."""
        self.invalidate_these(marks)
        return self._begin(key, ())

    def _begin(self, key, tags):
        ticket = drive(self.memory.begin(BLOCKING, key, tags, 30.0))
        assert (ticket.found is not None) is self._present(key)
        load = Load(key, ticket)
        self.running.append(load)
        return load

    @rule(load=consumes(loads), tags=TAGS, ttl=LIFE)
    def commit(self, load, tags, ttl):
        self.commit_one(load, tags, ttl)

    def commit_one(self, load, tags, ttl):
        entry = self._entry(tags, ttl)
        kept = drive(self.memory.commit(BLOCKING, load.ticket, entry))
        self.running.remove(load)
        refused = bool(load.overtaken & {"all", "key " + load.key, *("tag " + tag for tag in tags)})
        old = self.model.get(load.key)
        if old is not None and old.began > load.ticket.proof:
            refused = True  # what is there began later
        assert kept is not refused
        if kept:
            self.model[load.key] = Held(entry.value, tags, entry.dead_at, load.ticket.proof)

    @rule(first=consumes(loads), second=consumes(loads), ttl=LIFE)
    def commit_two(self, first, second, ttl):
        self.commit_one(first, (), ttl)
        if second is not first:
            self.commit_one(second, (), ttl)

    @rule(load=consumes(loads))
    def release(self, load):
        drive(self.memory.release(BLOCKING, load.ticket))
        self.running.remove(load)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=2, unique=True), tags=TAGS, ttl=LIFE)
    def write(self, keys, tags, ttl):
        entries = {key: self._entry(tags, ttl) for key in keys}
        self._overtake(*("key " + key for key in keys))
        drive(self.memory.set_many(BLOCKING, entries))
        for key, entry in entries.items():
            self.model[key] = Held(entry.value, tags, entry.dead_at, self.memory.sequence)

    @rule(tags=st.lists(st.sampled_from("xyz"), min_size=1, max_size=2))
    def invalidate(self, tags):
        self.invalidate_these(tags)

    def invalidate_these(self, tags):
        drive(self.memory.invalidate(BLOCKING, tags))
        self._overtake(*("tag " + tag for tag in tags))
        self.model = {key: held for key, held in self.model.items() if not {*held.tags} & {*tags}}

    @rule(keys=st.lists(KEYS, min_size=1, max_size=2, unique=True))
    def delete(self, keys):
        expected = sum(map(self._present, keys))
        assert drive(self.memory.delete(BLOCKING, keys)) == expected
        self._overtake(*("key " + key for key in keys))
        for key in keys:
            self.model.pop(key, None)

    @rule(key=KEYS)
    def increase(self, key):
        present = self._present(key)

        def change(old):
            assert (old is not None) is present
            return self._entry(() if old is None else old.tags, 5.0)

        entry = drive(self.memory.update(BLOCKING, key, change))
        self._overtake("key " + key)
        self.model[key] = Held(entry.value, entry.tags, entry.dead_at, self.memory.sequence)

    @rule()
    def clear(self):
        drive(self.memory.clear(BLOCKING))
        self._overtake("all")
        self.model.clear()

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @invariant()
    def serves_what_the_model_holds(self):
        expected = {key: held.value for key, held in self.model.items() if self.clock() < held.dead_at}
        single = {key: drive(self.memory.get(BLOCKING, key)) for key in "ab"}
        assert {key: entry.value for key, entry in single.items() if entry is not None} == expected
        many = drive(self.memory.get_many(BLOCKING, list("ab")))
        assert {key: entry.value for key, entry in many.items()} == expected

    @invariant()
    def keeps_its_books(self):
        nodes = self.memory._nodes.values()
        assert self.memory.sizes() == (len(nodes), sum(node.size for node in nodes))


MemoryMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestMemoryMachine = MemoryMachine.TestCase
