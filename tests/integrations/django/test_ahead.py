"""Sessions that are asked for when the request comes, while Django finds the view; nothing of it outlives its request."""

from __future__ import annotations

import gc
import sys
import types

import pytest

pytest.importorskip("hiredis")  # without its parser nothing is asked ahead

from cachekit_django import keeping
from cachekit_django.pages import page
from cachekit_django.sessions import SessionStore
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

pytestmark = pytest.mark.server

LOOKS = 8


def look(request):
    return HttpResponse(str(request.session.get("n", 0)))


def count(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return HttpResponse(str(request.session["n"]))


def leave(request):
    """End it without having looked at it, and look at what is there then."""
    request.session.flush()
    return HttpResponse(str(request.session.get("n", 0)))


def turn(request):
    request.session.cycle_key()
    return HttpResponse(str(request.session["n"]))


async def later(request):
    return HttpResponse(str(await request.session.aget("n", 0)))


def other(request):
    return HttpResponse(str(SessionStore(request.GET["key"]).get("n", 0)))


def nothing(request):
    if "look" in request.GET:
        return look(request)
    return HttpResponse("-")


@pytest.fixture
def site(shared_url):
    """A browser whose session has n=1, and each page of the site known to look."""
    module = types.ModuleType("pages_that_look")
    views = {view.__name__: view for view in (look, count, leave, turn, later, other)}
    module.urlpatterns = [*(path(name, view) for name, view in views.items()), path("", nothing)]
    sys.modules[module.__name__] = module
    middleware = ["django.contrib.sessions.middleware.SessionMiddleware"]
    with override_settings(ROOT_URLCONF=module.__name__, MIDDLEWARE=middleware):
        client = Client()
        assert client.get("/count").content == b"1"
        habits = driver().habits
        for name in views:
            for _ in range(LOOKS):
                habits.learn(habits.shape("GET", f"/{name}"), looked=True)
        yield client
    del sys.modules[module.__name__]


def driver():
    return keeping.sessions().driver


def under_way():
    """Note, for each session, whether it was asked for before somebody looked."""
    keeper, seen = driver().keeper, []
    ahead = keeper.ahead

    def spy(*args, **kwargs):
        asked = ahead(*args, **kwargs)
        seen.append(asked is not None)
        return asked

    keeper.ahead = spy
    return seen


def idle():
    gc.collect()
    return len(keeping.sessions().store.inner.link.node._lanes._idle)


def test_a_page_that_looks_is_asked_for_ahead(site):
    seen = under_way()
    assert [site.get(where).content for where in ("/look", "/count", "/look")] == [b"1", b"2", b"2"]
    assert seen == [True] * 3
    assert idle() == 1


def test_what_nobody_took_is_given_back_with_the_response(site):
    habits = driver().habits
    for _ in range(LOOKS):
        habits.learn(habits.shape("GET", "/"), looked=True)
    seen = under_way()
    response = site.get("/")
    assert seen == [True]
    assert not response.wsgi_request.session.accessed, "it is held on to, as by an exception"
    assert len(keeping.sessions().store.inner.link.node._lanes._idle) == 1
    assert response.wsgi_request.session["n"] == 1, "who looks late reads it then"


def test_it_is_learned_from_what_pages_do(site):
    def ask(where):
        assert site.get(where).status_code == 200
        gc.collect(1)  # the test client's requests are cycles: they end now

    seen = under_way()
    for _ in range(LOOKS):
        ask("/?look")
    assert seen == []
    ask("/?look")
    assert seen == [True]
    ask("/")  # in vain
    ask("/?look")
    assert seen == [True, True]
    for _ in range(LOOKS):
        ask("/")
    assert seen == [True, True]
    for _ in range(LOOKS - 1):
        ask("/?look")
    ask("/")  # so they are not in a row
    ask("/?look")
    ask("/?look")
    assert seen == [True, True]
    assert idle() == 1


@pytest.mark.parametrize(("where", "answer", "connections"), [("/leave", b"0", 2), ("/turn", b"1", 1)])
def test_a_session_that_ends_or_gets_another_key_while_it_is_on_the_way(site, where, answer, connections):
    seen, before = under_way(), site.cookies["sessionid"].value
    assert site.get(where).content == answer
    assert seen[:1] == [True]
    assert idle() == connections, "the reply that nobody wanted is read, and its connection is free"
    assert not SessionStore().exists(before)
    assert site.cookies["sessionid"].value != before


def test_another_session_that_the_view_looks_at(site):
    stranger = SessionStore()
    stranger["n"] = 7
    stranger.save()
    seen = under_way()
    assert site.get("/other", {"key": stranger.session_key}).content == b"7"
    assert site.get("/look").content == b"1"
    assert seen[0] is True
    assert idle() <= 2


def test_a_key_that_nobody_has(site):
    site.cookies["sessionid"] = "no such key"
    seen = under_way()
    assert site.get("/look").content == b"0"
    assert seen == []


def test_under_asgi_nobody_waits_for_a_socket(site, arun):
    async def main():
        client = AsyncClient()
        client.cookies = site.cookies
        return [(await client.get(where)).content for where in ("/later", "/look")]

    seen = under_way()
    assert arun(main()) == [b"1", b"1"]
    assert seen == []
    site.get("/look")  # which opens a connection
    seen.clear()
    assert site.get("/later").content == b"1", "an async view under WSGI"
    assert seen == [True]


def test_outside_of_a_request_nothing_is_foreseen(site):
    site.get("/look")
    seen = under_way()
    assert page() == ("", "")
    assert SessionStore(site.cookies["sessionid"].value)["n"] == 1
    assert seen == []


def test_claims_come_first(site, shared_url):
    """The second cookie says what is believed while the store is away: it is read before anything is asked for."""
    middleware = ["cachekit_django.middleware.SessionMiddleware"]
    with override_settings(CACHEKIT={"URL": shared_url, "SESSIONS": {"CLAIMS": ["n"]}}, MIDDLEWARE=middleware):
        client = Client()
        client.get("/count")
        assert "sessionid_claims" in client.cookies
        for _ in range(LOOKS):
            client.get("/look")
        gc.collect(1)  # the test client's requests are cycles
        seen = under_way()
        response = client.get("/look")
        assert (response.content, seen) == (b"1", [True])
        assert "sessionid_claims" not in response.cookies, "it is known what the browser has"
