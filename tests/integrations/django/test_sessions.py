"""The session engine: what Django promises of one, and what only ours does. Django's own tests run in the matrix."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time

import django
import pytest
from cachekit_django import conf, keeping, logins
from cachekit_django.checks import check, check_deployed
from cachekit_django.sessions import SessionStore
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.messages.storage.session import SessionStorage
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings

from cachekit import ConfigError
from cachekit.errors import CodecError, SessionTooLarge, StoreError
from tests.conftest import PATIENCE
from tests.integrations.django.conftest import project

awaitable = pytest.mark.skipif(django.VERSION < (5, 1), reason="sessions have no awaitable methods before Django 5.1")
NAME = "sessionid"


def test_a_session_has_all_that_django_gives_to_one() -> None:
    """Ours begins without ``SessionBase.__init__``: a Django that sets more there has to be heard of."""
    assert set(vars(SessionBase())) == {"_SessionBase__session_key", "accessed", "modified", "serializer"}
    one = SessionStore()
    assert (one.accessed, one.modified, one.session_key) == (False, False, None)
    assert type(one.serializer()) is type(SessionBase().serializer())
    with override_settings(SESSION_SERIALIZER="tests.integrations.django.test_sessions.Serializer"):
        assert SessionStore().serializer is Serializer


class Serializer:
    """One of a project's own."""


def kept(**values):
    """Return a saved session with *values*."""
    one = SessionStore()
    one.update(values)
    one.save()
    return one


def again(one):
    return SessionStore(one.session_key)


def ask(do, key=None, agent="Browser/1"):
    """Call *do* with the session of a request behind Django's middleware, and return the response."""

    def view(request):
        made = do(request)
        return made if isinstance(made, HttpResponse) else HttpResponse("fine")

    request = RequestFactory().get("/", HTTP_USER_AGENT=agent)
    if key is not None:
        request.COOKIES[NAME] = key
    return SessionMiddleware(view)(request)


# What is kept


def test_what_is_put_in_comes_back(url):
    when = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    values = {"n": 1, "cart": [1, (2, 3)], "when": when, "tags": {"a", "b"}, "name": "é"}
    assert dict(again(kept(**values)).items()) == values


def test_changes_deep_inside_are_noticed(url):
    one = kept(cart={"kettle": 1})
    other = again(one)
    other["cart"]["kettle"] += 1
    assert other.modified
    other.save()
    third = again(one)
    assert third["cart"] == {"kettle": 2} and not third.modified
    third["cart"]["kettle"] = 9
    third["x"] = 1
    third.modified = False  # said expressly: it holds
    assert not third.modified


def test_messages_of_django(url):
    request = RequestFactory().get("/")
    request.session = SessionStore()
    storage = SessionStorage(request)
    storage.add(20, "Welcome.")
    storage.update(HttpResponse())
    request.session.save()
    request.session = again(request.session)
    assert [str(message) for message in SessionStorage(request)] == ["Welcome."]


def test_the_session_cache_that_others_look_into(memory):
    one = kept(a=1, b=2)
    other = again(one)
    assert not hasattr(other, "_session_cache")
    other._session_cache = {"b": 3}
    other.save()
    assert dict(again(one).items()) == {"b": 3}
    other["x"] = 1
    del other._session_cache
    assert dict(other.items()) == {"b": 3}


def test_clear_keeps_the_key_and_drops_the_data(url):
    one = kept(a=1)
    other = again(one)
    other.clear()
    other.save()
    assert other.session_key == one.session_key
    assert dict(again(one).items()) == {} and one.exists(one.session_key)


def test_too_large_and_not_to_be_kept(memory):
    one = SessionStore()
    one["small"], one["report"] = 1, "x" * 2_000_000
    with pytest.raises(SessionTooLarge, match="'report' with 2000005 bytes"):
        one.save()
    one["report"] = object()
    with pytest.raises(CodecError, match="report"):
        one.save()


# Concurrent requests


def test_concurrent_requests_lose_nothing(url):
    first = kept(common=[1])
    barrier = threading.Barrier(20)

    def write(number):
        other = again(first)
        other[f"n{number}"] = number
        barrier.wait()
        other.save()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(again(first).items()) == {"common": [1], **{f"n{n}": n for n in range(20)}}


