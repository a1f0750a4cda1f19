"""What a request does to its session, through both edges: cookies, commands, conflicts, users, forms."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from cachekit import Cache, CodecError, Kind
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.errors import ConfigError, SessionError, SessionTooLarge
from cachekit.http.rules import Rule
from cachekit.sessions import Sessions
from cachekit.sessions.redis import RedisSessions
from tests.sessions.conftest import InBytes, Swapped, options, put


@pytest.fixture(params=["memory", "valkey", "valkey that swaps", "redis"])
def source(request, monkeypatch):
    """Where the sessions of a test are kept."""
    if request.param == "memory":
        return "memory://"
    if request.param == "valkey that swaps":  # whatever this file does to the time of its process

        def swaps(self, was):
            return self._compares and 0 < len(was.body) <= 512 and was.created > 0

        monkeypatch.setattr(RedisSessions, "swaps", swaps)
    name = "redis_server" if request.param == "redis" else "valkey"
    server = request.getfixturevalue(name)
    with server.client() as client:
        client.flushall()
    return server.url


# -- cookies and headers ----------------------------------------------------------------------------------------------


def test_an_untouched_session_leaves_no_trace(site, source) -> None:
    edge = site(source)
    got = edge.browser().ask(None, headers=[("Cache-Control", "public, max-age=60")])
    assert (got.get("set-cookie"), got.get("vary")) == (None, None)
    assert got.get("cache-control") == "public, max-age=60"
    assert edge.sessions.count() == 0


def test_an_empty_session_that_was_only_read_is_not_kept(site, source) -> None:
    edge = site(source)
    got = edge.browser().ask(len)
    assert (got.get("set-cookie"), got.get("vary"), got.get("cache-control")) == (None, "Cookie", "private")
    assert edge.sessions.count() == 0


def test_what_is_put_in_comes_back(site, source) -> None:
    browser = site(source).browser()
    got = browser.ask(put("cart", [1, (2, 3)]))
    (line,) = got.all("set-cookie")
    assert line.startswith("__Host-session=")
    assert line.split("; ", 1)[1] == "Path=/; HttpOnly; Secure; SameSite=Lax"
    assert browser.look() == {"cart": [1, (2, 3)]}
    assert browser.ask(dict).get("set-cookie") is None
    assert browser.ask(put("more", 1)).get("set-cookie") is None


def test_nested_changes_are_noticed(site, source) -> None:
    browser = site(source).browser()
    browser.ask(put("cart", {"items": [], "tags": {"a", "b", "c"}}))
    browser.ask(lambda session: session["cart"]["items"].append(1))
    browser.ask(lambda session: session["cart"]["tags"].add("d"))
    assert browser.look() == {"cart": {"items": [1], "tags": {"a", "b", "c", "d"}}}


def test_looking_is_not_changing(site, clock) -> None:
    edge = site()
    browser = edge.browser()
    value = {"tags": {f"tag-{n}" for n in range(50)}, "d": {"x": [1.5, None, (1, 2)]}, "f": frozenset({"q", "r", "s"})}
    browser.ask(put("v", value))
    (kept,) = edge.sessions.store.inner._kept.values()
    for look in (dict, len, lambda s: s["v"]["tags"], lambda s: list(s.items()), lambda s: s == {}):
        browser.ask(look)
    assert edge.sessions.store.inner._kept.popitem()[1][1].version == kept[1].version


@pytest.mark.parametrize("said", [None, "public, max-age=60", "s-maxage=60", 'private="x"', "no-cache", "max-age=5"])
def test_what_was_made_by_looking_is_for_one_visitor(site, said) -> None:
    headers = [("Vary", "Accept"), ("CDN-Cache-Control", "max-age=600"), ("Surrogate-Control", "max-age=600")]
    got = site().browser().ask(len, headers=[*headers, ("Cache-Control", said)] if said else headers)
    directives = got.get("cache-control").split(", ")
    assert "private" in directives
    assert not {"public", "s-maxage=60"} & set(directives)
    assert got.get("vary") == "Accept, Cookie"
    assert (got.get("cdn-cache-control"), got.get("surrogate-control")) == (None, None)


def test_the_http_cache_above_never_stores_it(site) -> None:
    rules_say_everything = Cache()
    edge = site(cache=rules_say_everything)
    edge.app.http._driver  # the drop-in is in front
    first, second = edge.browser(), edge.browser()
    for name, browser in (("ann", first), ("bob", second)):
        browser.ask(put("name", name))
    for _ in range(2):
        for name, browser in (("ann", first), ("bob", second)):
            seen = []
            got = browser.ask(
                lambda session, seen=seen: seen.append(session["name"]),
                headers=[("Cache-Control", "public, max-age=600, s-maxage=600")],
            )
            assert seen == [name]
            assert "hit" not in got.get("cache-status")


def test_not_even_where_a_rule_overrides(edge_kind, clock) -> None:
    from cachekit.asgi import CacheKit as Asgi
    from cachekit.sessions import Sessions
    from cachekit.wsgi import CacheKit as Wsgi
    from tests.sessions.conftest import options

    sessions = Sessions("memory://", options(), clock=clock)
    edge = edge_kind(sessions)
    kit = Asgi if edge.kind == "asgi" else Wsgi
    edge.app = kit(
        edge.inner, cache=Cache(clock=clock), rules=[Rule("/", ttl="1h", shared=True, override=True)], sessions=sessions
    )
    for _ in range(3):
        assert edge.browser().look() == {}  # the application runs each time
    made = [("Content-Length", "2")]  # before it is sent: nobody can look any more
    untouched = [edge.browser().ask(None, path="/", headers=made).get("cache-status") for _ in range(3)]
    assert "hit" in untouched[-1]
    edge.close()


def test_what_begins_the_response_comes_late_enough(site) -> None:
    browser = site().browser()
    got = browser.ask(None, between=put("n", 1))
    assert got.get("set-cookie")
    assert browser.look() == {"n": 1}


def test_a_stream_may_change_a_session_whose_id_is_known(site, source) -> None:
    browser = site(source).browser()
    browser.ask(put("steps", [0]))
    browser.ask(len, after=lambda session: session["steps"].append(1))
    assert browser.look() == {"steps": [0, 1]}


def test_it_is_saved_when_the_client_leaves(site, source) -> None:
    browser = site(source).browser()
    browser.ask(put("steps", [0]))
    browser.ask(len, after=lambda session: session["steps"].append(1), leaves=True)
    assert browser.look() == {"steps": [0, 1]}


def test_a_stream_cannot_begin_a_session(site) -> None:
    edge = site()
    with pytest.raises(SessionError, match="the client has no id"):
        edge.browser().ask(len, after=put("n", 1))
    assert edge.sessions.count() == 0
    for change in (lambda s: s.regenerate(), lambda s: s.bind("ann"), lambda s: s.remember()):
        browser = edge.browser()
        browser.ask(put("n", 1))
        with pytest.raises(SessionError, match="the response has begun"):
            browser.ask(len, after=change)


def test_a_shareable_stream_cannot_begin_to_look(site) -> None:
    browser = site().browser()
    browser.ask(put("n", 1))
    public = [("Cache-Control", "public, max-age=60")]
    with pytest.raises(SessionError, match="caches may give to others"):
        browser.ask(None, after=lambda session: session["n"], headers=public)
    browser.ask(None, after=lambda session: session["n"], headers=[("Cache-Control", "private")])
    browser.ask(None, after=lambda session: session["n"], method="POST")


def test_an_error_of_the_server_keeps_nothing_but_a_logout(site, source) -> None:
    browser = site(source).browser()
    browser.ask(put("n", 1))
    browser.ask(put("n", 2), status=500)
    browser.ask(put("n", 3), status=500, after=lambda session: None)
    assert browser.look() == {"n": 1}
    browser.ask(lambda session: session.clear(), status=500)
    assert browser.jar == {}
    assert browser.look() == {}


def test_errors_may_keep_changes_by_option(site) -> None:
    browser = site(save_on_server_error=True).browser()
    browser.ask(put("n", 1), status=503)
    assert browser.look() == {"n": 1}


def test_an_exception_keeps_nothing(site) -> None:
    browser = site().browser()
    browser.ask(put("n", 1))

    def fail(session):
        session["n"] = 2
        raise ValueError("the application failed")

    with pytest.raises(ValueError, match="the application failed"):
        browser.ask(fail)
    assert browser.look() == {"n": 1}


def test_head_and_other_methods(site) -> None:
    browser = site().browser()
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        browser.ask(lambda session, method=method: session.update({method: 1}), method=method)
    assert browser.look() == dict.fromkeys(("HEAD", "POST", "PUT", "DELETE", "OPTIONS"), 1)


# -- lifetimes ---------------------------------------------------------------------------------------------------------


def test_lifetimes(site, clock) -> None:
    edge = site(ttl="24h", absolute_ttl="3d")
    browser = edge.browser()
    browser.ask(put("n", 1))
    for _ in range(5):
        clock.advance(12 * 3600)
        assert browser.look() == {"n": 1}
    clock.advance(12 * 3600 + 1)
    assert browser.look() == {}, "the absolute time-out"
    browser.ask(put("n", 2))
    clock.advance(24 * 3600 + 1)
    assert browser.look() == {}, "idle for too long"
    assert edge.sessions.count() == 0


def test_remember(site, clock) -> None:
    browser = site().browser()
    browser.ask(put("n", 1))
    got = browser.ask(lambda session: session.remember())
    assert "Max-Age=2592000" in got.get("set-cookie")
    clock.advance(20 * 24 * 3600)
    got = browser.ask(dict)
    assert "Max-Age=2592000" in got.get("set-cookie"), "the browser would forget it before the store does"
    assert browser.ask(dict).get("set-cookie") is None
    clock.advance(29 * 24 * 3600)
    assert browser.look() == {"n": 1}
    got = browser.ask(lambda session: session.remember(False))
    assert "Max-Age" not in got.get("set-cookie")
    clock.advance(25 * 3600)
    assert browser.look() == {}


def test_requests_that_do_not_look_may_keep_it_alive(site, clock) -> None:
    browser = site(keep_alive=True).browser()
    browser.ask(put("n", 1))
    for _ in range(4):
        clock.advance(20 * 3600)
        browser.ask(None)
    assert browser.look() == {"n": 1}


def test_last_activity(site, clock) -> None:
    browser = site().browser()
    assert browser.look(lambda s: (s.new, s.created_at, s.last_activity)) == (True, 0.0, 0.0)
    browser.ask(put("n", 1))
    begun = clock()
    clock.advance(500)
    assert browser.look(lambda s: (s.new, s.created_at, s.last_activity)) == (False, begun, begun)
    clock.advance(500)
    assert browser.look(lambda s: s.last_activity) == begun + 500


# -- cookies that are not ours -----------------------------------------------------------------------------------------


def test_an_id_is_never_adopted(site, source) -> None:
    from cachekit.sessions.store import new_id

    edge = site(source)
    browser = edge.browser()
    browser.ask(put("n", 1))
    signed = browser.jar["__Host-session"]
    edge.sessions.driver.cookies
    browser.ask(lambda session: session.clear())
    for cookie in (signed, new_id(), signed[:-1] + ("A" if signed[-1] != "A" else "B"), "", "x" * 5000, "null"):
        other = edge.browser()
        other.jar["__Host-session"] = cookie
        assert other.look() == {}
        other.ask(put("n", 2))
        assert other.jar["__Host-session"].split(".")[0] != cookie.split(".")[0]


def test_a_planted_cookie_does_not_hide_the_valid_one(site) -> None:
    edge = site()
    browser = edge.browser()
    browser.ask(put("n", 1))
    valid = browser.cookie()
    seen = []
    edge.request(lambda session: seen.append(dict(session)), cookie=f"__Host-session=planted; {valid}; other=1")
    assert seen == [{"n": 1}]


def test_secrets_rotate(site, clock) -> None:
    old, new = "o" * 32, "n" * 32
    edges = [site(secrets=secrets) for secrets in ([old], [new, old], [new])]
    for edge in edges[1:]:
        edge.sessions.driver.store.inner = edges[0].sessions.store.inner
    before = edges[0].browser()
    before.ask(put("n", 1))
    for edge, expected in ((edges[1], {"n": 1}), (edges[2], {})):
        before.edge = edge
        assert before.look() == expected
    signed_new = edges[1].browser()
    signed_new.ask(put("n", 2))
    signed_new.edge = edges[2]
    assert signed_new.look() == {"n": 2}
    signed_new.edge = edges[0]
    assert signed_new.look() == {}, "a replica that does not have the secret yet"


def test_development_says_what_it_weakens(site, caplog) -> None:
    line = site(development=True).browser().ask(put("n", 1)).get("set-cookie")
    assert line.startswith("session=") and "Secure" not in line
    assert "plain HTTP" in caplog.text and "__Host-" in caplog.text


def test_attributes(site) -> None:
    line = site(partitioned=True, same_site="none").browser().ask(put("n", 1)).get("set-cookie")
    assert line.endswith("; Path=/; HttpOnly; Secure; SameSite=None; Partitioned")
    line = site(domain="example.com", same_site="strict").browser().ask(put("n", 1)).get("set-cookie")
    assert line.startswith("session=")
    assert line.endswith("; Path=/; Domain=example.com; HttpOnly; Secure; SameSite=Strict")


# -- concurrent requests -----------------------------------------------------------------------------------------------


def test_no_change_of_twenty_writers_is_lost(site, source) -> None:
    edge = site(source, counters=["hits"], sets=["seen"], timeout=10.0)
    browser = edge.browser()
    browser.ask(put("begun", True))
    gate = threading.Barrier(20)

    def work(number):
        def do(session):
            len(session)
            gate.wait(10)
            session[f"k{number}"] = number
            session["hits"] = session.get("hits", 0) + 1
            session["seen"] = session.get("seen", set()) | {number}

        tab = browser.copy()
        tab.edge = type(edge)(edge.sessions)
        tab.ask(do)
        tab.edge.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = browser.look()
    assert found.pop("hits") == 20
    assert found.pop("seen") == set(range(20))
    assert found == {"begun": True, **{f"k{number}": number for number in range(20)}}


def test_a_logout_wins_over_requests_in_flight(site, source, watch) -> None:
    browser = site(source).browser()
    browser.ask(put("user", "ann"))
    for change in (put("late", 1), lambda s: s.regenerate(), lambda s: s.remember(), lambda s: s["user"]):
        in_flight = browser.copy()

        def do(session, change=change):
            len(session)
            browser.ask(lambda other: other.clear(), keep=False)
            change(session)

        got = in_flight.ask(do)
        assert got.get("set-cookie") is None
        assert in_flight.look() == {}
        browser.jar.clear()
        browser.ask(put("user", "ann"))
    assert len(watch.of(Kind.SESSION_DISCARDED)) == 3


def test_a_new_id_kills_the_old_one_at_once_and_keeps_the_data(site, source) -> None:
    edge = site(source)
    browser = edge.browser()
    browser.ask(put("cart", ["x"]))
    old = browser.copy()
    got = browser.ask(lambda session: session.bind("ann"))
    assert got.get("set-cookie")
    assert old.jar != browser.jar
    assert old.look() == {}
    assert browser.look(lambda s: (dict(s), s.user)) == ({"cart": ["x"]}, "ann")
    assert edge.sessions.count() == 1


def test_a_stale_tab_does_not_undo_a_login(site, source) -> None:
    """It sent its request with the old cookie, and is answered after the login: no cookie may come with that."""
    browser = site(source).browser()
    browser.ask(put("cart", ["x"]))
    stale = browser.copy()
    browser.ask(lambda session: session.bind("ann"))
    got = stale.ask(put("theme", "dark"))
    assert got.get("set-cookie") is None
    assert browser.look(lambda s: (dict(s), s.user)) == ({"cart": ["x"]}, "ann")


def during(browser, first, then):
    """Return what an application does whose session is changed by *first* in another tab, and by *then* in this one."""

    def do(session):
        len(session)
        browser.ask(first)
        then(session)

    return do


def test_what_was_under_way_reaches_the_new_id(site, source) -> None:
    browser = site(source).browser()
    browser.ask(put("cart", ["x"]))
    tab = browser.copy()

    def login(session):
        session.bind("ann")
        session["role"] = "customer"

    def late(session):
        session["theme"] = "dark"
        session["role"] = "planted"

    got = tab.ask(during(browser, login, late))
    assert got.get("set-cookie") is None
    assert browser.look() == {"cart": ["x"], "theme": "dark", "role": "customer"}, "what the login wrote stays"


def test_nothing_of_one_user_reaches_another_who_logs_in(site, source, watch) -> None:
    browser = site(source).browser()
    browser.ask(lambda session: session.bind("ann"))
    tab = browser.copy()

    def as_bob(session):
        session.clear()
        session.bind("bob")

    tab.ask(during(browser, lambda session: session.bind("bob"), put("address", "ann's")))
    assert browser.look(lambda s: (dict(s), s.user)) == ({}, "bob")
    assert watch.of(Kind.SESSION_DISCARDED)
    browser.ask(put("secret", "bob's"))
    browser.ask(as_bob)
    assert browser.look(lambda s: (dict(s), s.user)) == ({}, "bob")


def test_a_cookie_of_an_id_that_was_changed_is_not_sent(site, source) -> None:
    browser = site(source).browser()
    browser.ask(put("n", 1))
    tab = browser.copy()
    got = tab.ask(during(browser, lambda session: session.bind("ann"), lambda session: session.remember()))
    assert got.get("set-cookie") is None
    assert browser.look(lambda s: s.user) == "ann"


def test_changes_never_follow_to_somebody_else(site, watch) -> None:
    """Whatever note a store holds."""
    from cachekit._io import BLOCKING, drive
    from cachekit.sessions.payload import About
    from cachekit.sessions.store import Key, Moved, new_id, owner_of

    keeper = site().sessions.driver.keeper
    anns, bobs = Key.of(new_id()), Key.of(new_id())
    ann = drive(keeper.make(BLOCKING, anns, {"a": b"\x01"}, About("ann")))
    drive(keeper.make(BLOCKING, bobs, {"b": b"\x01"}, About("bob")))
    drive(keeper.store.retire(BLOCKING, anns, ann.record, Moved(bobs, owner_of("bob")), 60.0))
    assert drive(keeper.write(BLOCKING, ann, {"a": b"\x02"}, About("ann"))) is None
    assert drive(keeper.read(BLOCKING, bobs, remembered=False)).base == {"b": b"\x01"}
    assert watch.of(Kind.SESSION_DISCARDED)


def test_who_logs_in_over_another_gets_nothing_of_theirs(site, source) -> None:
    edge = site(source)
    browser = logged_in(edge, "ann")
    browser.ask(put("address", "ann's"))
    browser.ask(lambda session: session.bind("ann"))
    assert browser.look() == {"address": "ann's"}
    old = browser.copy()
    browser.ask(lambda session: [session.bind("bob"), session.update(n=1)])
    assert browser.look(lambda s: (dict(s), s.user)) == ({"n": 1}, "bob")
    assert old.look(lambda s: (dict(s), s.user)) == ({}, "")
    assert edge.sessions.of("ann") == []


def test_two_new_ids_race(site, source) -> None:
    """Whichever of the two cookies a browser keeps, it opens a session that holds the data."""
    browser = site(source).browser()
    browser.ask(put("cart", ["x"]))
    tab = browser.copy()

    def login(session):
        session.bind("ann")

    tab.ask(during(browser, login, login))
    assert tab.jar != browser.jar
    for each in (tab, browser):
        assert each.look(lambda s: (dict(s), s.user)) == ({"cart": ["x"]}, "ann")


def test_whoever_planted_an_id_gets_nothing_of_who_logged_in(site, source) -> None:
    """A request that read the session before somebody logged in, and asks for a new id afterwards."""
    victim = site(source).browser()
    victim.ask(put("cart", ["x"]))
    attacker = victim.copy()

    def login(session):
        session.bind("victim")
        session["card"] = "4242"

    attacker.ask(during(victim, login, lambda session: session.regenerate()))
    assert attacker.look(lambda s: (dict(s), s.user)) == ({"cart": ["x"]}, "")
    assert victim.look(lambda s: (dict(s), s.user)) == ({"cart": ["x"], "card": "4242"}, "victim")


def test_two_tabs_log_in_and_out_at_once(site, source) -> None:
    edge = site(source)
    for first, then in (
        (lambda s: s.clear(), lambda s: s.bind("ann")),
        (lambda s: s.bind("ann"), lambda s: s.clear()),
    ):
        browser = edge.browser()
        browser.ask(put("n", 1))
        tab = browser.copy()
        tab.ask(during(browser, first, then))
        assert tab.look(lambda s: s.user) == ""
        assert browser.look(lambda s: s.user) == "", "the logout wins"


# -- the sessions of a user --------------------------------------------------------------------------------------------


def logged_in(edge, user, agent="tests"):
    browser = edge.browser()
    browser.ask(lambda session: session.bind(user), agent=agent)
    return browser


def test_the_sessions_of_a_user(site, source, clock) -> None:
    edge = site(source)
    phones = [logged_in(edge, "ann", agent) for agent in ("Phone/1", "Tablet/2", "Desktop/3")]
    bob = logged_in(edge, "bob")
    found = edge.sessions.of("ann")
    assert {info.agent for info in found} == {"Phone/1", "Tablet/2", "Desktop/3"}
    assert all(info.created_at > 0 and info.last_seen >= info.created_at for info in found)
    assert edge.sessions.count() == 4
    tablet = next(info.handle for info in found if info.agent == "Tablet/2")
    assert edge.sessions.revoke("bob", tablet) is False
    assert edge.sessions.revoke("ann", "nonsense") is False
    assert edge.sessions.revoke("ann", tablet) is True
    assert [browser.look(lambda s: s.user) for browser in phones] == ["ann", "", "ann"]
    ended = []
    phones[0].ask(lambda session: ended.append(edge.sessions.revoke_others(session)))
    assert ended == [1]
    assert [browser.look(lambda s: s.user) for browser in phones] == ["ann", "", ""]
    assert edge.sessions.revoke_all("ann") == 1
    assert [browser.look(lambda s: s.user) for browser in (*phones, bob)] == ["", "", "", "bob"]
    assert (edge.sessions.of("ann"), edge.sessions.count()) == ([], 1)


def test_revoking_wins_over_requests_in_flight(site, source) -> None:
    edge = site(source)
    for change in (put("n", 1), lambda s: s.regenerate(), lambda s: s.remember()):
        browser = logged_in(edge, "ann")

        def do(session, change=change):
            len(session)
            edge.sessions.revoke_all("ann")
            change(session)

        browser.ask(do)
        assert browser.look(lambda s: s.user) == ""
        assert edge.sessions.of("ann") == []


def test_revoking_wins_over_a_change_of_id_that_came_second(site, source) -> None:
    edge = site(source)
    browser = logged_in(edge, "ann")
    tab = browser.copy()

    def do(session):
        len(session)
        browser.ask(lambda other: other.regenerate())
        edge.sessions.revoke_all("ann")
        session.regenerate()

    tab.ask(do)
    assert tab.look(lambda s: s.user) == ""
    assert edge.sessions.of("ann") == []


# -- forms and messages ------------------------------------------------------------------------------------------------


def test_flash_messages_show_once(site, source) -> None:
    browser = site(source).browser()
    browser.ask(lambda session: [session.flash("saved", "ok"), session.flash("twice")])
    assert browser.look(lambda s: s.flashed()) == [("ok", "saved"), ("message", "twice")]
    assert browser.look(lambda s: s.flashed()) == []


def test_a_message_that_comes_while_others_are_shown_is_kept(site, source) -> None:
    browser = site(source).browser()
    browser.ask(lambda session: session.flash("first"))
    browser.ask(during(browser.copy(), lambda s: s.flash("second"), lambda s: s.flashed()))
    assert browser.look(lambda s: s.flashed()) == [("message", "second")]


def test_csrf_tokens(site, source) -> None:
    edge = site(source)
    browser, stranger = edge.browser(), edge.browser()
    token = browser.look(lambda s: s.csrf_token())
    again = browser.look(lambda s: s.csrf_token())
    assert token != again
    for good in (token, again):
        assert browser.look(lambda s, good=good: s.is_csrf_token(good)) is True
    foreign = stranger.look(lambda s: s.csrf_token())
    for bad in (foreign, "", "x" * 86, token[:-2], None, "é", "=" * 86):
        assert browser.look(lambda s, bad=bad: s.is_csrf_token(bad)) is False
    in_the_answer = browser.look(lambda s: [s.bind("ann"), s.csrf_token()][1])
    assert browser.look(lambda s: s.is_csrf_token(in_the_answer)) is True
    assert browser.look(lambda s: s.is_csrf_token(token)) is False


# -- sizes, codecs, what cannot be read ---------------------------------------------------------------------------------


def test_the_bound(site, source) -> None:
    edge = site(source, max_bytes=10_000)
    browser = edge.browser()
    browser.ask(put("text", "x" * 9_900))
    with pytest.raises(SessionTooLarge, match=r"'text' with .* bytes") as caught:
        browser.ask(put("more", "y" * 200))
    assert caught.value.limit == 10_000 < caught.value.size
    assert browser.look() == {"text": "x" * 9_900}


def test_a_value_that_cannot_be_stored_says_where_it_is(site) -> None:
    browser = site().browser()
    with pytest.raises(CodecError, match=r"session\['f'\] cannot be stored"):
        browser.ask(put("f", {"deep": [lambda: 1]}))
    with pytest.raises(SessionError, match="keys of a session are strings"):
        browser.ask(lambda session: session.update({1: 2}))


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_compression(site, compression) -> None:
    edge = site(compression=compression)
    browser = edge.browser()
    browser.ask(put("text", "abc " * 5000))
    ((_, record),) = edge.sessions.store.inner._kept.values()
    assert len(record.body) < 4000
    assert browser.look() == {"text": "abc " * 5000}
    browser.ask(lambda session: [session.pop("text"), session.update(n=1)])
    assert browser.look() == {"n": 1}


def test_replicas_with_other_compression_read_each_other(site, source) -> None:
    one, other = site(source, compression="zstd"), site(source)
    other.sessions.driver.store.inner = one.sessions.store.inner
    browser = one.browser()
    browser.ask(put("text", "abc " * 5000))
    browser.edge = other
    assert browser.look(lambda s: len(s["text"])) == 20_000


def test_encryption_at_rest(site, source, watch) -> None:
    from cachekit import Encryption

    old, new = bytes(32), bytes([1]) * 32
    edge = site(source, protection=Encryption([old]))
    browser = edge.browser()

    def login(session):
        session.bind("ann@example.com")
        session["card"] = "4242 4242"

    browser.ask(login, agent="Browser of Ann")
    if source == "memory://":
        ((_, record),) = edge.sessions.store.inner._kept.values()
        kept = record.owner.encode() + record.body
    else:
        import redis

        with redis.Redis(unix_socket_path=source.removeprefix("unix://")) as client:
            kept = b"".join(client.dump(name) + name for name in client.keys("*"))
    for plain in (b"4242", b"card", b"ann@example.com", b"Browser of Ann"):
        assert plain not in kept
    assert [info.agent for info in edge.sessions.of("ann@example.com")] == ["Browser of Ann"]
    for keys, expected in (([new, old], "4242 4242"), ([new], None)):
        other = site(source, protection=Encryption(keys))
        other.sessions.driver.store.inner = edge.sessions.store.inner
        reader = browser.copy()
        reader.edge = other
        assert reader.look(lambda s: s.get("card")) == expected
    assert watch.of(Kind.UNREADABLE)


def test_sessions_that_are_not_protected_alike_do_not_read_each_other(site, source, watch) -> None:
    from cachekit import Encryption

    plain, sealed = site(source), site(source, protection=Encryption([bytes(32)]))
    sealed.sessions.driver.store.inner = plain.sessions.store.inner
    for writer, reader in ((plain, sealed), (sealed, plain)):
        browser = writer.browser()
        browser.ask(lambda session: session.bind("ann"))
        browser.ask(put("n", 1))
        watch.events.clear()
        browser.edge = reader
        assert browser.look() == {}
        assert ["protection" in event.detail for event in watch.of(Kind.UNREADABLE)] == [True]
        assert len(reader.sessions.of("ann")) > 0, "it can be revoked all the same"


def test_a_key_that_is_no_text(site, source) -> None:
    browser = site(source).browser()
    browser.ask(put("n", 1))
    for key in ("\ud800", "n\udfff"):
        with pytest.raises(CodecError, match="a key of a session cannot be stored"):
            browser.ask(put(key, 1))
    assert browser.look() == {"n": 1}


def test_a_sealed_session_cannot_be_put_in_the_place_of_another(site) -> None:
    from cachekit import Encryption

    edge = site(protection=Encryption([bytes(32)]))
    ann, bob = edge.browser(), edge.browser()
    ann.ask(put("name", "ann"))
    bob.ask(put("name", "bob"))
    kept = edge.sessions.store.inner._kept
    (a, (until, first)), (b, (_, second)) = list(kept.items())
    kept[b] = (until, second._replace(body=first.body))
    assert ann.look() == {"name": "ann"}
    assert bob.look() == {}


def test_a_payload_that_cannot_be_read_is_a_new_session(site, source, watch, clock) -> None:
    edge = site(InBytes(clock=clock) if source == "memory://" else source)
    browser = edge.browser()
    browser.ask(put("n", 1))
    inner = edge.sessions.store.inner
    if source == "memory://":
        key, (until, record) = next(iter(inner._kept.items()))
        inner._kept[key] = (until, record._replace(body=record.body[:-3] + b"???"))
    else:
        import redis

        with redis.Redis(unix_socket_path=source.removeprefix("unix://")) as client:
            (name,) = client.keys("*:s:*")
            client.setrange(name, client.strlen(name) - 3, b"???")
    before = browser.cookie()
    got = browser.ask(len)
    assert got.status == 200
    assert len(watch.of(Kind.UNREADABLE)) == 1
    browser.ask(put("n", 2))
    assert browser.cookie() != before
    assert browser.look() == {"n": 2}


def test_a_deploy_that_changes_a_stored_class(site, source, watch) -> None:
    @dataclass
    class Profile:
        name: str

    def codec(fields):
        made = MsgpackCodec()
        made.register(fields, name="Profile")
        return made

    old = site(source, codec=codec(Profile))
    browser = old.browser()
    browser.ask(lambda session: session.update(profile=Profile("Ann"), user=7))
    before = Profile

    @dataclass
    class Profile:  # the new release
        name: str
        age: int

    new = site(source, codec=codec(Profile))
    new.sessions.driver.store.inner = old.sessions.store.inner
    browser.edge = new
    assert browser.look() == {"user": 7}
    assert watch.of(Kind.UNREADABLE)
    browser.ask(put("seen", True))
    browser.edge = old  # replicas of the old release still run
    assert browser.look() == {"user": 7, "seen": True, "profile": before("Ann")}
    browser.edge = new
    browser.ask(put("profile", Profile("Ann", 30)))
    assert browser.look() == {"user": 7, "seen": True, "profile": Profile("Ann", 30)}


def test_clocks_of_replicas_may_differ(site, source, clock) -> None:
    """An hour apart: nobody is logged out early, and nothing lives for ever."""
    from cachekit.testing import ManualClock

    one = site(source, absolute_ttl="3h")
    other = site(source, absolute_ttl="3h", clock=ManualClock(clock() + 3600))
    other.sessions.driver.store.inner = one.sessions.store.inner
    browser = one.browser()
    browser.ask(put("n", 1))
    for edge in (other, one, other):
        browser.edge = edge
        browser.ask(put("at", edge.sessions.driver.clock()))
        assert browser.look(lambda s: s["n"]) == 1


def test_only_sessions_are_taken_for_sessions() -> None:
    from cachekit.asgi import CacheKit

    async def app(scope, receive, send): ...

    with pytest.raises(ConfigError, match="must be a cachekit.sessions.Sessions"):
        CacheKit(app, cache=Cache(), sessions="redis://localhost")


# -- without sliding ------------------------------------------------------------------------------------------------------


def test_without_sliding_only_changes_keep_a_session_alive(site, clock) -> None:
    edge = site("memory://", ttl=100, sliding=False)
    browser = edge.browser()
    browser.ask(put("n", 1))
    clock.advance(60)
    assert browser.look() == {"n": 1}
    clock.advance(60)
    assert browser.look() == {}
    browser.ask(put("n", 1))
    clock.advance(60)
    browser.ask(put("n", 2))
    clock.advance(60)
    assert browser.look() == {"n": 2}


@pytest.mark.server
def test_without_sliding_looking_costs_one_command_and_no_touch(site, clock, server, commands) -> None:
    edge = site(server.url, sliding=False)
    browser = edge.browser()
    browser.ask(put("n", 1))
    clock.advance(3600)
    with commands() as seen:
        assert browser.look() == {"n": 1}
    assert seen == ["GET"]


@pytest.mark.parametrize("value", ["no", 0, None])
def test_sliding_is_yes_or_no(value) -> None:
    with pytest.raises(ConfigError, match="sliding=.* must be True or False"):
        options(sliding=value)


def test_keeping_alive_without_sliding_is_refused() -> None:
    with pytest.raises(ConfigError, match="contradict"):
        options(keep_alive=True, sliding=False)


def test_everybody_ends(site, source) -> None:
    edge = site(source)
    browsers = [edge.browser() for _ in range(3)]
    for number, browser in enumerate(browsers):
        browser.ask(lambda session, number=number: session.bind(number))
    assert edge.sessions.end_all() == 3
    assert [browser.look(lambda session: session.user) for browser in browsers] == [""] * 3
    assert edge.sessions.count() == 0


def test_what_others_wrote_stays_when_a_request_changes_more_after_its_head(site, source) -> None:
    """The first change of the request met another writer's; the second one knows nothing of that."""
    edge = site(source)
    browser = edge.browser()
    browser.ask(put("mine", 0))
    other = browser.copy()

    def both(session):
        session["mine"] = 1
        other.ask(put("theirs", 1))

    browser.ask(both, after=put("later", 1))
    assert browser.look() == {"mine": 1, "theirs": 1, "later": 1}


