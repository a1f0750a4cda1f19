"""Requests with a key that another request has just changed, as after a login whose answer did not arrive."""

from __future__ import annotations

import django
import pytest
from cachekit_django import adrift, keeping, logins
from cachekit_django.sessions import SessionStore
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from tests.integrations.django.conftest import THEIRS, project
from tests.integrations.django.test_claims import CLAIMS, SWAPPED, text, with_claims
from tests.sessions.aging import grow_older

NAME = "sessionid"


def cart(request):
    request.session["cart"] = request.session.get("cart", 0) + 1
    return HttpResponse(f"cart {request.session['cart']}")


def page(request):
    return HttpResponse(f"hello {request.user.get_username() or 'stranger'}")


def form(request):
    return HttpResponse(get_token(request))


def enter(request):
    if request.method == "GET":
        return form(request)
    login(request, User.objects.get(username="ann"), "django.contrib.auth.backends.ModelBackend")
    if request.GET:
        raise ValueError("a receiver, a template, the database")
    return HttpResponse("in")


def saved(request):
    request.session["cart"] = 9
    request.session.save()
    return HttpResponse(str(request.session.session_key))


def flagged(request):
    request.session.modified = True
    return HttpResponse("flagged")


async def later(request):
    await request.session.aset("cart", 1)
    await request.session.asave()
    return HttpResponse("fine")


urlpatterns = [
    path("cart", cart),
    path("page", page),
    path("form", form),
    path("enter", enter),
    path("saved", saved),
    path("flagged", flagged),
    path("later", later),
    path("plain", lambda _: HttpResponse("plain")),
]


@pytest.fixture
def site(rows):
    User.objects.create_user("ann", password="a long password")
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=THEIRS):
        yield


@pytest.fixture(params=["as it is", "saved every time", "csrf in the session", "both"])
def way(request):
    """The settings under which more is saved."""
    both = request.param == "both"
    with override_settings(
        SESSION_SAVE_EVERY_REQUEST=both or request.param == "saved every time",
        CSRF_USE_SESSIONS=both or request.param == "csrf in the session",
    ):
        yield request.param


def adrift_client(how="the answer was lost"):
    """Return a browser that has an old key: what it was given instead has not arrived."""
    client = Client(raise_request_exception=False)
    client.get("/cart")
    old = client.cookies[NAME].value
    if how == "the view raised":
        assert client.post("/enter?fail=1").status_code == 500
    else:
        client.post("/enter")
        client.cookies[NAME] = old
    assert client.cookies[NAME].value == old
    return client


@pytest.mark.parametrize("how", ["the view raised", "the answer was lost"])
def test_every_page_works_after_a_login_whose_answer_did_not_arrive(url, site, way, how):
    client = adrift_client(how)
    pages = [
        ("/page", "hello stranger"),
        ("/cart", "cart 1"),
        ("/cart", "cart 1"),
        ("/saved", "None"),
        ("/plain", "plain"),
    ]
    pages += [("/flagged", "flagged"), ("/page", "hello stranger")]
    for one, said in pages:
        got = client.get(one)
        assert (got.status_code, got.content.decode()) == (200, said), one
        assert NAME not in got.cookies, "the browser may hold a newer key by now"
        assert ("Cookie" in got.headers.get("Vary", "")) or one in ("/plain", "/flagged")
    assert client.get("/form").status_code == 200
    assert client.post("/enter").content == b"in"
    assert text(client, "/page") == "hello ann"


def test_a_login_in_another_tab_is_not_undone(url, site, way):
    client = Client()
    client.get("/cart")
    other = Client()
    other.cookies[NAME] = client.cookies[NAME].value
    client.post("/enter")
    new = client.cookies[NAME].value
    for one in ("/page", "/cart", "/form", "/saved", "/plain"):
        client.cookies.load(other.get(one).cookies)  # answers that come late
        assert client.cookies[NAME].value == new
    assert (text(client, "/page"), text(client, "/cart")) == ("hello ann", "cart 2"), "nothing was put in from there"
    assert len(logins.of(User.objects.get())) == 1


def test_what_is_dropped_is_counted(url, site):
    client = adrift_client()
    stats = keeping.sessions().stats
    for one, times in (("/page", 0), ("/plain", 0), ("/cart", 1), ("/saved", 2)):
        client.get(one)
        assert stats().events.get("session.discarded", 0) == times, one
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        client.get("/page")
        assert stats().events["session.discarded"] == 2, "nothing was changed"


