"""A site made by Wagtail's own starter, unmodified but for what docs/django.md says: the admin, a publication, visitors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wagtail")
ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "django.md").read_text("utf-8")
VISIT = r"""
import html, re
import httpx
from site_of_tests.wsgi import application  # sets Django up
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.management import call_command

call_command("migrate", verbosity=0)
get_user_model().objects.create_superuser("editor", "editor@localhost", "a long password")

def browser():
    return httpx.Client(transport=httpx.WSGITransport(app=application), base_url="http://localhost", follow_redirects=True)

def fields(page):
    found = {}
    for tag in re.findall(r"<input[^>]*>", page):
        said = {name: html.unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', tag)}
        if "name" in said and said.get("type") not in ("checkbox", "radio", "submit", "file"):
            found.setdefault(said["name"], said.get("value", ""))
    return found

def admin(answer, status=200):
    assert answer.status_code == status, (answer.status_code, answer.url, answer.text[:2000])
    for one in [*answer.history, answer]:
        assert "stored" not in one.headers.get("cache-status", "") and "hit" not in one.headers.get("cache-status", ""), one
    return answer

visitor, editor = browser(), browser()
assert visitor.get("/").status_code == 200
assert "hit" in visitor.get("/").headers["cache-status"]

login = admin(editor.get("/admin/"))
assert "/login/" in str(login.url)
inside = admin(editor.post("/admin/login/", data={
    "csrfmiddlewaretoken": fields(login.text)["csrfmiddlewaretoken"], "username": "editor", "password": "a long password",
    "next": "/admin/",
}, headers={"referer": "http://localhost/admin/login/"}))
assert "/login/" not in str(inside.url)

cache.clear()
own = editor.get("/")
assert "wagtail-userbar" in own.text, "an editor sees the bar"
assert "wagtail-userbar" not in visitor.get("/").text, "a visitor sees none, though the editor was first"

for title in ("A first title", "A second title"):
    form = admin(editor.get("/admin/pages/3/edit/"))
    data = {**fields(form.text), "title": title, "action-publish": "action-publish"}
    admin(editor.post("/admin/pages/3/edit/", data=data))
    seen = visitor.get("/")
    assert title in seen.text and "hit" not in seen.headers["cache-status"], seen.headers
    again = visitor.get("/")
    assert title in again.text and "hit" in again.headers["cache-status"]
from wagtail.models import Site
first = Site.get_site_root_paths()
version = Site.get_site_root_paths.__globals__["SITE_ROOT_PATHS_CACHE_VERSION"]
kept = cache.get("wagtail_site_root_paths", version=version)
assert kept == first and type(kept[0]).__name__ == "SiteRootPath", kept
admin(editor.get("/admin/pages/"))
admin(editor.get("/admin/reports/site-history/"))
token = fields(admin(editor.get("/admin/account/")).text)["csrfmiddlewaretoken"]
admin(editor.post("/admin/logout/", data={"csrfmiddlewaretoken": token}, headers={"referer": "http://localhost/admin/"}))
assert "/login/" in str(admin(editor.get("/admin/")).url)
print("published")
"""
SIGNALS = """

from django.core.cache import cache
from django.dispatch import receiver
from wagtail.signals import page_published, page_unpublished


"""


def test_a_site_of_wagtail(tmp_path, url):
    path = os.pathsep.join([str(ROOT), str(ROOT / "integrations"), str(tmp_path)])
    environ = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"} | {
        "PYTHONPATH": path
    }
    start = [str(Path(sys.executable).parent / "wagtail"), "start", "site_of_tests", str(tmp_path)]
    subprocess.run(start, check=True, capture_output=True, env=environ)
    five = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)[0]
    told = next(block for block in re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL) if "page_published" in block)
    options, receiver = told.split("\n\n\n")
    settings = tmp_path / "site_of_tests" / "settings" / "dev.py"
    made = f"\nfrom cachekit_django import Rule\n{five}\n{options}\nCACHEKIT['URL'] = {url!r}\n"
    settings.write_text(settings.read_text("utf-8") + made, "utf-8")
    models = tmp_path / "home" / "models.py"
    models.write_text(models.read_text("utf-8") + SIGNALS + receiver, "utf-8")
    visit = tmp_path / "visit.py"
    visit.write_text(VISIT, "utf-8")
    done = subprocess.run(
        [sys.executable, str(visit)], cwd=tmp_path, capture_output=True, text=True, env=environ, check=False
    )
    assert done.stdout.endswith("published\n"), done.stdout[-2000:] + done.stderr[-4000:]
    assert "unencodable" not in done.stderr and "is not cached" not in done.stderr
