"""Stores that are killed, frozen, full, read-only, restarted empty, or fail in between: each has its stated outcome."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from cachekit import Cache, Kind
from cachekit.degrade import DegradeOptions
from cachekit.errors import StoreError, StoreUnavailable
from cachekit.sessions import Sessions
from cachekit.sessions.cookie import Ticket
from cachekit.sessions.store import new_id
from tests.conftest import PATIENCE
from tests.sessions.conftest import LONGEST_PAUSE, frozen, options, put

pytestmark = pytest.mark.server

TIMEOUT = 0.25
AT_ONCE = 0.1


@pytest.fixture
def patience():
    """Long enough for a busy machine, short enough for servers that freeze."""
    return 1.0


def back(edge, clock) -> None:
    """Let the breaker's pause pass, and everything that waits be delivered."""
    clock.advance(LONGEST_PAUSE)
    deadline = time.monotonic() + PATIENCE
    while edge.sessions.deliver() or edge.sessions.stats().waiting:
        assert time.monotonic() < deadline, "it never arrived"
        edge.request(None)  # lets a loop that delivers go on


def test_killed_and_back(own_server, site, clock, watch) -> None:
    """Requests go on with sessions of this process; a server that comes back empty knows nobody, and logs nobody in."""
    edge = site(own_server.url)
    browser, fresh = edge.browser(), edge.browser()
    browser.ask(put("cart", ["x"]))
    own_server.stop()
    assert browser.look(lambda s: (dict(s), s.degraded, s.new)) == ({}, True, False)
    browser.ask(put("cart", ["y"]))
    assert browser.look() == {"cart": ["y"]}
    got = fresh.ask(put("n", 1))
    assert got.get("set-cookie")
    assert fresh.look(lambda s: (dict(s), s.degraded)) == ({"n": 1}, True)
    assert edge.sessions.stats().degraded_mode >= 4
    assert edge.sessions.stats().waiting == 2
    assert edge.sessions.store_away() is True
    assert edge.sessions.retry_after() > 0
    with pytest.raises(StoreUnavailable):
        edge.sessions.count()
    own_server.start()
    back(edge, clock)
    assert fresh.look(lambda s: (dict(s), s.degraded)) == ({"n": 1}, False)
    assert browser.look() == {}, "the server lost it, and what has ended is not brought back"
    assert edge.sessions.store_away() is False
    assert watch.of(Kind.SESSION_RETURNED) and watch.of(Kind.SESSION_DISCARDED)
    got = fresh.ask(dict)
    assert got.get("set-cookie") is None, "the cookie without the mark of the outage was sent in the request before"


@pytest.fixture(params=["asgi", "wsgi"])
def dropped_in(request):
    """Calls an application behind ``CacheKit``, and returns the status and the headers."""

    def make(**given):
        if request.param == "asgi":
            from cachekit.asgi import CacheKit as AsgiKit

            runner = asyncio.Runner()
            request.addfinalizer(runner.close)
            request.addfinalizer(lambda: runner.run(given["sessions"].aclose()))

            async def aapp(scope, receive, send):
                await scope["session"].load()
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"fine"})

            asgi = AsgiKit(aapp, **given)

            def get(path, cookie=""):
                sent = []

                async def send(message):
                    sent.append(message)

                async def receive():
                    return {"type": "http.request", "body": b"", "more_body": False}

                scope = {
                    "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
                    "headers": [(b"host", b"test"), (b"cookie", cookie.encode())], "scheme": "https", "http_version": "1.1",
                    "server": ("test", 443), "asgi": {"version": "3.0"}, "root_path": "",
                }  # fmt: skip
                runner.run(asgi(scope, receive, send))
                return sent[0]["status"], {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}

            return get

        from cachekit.wsgi import CacheKit as WsgiKit

        def app(environ, start_response):
            dict(environ["cachekit.session"])
            start_response("200 OK", [])
            return [b"fine"]

        wsgi = WsgiKit(app, **given)

        def get(path, cookie=""):
            heads = []
            environ = {
                "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "HTTP_COOKIE": cookie,
                "SERVER_NAME": "test", "SERVER_PORT": "443", "HTTP_HOST": "test", "wsgi.url_scheme": "https",
                "SERVER_PROTOCOL": "HTTP/1.1",
            }  # fmt: skip
            body = wsgi(environ, lambda status, headers, exc_info=None: heads.append((status, headers)))
            b"".join(body)
            if hasattr(body, "close"):
                body.close()
            return int(heads[0][0][:3]), {name.lower(): value for name, value in heads[0][1]}

        return get

    return make


