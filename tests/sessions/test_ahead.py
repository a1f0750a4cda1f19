"""Reading ahead under WSGI: pages that look at their session find it on the way; nothing of it outlives its request."""

from __future__ import annotations

import gc

import pytest
from redis.exceptions import ResponseError

from cachekit._io import BLOCKING, drive
from cachekit.errors import StoreTimeout
from cachekit.events import Kind
from cachekit.sessions import Sessions
from cachekit.sessions.redis import RedisSessions
from cachekit.sessions.store import Key, Moved, Record, new_id, new_version
from cachekit.stores.link import RedisLink
from cachekit.stores.links import connect
from tests.sessions.conftest import WsgiEdge, frozen, options, put

pytestmark = pytest.mark.server

LOOKS = 8


@pytest.fixture
def edge(server, watch, clock):
    """One application on a server, whose page / is known to look at its session."""
    sessions = Sessions(server.url, options(timeout=5.0), clock=clock, observers=[watch])
    made = WsgiEdge(sessions)
    made.one = made.browser()
    made.one.ask(put("n", 1))
    for _ in range(LOOKS):
        assert made.one.look() == {"n": 1}
    yield made
    sessions.close()


def idle(edge) -> int:
    """Return how many connections wait for work."""
    return len(edge.sessions.store.inner.link.node._lanes._idle)


def under_way(edge) -> list[bool]:
    """Note, for each request that looks, whether its session was asked for before."""
    driver, seen = edge.sessions.driver, []
    ahead = driver.keeper.ahead

    def spy(*args, **kwargs):
        asked = ahead(*args, **kwargs)
        seen.append(asked is not None)
        return asked

    driver.keeper.ahead = spy
    return seen


def test_a_page_that_looks_is_asked_for_ahead(edge, commands) -> None:
    seen = under_way(edge)
    with commands() as sent:
        assert edge.one.look() == {"n": 1}
        edge.one.ask(put("n", 2))
        assert edge.one.look() == {"n": 2}
    assert seen == [True] * 3
    assert [name for name in sent if not name.startswith("EVAL")] == ["GETEX"] * 3
    assert idle(edge) == 1


def test_a_page_that_does_not_look_is_not(edge, commands) -> None:
    seen = under_way(edge)
    for _ in range(3):
        edge.one.ask(None, path="/other")
        edge.one.ask(None)  # it did, and does no more
    assert seen == [True]
    with commands() as sent:
        edge.one.ask(None)
    assert sent == []
    assert [edge.one.look() for _ in range(3)] == [{"n": 1}] * 3
    assert idle(edge) == 1


def test_a_connection_whose_answer_nobody_takes_is_used_again(edge) -> None:
    lanes = edge.sessions.store.inner.link.node._lanes
    (lane,) = lanes._idle
    edge.one.ask(lambda _: lane.connection.can_read(timeout=5))  # the answer has come, and nobody looks
    assert lanes._idle == [lane]


def test_strangers_and_forged_cookies_ask_for_nothing(edge, commands) -> None:
    stranger, forged = edge.browser(), edge.browser()
    forged.jar = {name: value[:-3] + "AAA" for name, value in edge.one.jar.items()}
    with commands() as sent:
        assert stranger.look() == forged.look() == {}
    assert sent == []


def test_an_answer_that_nobody_takes_is_given_to_nobody_else(edge) -> None:
    other = edge.browser()
    other.ask(put("n", "other"))
    for _ in range(3):
        for _ in range(LOOKS):
            edge.one.look()
        edge.one.ask(None)  # asked for, and not looked at
        assert other.look() == {"n": "other"}
        assert edge.one.look() == {"n": 1}


def test_an_application_that_fails_leaves_no_answer_behind(edge) -> None:
    def fails(environ, start_response):
        raise OSError("the application fails")

    app, edge.app.app = edge.app.app, fails
    for _ in range(3):
        with pytest.raises(OSError, match="fails"):
            edge.one.ask(None)
        gc.collect()
    edge.app.app = app
    assert edge.one.look() == {"n": 1}


