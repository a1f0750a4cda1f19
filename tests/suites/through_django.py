"""Django's own tests of caches and session engines, for ours: run with pytest in the directory ``tests`` of its source."""

from __future__ import annotations

import os
import sys
import unittest
from pathlib import Path

import django
from django.conf import settings

URL = os.environ.get("THROUGH", "memory://")
sys.path.insert(0, str(Path.cwd()))
settings.configure(
    SECRET_KEY="django_tests_secret_key",  # not a secret
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "cachekit_django", "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "cache",
        "sessions_tests",
    ],
    CACHEKIT={"URL": URL},
    CACHES={"default": {"BACKEND": "cachekit_django.CacheBackend"}},
    SESSION_ENGINE="cachekit_django.sessions",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF="cache.urls",
    ALLOWED_HOSTS=["*"],
    USE_TZ=False,
)  # fmt: skip
django.setup()

from cache import tests as caching  # noqa: E402 - after the settings
from cachekit_django.sessions import SessionStore  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import SimpleTestCase, TestCase, override_settings  # noqa: E402
from sessions_tests import tests as sessions  # noqa: E402


def setUpModule() -> None:  # noqa: N802 - unittest's name
    call_command("migrate", run_syncdb=True, verbosity=0)


class SessionTests(sessions.SessionTestsMixin, SimpleTestCase):
    """Those that every engine has to pass."""

    backend = SessionStore


@override_settings(
    CACHES=caching.caches_setting_for_tests(
        BACKEND="cachekit_django.CacheBackend",
        LOCATION=URL,
        exclude={"cull", "zero_cull"},
        OPTIONS={"TYPES": ["cache.tests.f", "cache.tests.C"]},
    )
)
class CacheTests(caching.BaseCacheTests, TestCase):
    """Those that every backend has to pass; ours drops what was used least, and has no option to cull."""

    def setUp(self) -> None:
        """Begin empty."""
        super().setUp()
        cache.clear()
        self.addCleanup(cache.clear)

    _empty_cache_entry = unittest.skip("ours has no option to cull")(lambda self: None)