def test_protected_paths_are_refused_while_the_session_store_is_away(own_server, dropped_in, clock) -> None:
    """The cache is in memory and well: the sessions of the drop-in count by themselves."""
    sessions = Sessions(own_server.url, options(timeout=1.0), clock=clock)
    cookie = f"{sessions.options.cookie}={sessions.driver.cookies.issue(Ticket(new_id(), 0.0), clock())}"
    get = dropped_in(
        cache=Cache(), sessions=sessions, degradation=DegradeOptions(protected=["/account"], retry_after=7)
    )
    assert get("/account", cookie)[0] == 200
    own_server.stop()
    for _ in range(3):  # what the breaker takes to open
        assert get("/open", cookie)[0] == 200
    assert sessions.store_away()
    status, headers = get("/account", cookie)
    assert (status, headers["retry-after"], headers["content-type"]) == (503, "7", "application/problem+json")
    assert "sessions-away" in headers["cache-status"]
    assert get("/open", cookie)[0] == 200
    own_server.start()
    clock.advance(LONGEST_PAUSE)
    assert get("/account", cookie)[0] == 200, "the protected path itself finds the store back"
    assert not sessions.store_away()
    sessions.close()


def test_a_source_of_that_name_that_somebody_gave_stays() -> None:
    own = DegradeOptions(sources={"sessions": bool}).watching("sessions", lambda: True)
    assert own.sources["sessions"] is bool


def test_frozen_and_back(own_server, site, clock) -> None:
    """One request waits for the time-out, the next do not; what they changed is merged into what is there."""
    edge = site(own_server.url, counters=["hits"], timeout=TIMEOUT)
    browser = edge.browser()
    browser.ask(lambda session: session.update(cart=["x"], hits=1))
    with frozen(own_server):
        started = time.monotonic()
        browser.ask(lambda session: session.update(seen="during"))
        assert time.monotonic() - started < 2 * TIMEOUT
        started = time.monotonic()
        for _ in range(20):
            browser.ask(lambda session: session.update(hits=session.get("hits", 0) + 1))
        assert time.monotonic() - started < AT_ONCE * 5
    back(edge, clock)
    assert browser.look() == {"cart": ["x"], "hits": 21, "seen": "during"}


def test_changes_made_meanwhile_may_be_dropped(own_server, site, clock) -> None:
    edge = site(own_server.url, at_return="drop")
    browser = edge.browser()
    browser.ask(put("cart", ["x"]))
    with frozen(own_server):
        browser.ask(put("cart", ["y"]))
        assert browser.look() == {"cart": ["y"]}
    back(edge, clock)
    assert browser.look() == {"cart": ["x"]}


def test_it_is_delivered_behind_other_requests(own_server, site, clock, patient) -> None:
    edge = site(own_server.url)
    browser, other = edge.browser(), edge.browser()
    browser.ask(put("n", 1))
    other.ask(put("o", 1))
    with frozen(own_server):
        browser.ask(put("n", 2))
    clock.advance(LONGEST_PAUSE)

    def delivered():
        other.ask(dict)
        return edge.sessions.stats().waiting == 0

    patient(delivered)
    assert browser.look() == {"n": 2}