@awaitable
def test_concurrent_requests_lose_nothing_async(url, arun):
    async def main():
        first = SessionStore()
        await first.aset("a", 1)
        await first.acreate()
        others = [SessionStore(first.session_key) for _ in range(20)]
        for number, other in enumerate(others):
            await other.aset(f"n{number}", number)
        await asyncio.gather(*(other.asave() for other in others))
        assert await first.aexists(first.session_key)
        assert len(await again(first).akeys()) == 21
        await first.aflush()
        assert first.session_key is None
        assert not await again(others[0]).aexists(others[0].session_key)
        with pytest.raises(UpdateError):
            await others[1].aset("late", 1)
            await others[1].asave()

    arun(main())


def test_counters_and_sets_are_added_up(memory):
    with override_settings(CACHEKIT={"URL": memory, "SESSIONS": {"COUNTERS": ["hits"], "SETS": ["seen"]}}):
        one = kept(hits=0, seen=[])
        others = [again(one) for _ in range(3)]
        for number, other in enumerate(others):
            other["hits"] += 1
            other["seen"] = [*other["seen"], number]
        for other in others:
            other.save()
        assert again(one)["hits"] == 3 and sorted(again(one)["seen"]) == [0, 1, 2]


def test_a_logout_wins_over_a_request_in_flight(url):
    key = kept(a=1).session_key

    def late(request):
        request.session["late"] = 1
        ask(lambda other: other.session.flush(), key)

    from django.contrib.sessions.exceptions import SessionInterrupted

    with pytest.raises(SessionInterrupted):
        ask(late, key)
    assert not SessionStore().exists(key)
    late = SessionStore(key)
    late["x"] = 1
    late.save()
    assert late.session_key != key, "what is gone is not begun again under the same key"


def test_a_session_that_was_deleted_is_not_saved_again(url):
    one = kept(a=1)
    one.delete()
    one["b"] = 1
    for _ in range(2):
        with pytest.raises(UpdateError):
            one.save()
    assert not one.exists(one.session_key)
    assert one.load() == {} and one.session_key is None


def test_must_create(url):
    one = kept(a=1)
    with pytest.raises(CreateError):
        again(one).save(must_create=True)
    two = again(one)
    two.create()
    assert two.session_key != one.session_key and dict(again(two).items()) == {"a": 1}
    assert one.exists(one.session_key), "as Django has it: create() ends nothing"


@pytest.mark.parametrize("key", ["a" * 32, "3f" + "A" * 43, "x" * 5000, "é" * 45, "short", ""])
def test_a_made_up_key_is_not_adopted(url, key):
    one = SessionStore(key)
    one["x"] = 1
    one.save()
    assert one.session_key != key and len(one.session_key) == 45
    assert not one.exists(key)


def test_the_store_does_not_tell_keys(server):
    for _ in project(server.url):
        one = kept(_auth_user_id="4711", secret="s")
        with server.client() as client:
            names = [name.decode() for name in client.scan_iter()]
            assert names and not any(one.session_key in name or "4711" in name for name in names)
        cache.clear()
        assert one.exists(one.session_key)


# Keys


def test_another_key_keeps_the_data_and_the_old_one_opens_nothing(url):
    one = kept(cart=1)
    old = one.session_key
    one.cycle_key()
    assert one.session_key != old
    assert not one.exists(old) and dict(SessionStore(old).items()) == {}
    assert dict(again(one).items()) == {"cart": 1}
    one["more"] = 1
    one.save()
    assert dict(again(one).items()) == {"cart": 1, "more": 1}


def test_a_request_under_way_while_the_key_changes(url):
    """What it changed is not lost; it is told to stop, and its answer touches no cookie."""
    from django.contrib.sessions.exceptions import SessionInterrupted

    one = kept(cart=1)
    old, new = one.session_key, []

    def in_flight(request):
        request.session["more"] = 1
        other = SessionStore(old)
        other.cycle_key()
        new.append(other)

    with pytest.raises(SessionInterrupted):
        ask(in_flight, old)
    assert dict(again(new[0]).items()) == {"cart": 1, "more": 1}
    response = ask(lambda request: request.session.get("cart"), old)
    assert NAME not in response.cookies, "a late request must not take away the cookie of the new key"
    response = ask(lambda request: request.session.update({"x": 1}), old)
    assert NAME not in response.cookies and "x" not in again(new[0]), "see test_adrift.py"


