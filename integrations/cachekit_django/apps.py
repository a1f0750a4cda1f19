"""``INSTALLED_APPS = ["cachekit_django"]``: makes the cache of the settings the default one, and registers the checks."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from asgiref.local import Local
from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed

from cachekit import ConfigError
from cachekit.default import use


class CacheKitConfig(AppConfig):
    """The application ``cachekit_django``."""

    name = "cachekit_django"
    label = "cachekit_django"
    verbose_name = "cachekit"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        from cachekit_django import conf

        # Now, before any models are imported: their modules may decorate functions with `cachekit.cached`. A wrong
        # setting is reported by the checks; another default cache was the choice of whoever made it.
        with contextlib.suppress(ConfigError):
            if conf.read().url:
                use(conf.cache())

    def ready(self) -> None:
        """Register the checks and what goes around jobs; without a management command, run the checks now."""
        from django.contrib.auth.signals import user_logged_in

        from cachekit_django import conf, jobs, keeping, logins, signals
        from cachekit_django.checks import check, check_deployed, errors

        jobs.register()
        checks.register(check, "caches")
        checks.register(check_deployed, "caches", deploy=True)
        if keeping.in_use():
            user_logged_in.connect(logins.noted, dispatch_uid="cachekit_django")
        signals.connect()
        with contextlib.suppress(ConfigError):
            if conf.read().url:
                conf.cache()  # once more: now it may keep rows, and TYPES can be imported
        setting_changed.connect(_changed)
        if not _by_command() and (found := errors()):
            raise ConfigError("\n".join(found))


def _by_command() -> bool:
    """Say whether a management command is what starts Django: it runs the checks itself, and shows them its own way.

    Django does not tell, and sys.argv would be a guess: manage.py may have any name, and a script may call commands.
    """
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "django.core.management":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _changed(*, setting: str, **_: Any) -> None:
    """Make the backends anew where a test changes the settings that they are made of."""
    from cachekit_django import keeping

    if setting in keeping.SETTINGS:
        keeping.forget()
    if setting == "CACHEKIT":
        from django.core.cache import caches, close_caches

        close_caches()
        caches._connections = Local()  # type: ignore[attr-defined]  # as Django does when CACHES changes
