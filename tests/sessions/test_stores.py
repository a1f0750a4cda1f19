"""The contract of session stores on every store."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from cachekit import Cache
from cachekit._io import BLOCKING, drive
from cachekit.clock import random_token
from cachekit.errors import StoreError, StoreTimeout, StoreUnavailable
from cachekit.sessions import SessionOptions, Sessions
from cachekit.sessions.generic import StoredSessions
from cachekit.sessions.memory import MemorySessions
from cachekit.sessions.redis import _FIELDS, RedisSessions, _parse
from cachekit.sessions.store import DONE, Key, Moved, Record, Verdict, new_id, new_version, owner_of, shard_of
from cachekit.sessions.testing import SessionStoreContract
from cachekit.stores.link import RedisLink
from cachekit.stores.links import connect
from cachekit.stores.memory import Memory
from tests.sessions.aging import TIMES, grow_older

SLACK = 0.05


class TestMemory(SessionStoreContract):
    @pytest.fixture
    def sessions(self, clock):
        return MemorySessions(clock=clock)

    def test_expired_sessions_free_their_memory(self, world, sessions, clock) -> None:
        for _ in range(100):
            self.keep(world, sessions, b"x" * 1000, self.ANN, ttl=10)
        clock.advance(11)
        for _ in range(10):
            self.keep(world, sessions, b"x")
        assert len(sessions) == 10
        assert (sessions._bytes, sessions._owners) == (10, {})

    @pytest.mark.parametrize("how", ["read", "touched", "written"])
    def test_one_that_lives_shorter_now_frees_its_memory(self, world, sessions, clock, how) -> None:
        key = self.keep(world, sessions, b"x" * 1000, ttl=1000)
        if how == "written":
            version = self.find(world, sessions, key, 0.0).version
            world.run(lambda io: sessions.write(io, key, self.record(ttl=10), version))
        elif how == "touched":
            world.run(lambda io: sessions.touch(io, key, 10))
        else:
            self.find(world, sessions, key, 10)
        clock.advance(11)
        self.keep(world, sessions)
        assert len(sessions) == 1

    def test_sessions_that_are_rewritten_leave_nothing_behind(self, world, sessions) -> None:
        key = self.keep(world, sessions)
        version = self.find(world, sessions, key).version
        for _ in range(5000):
            record = self.record()
            world.run(lambda io: sessions.write(io, key, record, version))
            version = record.version
        assert len(sessions._ends) < 3000

    def test_what_is_replaced_at_once_is_what_write_would_replace(self, world, sessions, clock) -> None:
        key = self.keep(world, sessions, b"one", self.ANN, ttl=10)
        read = sessions.read_now(key, 0.0)
        assert read == self.find(world, sessions, key, 0.0)
        clock.advance(5)
        kept = sessions.replace_now(key, b"two", "2", 10, read.version)
        assert kept == sessions.read_now(key, 0.0)
        assert (kept.body, kept.version, kept.owner, kept.seen) == (b"two", "2", self.ANN, clock())
        assert (kept.created, kept.deadline) == (read.created, read.deadline)
        late = sessions.replace_now(key, b"late", "3", 10, read.version)
        assert (late.verdict, late.found) == (Verdict.CONFLICT, kept)
        moved = Moved(Key.of(new_id()), self.ANN)
        world.run(lambda io: sessions.retire(io, key, kept, moved, 60.0))
        late = sessions.replace_now(key, b"late", "3", 10, "2")
        assert (late.verdict, late.found, sessions.read_now(key, 10.0)) == (Verdict.MOVED, moved, moved)
        for life in ({"ttl": 10}, {"ttl": 100, "deadline": 10.0}):
            ended = self.keep(world, sessions, **life)
            version = sessions.read_now(ended, 0.0).version
            clock.advance(11)
            assert sessions.replace_now(ended, b"late", "3", 100, version).verdict is Verdict.GONE
            assert sessions.read_now(ended, 0.0) is None

    def test_one_thread_at_a_time_looks_and_replaces(self, world, sessions) -> None:
        """Two that read the same version: one of them has to hear of the other, whenever it is interrupted."""
        key = self.keep(world, sessions, b"")
        version, held = sessions.read_now(key, 0.0).version, []
        slide = sessions._slide

        def interrupted(*args):
            held.append(sessions._lock.locked())
            slide(*args)

        sessions._slide = interrupted
        assert isinstance(sessions.replace_now(key, b"", "2", 10, version), Record)
        assert held == [True]

    @pytest.mark.parametrize("name", ["read", "write"])
    def test_a_class_that_reads_or_writes_in_its_own_way_is_asked_for_it(self, clock, name) -> None:
        calls = []

        async def spy(self, io, *args):
            calls.append(name)
            return await getattr(MemorySessions, name)(self, io, *args)

        audited = type("Audited", (MemorySessions,), {name: spy})(clock=clock)
        assert Sessions(MemorySessions(clock=clock), SessionOptions(secrets="x" * 32)).store.instant is not None
        driver = Sessions(audited, SessionOptions(secrets="x" * 32)).driver
        exchange = driver.open(())
        exchange.session["n"] = 1
        lines = exchange.begin_response(200, [])
        cookie = next(value for field, value in lines if field == "Set-Cookie").partition(";")[0]
        exchange = driver.open((cookie,))
        exchange.session["n"] += 1
        exchange.begin_response(200, [])
        assert calls == {"read": ["read"], "write": ["write"] * 2}[name]

    def test_the_bound_lets_the_one_go_that_was_not_used_for_longest(self, world, clock) -> None:
        sessions = MemorySessions(max_sessions=3, clock=clock)
        keys = [self.keep(world, sessions) for _ in range(3)]
        self.find(world, sessions, keys[0])
        self.keep(world, sessions)
        assert [self.find(world, sessions, key) is not None for key in keys] == [True, False, True]


@pytest.mark.server
class TestServer(SessionStoreContract):
    """Redis and Valkey, each in both worlds."""

    @pytest.fixture
    def sessions(self, server, world):
        store = RedisSessions(RedisLink(server.url, timeout=5.0), slack=SLACK)
        yield store
        world.run(store.close)

    def test_each_script_touches_one_slot(self, world, sessions, server) -> None:
        with server.client() as client:
            key = self.keep(world, sessions, b"x", self.ANN)
            self.keep(world, sessions)
            names = [name.decode() for name in client.keys("*")]
            of_ann = [name for name in names if f"{{{key.shard}}}" in name]
            assert len(of_ann) >= 3
            assert all("{" in name for name in names)

    def test_a_write_within_the_slack_leaves_the_indexes_alone(self, world, sessions) -> None:
        """They say until when it lives, give or take the slack; another life, or a use after it, is noted at once."""
        slow, quick = (RedisSessions(sessions.link, slack=slack) for slack in (60.0, 0.0))
        key = self.keep(world, slow, b"x", self.ANN, ttl=10)

        def write(store, ttl):
            before = self.find(world, store, key, ttl=ttl)
            assert before is not None
            record = self.record(b"y", self.ANN, ttl=ttl)
            assert world.run(lambda io: store.write(io, key, record, before.version)).verdict is Verdict.DONE
            return [
                float(world.run(lambda io, index=index: sessions.link.command(io, "ZSCORE", index, key.digest)))
                for index in slow._keys(key, self.ANN)[1:]
            ]

        first, again = write(slow, 10), write(slow, 10)
        assert first == again and first[0] == first[1]
        longer = write(slow, 1000)
        assert min(longer) > first[0] + 900_000, "another life"
        assert max(write(quick, 1000)) < min(longer) - 50_000, "the slack is over: the score has none of it now"

    def test_what_is_small_is_swapped_where_the_server_compares(self, world, sessions, server) -> None:
        store = RedisSessions(sessions.link, slack=60.0)
        with server.client() as client:
            info = client.info("server")
        of_valkey = info.get("valkey_version")
        compares = tuple(map(int, (of_valkey or info["redis_version"]).split(".")[:2])) >= (
            (8, 1) if of_valkey else (8, 4)
        )
        key = self.keep(world, store, owner=self.ANN)
        index = store._owner(key.shard, self.ANN)
        noted = world.run(lambda io: store.link.command(io, "ZSCORE", index, key.digest))
        for body in (b"one", b"another"):
            read = self.find(world, store, key, 5.0)
            assert store.swaps(read) is (compares or body == b"one"), "asked once"
            assert (
                world.run(lambda io, read=read, body=body: store.swap(io, key, read, body, new_version())) is compares
            )
            with server.client() as client:
                assert client.pttl(store.name(key)) > 5000 or not compares
        assert self.find(world, store, key).body == (b"another" if compares else b"body")
        assert world.run(lambda io: store.link.command(io, "ZSCORE", index, key.digest)) == noted

    def test_a_deadline_is_over_when_the_server_says_so(self, world, sessions, server, clock) -> None:
        """A read makes a session live on beyond it; a clock that is ahead ends nothing, and lengthens nothing."""
        ahead = RedisSessions(sessions.link, slack=SLACK, clock=clock)
        key = self.keep(world, sessions, b"body", self.ANN, ttl=100.0, deadline=3000.0)
        with server.client() as client:
            seconds, micros = client.time()
            clock.advance(seconds + micros / 1e6 + 3600 - clock())
            for ttl in (50.0, 0.0):
                assert self.find(world, ahead, key, ttl).body == b"body"
                assert 40_000 < client.pttl(ahead.name(key)) <= 50_000
            grow_older([client], 30.0)
            client.setrange(ahead.name(key), 64, f"{seconds * 1000:015d}")  # the end has come
            assert self.find(world, ahead, key, 0.0) is None
            assert client.keys("*") == []

    def test_the_deadline_holds_for_what_was_asked_ahead(self, server) -> None:
        store = RedisSessions(RedisLink(server.url, timeout=5.0), slack=SLACK)
        key = Key.of(new_id())
        drive(store.write(BLOCKING, key, self.record(deadline=40.0), None))
        for left in (True, False):
            asked = store.ahead(key, 600.0)
            assert asked is not None and (asked.take() is not None) is left
            with server.client() as client:
                grow_older([client], 41.0)
        drive(store.close(BLOCKING))

    def test_the_times_stand_where_this_file_lets_them_pass(self) -> None:
        ends = [0]
        for width in _FIELDS.format.rstrip("s").split("s"):
            ends.append(ends[-1] + int(width))
        assert set(TIMES[b"CS1"]) <= set(pairwise(ends))

    def test_the_id_is_nowhere_in_the_store(self, world, sessions, server) -> None:
        identity = new_id()
        world.run(lambda io: sessions.write(io, Key.of(identity), self.record(), None))
        with server.client() as client:
            kept = b"".join(name + (client.dump(name) or b"") for name in client.keys("*"))
        assert identity[2:].encode() not in kept

    def test_everything_frees_its_memory(self, world, sessions, server, passing, patient) -> None:
        for _ in range(20):
            self.keep(world, sessions, owner=self.ANN, ttl=0.2)
        with server.client() as client:
            patient(lambda: client.dbsize() == 0)

    def test_bytes_of_strangers_are_no_error(self, world, sessions, server) -> None:
        key = self.key()
        for junk in (b"", b"junk", b"CS1", b"CS1" + b"x" * 200, b"CM1short", b"\xff" * 300):
            with server.client() as client:
                client.set(sessions.name(key), junk)
            found = self.find(world, sessions, key)
            assert found is None or found.body == b""
            world.run(lambda io: sessions.touch(io, key, 5.0))
            with server.client() as client:
                client.set(sessions.name(key), junk)
            outcome = world.run(lambda io: sessions.write(io, key, self.record(), "0" * 16))
            assert outcome.verdict in (Verdict.CONFLICT, Verdict.MOVED, Verdict.GONE)


class Nowhere:
    """A link whose server refuses a command with *error*."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[object, ...]] = []

    async def command(self, io, *args):
        self.asked.append(args)
        if self.error is not None:
            raise StoreError("refused") from self.error
        return b"OK"