def test_two_requests_change_the_key_at_once(url):
    one = kept(cart=1)
    first, second = again(one), again(one)
    assert first["cart"] == second["cart"]
    first.cycle_key()
    second.cycle_key()
    assert first.session_key != second.session_key
    assert again(first)["cart"] == again(second)["cart"] == 1


# Users


@pytest.fixture
def ann(rows):
    return User.objects.create_user("ann", password="x")


def test_the_sessions_of_a_user(url, ann):
    keys = []

    def log_in(request):
        request.session["cart"] = len(keys)
        login(request, ann)
        keys.append(request.session.session_key)

    cookies = [ask(log_in, agent=f"Browser/{number}").cookies[NAME].value for number in range(3)]
    assert cookies == keys, "the key that receivers of user_logged_in see is the one that stays"
    found = logins.of(ann)
    assert sorted(one.agent for one in found) == ["Browser/0", "Browser/1", "Browser/2"]
    assert logins.count() == 3 and logins.of(ann.pk + 1) == []
    here = SessionStore(cookies[0])
    assert here.user == str(ann.pk) and here.handle in {one.handle for one in found}
    last = next(one for one in found if one.agent == "Browser/2")
    assert logins.revoke(ann, last.handle) and not logins.revoke(ann.pk, last.handle)
    assert here.revoke_others() == 1
    assert [here.exists(key) for key in cookies] == [True, False, False]
    assert here["cart"] == 0
    assert logins.revoke_all(ann) == 1 and logins.count() == 0


def test_a_login_of_a_visitor_whose_session_is_kept(url, ann):
    old = kept(cart=1).session_key
    seen = []

    def receive(request, **_):
        seen.append(request.session.session_key)

    user_logged_in.connect(receive)
    try:
        response = ask(lambda request: login(request, ann), old)
    finally:
        user_logged_in.disconnect(receive)
    new = response.cookies[NAME].value
    assert seen == [new] != [old]
    assert SessionStore(new)["cart"] == 1 and SessionStore(new).user == str(ann.pk)
    assert not SessionStore().exists(old)
    assert len(logins.of(ann)) == 1 == logins.count()


def test_another_user_in_the_same_browser(url, ann):
    bob = User.objects.create_user("bob", password="x")
    first = ask(lambda request: login(request, ann)).cookies[NAME].value

    def change(request):
        request.session["of-ann"] = 1
        login(request, bob)

    second = ask(change, first).cookies[NAME].value
    assert logins.of(ann) == [] and len(logins.of(bob)) == 1
    assert "of-ann" not in SessionStore(second) and not SessionStore().exists(first)


def test_a_user_put_in_by_hand(url):
    """As impersonation does, and tests do: no signal is sent."""
    one = kept(_auth_user_id="7")
    assert len(logins.of(7)) == 1
    one["_auth_user_id"] = "8"
    one.save()
    assert logins.of(7) == [] and len(logins.of("8")) == 1
    assert again(one)["_auth_user_id"] == "8"


@awaitable
def test_users_async(url, ann, arun):
    from django.contrib.auth import alogin

    async def main():
        stores = []
        for _ in range(2):
            request = RequestFactory().get("/")
            request.session = SessionStore()
            await alogin(request, ann)
            await request.session.asave()
            stores.append(request.session)
        assert len(await logins.aof(ann)) == 2 == await logins.acount()
        assert await stores[0].arevoke_others() == 1
        (left,) = await logins.aof(ann)
        assert await logins.arevoke(ann, left.handle)
        await stores[1].aflush()
        assert await logins.arevoke_all(ann) == await logins.aend_all() == 0

    arun(main())


def test_a_login_through_the_whole_of_django(url, ann):
    client = Client()
    assert client.login(username="ann", password="x")
    assert len(logins.of(ann)) == 1
    assert client.get("/count").content == b"1"
    assert client.get("/count").content == b"2"
    client.logout()
    assert logins.of(ann) == [] and logins.count() == 0


@awaitable
def test_async_views(url, arun):
    async def view(request):
        await request.session.aset("n", await request.session.aget("n", 0) + 1)
        return HttpResponse(str(await request.session.aget("n")))

    async def main():
        key = None
        for number in (b"1", b"2", b"3"):
            request = RequestFactory().get("/")
            if key is not None:
                request.COOKIES[NAME] = key
            response = await SessionMiddleware(view)(request)
            assert response.content == number
            key = response.cookies[NAME].value

    arun(main())


