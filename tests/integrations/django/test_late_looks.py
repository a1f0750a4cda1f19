"""Bodies that look at the session while they are sent: what they say of a visitor is for that visitor alone."""

from __future__ import annotations

import io
from contextlib import contextmanager

import httpx
import pytest
from asgiref.sync import sync_to_async
from cachekit_django import Rule, get_asgi_application, get_wsgi_application
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from tests.integrations.django.conftest import OURS, THEIRS, project

pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")  # files, on a loop
SESSIONS = THEIRS[0]
made: list[str] = []


def enter(request):
    request.session["who"] = request.GET["who"]
    return HttpResponse("welcome")


def parts(request):
    yield "hello "
    yield request.session.get("who", "nobody")


async def aparts(request):
    yield "hello "
    yield await sync_to_async(request.session.get)("who", "nobody")


def stream(request):
    made.append(request.path)
    response = StreamingHttpResponse((aparts if hasattr(request, "scope") else parts)(request))
    if said := request.GET.get("control"):
        response["Cache-Control"] = said
    return response


def file(request):
    made.append(request.path)
    return FileResponse(io.BytesIO(b"text " * 1000), content_type="text/plain", headers={"ETag": '"v1"'})


def list_of_parts(request):
    """What Django calls a file, and is none."""
    return FileResponse(parts(request))


def plain(request):
    made.append(request.path)
    return StreamingHttpResponse(part for part in ("a", "b"))


def whole(request):
    made.append(request.path)
    return HttpResponse("hello all")


urlpatterns = [
    path("enter", enter), path("stream", stream), path("file", file), path("parts", list_of_parts), path("whole", whole),
    path("plain", plain),
]  # fmt: skip
ORDERS = {
    "usual": [SESSIONS], "none": [], "encoded": ["django.middleware.gzip.GZipMiddleware", SESSIONS],
    "around": [SESSIONS, "django.middleware.gzip.GZipMiddleware", "django.middleware.http.ConditionalGetMiddleware"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def forget():
    made.clear()


@contextmanager
def in_front(edge, arun, middleware, **rule):
    """Give a function that asks the cache that stands in front of Django, and returns the response."""
    rules = [Rule("/**", ttl="1h", **{"shared": True, **rule})]
    with contextmanager(project)("memory://", RULES=rules):
        with override_settings(MIDDLEWARE=middleware, ROOT_URLCONF=__name__):
            app = get_wsgi_application() if edge == "wsgi" else get_asgi_application()

            async def aask(where, headers):
                async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
                    return await client.get("http://shop" + where, headers=headers)

            def ask(where, cookie="", **headers):
                headers |= {"cookie": cookie} if cookie else {}
                if edge == "asgi":
                    return arun(aask(where, headers))
                with httpx.Client(transport=httpx.WSGITransport(app)) as client:
                    return client.get("http://shop" + where, headers=headers)

            yield ask


def entered(ask, who):
    return ask(f"/enter?who={who}").headers["set-cookie"].partition(";")[0]


edges = pytest.mark.parametrize("edge", ["wsgi", "asgi"])


@edges
@pytest.mark.parametrize("order", ["usual", "encoded", "around"])
@pytest.mark.parametrize("where", ["/stream", "/parts"])
def test_what_streams_is_not_what_others_get(arun, edge, order, where):
    with in_front(edge, arun, ORDERS[order]) as ask:
        cookies = {who: entered(ask, who) for who in ("ann", "bob")}
        plain = (
            {"accept-encoding": "identity"} if edge == "asgi" else {}
        )  # of what Django encodes there, httpx reads a part
        for who in ("ann", "bob", "nobody", "ann"):
            response = ask(where, cookies.get(who, ""), **plain)
            assert response.text == f"hello {who}"
            assert response.headers["cache-control"] == "private" and "Cookie" in response.headers["vary"]


@edges
@pytest.mark.parametrize("control", ["public, max-age=60", "s-maxage=60"])
def test_the_word_of_the_application_counts(arun, edge, control):
    with in_front(edge, arun, ORDERS["usual"]) as ask:
        for _ in range(2):
            assert ask(f"/stream?control={control}").headers["cache-control"] == control
        assert made == ["/stream"]


@edges
@pytest.mark.parametrize("order", ORDERS)
def test_files_and_what_is_whole_are_kept(arun, edge, order):
    with in_front(edge, arun, ORDERS[order]) as ask:
        for where in ("/file", "/whole"):
            for _ in range(2):
                assert "private" not in ask(where, **{"accept-encoding": "gzip"}).headers.get("cache-control", "")
            assert made.count(where) == 1


@edges
@pytest.mark.parametrize("more", [{"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}, {"MIDDLEWARE": []}])
def test_without_a_session_of_ours_streams_are_kept(arun, edge, more):
    with override_settings(**{"SESSION_ENGINE": "cachekit_django.sessions", **more}):
        with in_front(edge, arun, more.get("MIDDLEWARE", ORDERS["usual"])) as ask:
            for _ in range(2):
                assert ask("/plain").text == "ab"
            assert len(made) == 1


@edges
@pytest.mark.parametrize("middleware", [[*OURS, SESSIONS], [SESSIONS, OURS[1]]])
def test_behind_the_middleware_caches_further_out_are_told(memory, arun, edge, middleware):
    async def ask(where):
        return await AsyncClient().get(where)

    with override_settings(MIDDLEWARE=middleware, ROOT_URLCONF=__name__):
        get = Client().get if edge == "wsgi" else lambda where: arun(ask(where))
        response = get("/stream")
        assert response["Cache-Control"] == "private" and "Cookie" in response["Vary"].split(", ")
        assert get("/stream?control=public")["Cache-Control"] == "public"
        assert "Cache-Control" not in get("/file")