def test_a_session_is_swapped_while_the_indexes_may_stay_as_they_are(clock) -> None:
    store = RedisSessions(Nowhere(), slack=60.0, clock=clock)
    now = clock()
    record = Record(b"body", "0" * 16, 600.0, now - 1000, now - 59)
    assert store.swaps(record) and store.swaps(record._replace(seen=now, body=b"x" * 512))
    for other in (
        {"seen": now - 60}, {"seen": now + 1}, {"seen": 0.0}, {"deadline": now + 660}, {"deadline": now - 1},
        {"body": b""}, {"body": b"x" * 513},
    ):  # fmt: skip
        assert not store.swaps(record._replace(**other)), other
    assert store.swaps(record._replace(deadline=now + 661))


def test_a_class_that_writes_in_its_own_way_is_asked_for_it_on_servers_too() -> None:
    own = type("Own", (RedisSessions,), {"write": RedisSessions.write})
    both = type("Both", (own,), {"append": RedisSessions.append, "swap": RedisSessions.swap})
    found = {}
    for kind in (RedisSessions, own, both):
        store = Sessions(kind(Nowhere()), SessionOptions(secrets="x" * 32)).store
        found[kind] = store.appends, store.swaps == store.inner.swaps
    assert found == {RedisSessions: (True, True), own: (False, False), both: (True, True)}


