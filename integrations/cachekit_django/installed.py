"""Which classes may be kept because their application is installed: its dataclasses, enums, NamedTuples, pydantic models.

An application that was written for Django's own caches keeps what it likes there. Such classes are restored field by field:
none of their code runs. So are the rows that Django itself names. Owns what counts as installed. Must not import anything
because data names it.
"""

from __future__ import annotations

import sys
from typing import Any

from django.apps import apps

from cachekit.codecs.shapes import Shape, kind_of, name_of
from cachekit.codecs.types import KnownTypes
from cachekit.errors import ConfigError


class NamedRow:
    """Stands for the classes that Django makes for the rows of ``values_list(named=True)``."""


class InstalledTypes(KnownTypes):
    """An allow list that the classes of INSTALLED_APPS join when they are first met."""

    __slots__ = ()

    def of(self, cls: type[Any]) -> Shape | None:
        """Return the shape of *cls*, or None when it is not known, and no installed application's."""
        found = super().of(cls)
        if found is None and kind_of(cls) is not None and _loaded(name_of(cls)) is cls and self._joins(cls):
            found = super().of(cls)
        if found is None and cls.__module__ == "django.db.models.utils" and cls.__name__ == "Row":
            found = super().of(NamedRow)
        return found

    def named(self, name: str) -> Shape | None:
        """Return the shape that has this name in the data, if its module is loaded by now."""
        found = super().named(name)
        if found is None:
            cls = _loaded(name)
            if isinstance(cls, type) and name_of(cls) == name and kind_of(cls) is not None and self._joins(cls):
                found = super().named(name)
        return found

    def _joins(self, cls: type[Any]) -> bool:
        try:
            self.register(cls)
        except ConfigError:  # it has state that would be lost
            return False
        return True


def _loaded(name: str) -> Any:
    """Return what ``module:qualname`` names in a loaded module of an installed application, or None."""
    module, _, path = name.partition(":")
    if not apps.apps_ready or apps.get_containing_app_config(module) is None:
        return None
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found
