"""The claims of a session, in a cookie beside Django's own: an outage of the store logs nobody out."""

from __future__ import annotations

import pytest
from cachekit_django import keeping, logins
from cachekit_django.checks import check
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from tests.integrations.django.conftest import OURS, THEIRS, project
from tests.integrations.django.test_sessions import shifted

NAME, CLAIMS = "sessionid", "sessionid_claims"
OWN = "cachekit_django.middleware.SessionMiddleware"
SWAPPED = [*OURS, *(OWN if name.endswith("SessionMiddleware") else name for name in THEIRS)]


def who(request):
    return HttpResponse(f"{request.user.get_username() or 'a stranger'} {request.session.get('role', '')}".strip())


def enter(request):
    request.session["role"] = "staff"
    login(request, User.objects.get(username="ann"), "django.contrib.auth.backends.ModelBackend")
    return HttpResponse("in")


def leave(request):
    logout(request)
    return HttpResponse("out")


def note(request):
    request.session["seen"] = request.session.get("seen", 0) + 1
    return HttpResponse(str(request.session["seen"]))


urlpatterns = [
    path("who", who),
    path("enter", enter),
    path("leave", leave),
    path("note", note),
    path("plain", lambda _: HttpResponse()),
]


@pytest.fixture
def site(rows):
    User.objects.create_user("ann", password="a long password")
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=SWAPPED):
        yield


def text(client, page):
    return client.get(page).content.decode()


def with_claims(server, claims=True, **more):
    return project(server.url, SESSIONS={"CLAIMS": claims, **more})


@pytest.mark.server
def test_an_outage_logs_nobody_out(own_server, site, monkeypatch):
    for _ in with_claims(own_server, ["role"], COUNTERS=["seen"]):
        ann, visitor = Client(), Client()
        entered = ann.get("/enter")
        assert entered.cookies[CLAIMS]["httponly"] and entered.cookies[CLAIMS]["samesite"] == "Lax"
        assert text(ann, "/who") == "ann staff" and text(ann, "/note") == "1"
        assert CLAIMS not in ann.get("/who").cookies, "said once"
        other = Client()
        assert text(other, "/note") == "1"
        own_server.stop()
        assert text(ann, "/who") == "ann staff" and text(visitor, "/who") == "a stranger"
        stolen = Client()
        stolen.cookies[CLAIMS] = ann.cookies[CLAIMS].value
        assert text(stolen, "/who") == "a stranger", "claims count for their own session alone"
        assert stolen.cookies[CLAIMS].value == "", "they are taken away"
        stolen.cookies[NAME], stolen.cookies[CLAIMS] = other.cookies[NAME].value, ann.cookies[CLAIMS].value
        assert text(stolen, "/who") == "a stranger"
        forged = Client()
        forged.cookies[NAME] = ann.cookies[NAME].value
        forged.cookies[CLAIMS] = "x" + ann.cookies[CLAIMS].value[1:]
        assert text(forged, "/who") == "a stranger", "nor do those that nobody has signed"
        assert text(ann, "/note") == "1", "what is not claimed is not known; it is added up at return"
        assert text(visitor, "/enter") == "in" and text(visitor, "/who") == "ann staff", "a login during the outage"
        left = ann.get("/leave")
        assert left.cookies[CLAIMS].value == "" and text(ann, "/who") == "a stranger"


@pytest.mark.server
def test_claims_end(own_server, site, monkeypatch):
    for _ in with_claims(own_server, CLAIMS_TTL="1h"):
        ann, other = Client(), Client()
        text(ann, "/enter"), text(other, "/enter")
        other.cookies[CLAIMS] = ""
        shifted(monkeypatch, 2000)
        renewed = ann.get("/who")
        assert renewed.cookies[CLAIMS].value, "half of the time is over"
        assert CLAIMS in other.get("/who").cookies, "lost, and given anew"
        assert CLAIMS not in ann.get("/plain").cookies, "a page that does not look costs nothing"
        shifted(monkeypatch, 5000)
        own_server.stop()
        assert text(ann, "/who") == "ann"
        assert CLAIMS not in ann.get("/who").cookies, "not renewed by an outage"
        shifted(monkeypatch, 2000 + 3700)
        assert text(ann, "/who") == "a stranger"


@pytest.mark.server
def test_what_the_store_says_holds(own_server, site):
    for _ in with_claims(own_server):
        ann = Client()
        text(ann, "/enter")
        held = {name: morsel.value for name, morsel in ann.cookies.items()}
        assert logins.revoke_all(User.objects.get()) == 1
        assert text(ann, "/who") == "a stranger"
        again = Client()
        again.cookies.load(held)
        assert text(again, "/who") == "a stranger", "claims never overrule a store that answers"


@pytest.mark.server
def test_claims_in_async_views(own_server, site, arun):
    for _ in with_claims(own_server):

        async def main():
            ann = AsyncClient()
            await ann.get("/enter")
            before = (await ann.get("/who")).content
            own_server.stop()
            return before, (await ann.get("/who")).content

        assert arun(main()) == (b"ann staff", b"ann"), "the login is claimed, the role is not"


def test_without_the_setting_it_is_djangos_own(memory, site):
    ann = Client()
    entered = ann.get("/enter")
    assert CLAIMS not in entered.cookies and text(ann, "/who") == "ann staff"


def test_claims_need_the_middleware_and_a_list():
    for _ in project("memory://", SESSIONS={"CLAIMS": True}):
        assert [one.id for one in check()] == ["cachekit.E001"] and "MIDDLEWARE" in check()[0].msg
        with override_settings(MIDDLEWARE=SWAPPED):
            assert check() == [] and keeping.sessions().driver.claimed[0] == "_auth_user_id"
    for wrong in ("role", [1]):
        for _ in project("memory://", SESSIONS={"CLAIMS": wrong}):
            assert "CLAIMS" in check()[0].msg and "True, or a list" in check()[0].msg