def test_a_server_that_cannot_compare_is_asked_once(clock) -> None:
    record = Record(b"body", "0" * 16, 600.0, clock(), clock())
    for error, again in (
        (ResponseError("syntax error"), False),
        (ResponseError("ERR unknown option IFEQ"), False),
        (ResponseError("MISCONF errors writing to the AOF file"), True),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), True),
        (ReadOnlyError("You can't write against a read only replica."), True),
    ):
        store = RedisSessions(Nowhere(error), slack=60.0, clock=clock)
        assert drive(store.swap(BLOCKING, Key.of(new_id()), record, b"new", "1" * 16)) is False
        assert store.swaps(record) is again


@pytest.mark.parametrize("kind", [StoreTimeout, StoreUnavailable])
def test_who_hears_nothing_of_a_swap_does_not_ask_again(clock, kind) -> None:
    """The caller notes what may have arrived; a script after it would wait for as long again."""

    class Silent(Nowhere):
        async def command(self, io, *args):
            raise kind("no answer")

    store = RedisSessions(Silent(), slack=60.0, clock=clock)
    record = Record(b"body", "0" * 16, 600.0, clock(), clock())
    with pytest.raises(kind):
        drive(store.swap(BLOCKING, Key.of(new_id()), record, b"new", "1" * 16))
    assert store.swaps(record)