# Lifetimes


def test_each_session_lives_as_long_as_it_was_told(url):
    """The store's own clock counts: none of these can be waited for, so what the store was told is looked at."""

    def life(**given):
        one = SessionStore()
        one["x"] = 1
        one.set_expiry(given["expiry"]) if given else None
        one.save()
        held = again(one)
        held.get("x")
        return held._exchange._held.record.ttl

    assert life() == 14 * 86400
    assert life(expiry=300) == 300
    assert life(expiry=0) == 14 * 86400
    assert life(expiry=365 * 86400) == 365 * 86400
    assert 3500 < life(expiry=dt.timedelta(hours=1)) <= 3600


def test_an_expiry_in_the_past_ends_it(url):
    one = kept(x=1)
    one.set_expiry(-5)
    one.save()
    assert not one.exists(one.session_key)


def test_commands(server, commands):
    for _ in project(server.url):
        one = kept(n=0)
        for _ in range(2):  # the server learns the script, and says whether it can do without
            other = again(one)
            other["n"] += 1
            other.save()
        with commands() as seen:
            ask(lambda request: None, one.session_key)
        assert seen == [], "a view that does not look costs none"
        with commands() as seen:
            ask(lambda request: request.session["n"], one.session_key)
        assert seen == ["GET"]
        with commands() as seen:
            ask(lambda request: request.session.update({"n": 5}), one.session_key)
        assert seen == ["GET", "SET" if server.name == "valkey" else "EVALSHA"]
        with commands() as seen:
            ask(lambda request: None)
        assert seen == []
        with override_settings(SESSION_SAVE_EVERY_REQUEST=True), commands() as seen:
            for _ in range(3):
                assert NAME in ask(lambda request: request.session["n"], one.session_key).cookies
        assert seen == ["GET"] * 3, "sliding is said to the store once an interval"


def shifted(monkeypatch, seconds):
    """Let this process believe that so many seconds have passed."""
    now = time.time
    driver = keeping.sessions().driver
    monkeypatch.setattr(driver, "clock", lambda: now() + seconds)


def test_sliding(server, commands, monkeypatch):
    for url in project(server.url, SESSIONS={"SLIDING": True}):
        one = kept(n=0)
        one.set_expiry(3600)
        one.save()
        assert NAME not in ask(lambda request: request.session["n"], one.session_key).cookies
        shifted(monkeypatch, 120)
        with commands() as seen:
            response = ask(lambda request: request.session["n"], one.session_key)
        assert seen in (["GET", "EVALSHA"], ["GET", "EVALSHA", "EVAL"]), "noted as used"
        assert response.cookies[NAME]["max-age"] == 3600, "and the cookie lives on with it"
        with commands() as seen:
            ask(lambda request: request.session["n"], one.session_key)
        assert seen == ["GET"]
    for url in project(server.url):
        assert url
        shifted(monkeypatch, 120)
        assert NAME not in ask(lambda request: request.session["n"], one.session_key).cookies


def test_touching_by_hand(server, commands):
    for _ in project(server.url):
        one = kept(n=0)
        other = again(one)
        other.modified = True
        other.get("n")
        with commands() as seen:
            other.save()
        assert seen in (["EVALSHA"], ["EVALSHA", "EVAL"])
        one.delete()
        with pytest.raises(UpdateError):
            other.save()


# While the store is away


@pytest.mark.server
def test_while_the_store_is_away(own_server, monkeypatch):
    for _ in project(own_server.url):
        one = kept(user=1)
        before = again(one)
        assert before["user"] == 1 and not before.degraded
        own_server.stop()
        response = ask(lambda request: request.session.get("user"), one.session_key)
        assert response.status_code == 200 and NAME not in response.cookies, "nobody's cookie is taken away"
        other = again(one)
        other["cart"] = [1]
        other.save()
        assert other.degraded and other.session_key == one.session_key
        assert dict(again(one).items()) == {"cart": [1]}, "it goes on in this process"
        before["more"] = 1
        before.save()
        fresh = kept(begun="here")
        assert again(fresh)["begun"] == "here" and fresh.exists(fresh.session_key)
        gone = kept(x=1)
        gone.flush()
        with pytest.raises(StoreError):
            logins.count()
        own_server.start()
        shifted(monkeypatch, 60)
        sessions = keeping.sessions()
        monkeypatch.setattr(sessions.store._breaking, "_clock", sessions.driver.clock)
        deadline = time.monotonic() + PATIENCE
        while sessions.deliver():
            assert time.monotonic() < deadline
        assert again(fresh)["begun"] == "here" and not again(fresh).degraded


