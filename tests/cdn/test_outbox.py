"""The outbox: in this process and on each server, in both worlds, in front of a server that speaks the CDN's API."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from cachekit import Cache, Cloudflare, ConfigError, Fastly, Kind, PurgeOptions, StoreError, Varnish
from cachekit.cdn import Outbox, Rate, Scope
from cachekit.cdn.box import Box, MemoryBox, ServerBox, Settled
from cachekit.cdn.client import Client
from cachekit.errors import StoreUnavailable
from cachekit.stats import Waiting
from cachekit.stores.cluster import ClusterLink
from cachekit.stores.link import RedisLink
from cachekit.testing import ManualClock, World
from tests.cdn.stand_in import Answer, StandIn

OK = {"success": True, "errors": [], "messages": [], "result": {"id": "z1"}}


@pytest.fixture
def cdn() -> Iterator[StandIn]:
    made = StandIn(Answer(200, OK))
    yield made
    made.close()


@pytest.fixture(params=["memory", "valkey", "redis"])
def box(request: pytest.FixtureRequest, world: World) -> Iterator[Box]:
    if request.param == "memory":
        yield MemoryBox()
        return
    server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with server.client() as client:
        client.flushall()
    link = RedisLink(server.url, timeout=5)
    yield ServerBox(link, "test")
    world.run(link.close)


class Bench:
    """An outbox without a background, one purger, and time that stands still."""

    def __init__(self, cdn: StandIn, box: Box | None, world: World, clock: ManualClock, watch, **options) -> None:
        self.cdn, self.world, self.clock, self.watch = cdn, world, clock, watch
        self.purger = Cloudflare(zone="z1", token="sesame", base_url=cdn.url, plan="enterprise")
        options = {"delay": 0, "rebound": 0, **options}
        self.outbox = Outbox(
            [self.purger],
            box=box,
            options=PurgeOptions(**options),
            client=Client(timeout=0.5, clock=clock),
            clock=clock,
            chance=lambda: 1.0,  # pauses in full
            emit=watch,
            background=False,
        )

    def put(self, *tags: str, urls=(), everything: bool = False) -> bool:
        return self.world.run(lambda io: self.outbox.put(io, tags, urls, everything=everything))

    def deliver(self) -> float:
        return self.world.run(self.outbox.deliver)

    @property
    def status(self):
        return self.world.run(self.outbox.status)[self.purger.name]

    @property
    def purged(self) -> list:
        return [seen.json for seen in self.cdn.seen]


@pytest.fixture
def bench(cdn: StandIn, box: Box, world: World, clock: ManualClock, watch):
    return lambda **options: Bench(cdn, box, world, clock, watch, **options)


def test_what_is_put_is_delivered_in_one_call(bench) -> None:
    it = bench()
    assert it.put("product:42", "catalog")
    assert it.status.pending == 2
    it.deliver()
    assert it.purged == [{"tags": ["catalog", "product:42"]}] or it.purged == [{"tags": ["product:42", "catalog"]}]
    assert (it.status.pending, it.status.delivered, it.status.failed) == (0, 2, 0)
    assert len(it.watch.of(Kind.PURGED)) == 1
    it.deliver()
    assert len(it.cdn.seen) == 1


def test_tags_urls_and_everything_are_calls_of_their_own(bench) -> None:
    it = bench()
    it.put("a", urls=["https://e.example/1"], everything=True)
    it.deliver()
    assert sorted(map(str, it.purged)) == [
        "{'files': ['https://e.example/1']}", "{'purge_everything': True}", "{'tags': ['a']}"
    ]  # fmt: skip


def test_duplicates_are_one(bench) -> None:
    it = bench()
    for _ in range(5):
        it.put("a")
    assert it.status.pending == 1
    it.deliver()
    assert it.purged == [{"tags": ["a"]}]


def test_nothing_goes_out_before_the_delay(bench) -> None:
    it = bench(delay=0.5)
    it.put("a")
    assert it.deliver() == pytest.approx(0.5, abs=1e-3)
    assert it.purged == []
    it.clock.advance(0.5)
    it.deliver()
    assert it.purged == [{"tags": ["a"]}]


def test_a_confirmed_purge_is_sent_once_more(bench) -> None:
    it = bench(rebound=10)
    it.put("a")
    assert it.deliver() <= 10
    assert (it.status.pending, it.status.rebounding, it.status.delivered) == (0, 1, 1)
    it.clock.advance(9.9)
    it.deliver()
    assert len(it.purged) == 1
    it.clock.advance(0.2)
    it.deliver()
    assert it.purged == [{"tags": ["a"]}] * 2
    assert (it.status.rebounding, it.status.delivered) == (0, 1)
    it.clock.advance(100)
    it.deliver()
    assert len(it.purged) == 2


def test_an_invalidation_before_the_rebound_is_delivered_at_once(bench) -> None:
    it = bench(rebound=10)
    it.put("a")
    it.deliver()
    it.put("a")
    it.deliver()
    assert len(it.purged) == 2
    assert it.status.rebounding == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, {"success": False}),
        Answer(503, b"<html>"),
        Answer(200, b"\x00garbage"),
        Answer(200, {"success": False, "errors": [{"code": 7, "message": "sesame is wrong"}]}),
        Answer(act="reset"),
        Answer(act="nonsense"),
        Answer(act="hang"),
        Answer(act="dribble"),
        Answer(403, {"success": False, "errors": [{"code": 10000, "message": "Bearer sesame"}]}),
        Answer(302, b"", {"Location": "http://127.0.0.1:1/"}),
    ],
    ids=lambda a: a.act or str(a.status),
)
def test_whatever_the_cdn_does_the_purge_stays_and_lands_later(bench, answer: Answer, caplog) -> None:
    it = bench(first_pause=2)
    it.cdn.script = [answer]
    it.put("a")
    it.deliver()
    status = it.status
    assert (status.pending, status.failed, status.delivered) == (1, 1, 0)
    assert status.last_error
    events = it.watch.of(Kind.PURGE_FAILED)
    assert len(events) == 1
    assert "sesame" not in status.last_error + str(events) + caplog.text
    it.clock.advance(1.9)
    it.deliver()
    assert len(it.cdn.seen) == 1  # not yet
    it.clock.advance(0.2)
    it.deliver()
    assert (it.status.pending, it.status.delivered) == (0, 1)


def test_retry_after_is_kept_to_by_everybody(bench) -> None:
    it = bench(first_pause=0.5)
    it.cdn.script = [Answer(429, {"success": False}, {"Retry-After": "30"})]
    it.put("a")
    it.deliver()
    it.put("b")  # of another process, say
    it.clock.advance(29)
    it.deliver()
    assert len(it.cdn.seen) == 1
    it.clock.advance(1.1)
    it.deliver()
    assert it.status.pending == 0
    assert sorted(tag for call in it.purged[1:] for tag in call["tags"]) == ["a", "b"]


def test_what_waits_is_known_without_asking(bench) -> None:
    it = bench(first_pause=60)
    assert it.outbox.waiting() == {it.purger.name: Waiting(0, 0.0)}
    it.cdn.script = [Answer(500)]
    it.put("a", "b")
    it.deliver()
    it.clock.advance(30)
    assert it.outbox.waiting() == {it.purger.name: Waiting(2, 30.0)}
    it.clock.advance(31)
    it.deliver()
    assert it.outbox.waiting() == {it.purger.name: Waiting(0, 0.0)}


@pytest.mark.server
def test_on_a_cluster(cluster, cdn: StandIn, world: World, clock: ManualClock, watch) -> None:
    """Each script of the outbox keeps to one slot, whatever the tags: put, failed, tried again, given up, put anew."""
    link = ClusterLink(cluster.url, timeout=5)
    it = Bench(cdn, ServerBox(link, "test"), world, clock, watch, first_pause=1, longest_pause=1, give_up_after=2)
    other = Bench(cdn, ServerBox(link, "other"), world, clock, watch)
    cdn.script = [Answer(500)]
    it.put(*(f"tag-{i}" for i in range(20)), urls=["https://a.example/x"])
    other.put("elsewhere")
    while it.status.pending:
        it.deliver()
        clock.advance(1)
    assert sorted(tag for call in it.purged[1:] for tag in call.get("tags", ())) == sorted(
        f"tag-{i}" for i in range(20)
    )
    assert (it.status.delivered, it.status.dead, other.status.pending) == (21, 0, 1)
    cdn.usual = Answer(500)
    it.put("never")
    for _ in range(4):
        it.deliver()
        clock.advance(1)
    assert it.status.dead_targets == ("tag:never",)
    cdn.usual = Answer(200, OK)
    assert world.run(it.outbox.retry_dead) == 1
    it.deliver()
    assert (it.status.dead, it.status.pending, it.status.delivered) == (0, 0, 22)
    world.run(link.close)


def test_pauses_double_up_to_the_longest(bench) -> None:
    it = bench(first_pause=1, longest_pause=10)
    it.cdn.usual = Answer(500)
    it.put("a")
    pauses = []
    for tries in range(1, 8):
        it.deliver()
        assert it.status.failed == tries
        before = len(it.cdn.seen)
        pause = 0.0
        while len(it.cdn.seen) == before:
            it.clock.advance(0.5)
            pause += 0.5
            it.deliver()
        pauses.append(pause)
    assert pauses == [1, 2, 4, 8, 10, 10, 10]


def test_half_of_a_pause_is_chance() -> None:
    options = PurgeOptions(first_pause=1, longest_pause=60)
    assert (options.pause(2, 0.0), options.pause(2, 1.0)) == (2.0, 4.0)
    assert options.pause(10**6, 1.0) == 60


def test_a_purge_that_never_lands_is_given_up_but_not_forgotten(bench) -> None:
    it = bench(give_up_after="1h")
    it.cdn.usual = Answer(403, {"success": False, "errors": [{"code": 1, "message": "no"}]})
    it.put("a")
    it.deliver()
    it.clock.advance(3601)
    it.deliver()
    status = it.status
    assert (status.pending, status.dead, status.dead_targets) == (0, 1, ("tag:a",))
    assert it.watch.of(Kind.PURGE_DEAD)[0].key == "tag:a"
    it.clock.advance(3601)
    it.deliver()
    assert len(it.cdn.seen) == 2  # it rests
    it.cdn.usual = Answer(200, OK)
    assert it.world.run(it.outbox.retry_dead) == 1
    it.deliver()
    assert (it.status.dead, it.status.delivered) == (0, 1)


def test_a_dead_purge_lives_again_when_its_tag_is_invalidated(bench) -> None:
    it = bench(give_up_after="1h")
    it.cdn.usual = Answer(500)
    it.put("a")
    it.clock.advance(3601)
    it.deliver()
    assert it.status.dead == 1
    it.cdn.usual = Answer(200, OK)
    it.put("a")
    it.clock.advance(120)
    it.deliver()
    assert (it.status.dead, it.status.pending, it.status.delivered) == (0, 0, 1)


def test_age_counts_from_the_last_invalidation(bench) -> None:
    it = bench(give_up_after="1h")
    it.cdn.usual = Answer(500)
    it.put("a")
    it.clock.advance(3000)
    it.put("a")
    it.clock.advance(3000)
    it.deliver()
    assert (it.status.dead, it.status.pending) == (0, 1)
    assert it.status.oldest_age == pytest.approx(6000, abs=0.01)


def test_one_refused_tag_holds_up_none_of_the_others(bench) -> None:
    it = bench()

    class Picky(list):
        def pop(self, _):
            body = it.cdn.seen[-1].json
            return Answer(400, {"success": False}) if "bad" in body["tags"] else Answer(200, OK)

        def __bool__(self) -> bool:
            return True

    it.cdn.script = Picky()
    it.put("a", "b", "bad", "c", "d", "e", "f", "g")
    it.deliver()
    status = it.status
    assert (status.pending, status.delivered) == (1, 7)
    assert "400" in status.last_error


def test_keys_that_fastly_left_out_are_sent_again(cdn, box, world, clock, watch) -> None:
    cdn.usual = Answer(200, {"a": "1", "c": "3"})
    cdn.script = []
    purger = Fastly(service="s1", token="t", base_url=cdn.url)
    outbox = Outbox(
        [purger], box=box, options=PurgeOptions(delay=0, rebound=0), client=Client(timeout=5, clock=clock), clock=clock,
        chance=lambda: 1.0, emit=watch, background=False,
    )  # fmt: skip
    world.run(lambda io: outbox.put(io, ["a", "b", "c"]))
    world.run(outbox.deliver)
    assert world.run(outbox.status)[purger.name].pending == 1
    cdn.usual = Answer(200, {"status": "ok", "id": "1"})
    clock.advance(5)
    world.run(outbox.deliver)
    assert world.run(outbox.status)[purger.name].pending == 0
    assert cdn.seen[-1].path == "/service/s1/purge/b"


def test_each_purger_has_its_own_troubles(cdn, box, world, clock, watch) -> None:
    other = StandIn(Answer(500))
    try:
        purgers = [Varnish(cdn.url, name="well"), Varnish(other.url, name="ill")]
        outbox = Outbox(
            purgers, box=box, options=PurgeOptions(delay=0, rebound=0), client=Client(timeout=5, clock=clock),
            clock=clock, emit=watch, background=False,
        )  # fmt: skip
        world.run(lambda io: outbox.put(io, ["a"]))
        world.run(outbox.deliver)
        status = world.run(outbox.status)
        assert (status["well"].pending, status["ill"].pending) == (0, 1)
    finally:
        other.close()


def test_one_process_delivers_at_a_time(box: Box, world: World, clock: ManualClock) -> None:
    now = clock()
    world.run(lambda io: box.put(io, "p", ["tag:a"], now, now))
    first = world.run(lambda io: box.claim(io, "p", "one", 10, now, None))
    assert (first.what, [item.target for item in first.items]) == ("due", ["tag:a"])
    assert world.run(lambda io: box.claim(io, "p", "two", 10, now, None)).what == "held"
    done = [Settled(first.items[0], "done")]
    world.run(lambda io: box.settle(io, "p", "one", now, 0, "", done))
    assert world.run(lambda io: box.claim(io, "p", "two", 10, now, None)).what == "idle"


def test_what_is_put_during_a_delivery_is_not_taken_for_delivered(box: Box, world: World, clock: ManualClock) -> None:
    now = clock()
    world.run(lambda io: box.put(io, "p", ["tag:a"], now, now))
    claim = world.run(lambda io: box.claim(io, "p", "one", 10, now, None))
    world.run(lambda io: box.put(io, "p", ["tag:a"], now, now))
    world.run(lambda io: box.settle(io, "p", "one", now, 0, "", [Settled(claim.items[0], "done", now + 5)]))
    again = world.run(lambda io: box.claim(io, "p", "one", 10, now, None))
    assert [item.target for item in again.items] == ["tag:a"]


def test_the_pace_of_the_api_is_kept(box: Box, world: World, clock: ManualClock) -> None:
    now, rate = clock(), Rate(2, 3)
    names = [f"tag:{i}" for i in range(9)]
    world.run(lambda io: box.put(io, "p", names, now, now))

    def claim():
        made = world.run(lambda io: box.claim(io, "p", "one", 10, now, rate))
        if made.what == "due":
            world.run(lambda io: box.settle(io, "p", "one", now, 0, "", []))
        return made

    assert [claim().what for _ in range(4)] == ["due", "due", "due", "wait"]
    assert claim().wait == pytest.approx(0.5, abs=1e-3)
    now += 0.51
    assert [claim().what for _ in range(2)] == ["due", "wait"]
    now += 100
    assert [claim().what for _ in range(4)] == ["due", "due", "due", "wait"]


def test_both_boxes_tell_the_same_story(world: World, clock: ManualClock, valkey) -> None:
    """A seeded walk through puts, claims and settlements: what is decided in Lua is what is decided in Python."""
    import random

    with valkey.client() as client:
        client.flushall()
    link = RedisLink(valkey.url, timeout=5)
    boxes: list[Box] = [MemoryBox(), ServerBox(link, "walk")]
    for seed in range(6):
        rng, now, name = random.Random(seed), 1_700_000_000.0, f"p{seed}"
        for _ in range(60):
            now += rng.choice([0, 0.5, 3])
            step = rng.random()
            if step < 0.5:
                chosen = rng.sample(["tag:a", "tag:b", "tag:c", "tag:d"], 2)
                due = now + rng.choice([0, 1])
                added = [world.run(lambda io, b=b: b.put(io, name, chosen, now, due)) for b in boxes]
                assert added[0] == added[1]
            else:
                claims = [world.run(lambda io, b=b: b.claim(io, name, "t", 10, now, Rate(1, 2))) for b in boxes]
                assert claims[0].what == claims[1].what
                assert claims[0].wait == pytest.approx(claims[1].wait, abs=1e-3)
                assert [i.target for i in claims[0].items] == [i.target for i in claims[1].items]
                if claims[0].what == "due":
                    what = rng.choice(["done", "done", "retry", "split", "dead"])
                    due, hold = now + rng.choice([0, 4]), rng.choice([0, now + 1])
                    for b, claim in zip(boxes, claims, strict=True):
                        settled = [Settled(item, what, due, 2) for item in claim.items[:2]]
                        world.run(lambda io, b=b, s=settled: b.settle(io, name, "t", now, hold, "oops", s))
            counts = [world.run(lambda io, b=b: b.count(io, name)) for b in boxes]
            assert sorted(counts[0].dead_targets) == sorted(counts[1].dead_targets)
            one, two = (
                (c.pending, c.again, c.dead, c.delivered, c.failed, c.error, c.oldest and round(c.oldest, 2))
                for c in counts
            )
            assert one == two
    world.run(link.close)


class Away:
    """A box that can be put out of reach."""

    def __init__(self) -> None:
        self.inner = MemoryBox()
        self.away = False

    def __getattr__(self, name):
        call = getattr(self.inner, name)

        async def guarded(*args):
            if self.away:
                raise StoreUnavailable("away")
            return await call(*args)

        return guarded


def test_while_the_store_is_away_purges_go_out_from_here_and_once_more_when_it_is_back(
    cdn, world, clock, watch
) -> None:
    box = Away()
    it = Bench(cdn, box, world, clock, watch)  # type: ignore[arg-type]
    box.away = True
    assert not it.put("a")
    it.deliver()
    assert it.purged == [{"tags": ["a"]}]
    with pytest.raises(StoreError):
        _ = it.status
    box.away = False
    it.deliver()
    assert it.purged == [{"tags": ["a"]}] * 2  # what other processes still served from memory may be at the CDN
    assert (it.status.pending, it.status.unsaved, it.status.delivered) == (0, 0, 1)
    it.clock.advance(100)
    it.deliver()
    assert len(it.purged) == 2


def test_a_cdn_and_a_store_that_are_both_away_lose_nothing(cdn, world, clock, watch) -> None:
    box = Away()
    it = Bench(cdn, box, world, clock, watch)  # type: ignore[arg-type]
    box.away = True
    cdn.usual = Answer(500)
    it.put("a")
    it.deliver()
    box.away = False
    it.deliver()
    assert it.status.pending == 1
    cdn.usual = Answer(200, OK)
    it.clock.advance(61)
    it.deliver()
    assert it.status.pending == 0


def test_scopes_that_a_cdn_does_not_know_are_not_put(cdn, world, clock, watch) -> None:
    class TagsOnly:
        name, rate, batches = "tags-only", None, {Scope.TAG: 5}

        def build(self, tags=(), urls=(), *, everything=False):
            raise AssertionError

        check = build

    outbox = Outbox([TagsOnly()], clock=clock, background=False)
    assert world.run(lambda io: outbox.put(io, (), ["https://e.example/"]))
    assert world.run(outbox.deliver) == math.inf


def test_a_purger_that_raises_is_a_purge_that_failed(box, world, clock, watch) -> None:
    class Broken:
        name, rate, batches = "broken", None, {Scope.TAG: 5}

        def build(self, tags=(), urls=(), *, everything=False):
            raise ValueError("a bug")

        check = build

    outbox = Outbox([Broken()], box=box, options=PurgeOptions(delay=0), clock=clock, emit=watch, background=False)
    world.run(lambda io: outbox.put(io, ["a"]))
    with pytest.raises(ValueError, match="a bug"):
        world.run(outbox.deliver)
    status = world.run(outbox.status)["broken"]
    assert (status.pending, status.failed) == (1, 1)
    world.run(outbox.deliver)  # it waits for its next try


def test_tags_longer_than_cdns_take_were_never_told_to_them(bench) -> None:
    it = bench()
    assert it.put("é" * 256)  # 512 bytes, 1,536 when encoded
    assert it.status.pending == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PurgeOptions(delay=-1), "delay"),
        (lambda: PurgeOptions(first_pause=0), "first_pause"),
        (lambda: PurgeOptions(first_pause=9, longest_pause=3), "longest_pause"),
        (lambda: PurgeOptions(timeout="soon"), "timeout"),
        (lambda: Rate(0, 1), "per_second"),
        (lambda: Cache(purgers=[Varnish("http://v"), Varnish("http://v")]), "different names"),
        (lambda: Cache().purge(tags=["a"]), "no purgers"),
        (lambda: Cache(purgers=[Varnish("http://127.0.0.1:1")]).purge(urls=["/p"]), "absolute"),
    ],
)
def test_wrong_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