def test_what_is_past_its_deadline_is_over_where_the_server_does_not_write(clock) -> None:
    until = int(clock() * 1000)
    raw = f"CS1{until:015d}{until:015d}{'0' * 16}{1000:015d}{until:015d}{'-' * 22}".encode() + b"body"
    key = Key.of(new_id())

    class Still(Nowhere):
        async def command(self, io, *args):
            return raw if args[0].startswith("GET") else await super().command(io, *args)

        async def script(self, io, *args):
            raise self.error

    for error, kind in ((StoreError("READONLY"), None), (StoreTimeout("late"), StoreTimeout)):
        store = RedisSessions(Still(error), clock=clock)
        with pytest.raises(kind) if kind else contextlib.nullcontext():
            assert drive(store.read(BLOCKING, key, 10.0)) is None


def test_each_time_is_sent_as_it_was_read(clock) -> None:
    """A float that is a millisecond off would never be found again."""
    link = Nowhere()
    store = RedisSessions(link, clock=clock)
    for at in range(1_790_000_000_000, 1_790_000_000_999):
        head = f"CS1{at:015d}{at + 1:015d}{'0' * 16}{at % 7919:015d}{at + 2:015d}{'-' * 22}"
        record = _parse(head.encode() + b"body")
        drive(store.swap(BLOCKING, Key("00", "x"), record, b"", "1" * 16))
        assert link.asked.pop()[4] == head.encode() + b"body"


@pytest.mark.server
class TestCluster(SessionStoreContract):
    """Each script in one slot, the count over all of them."""

    @pytest.fixture
    def sessions(self, cluster, world):
        store = RedisSessions(connect(cluster.url, timeout=5.0), namespace=f"s{random_token(4).hex()}", slack=SLACK)
        yield store
        world.run(store.close)

    @pytest.fixture
    def passing(self, cluster):
        return lambda seconds: grow_older([member.client for member in cluster.primaries()], seconds)


class TestAnyStoreInMemory(SessionStoreContract):
    @pytest.fixture
    def sessions(self, clock):
        return StoredSessions(Memory(clock=clock), slack=SLACK, clock=clock)


@pytest.mark.server
class TestAnyStoreOnAServer(SessionStoreContract):
    @pytest.fixture
    def sessions(self, server, world, clock):
        cache = Cache(server.url, timeout=5.0, clock=clock)
        yield StoredSessions(cache.store, slack=SLACK, clock=clock)
        world.run(cache.store.close)

    @pytest.fixture
    def passing(self, clock):
        return clock.advance  # entries of caches end by the clock of the cache