def test_a_page_of_another_that_was_never_sent(edge) -> None:
    """A server may drop a response without closing it; its connection is closed with it."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_COOKIE": edge.one.cookie(), "test": {"do": None}}
    edge.app(environ, lambda *_: None)
    gc.collect()
    assert edge.one.look() == {"n": 1}


def test_what_another_wrote_meanwhile_is_merged(edge) -> None:
    def slow(session) -> None:
        edge.one.copy().ask(put("theirs", 1), path="/elsewhere")
        session["mine"] = 1

    edge.one.ask(slow)
    assert edge.one.look() == {"n": 1, "theirs": 1, "mine": 1}


def test_a_logout_meanwhile_wins(edge) -> None:
    def late(session) -> None:
        edge.one.copy().ask(lambda other: other.clear(), path="/logout", keep=False)
        session["mine"] = 1

    edge.one.ask(late)
    assert edge.one.look() == {}


@pytest.mark.parametrize("how", ["restarted", "frozen", "gone"])
def test_a_server_that_goes_away_in_between(own_server, watch, clock, how) -> None:
    sessions = Sessions(own_server.url, options(timeout=0.2), clock=clock, observers=[watch])
    edge = WsgiEdge(sessions)
    browser = edge.browser()
    browser.ask(put("n", 1))
    for _ in range(LOOKS):
        browser.look()
    seen = under_way(edge)
    ahead = sessions.driver.keeper.ahead

    def lost(*args, **kwargs):
        if how == "frozen":
            return ahead(*args, **kwargs)
        asked = ahead(*args, **kwargs)
        own_server.stop()
        if how == "restarted":
            own_server.start()
        return asked

    sessions.driver.keeper.ahead = lost
    with frozen(own_server) if how == "frozen" else pytest.MonkeyPatch.context():
        found = browser.look(lambda session: (dict(session), session.degraded))
    assert seen == [True]
    if how == "frozen":
        assert found == ({}, True)
        assert len(watch.of(Kind.SESSION_DEGRADED)) == len(watch.of(Kind.BREAKER_OPENED)) == 1
    else:  # the answer may have come before
        assert found in (({"n": 1}, False), ({}, how == "gone"))
    assert browser.ask(None).status == 200
    sessions.close()


# -- the store ---------------------------------------------------------------------------------------------------------


def agree(store, key: Key, ttl: float):
    """Return what a read ahead gives, which is what a read gives."""
    read = drive(store.read(BLOCKING, key, ttl))  # opens the connection
    asked = store.ahead(key, ttl)
    assert asked is not None
    found = asked.take()
    assert found == read
    return found


def test_it_gives_what_a_read_gives(server) -> None:
    store = RedisSessions(RedisLink(server.url, timeout=5.0))
    assert store.ahead(Key.of(new_id()), 60.0) is None, "no connection stands ready"
    key, place = Key.of(new_id()), Key.of(new_id())
    assert agree(store, key, 60.0) is None
    record = Record(b"body", new_version(), 60.0)
    drive(store.write(BLOCKING, key, record, None))
    for ttl in (60.0, 0.0):
        assert agree(store, key, ttl).body == b"body"
    name = store.name(key)
    with server.client() as client:
        client.pexpire(name, 20_000)
        assert store.ahead(key, 60.0).take().version == record.version
        assert client.pttl(name) > 50_000
        drive(store.retire(BLOCKING, key, record, Moved(place, ""), 30.0))
        assert agree(store, key, 60.0) == Moved(place, "")
        assert client.pttl(name) < 31_000, "the note lives no longer for it"
    drive(store.close(BLOCKING))


def test_a_server_that_only_reads(server) -> None:
    store = RedisSessions(RedisLink(server.url, timeout=5.0))
    key = Key.of(new_id())
    drive(store.write(BLOCKING, key, Record(b"body", new_version(), 60.0), None))
    with server.client() as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            with pytest.raises(ResponseError, match="NOREPLICAS"):
                client.getex(store.name(key), px=1000)
            assert store.ahead(key, 60.0).take().body == b"body"
        finally:
            client.config_set("min-replicas-to-write", 0)
    drive(store.close(BLOCKING))


def test_a_time_out_is_one(own_server) -> None:
    store = RedisSessions(RedisLink(own_server.url, timeout=0.2))
    key = Key.of(new_id())
    assert drive(store.read(BLOCKING, key, 60.0)) is None
    with frozen(own_server):
        asked, other = store.ahead(key, 60.0), store.ahead(key, 60.0)
        assert asked is not None and other is None
        with pytest.raises(StoreTimeout):
            asked.take()
    assert drive(store.read(BLOCKING, key, 60.0)) is None
    with frozen(own_server):
        store.ahead(key, 60.0).drop()  # nobody waits
    assert drive(store.read(BLOCKING, key, 60.0)) is None
    drive(store.close(BLOCKING))


def test_on_a_cluster(cluster) -> None:
    store = RedisSessions(connect(cluster.url, timeout=5.0))
    keys = [Key.of(new_id()) for _ in range(20)]
    for key in keys:
        drive(store.write(BLOCKING, key, Record(str(key).encode(), new_version(), 60.0), None))
    asked = {key: store.ahead(key, 60.0) for key in keys}
    taken = {key: one.take() for key, one in asked.items() if one is not None}
    assert len(taken) == 3, "one on each primary: a connection that stands ready"
    assert all(found.body == str(key).encode() for key, found in taken.items())
    key = keys[0]
    source = cluster.owner(store.name(key))
    target = next(member for member in cluster.primaries() if member is not source)
    cluster.move(store.name(key), target, lambda: None)
    assert store.ahead(key, 60.0).take().body == str(key).encode(), "it has moved, and is found all the same"
    cluster.move(store.name(key), source, lambda: None)
    drive(store.close(BLOCKING))


def test_behind_sentinels(sentinels) -> None:
    store = RedisSessions(connect(sentinels.url, timeout=5.0))
    key = Key.of(new_id())
    drive(store.write(BLOCKING, key, Record(b"body", new_version(), 60.0), None))
    assert agree(store, key, 60.0).body == b"body"
    drive(store.close(BLOCKING))
