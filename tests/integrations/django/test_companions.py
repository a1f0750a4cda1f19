"""Beside other packages that Django projects use: Channels, the debug toolbar; and Django's own pages of errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings

from tests.integrations.django.test_page import ROOT

# Channels


@pytest.fixture
def routed(rows):
    """A project's ASGI application: pages by Django, and a websocket that counts in the session."""
    pytest.importorskip("channels")
    from channels.auth import AuthMiddlewareStack
    from channels.db import database_sync_to_async
    from channels.generic.websocket import AsyncJsonWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.core.asgi import get_asgi_application
    from django.urls import path

    class Counter(AsyncJsonWebsocketConsumer):
        async def receive_json(self, content):
            session = self.scope["session"]
            if content == "look":
                user = self.scope["user"].get_username()
                await self.send_json([user, await database_sync_to_async(session.get)("n"), session.get("socket")])
            elif content == "count":
                session["socket"] = session.get("socket", 0) + 1
                await database_sync_to_async(session.save)()
                await self.send_json("kept")
            elif content == "leave":
                from channels.auth import logout

                await logout(self.scope)
                await self.send_json("left")

    return ProtocolTypeRouter(
        {
            "http": get_asgi_application(),
            "websocket": AuthMiddlewareStack(URLRouter([path("ws", Counter.as_asgi())])),
        }
    )


def test_a_websocket_shares_the_session_with_cached_pages_beside(url, routed, arun):
    from asgiref.testing import ApplicationCommunicator

    User.objects.create_user("ann", password="x")
    client = Client()
    client.login(username="ann", password="x")
    assert client.get("/count").content == b"1"
    cookie = client.cookies["sessionid"].value

    async def main():
        import httpx

        transport = httpx.ASGITransport(app=routed)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", cookies={"sessionid": cookie}) as web:
            headers = [(b"cookie", f"sessionid={cookie}".encode())]
            socket = ApplicationCommunicator(routed, {"type": "websocket", "path": "/ws", "headers": headers})
            await socket.send_input({"type": "websocket.connect"})
            assert (await socket.receive_output(10))["type"] == "websocket.accept"

            async def say(word):
                await socket.send_input({"type": "websocket.receive", "text": json.dumps(word)})
                return json.loads((await socket.receive_output(10))["text"])

            assert await say("look") == ["ann", 1, None]
            assert (await web.get("/count")).text == "2", "while the socket holds what it has read"
            assert await say("count") == "kept"
            assert (await web.get("/count")).text == "3", "the socket has taken nothing back"
            pages = [await web.get("/product/42") for _ in range(2)]
            assert "hit" in pages[1].headers["cache-status"] and pages[0].text == pages[1].text
            assert await say("leave") == "left"
            assert (await web.get("/count")).text == "1", "a logout by the socket ends the session of the pages too"
            await socket.send_input({"type": "websocket.disconnect", "code": 1000})
            await socket.wait(10)

    arun(main())


# Pages of errors


@pytest.mark.parametrize("world", ["wsgi", "asgi"])
@pytest.mark.parametrize(
    ("path", "code", "text"), [("/broken", 500, "ValueError"), ("/nowhere", 404, "Page not found")]
)
def test_pages_of_errors_for_developers(memory, arun, world, path, code, text):
    from django.test import AsyncClient

    with override_settings(DEBUG=True, ALLOWED_HOSTS=["*"]):
        for _ in range(2):
            if world == "wsgi":
                response = Client(raise_request_exception=False).get(path)
            else:
                response = arun(AsyncClient(raise_request_exception=False).get(path))
            assert response.status_code == code and text in response.content.decode()
            assert "hit" not in response.headers.get("Cache-Status", "")


# The debug toolbar

SETTINGS = """
INSTALLED_APPS += ["cachekit_django", "debug_toolbar"]
CACHEKIT = {"URL": "memory://"}
CACHES = {"default": {"BACKEND": "cachekit_django.CacheBackend"}}
SESSION_ENGINE = "cachekit_django.sessions"
MIDDLEWARE[:0] = [
    "cachekit_django.middleware.CompressionMiddleware",
    "debug_toolbar.middleware.DebugToolbarMiddleware",  # what it adds is not stored with the page
    "cachekit_django.middleware.HttpCacheMiddleware",
]
INTERNAL_IPS = ["127.0.0.1"]
"""
URLS = """
from debug_toolbar.toolbar import debug_toolbar_urls
from django.core.cache import cache
from django.http import HttpResponse
from django.urls import path
calls = []
def page(request):
    calls.append(1)
    cache.set("menu", "tea")
    cache.get_many(["menu", "none"])
    cache.get_or_set("number", lambda: 1)
    response = HttpResponse(f"<html><body>{cache.get('menu')} number {len(calls)}.</body></html>")
    if request.path == "/public":
        response["Cache-Control"] = "public, max-age=60"
    else:
        request.session["n"] = 1
    return response
urlpatterns = [path("page", page), path("public", page), *debug_toolbar_urls()]
"""
VISIT = """
import os, re, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
import httpx
from shop.wsgi import application
with httpx.Client(transport=httpx.WSGITransport(app=application), base_url="http://localhost") as client:
    page = client.get("/page")
    number = re.search(r'data-request-id="([^"]+)"', page.text)[1]
    panel = client.get("/__debug__/render_panel/", params={"request_id": number, "panel_id": "CachePanel"}).json()["content"]
    assert len(re.findall(r"default \\(CacheBackend\\)", panel)) == 4, panel
    assert page.headers["content-encoding"] in ("zstd", "br", "gzip")
    first, second = client.get("/public"), client.get("/public")
    assert "number 2." in first.text and "number 2." in second.text
    assert "hit" in second.headers["cache-status"], second.headers
    shown = [re.search(r'data-request-id="([^"]+)"', one.text)[1] for one in (first, second)]
    assert shown[0] != shown[1], "the toolbar of a hit is its own"
    print("shown")
"""


def test_the_debug_toolbar(tmp_path):
    pytest.importorskip("debug_toolbar")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations"), str(tmp_path)])}

    def run(*args):
        return subprocess.run(
            [sys.executable, *args], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
        )

    assert run("-m", "django", "startproject", "shop", ".").returncode == 0
    with (tmp_path / "shop" / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    (tmp_path / "shop" / "urls.py").write_text(URLS)
    (tmp_path / "visit.py").write_text(VISIT)
    done = run("visit.py")
    assert done.stdout.strip() == "shown", done.stderr
    done = run("manage.py", "check", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr
