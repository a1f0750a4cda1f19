"""One Django for all tests of the adapter, configured before its modules are imported; stores change by settings."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

django = pytest.importorskip("django")
from django.conf import settings  # noqa: E402 - after the skip

DATA = tempfile.TemporaryDirectory(prefix="ck-django-")
OURS = ["cachekit_django.middleware.CompressionMiddleware", "cachekit_django.middleware.HttpCacheMiddleware"]
THEIRS = [
    "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]  # fmt: skip

if not settings.configured:
    settings.configure(
        SECRET_KEY="x" * 50,
        DEBUG=False,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="tests.apps.django_shop.urls",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(DATA.name) / "db"), "OPTIONS": {"timeout": 20},
            }
        },
        INSTALLED_APPS=[
            "cachekit_django", "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
            "django.contrib.sessions", "django.contrib.messages", "tests.apps.django_shop",
        ],
        MIDDLEWARE=[*OURS, *THEIRS],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        SESSION_ENGINE="cachekit_django.sessions",
        CACHES={"default": {"BACKEND": "cachekit_django.CacheBackend"}},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        STATIC_URL="static/",
        USE_TZ=True,
    )  # fmt: skip
    django.setup()


@pytest.fixture(scope="session")
def tables():
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", run_syncdb=True, verbosity=0)
    yield
    connections.close_all()


@pytest.fixture
def rows(tables):
    """The database, empty, with real transactions."""
    from django.contrib.auth.models import User
    from django.db import connections

    from tests.apps.django_shop import models as shop

    own = (
        shop.Product, shop.Category, shop.Label, shop.Twin, shop.Book, shop.Note, shop.Shelf, shop.Sheet, shop.Item,
        shop.Ticket,
    )  # fmt: skip
    for model in (*own, User):
        model._base_manager.all().delete()
    yield
    connections.close_all()


@pytest.fixture
def kept(memory, rows):
    """Says which tags are left of those that it was told."""
    from django.core.cache import cache

    known = []

    def expect(*tags):
        known[:] = tags
        for tag in tags:
            cache.set(f"of-{tag}", 1, tags=[tag])
        return lambda: {tag for tag in known if cache.get(f"of-{tag}") is not None}

    return expect


@pytest.fixture(params=["memory", "valkey", "redis"])
def url(request):
    """The URL of each store in turn, empty; the setting CACHEKIT and the cache "default" are on it."""
    if request.param == "memory":
        yield from project("memory://")
        return
    server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with server.client() as client:
        client.flushall()
    yield from project(server.url, TIMEOUT=5.0)  # what is shown is no time-out


@pytest.fixture(params=["valkey", "redis"])
def shared_url(request):
    """The URL of each server in turn, empty, likewise."""
    server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with server.client() as client:
        client.flushall()
    yield from project(server.url, TIMEOUT=5.0)


@pytest.fixture
def memory():
    yield from project("memory://")


def project(url, **more):
    from cachekit_django import conf
    from django.test import override_settings

    from tests.apps.django_shop.urls import calls

    calls.clear()
    caches = {"default": {"BACKEND": "cachekit_django.CacheBackend", "LOCATION": url}}
    with override_settings(CACHEKIT={"URL": url, **more}, CACHES=caches):
        yield url
        for cache in conf._made.values():
            cache.close()
        conf._made.clear()


@pytest.fixture
def arun():
    """Runs a coroutine, and gives up the connections of its loop."""

    def run(job):
        from cachekit_django import conf

        async def main():
            try:
                return await job
            finally:
                for cache in conf._made.values():
                    await cache.aclose()

        return asyncio.run(main())

    return run


class Warm:
    @staticmethod
    def run():
        return "warmed"