@pytest.mark.parametrize("every", [False, True])
def test_the_login_form_works_with_its_secret_in_the_session(url, site, every):
    with override_settings(CSRF_USE_SESSIONS=True, SESSION_SAVE_EVERY_REQUEST=every):
        client = adrift_client()
        strict = Client(enforce_csrf_checks=True)
        strict.cookies[NAME] = client.cookies[NAME].value
        tokens = [text(strict, "/enter") for _ in range(2)]
        assert tokens[0] != tokens[1], "masked anew"
        assert strict.post("/enter", {"csrfmiddlewaretoken": "a" * 64}).status_code == 403
        stranger = Client(enforce_csrf_checks=True)
        stranger.get("/enter")
        assert stranger.post("/enter", {"csrfmiddlewaretoken": tokens[0]}).status_code == 403, "for this key alone"
        assert strict.post("/enter", {"csrfmiddlewaretoken": tokens[0]}).content == b"in"
        assert text(strict, "/page") == "hello ann"
        assert strict.post("/enter", {"csrfmiddlewaretoken": tokens[1]}).status_code == 403, (
            "a login changes the secret"
        )


def test_the_secret_follows_from_the_key_and_the_secret_key():
    first = adrift.left("a" * 45)
    assert first == adrift.left("a" * 45) != adrift.left("b" * 45)
    assert {len(value) for value in first.values()} == {32}
    with override_settings(SECRET_KEY="another secret key"):
        assert adrift.left("a" * 45) != first


@pytest.mark.server
def test_after_the_grace_everything_begins_anew(valkey, site, way):
    for _ in project(valkey.url, TIMEOUT=5.0):
        client = adrift_client()
        old = client.cookies[NAME].value
        assert text(client, "/cart") == "cart 1"
        with valkey.client() as server:
            grow_older([server], 31)
        assert [text(client, "/cart") for _ in range(2)] == ["cart 1", "cart 2"]
        assert client.cookies[NAME].value != old


@pytest.mark.server
def test_a_form_that_comes_back_after_the_grace_is_refused_once(valkey, site):
    with override_settings(CSRF_USE_SESSIONS=True):
        for _ in project(valkey.url, TIMEOUT=5.0):
            client = Client(enforce_csrf_checks=True)
            client.cookies[NAME] = adrift_client().cookies[NAME].value
            token = text(client, "/enter")
            with valkey.client() as server:
                grow_older([server], 31)
            assert client.post("/enter", {"csrfmiddlewaretoken": token}).status_code == 403
            token = text(client, "/enter")
            assert client.post("/enter", {"csrfmiddlewaretoken": token}).content == b"in"


def test_who_would_send_the_cookie_after_one_question_is_interrupted(url, site):
    """As Channels does: it asks whether the session is empty, saves, and sends the key."""
    client = adrift_client()
    one = SessionStore(client.cookies[NAME].value)
    one["n"] = 1
    assert one.session_key is None
    assert not one.is_empty()
    with pytest.raises(UpdateError):
        one.save()
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        other = SessionStore(client.cookies[NAME].value)
        assert not other.is_empty()
        with pytest.raises(UpdateError):
            other.save()


def test_what_was_read_before_the_key_changed_is_interrupted(url, site):
    client = Client()
    client.get("/cart")
    one = SessionStore(client.cookies[NAME].value)
    one["n"] = 1
    client.post("/enter")
    assert not one.is_empty()
    with pytest.raises(UpdateError):
        one.save()


@pytest.mark.skipif(django.VERSION < (5, 1), reason="sessions have no awaitable methods before Django 5.1")
def test_it_is_so_in_async_views(url, site, way, arun):
    old = adrift_client().cookies[NAME].value

    async def main():
        client = AsyncClient()
        client.cookies[NAME] = old
        return [await client.get(one) for one in ("/later", "/page", "/cart")]

    got = arun(main())
    assert [one.content for one in got] == [b"fine", b"hello stranger", b"cart 1"]
    assert not any(NAME in one.cookies for one in got)


@pytest.mark.server
def test_the_claims_of_a_newer_login_stay(own_server, site):
    with override_settings(MIDDLEWARE=SWAPPED):
        for _ in with_claims(own_server):
            client = Client()
            client.get("/cart")
            other = Client()
            other.cookies[NAME] = client.cookies[NAME].value
            client.post("/enter")
            other.cookies[CLAIMS] = client.cookies[CLAIMS].value
            for one in ("/page", "/cart"):
                got = other.get(one)
                assert got.status_code == 200 and CLAIMS not in got.cookies and NAME not in got.cookies