def test_a_logout_while_the_store_is_away_is_not_forgotten(own_server, site, clock) -> None:
    edge = site(own_server.url)
    browser = edge.browser()
    browser.ask(lambda session: session.bind("ann"))
    thief = browser.copy()
    with frozen(own_server):
        browser.ask(lambda session: session.clear())
        assert browser.jar == {}
        assert thief.look(lambda s: s.user) == ""
    clock.advance(LONGEST_PAUSE)
    assert thief.look(lambda s: s.user) == "", "it is delivered before the session is read"
    assert edge.sessions.of("ann") == []


def under_way(edge, browser):
    """Return a request of *browser* that has looked at its session and goes on."""
    exchange = edge.sessions.driver.open([browser.cookie()])
    len(exchange.session)
    return exchange


def test_requests_that_meet_while_the_store_is_away_lose_nothing(own_server, site, clock) -> None:
    edge = site(own_server.url, counters=["hits"])
    browser = edge.browser()
    browser.ask(lambda session: session.update(hits=1, old=True))
    first, second, last = (under_way(edge, browser) for _ in range(3))
    with frozen(own_server):
        del first.session["old"]
        for name, exchange in (("a", first), ("b", second)):  # they had looked before
            exchange.session[name] = 1
            exchange.session["hits"] += 1
            exchange.begin_response(200, [])
        assert browser.look() == {"hits": 3, "a": 1, "b": 1}
        third, fourth = under_way(edge, browser), under_way(edge, browser)  # these look at what is held here
        del fourth.session["b"]
        for name, exchange in (("c", third), ("d", fourth), ("e", last)):
            exchange.session[name] = 1
            exchange.session["hits"] += 1
            exchange.begin_response(200, [])
        second.session["late"] = 1
        second.end_response()
        assert browser.look() == {"hits": 6, "a": 1, "c": 1, "d": 1, "e": 1, "late": 1}
    back(edge, clock)
    assert browser.look(lambda s: (dict(s), s.degraded)) == (
        {"hits": 6, "a": 1, "c": 1, "d": 1, "e": 1, "late": 1}, False,
    )  # fmt: skip


def test_what_was_delivered_meanwhile_is_not_added_again(own_server, site, clock) -> None:
    edge = site(own_server.url, counters=["hits"])
    browser = edge.browser()
    browser.ask(put("hits", 1))
    with frozen(own_server):
        browser.ask(put("hits", 2))  # of which nothing is known here: two more
        late = under_way(edge, browser)
    back(edge, clock)
    late.session["hits"] += 1
    late.begin_response(200, [])
    back(edge, clock)
    assert browser.look() == {"hits": 4}


@pytest.mark.parametrize("end", ["clear", "login"])
def test_a_logout_or_login_while_the_store_is_away_wins_over_other_requests(
    own_server, site, clock, watch, end
) -> None:
    edge = site(own_server.url)
    browser = edge.browser()
    browser.ask(put("n", 1))
    old, early = browser.copy(), under_way(edge, browser)
    with frozen(own_server):
        browser.ask(put("m", 2))
        late = under_way(edge, browser)
        browser.ask(lambda session: session.clear() if end == "clear" else session.bind("ann"))
        for exchange in (early, late):
            exchange.session["x"] = 1
            assert not [value for name, value in exchange.begin_response(200, []) if name == "Set-Cookie"]
        assert len(watch.of(Kind.SESSION_DISCARDED)) == 2
        assert old.look() == {}
    back(edge, clock)
    assert old.look() == {}
    assert browser.look() == ({} if end == "clear" else {"n": 1, "m": 2})


def test_a_login_while_the_store_is_away(own_server, site, clock) -> None:
    edge = site(own_server.url)
    browser = edge.browser()
    browser.ask(put("cart", ["x"]))
    old = browser.copy()
    with frozen(own_server):
        browser.ask(lambda session: [session.bind("ann"), session.update(role="customer")])
        assert browser.look(lambda s: (s.user, s["role"])) == ("ann", "customer")
        assert old.look() == {}
    back(edge, clock)
    assert browser.look(lambda s: (dict(s), s.user)) == ({"cart": ["x"], "role": "customer"}, "ann")
    assert [info.handle for info in edge.sessions.of("ann")] == [browser.look(lambda s: s.handle)]
    assert old.look() == {}