def test_what_one_request_changes_another_does_not_see_before_it_is_kept(site, source) -> None:
    """Both read the same bytes, and what was made of them is remembered."""
    edge = site(source)
    browser = edge.browser()
    browser.ask(lambda session: session.update(n=0, cart=["kettle"], gone=1))
    other, seen = browser.copy(), []

    def change(session):
        session["cart"].append("pot")
        session["n"] = 1
        del session["gone"]
        seen.append(other.look())

    browser.ask(change)
    assert seen == [{"n": 0, "cart": ["kettle"], "gone": 1}]
    assert browser.look() == {"n": 1, "cart": ["kettle", "pot"]}


@pytest.mark.parametrize("gone", ["cart", "n"])
def test_a_key_that_goes_while_another_comes_is_noticed(site, source, gone) -> None:
    browser = site(source).browser()
    browser.ask(lambda session: session.update(cart=[1], n=2))

    def change(session):
        assert session[gone]
        del session[gone]
        session["new"] = [1]

    browser.ask(change)
    left = {"cart": [1], "n": 2, "new": [1]}
    del left[gone]
    assert browser.look() == left


def test_options_are_options() -> None:
    """A secret alone is what one writes first."""
    with pytest.raises(ConfigError, match=r"must be SessionOptions\(secrets=\.\.\.\), not str"):
        Sessions("memory://", "a long random text, not this one")


