"""The in-process store: bounds, eviction, and that what was invalidated is never served, however few marks it keeps."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from cachekit import Cache, ConfigError, Policy
from cachekit._io import BLOCKING, drive
from cachekit.entry import seal
from cachekit.stores._size import estimate
from cachekit.stores.memory import Memory
from cachekit.testing import ManualClock


def put(memory: Memory, key: str, value: object = None, *tags: str, ttl: float = 3600, since: int | None = None):
    since = memory.sequence if since is None else since
    return memory.fill(key, seal(value, Policy(ttl=ttl), memory._clock(), tags=tags), since)


def get(memory: Memory, key: str) -> object:
    entry = drive(memory.get(BLOCKING, key))
    return "absent" if entry is None else entry.value


def check_books(memory: Memory) -> None:
    """What is counted is what is there."""
    queue, nodes = memory._queue, memory._nodes
    assert memory.sizes() == (len(nodes), sum(node.size for node in nodes.values()))
    assert all(node.alive and node.key == key for key, node in nodes.items())
    assert queue._small_live == sum(not node.in_main for node in nodes.values())
    alive = [node for node in (*queue._small, *queue._main) if node.alive]
    assert sorted(node.key for node in alive) == sorted(nodes)


@pytest.fixture
def memory(clock: ManualClock) -> Memory:
    return Memory(clock=clock, max_entries=100, max_bytes=1_000_000)


def test_the_bound_on_entries_holds(memory: Memory) -> None:
    for i in range(1000):
        put(memory, f"k{i}", i)
        assert memory.sizes()[0] <= 100
    assert memory.evictions == 900
    assert get(memory, "k999") == 999
    check_books(memory)


def test_the_bound_on_bytes_holds(memory: Memory) -> None:
    for i in range(100):
        put(memory, f"k{i}", "x" * (i * 1000))
        assert memory.sizes()[1] <= 1_000_000
    check_books(memory)
    assert put(memory, "k99", "x" * 1_000_000) is not None  # too large to keep, but no refusal
    assert get(memory, "k99") == "absent"
    check_books(memory)


def test_replacing_and_deleting_gives_room_back(memory: Memory) -> None:
    for _ in range(3):
        for i in range(90):
            put(memory, f"k{i}", "x" * 100)
    assert (memory.sizes()[0], memory.evictions) == (90, 0)
    memory.forget([f"k{i}" for i in range(90)])
    assert memory.sizes() == (0, 0)
    for i in range(5000):
        put(memory, "same", i)
    assert len(memory._queue._small) + len(memory._queue._main) < 3000
    check_books(memory)


def test_what_is_used_stays_and_a_scan_passes_through(memory: Memory) -> None:
    for i in range(50):
        put(memory, f"hot{i}", i)
    for i in range(2000):
        put(memory, f"scan{i}", i)
        for hot in range(50):
            if (node := memory.peek(f"hot{hot}")) is not None:
                node.hits += 1
    assert sum(get(memory, f"hot{i}") == i for i in range(50)) >= 45


def test_bounds_hold_under_threads(clock: ManualClock, thread) -> None:
    memory = Memory(clock=clock, max_entries=50, max_bytes=100_000, max_marks=20)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    over = []

    def work(seed):
        rng = random.Random(seed)
        for _ in range(1500):
            key, tag = f"k{rng.randrange(150)}", f"t{rng.randrange(30)}"
            action = rng.randrange(10)
            if action < 5:
                put(memory, key, "x" * rng.randrange(5000), tag)
            elif action < 8:
                get(memory, key)
            elif action == 8:
                memory.mark([tag])
            else:
                memory.forget([key])
            with memory._lock:
                entries, size = memory.sizes()
                if entries > 50 or size > 100_000:
                    over.append((entries, size))

    try:
        for running in [thread(work, seed) for seed in range(4)]:
            running.result()
    finally:
        sys.setswitchinterval(interval)
    assert over == []
    check_books(memory)


@pytest.mark.parametrize("max_marks", [1, 2, 3, 7, 100])
def test_few_marks_never_serve_what_was_invalidated(clock: ManualClock, max_marks) -> None:
    """An exact model beside it: whatever the store serves, the model must hold too."""
    rng = random.Random(max_marks)
    memory = Memory(clock=clock, max_marks=max_marks)
    model: dict[str, tuple[int, tuple[str, ...]]] = {}
    loads: list[tuple[str, int, tuple[str, ...], int, set[str]]] = []
    served = 0
    for step in range(4000):
        key, tag = f"k{rng.randrange(10)}", f"t{rng.randrange(8)}"
        action = rng.randrange(8)
        if action == 0:
            memory.mark([tag])
            model = {k: v for k, v in model.items() if tag not in v[1]}
            for load in loads:
                load[4].add(tag)
        elif action == 1:
            memory.forget([key])
            model.pop(key, None)
            for load in loads:
                load[4].add("\0" + key)
        elif action == 2 and len(loads) < 4:
            loads.append((key, step, (tag, f"t{rng.randrange(8)}"), memory.sequence, set()))
        elif action in (3, 4) and loads:
            k, value, tags, since, overtaken = loads.pop(rng.randrange(len(loads)))
            if put(memory, k, value, *tags, since=since) is not None:
                assert not overtaken & {*tags, "\0" + k}
                model[k] = (value, tags)
        else:
            found = get(memory, key)
            if found != "absent":
                served += 1
                assert model[key][0] == found
    assert len(memory._marks) <= max_marks + 2
    assert served > (100 if max_marks >= 7 else 0)


def test_a_mark_that_is_forgotten_while_it_is_looked_for(clock: ManualClock) -> None:
    """The prune of another thread falls between the look at the mark and the look at the floor."""
    memory = Memory(clock=clock, max_marks=4)
    put(memory, "k", "old", "t")
    node = memory._nodes["k"]
    memory.mark(["t"])

    class Marks(dict):
        armed = True

        def get(self, name, default=None):
            if name == "t" and self.armed:
                self.armed = False
                memory.mark([f"other{i}" for i in range(8)])
            return super().get(name, default)

    memory._marks = Marks(memory._marks)
    assert memory.peek("k") is None
    assert not node.alive


def test_last_known_follows_the_invalidations_of_this_process(memory: Memory) -> None:
    for key in "abc":
        put(memory, key, key, f"t:{key}")
    memory.suspend()
    memory.mark(["t:a"])
    memory.forget(["b"])
    assert [get(memory, key) for key in "abc"] == ["absent"] * 3
    assert [memory.last_known(key) for key in "ab"] == [None, None]
    assert memory.last_known("c").value == "c"
    memory.resume()
    assert get(memory, "c") == "absent"
    put(memory, "c", "new")
    assert get(memory, "c") == "new"


def test_the_load_that_began_later_wins(memory: Memory) -> None:
    older = memory.sequence
    memory.mark(["anything else"])
    newer = memory.sequence
    assert put(memory, "k", "newer", since=newer) is not None
    assert put(memory, "k", "older", since=older) is None
    assert get(memory, "k") == "newer"


def test_a_load_from_before_the_flush_is_refused(memory: Memory) -> None:
    since = memory.sequence
    memory.flush()
    assert put(memory, "k", "old", since=since) is None
    assert put(memory, "k", "new") is not None


def test_hits_survive_their_nodes(clock: ManualClock) -> None:
    cache = Cache(clock=clock, max_entries=5)

    @cache.cached(tags=["t"])
    def load(x):
        return x

    for i in range(50):
        load(i), load(i), load(i)
    cache.invalidate("t")
    load(0), load(0)
    total = cache.stats().total
    assert (total.hits, total.misses, total.loads) == (101, 51, 51)
    assert cache.stats().evictions == 46
    assert cache.stats().by_function[f"{__name__}.test_hits_survive_their_nodes.<locals>.load"] == total
    assert total.hit_rate == pytest.approx(101 / 152)


@pytest.mark.parametrize(
    "options", [{"max_entries": 0}, {"max_bytes": -1}, {"max_marks": 0}, {"max_entries": 1.5}, {"max_bytes": True}]
)
def test_bad_bounds(options) -> None:
    with pytest.raises(ConfigError, match="positive whole number"):
        Memory(**options)


@pytest.mark.parametrize(
    ("value", "least"),
    [
        ("x" * 10_000, 10_000),
        (["x" * 1000 + str(i) for i in range(1000)], 1_000_000),
        ({"a": {"b": b"y" * 5000}}, 5000),
    ],
    ids=["text", "long list", "nested"],
)
def test_estimates(value, least) -> None:
    assert least <= estimate(value) <= 3 * least


def test_estimating_ends_on_what_contains_itself() -> None:
    loop: list[object] = []
    loop.extend([loop, loop])
    assert estimate(loop) > 0


class Answering:
    """What answers whatever it is asked for by running code, as proxies and rows of a database do."""

    def __init__(self, asked: list[str]) -> None:
        self.own = "x" * 1000
        self.asked = asked

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return Answering
        object.__getattribute__(self, "asked").append(name)
        raise NameError(name)

    def __sizeof__(self) -> int:
        raise RuntimeError("no size")


class Lazy(dict[str, Any]):
    def items(self) -> Any:
        raise AssertionError("a database is asked")


class Rows(list[Any]):
    def __iter__(self) -> Any:
        raise AssertionError("a database is asked")


class Slotted:
    __slots__ = ("text", "unset")

    def __getattr__(self, name: str) -> Any:
        raise NameError(name)


def test_estimating_runs_no_code_of_a_value_and_never_fails() -> None:
    asked: list[str] = []
    cache = Cache()
    slotted = Slotted()
    slotted.text = "y" * 1000
    for value in (Answering(asked), Lazy(a="x" * 1000), Rows(["x" * 1000]), slotted):
        assert 1000 <= estimate([value]) < 3000 or type(value) is Answering
        load = cache.cached(ttl=60, key=f"{type(value).__name__}")(lambda value=value: value)
        assert load() is value and load() is value
    assert asked == [] and cache.stats().total.loads == 4 and cache.stats().evictions == 0
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert estimate(deep) > 0


def test_what_many_share_is_not_counted_to_each() -> None:
    shared = {"big": ["x" * 1000 + str(n) for n in range(100)]}
    holders = [[shared] for _ in range(20)]
    assert estimate(holders[0]) < 1000
    assert estimate(shared) > 100_000, "it is itself what is kept"


@pytest.mark.parametrize("how", ["void", "forget"])
def test_void_is_forget_without_a_count(how):
    clock = ManualClock()
    store = Memory(clock=clock, max_marks=4)
    before = drive(store.begin(BLOCKING, "a", (), 30.0))
    store.fill("a", seal(1, Policy(ttl=60), clock()), store.sequence)
    getattr(store, how)(["a", "b"])
    assert store.peek("a") is None
    assert store.fill("a", seal(2, Policy(ttl=60), clock()), before.proof) is None
    for n in range(20):
        getattr(store, how)([f"k{n}"])
    assert len(store._marks) <= 5
    assert store.fill("k0", seal(1, Policy(ttl=60), clock()), before.proof) is None
    assert store.epoch == store.sequence
