from __future__ import annotations

import asyncio
import io

from asgiref.sync import iscoroutinefunction
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.middleware.locale import LocaleMiddleware
from django.shortcuts import render
from django.urls import path
from django.utils.decorators import sync_and_async_middleware
from django.utils.translation import gettext
from django.views import View

import cachekit

calls: list[str] = []


def product(request, number):
    calls.append(request.path)
    cachekit.tag(f"product:{number}")
    response = JsonResponse({"calls": len(calls)})
    response["Cache-Control"] = "public, max-age=60"
    return response


def spoken(request):
    """Answer in the language that is active: of the cookie of Django's ``set_language``, or what the browser prefers."""
    calls.append("spoken")
    response = HttpResponse(gettext("Yes") if request.method == "GET" else "changed")
    response["Cache-Control"] = request.GET.get("control", "public, max-age=60")
    return response


class Chosen(LocaleMiddleware):
    """A project's own."""


def members(get_response):
    """Know users by a field of the project's own, as packages for tokens do."""

    def recognise(request):
        name = request.headers.get("X-Member")
        if name:
            request.user = User(username=name)

    async def acall(request):
        recognise(request)
        return await get_response(request)

    def call(request):
        recognise(request)
        return get_response(request)

    return acall if iscoroutinefunction(get_response) else call


members = sync_and_async_middleware(members)


def who(request):
    return HttpResponse(f"page of {request.user.username or 'a stranger'}" if "look" in request.GET else "page")


async def aproduct(request, number):
    await asyncio.sleep(0)
    return product(request, number)


class Page(View):
    def get(self, request):
        return product(request, 7)

    def post(self, request):
        return HttpResponse("changed")


def stream(request):
    response = StreamingHttpResponse((part for part in [b"a" * 1000, b"b" * 1000]), content_type="text/plain")
    response["Cache-Control"] = "public, max-age=60"
    calls.append("stream")
    return response


async def astream(request):
    async def parts():
        for part in (b"a" * 1000, b"b" * 1000):
            yield part

    return StreamingHttpResponse(parts(), content_type="text/plain")


def big(request):
    response = HttpResponse("text " * 1000, content_type="text/plain")
    response.set_cookie("seen", "yes")
    response["ETag"] = '"v1"'
    return response


def count(request):
    calls.append("count")
    request.session["n"] = request.session.get("n", 0) + 1
    return HttpResponse(str(request.session["n"]))


def form(request):
    """Claims to be for everybody, and is not."""
    calls.append(request.path)
    what = request.GET["of"]
    text = get_token(request) if what == "token" else request.session.setdefault("mine", str(len(calls)))
    return HttpResponse(text, headers={"Cache-Control": "public, max-age=60"})


def fragment(request):
    return render(request, "shop.html", {"calls": calls, "user_id": request.GET.get("user", "1"), "pk": 42})


def stale(request):
    calls.append("stale")
    response = HttpResponse(str(len(calls)))
    response["Cache-Control"] = "public, max-age=0, stale-while-revalidate=600"
    return response


def broken(request):
    raise ValueError("broken")


urlpatterns = [
    path("spoken", spoken),
    path("product/<int:number>", product),
    path("aproduct/<int:number>", aproduct),
    path("page", Page.as_view()),
    path("café-☃", lambda request: product(request, 9)),
    path("stream", stream),
    path("astream", astream),
    path("file", lambda request: FileResponse(io.BytesIO(b"file"), content_type="text/plain")),
    path("big", big),
    path("who", who),
    path("long", lambda request: HttpResponse("text " * 1000, headers={"Cache-Control": "public, max-age=60"})),
    path("count", count),
    path("form", form),
    path("fragment", fragment),
    path("broken", broken),
    path("stale", stale),
    path("admin/", admin.site.urls),
]