def test_a_logout_elsewhere_wins_over_what_was_changed_here(own_server, site, clock) -> None:
    here, elsewhere = site(own_server.url), site(own_server.tcp, timeout=5.0)
    browser = here.browser()
    browser.ask(put("n", 1))
    with frozen(own_server):
        browser.ask(put("n", 2))
    there = browser.copy()
    there.edge = elsewhere
    there.ask(lambda session: session.clear())
    back(here, clock)
    assert browser.look() == {}
    assert here.sessions.count() == 0


def test_claims_keep_everybody_logged_in(own_server, site, clock) -> None:
    """In every replica, without any of them having seen the session before."""
    one, other = (site(own_server.url, claims=["role"]) for _ in range(2))
    browser = one.browser()

    def login(session):
        session.bind("ann")
        session.update(role="admin", cart=["x"])

    browser.ask(login)
    with frozen(own_server):
        browser.edge = other
        assert browser.look(lambda s: (dict(s), s.user, s.degraded)) == ({"role": "admin"}, "ann", True)
        browser.ask(put("note", 1))
        clock.advance(24 * 3600 + 1)
        stale = browser.copy()
        stale.edge = one
        assert stale.look(lambda s: (dict(s), s.user)) == ({}, ""), "claims that nobody has renewed are not believed"
        clock.advance(-24 * 3600 - 1)
    back(other, clock)
    assert browser.look() == {"role": "admin", "cart": ["x"], "note": 1}
    browser.ask(lambda session: session.clear())
    assert browser.cookie() == ""


def test_a_login_while_the_store_is_away_holds_whoever_delivers_first(own_server, site, clock) -> None:
    """Another process has the cookie, and knows no user: in no index, the session would escape a revocation."""
    one, other = site(own_server.url), site(own_server.url)
    browser = one.browser()
    with frozen(own_server):
        browser.ask(lambda session: [session.bind("ann"), session.update(cart=1)])
        browser.edge = other
        browser.ask(put("note", 1))
    back(other, clock)
    back(one, clock)
    assert browser.look(lambda s: (dict(s), s.user)) == ({"cart": 1, "note": 1}, "ann")
    assert len(one.sessions.of("ann")) == 1
    assert one.sessions.revoke_all("ann") == 1
    assert browser.look() == {}


def test_claims_do_not_outlive_a_revocation(own_server, site) -> None:
    edge = site(own_server.url, claims=["role"])
    browser = edge.browser()
    browser.ask(lambda session: [session.bind("ann"), session.update(role="admin")])
    edge.sessions.revoke_all("ann")
    assert browser.look(lambda s: (dict(s), s.user)) == ({}, "")


def test_a_full_server_still_reads_and_what_it_refuses_waits(own_server, site, clock) -> None:
    edge = site(own_server.url)
    browser, fresh = edge.browser(), edge.browser()
    browser.ask(put("n", 1))
    with own_server.client() as client:
        client.config_set("maxmemory", 1)
        client.config_set("maxmemory-policy", "noeviction")
        assert browser.look(lambda s: (dict(s), s.degraded)) == ({"n": 1}, False)
        browser.ask(put("n", 2))
        assert browser.look(lambda s: (dict(s), s.degraded)) == ({"n": 2}, True)
        fresh.ask(put("m", 1))
        assert edge.sessions.stats().waiting == 2
        assert edge.sessions.stats().store == "ok"
        client.config_set("maxmemory", 0)
    assert browser.look(lambda s: (dict(s), s.degraded)) == ({"n": 2}, False)
    back(edge, clock)
    assert fresh.look() == {"m": 1}


