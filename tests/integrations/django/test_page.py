"""What docs/django.md promises, in a fresh project made by Django's own starter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = (ROOT / "docs" / "django.md").read_text("utf-8")
VIEWS = """
from django.core.cache import cache
from django.http import HttpResponse
from django.urls import path
calls = []
def page(request):
    calls.append(1)
    response = HttpResponse("text " * 500 + str(len(calls)))
    response["Cache-Control"] = "public, max-age=60"
    return response
def visits(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return HttpResponse(str(request.session["n"]))
async def price(request):
    return HttpResponse(str(await cache.aget_or_set("price", lambda: 9.5)))
urlpatterns = [path("page", page), path("visits", visits), path("price", price)]
"""
VISIT = """
import sys, gzip, os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
django.setup()
import httpx
def told(responses):
    first, second, one, two, three = responses
    assert "hit" in second.headers["cache-status"] and first.text == second.text, second.headers
    assert second.headers["content-encoding"] in ("zstd", "br", "gzip")
    assert (one.text, two.text, three.text) == ("1", "2", "9.5"), (one.text, two.text, three.text)
    print("cached")
paths = ["/page", "/page", "/visits", "/visits", "/price"]
if sys.argv[1] == "wsgi":
    from shop.wsgi import application
    with httpx.Client(transport=httpx.WSGITransport(app=application), base_url="http://localhost") as client:
        told([client.get(path) for path in paths])
else:
    import asyncio
    from shop.asgi import application
    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="http://localhost") as client:
            told([await client.get(path) for path in paths])
    asyncio.run(main())
"""


def blocks():
    return re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def run(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations"), str(tmp_path)])}

    def call(*args):
        return subprocess.run(
            [sys.executable, *args], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
        )

    done = call("-m", "django", "startproject", "shop", ".")
    assert done.returncode == 0, done.stderr
    return call


def test_five_lines(run, tmp_path):
    lines = blocks()[0]
    assert len(lines.strip().splitlines()) == 5
    with (tmp_path / "shop" / "settings.py").open("a") as settings:
        settings.write(lines)
    (tmp_path / "shop" / "urls.py").write_text(VIEWS)
    (tmp_path / "visit.py").write_text(VISIT)
    checked = run("manage.py", "check", "--fail-level", "WARNING")
    assert checked.returncode == 0, checked.stderr
    assert "no changes" in run("manage.py", "makemigrations", "--check", "--dry-run").stdout.lower()
    for edge in ("wsgi", "asgi"):
        done = run("visit.py", edge)
        assert done.stdout.strip() == "cached", done.stderr
    assert "hit rate" in run("manage.py", "cachekit", "stats").stdout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('CACHEKIT = {"URI": "memory://"}', "it has URI (did you mean URL?)"),
        ('CACHES = {"default": {"BACKEND": "cachekit_django.CacheBackend", "LOCATION": "radis://"}}', "scheme 'radis'"),
    ],
)
def test_a_wrong_setting_is_reported_at_start(run, tmp_path, line, message):
    with (tmp_path / "shop" / "settings.py").open("a") as settings:
        settings.write(f"{blocks()[0]}\n{line}\n")
    for start in (("manage.py", "check"), ("-c", "import shop.wsgi"), ("-c", "import shop.asgi")):
        done = run(*start)
        if start[0] == "-c":
            done = run("-c", f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'; {start[1]}")
        assert done.returncode != 0 and message in done.stderr, (start, done.stderr[-500:])
        assert "LOCATION" in done.stderr or "URL" in done.stderr or "memory" in done.stderr


def test_the_names_on_the_page_are_those_of_the_code():
    from cachekit_django import conf
    from cachekit_django.single import _OPTIONS

    for name in (*_OPTIONS, "URL", "RULES", "WARMER", "COMPRESSION"):
        assert name in PAGE, name
    assert set(conf.NAMES) >= {"URL", "RULES", "OPTIONS", "COMPRESSION", "WARMER"}