# -- stores that compare what is there ----------------------------------------------------------------------------------


@pytest.fixture
def swapped(site, clock, monkeypatch):
    """A site whose store swaps, and what it was asked to: in place of which version, and whether it did."""
    inner = Swapped(clock=clock)
    asked = []

    async def swap(io, key, was, body, version):
        done = await Swapped.swap(inner, io, key, was, body, version)
        asked.append((was.version, version, done))
        return done

    monkeypatch.setattr(inner, "swap", swap)
    return site(inner), asked


def test_each_change_of_a_request_is_put_in_place_of_the_one_before(swapped) -> None:
    edge, asked = swapped
    browser = edge.browser()
    browser.ask(put("n", 1))
    browser.ask(put("n", 2), after=put("n", 3))
    browser.ask(put("n", 4))
    assert browser.look() == {"n": 4}
    versions = [version for _, version, _ in asked]
    assert [was for was, _, _ in asked[1:]] == versions[:-1]
    assert [done for _, _, done in asked] == [True] * 3


def test_another_life_is_not_swapped_in(swapped) -> None:
    edge, asked = swapped
    browser = edge.browser()
    browser.ask(put("n", 1))
    browser.ask(lambda session: session.remember())
    ((_, record),) = edge.sessions.store.inner._kept.values()
    assert (record.ttl, asked) == (30 * 86400.0, [])
    browser.ask(put("n", 2))
    assert [done for _, _, done in asked] == [True]


def test_who_comes_second_does_not_try_that_again(swapped) -> None:
    """The script that says what is there would have kept it as well."""
    edge, asked = swapped
    browser = edge.browser()
    browser.ask(put("n", 1))
    tab = browser.copy()
    tab.ask(during(browser, put("other", 2), put("mine", 3)))
    assert [done for _, _, done in asked] == [True, False]
    assert browser.look() == {"n": 1, "other": 2, "mine": 3}