@pytest.mark.server
def test_a_store_that_was_away_gets_what_was_changed(own_server, monkeypatch):
    from tests.sessions.conftest import frozen

    for _ in project(own_server.url, TIMEOUT=1.0):
        one = kept(user=1, n=1)
        one.set_expiry(365 * 86400)
        one.save()
        with frozen(own_server):
            other = again(one)
            other["cart"] = [1]
            other.save()
            assert other.degraded
        shifted(monkeypatch, 60)
        sessions = keeping.sessions()
        monkeypatch.setattr(sessions.store._breaking, "_clock", sessions.driver.clock)
        deadline = time.monotonic() + PATIENCE
        while sessions.deliver():
            assert time.monotonic() < deadline
        back = again(one)
        assert dict(back.items()) == {"user": 1, "n": 1, "cart": [1], "_session_expiry": 365 * 86400}
        assert back._exchange._held.record.ttl == 365 * 86400, "nobody here knew how long it lives: that stays"


# Settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"CACHEKIT": {"URL": "memory://", "SESSIONS": {"SLIDNG": True}}}, "did you mean SLIDING"),
        ({"CACHEKIT": {"URL": "memory://", "SESSIONS": {"SLIDING": 1}}}, "SLIDING=1 must be True or False"),
        ({"CACHEKIT": {"URL": "memory://", "SESSIONS": {"MAX_BYTES": 0}}}, "max_bytes=0 must be positive"),
        ({"CACHEKIT": {"URL": "memory://", "SESSIONS": {"NAMESPACE": "x"}}}, "NAMESPACE without a URL"),
        ({"CACHEKIT": {"URL": "memory://", "SESSIONS": {"URL": "mem://"}}}, "unknown URL scheme"),
        ({"CACHEKIT": {"URL": "memory://", "SESSIONS": 5}}, "must be a dictionary"),
        ({"SESSION_CACHE_ALIAS": "other"}, "SESSION_CACHE_ALIAS='other' must be one of CACHES: default"),
        ({"SESSION_COOKIE_AGE": "x"}, "SESSION_COOKIE_AGE='x' must be"),
        (
            {
                "SESSION_CACHE_ALIAS": "other",
                "CACHES": {
                    "default": {"BACKEND": "cachekit_django.CacheBackend"},
                    "other": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
                },
            },
            "BACKEND must be cachekit_django.CacheBackend, not django.core.cache.backends.locmem",
        ),
    ],
)
def test_wrong_settings_are_named(memory, given, message):
    with override_settings(**given):
        (found,) = [str(one.msg) for one in check() if one.id == "cachekit.E001"]
        assert message in found
        with pytest.raises(ConfigError):
            SessionStore()


def test_where_sessions_are_kept(server, memory):
    caches = {
        "default": {"BACKEND": "cachekit_django.CacheBackend", "LOCATION": "memory://"},
        "visitors": {"BACKEND": "cachekit_django.CacheBackend", "LOCATION": server.url},
    }

    def there():
        with server.client() as client:
            return sum(b":s:{" in name for name in client.scan_iter())

    with override_settings(CACHES=caches):
        kept(x=1)
        assert there() == 0
        assert [one.id for one in check_deployed()] == ["cachekit.W003"]
    with override_settings(CACHES=caches, SESSION_CACHE_ALIAS="visitors"):
        one = kept(x=1)
        assert there() == 1 and check_deployed() == []
    with override_settings(CACHEKIT={"URL": "memory://", "SESSIONS": {"URL": server.url, "NAMESPACE": "mine"}}):
        kept(x=1)
        assert there() == 2
        keeping.sessions().close()
    locmem = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with override_settings(CACHES=locmem, CACHEKIT={"URL": server.url}):
        assert dict(again(one).items()) == {"x": 1}, "the server of CACHEKIT, where the default cache is another's"
    for made in conf._made.values():
        made.close()