def test_a_replica_still_reads(own_server, site, clock) -> None:
    edge = site(own_server.url)
    browser = edge.browser()
    browser.ask(put("n", 1))
    with own_server.client() as client:
        client.config_set("replica-serve-stale-data", "yes")
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert browser.look() == {"n": 1}
        browser.ask(put("n", 2))
        assert browser.look() == {"n": 2}
        client.execute_command("REPLICAOF", "NO", "ONE")
    back(edge, clock)
    assert browser.look(lambda s: (dict(s), s.degraded)) == ({"n": 2}, False)


def test_a_restart_with_its_data_costs_nobody_anything(own_server, site, watch) -> None:
    edge = site(own_server.url)
    browser = edge.browser()
    browser.ask(put("n", 1))
    with own_server.client() as client:
        client.save()
    own_server.stop()
    own_server.start()
    assert browser.look(lambda s: (dict(s), s.degraded)) == ({"n": 1}, False)
    assert watch.of(Kind.SESSION_DEGRADED) == []


@pytest.mark.parametrize("change", ["write", "bind", "clear", "look"])
def test_a_store_that_fails_between_read_and_save(own_server, site, clock, change) -> None:
    edge = site(own_server.url)
    browser = edge.browser()
    browser.ask(put("n", 1))

    def do(session):
        len(session)
        own_server.stop()
        {
            "write": lambda: session.update(m=2),
            "bind": lambda: session.bind("ann"),
            "clear": session.clear,
            "look": lambda: None,
        }[change]()

    got = browser.ask(do)
    assert got.status == 200
    expected = {"write": {"n": 1, "m": 2}, "bind": {"n": 1}, "clear": {}, "look": {}}[change]
    assert browser.look() == expected
    own_server.start()
    back(edge, clock)


def test_what_is_held_here_is_bounded(own_server, site, watch) -> None:
    edge = site(own_server.url, max_local=5)
    own_server.stop()
    browsers = [edge.browser() for _ in range(8)]
    for number, browser in enumerate(browsers):
        browser.ask(put("n", number))
    assert edge.sessions.stats().waiting == 5
    assert len(watch.of(Kind.SESSION_DISCARDED)) == 3
    assert browsers[-1].look() == {"n": 7}


def test_every_method_says_that_the_store_is_away(own_server, site) -> None:
    edge = site(own_server.url)
    own_server.stop()
    for call in (
        lambda: edge.sessions.of("ann"),
        lambda: edge.sessions.revoke_all("ann"),
        lambda: edge.sessions.count(),
    ):
        with pytest.raises(StoreError):
            call()


def test_no_store_at_the_start_is_no_error(own_server, site, clock) -> None:
    own_server.stop()
    edge = site(own_server.url)
    browser = edge.browser()
    browser.ask(put("n", 1))
    own_server.start()
    back(edge, clock)
    assert browser.look(lambda s: (dict(s), s.degraded)) == ({"n": 1}, False)


def test_the_cache_and_its_sessions_learn_from_each_other(own_server, site) -> None:
    """One of them waits for the time-out, not both."""
    from cachekit import Cache

    cache = Cache(own_server.url, timeout=TIMEOUT)
    edge = site(cache)
    edge.browser().ask(put("n", 1))
    browser = edge.browser()
    browser.ask(put("n", 1))
    with frozen(own_server):
        cache.get("anything")
        started = time.monotonic()
        browser.ask(dict)
        assert time.monotonic() - started < AT_ONCE
    cache.close()


def test_a_change_that_arrived_although_nobody_heard_of_it_is_not_made_twice(own_server, site, clock) -> None:
    """The server freezes between the read and the save, and carries the save out when it thaws."""
    edge = site(own_server.url, counters=["hits"])
    browser = edge.browser()
    for _ in range(2):  # the server knows the scripts
        browser.ask(lambda session: session.update(hits=session.get("hits", 0) + 1))

    def do(session):
        session["hits"] += 1
        os.kill(own_server.process.pid, signal.SIGSTOP)

    try:
        browser.ask(do)
        browser.ask(lambda session: session.update(hits=session["hits"] + 1))
    finally:
        os.kill(own_server.process.pid, signal.SIGCONT)
    back(edge, clock)
    assert browser.look() == {"hits": 4}