class OfCaches(SessionStoreContract):
    """The whole way from a cache to its sessions, breaker included: what an application has."""

    @pytest.fixture
    def kept_in(self, world):
        caches: list[Cache] = []

        def make(url: str) -> Sessions:
            caches.append(Cache(url, namespace=f"n{random_token(4).hex()}", timeout=5.0))
            return Sessions(caches[-1], SessionOptions(secrets="x" * 32, touch_interval=SLACK))

        yield make
        for cache in caches:
            world.run(cache.store.close)

    @pytest.fixture
    def engine(self):
        """One of them: each engine has its turn in the classes above."""
        return "valkey"

    @pytest.fixture
    def clients(self, valkey):
        """What speaks to the servers behind it."""
        with valkey.client() as client:
            yield [client]

    @pytest.fixture
    def passing(self, clients):
        return lambda seconds: grow_older(clients, seconds)


@pytest.mark.server
class TestEmbedded(OfCaches):
    @pytest.fixture
    def sessions(self, kept_in):
        return kept_in("embedded://").store

    @pytest.fixture
    def clients(self, sessions):
        with Redis.from_url(sessions.inner.link.address.url) as client:
            yield [client]


@pytest.mark.server
class TestTiered(OfCaches):
    @pytest.fixture
    def sessions(self, kept_in, valkey):
        return kept_in(f"tiered+{valkey.url}").store


@pytest.mark.server
class TestTieredCluster(OfCaches):
    @pytest.fixture
    def sessions(self, kept_in, cluster):
        return kept_in(f"tiered+{cluster.url}").store

    @pytest.fixture
    def clients(self, cluster):
        return [member.client for member in cluster.primaries()]


@pytest.mark.server
class TestSentinel(OfCaches):
    @pytest.fixture
    def sessions(self, kept_in, sentinels):
        return kept_in(sentinels.url).store

    @pytest.fixture
    def clients(self, sentinels):
        return [member.client for member in sentinels.primaries()]


@pytest.mark.server
@pytest.mark.parametrize("given", ["cache", "store", "url"])
def test_a_first_level_never_serves_a_session_that_has_ended(server, given) -> None:
    """Two processes, each with a first level of its own: a logout in one is seen by the other at once."""
    url = f"tiered+{server.url}"
    one, other = (Cache(url, timeout=5.0) for _ in range(2))
    with one, other:
        one.get("opens the bus")
        sources = {"cache": (one, other), "store": (one.store, other.store), "url": (url, url)}[given]
        made = [Sessions(source, SessionOptions(secrets="x" * 32, timeout=5.0)) for source in sources]
        here, there = (sessions.store for sessions in made)
        key = Key.of(new_id(shard_of(owner_of("ann"))))
        record = Record(b"body", new_version(), 600.0, owner=owner_of("ann"))
        assert drive(here.write(BLOCKING, key, record, None)) is DONE
        for store in (here, there, here, there):  # what a first level would keep now
            found = drive(store.read(BLOCKING, key, 600.0))
            assert isinstance(found, Record) and found.body == b"body"
        assert made[1].revoke_all("ann") == 1
        assert drive(here.read(BLOCKING, key, 600.0)) is None
        assert drive(here.write(BLOCKING, key, record, record.version)).verdict is Verdict.GONE
        assert drive(there.read(BLOCKING, key, 600.0)) is None
        for sessions in made:
            sessions.close()


@pytest.mark.server
@pytest.mark.parametrize("tier", ["tiered+", ""])
def test_a_cache_gives_the_server_behind_it(server, tier) -> None:
    with Cache(tier + server.url, namespace="mine") as cache:
        sessions = Sessions(cache, SessionOptions(secrets="x" * 32))
        assert isinstance(sessions.store.inner, RedisSessions)
        assert sessions.store.inner.namespace == "mine"
        assert sessions.count() == 0


@pytest.mark.server
def test_a_private_server() -> None:
    sessions = Sessions("embedded://", SessionOptions(secrets="x" * 32, timeout=5.0))
    assert isinstance(sessions.store.inner, RedisSessions)
    assert sessions.count() == 0
    sessions.close()
