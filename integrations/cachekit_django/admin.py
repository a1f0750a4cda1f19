"""A page of the admin with the live figures, for staff. It has no table, and no model in the database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from cachekit_django.figures import shown, tables


class Page:
    """What the admin lists in its index: as much of a model as it asks for."""

    _meta: Any = SimpleNamespace(
        app_label="cachekit_django", model_name="figures", object_name="Figures", verbose_name="figures",
        verbose_name_plural="Live figures", abstract=False, swapped=False, is_composite_pk=False,
        label="cachekit_django.Figures", label_lower="cachekit_django.figures",
        app_config=apps.get_app_config("cachekit_django"),
    )  # fmt: skip


if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class PageAdmin(_ModelAdmin):
    """The page. Staff may look; nothing can be changed."""

    def check(self, **_: Any) -> list[Any]:
        """Find nothing wrong: there are no fields to check."""
        return []

    def get_urls(self) -> list[URLPattern]:
        """Return the one URL."""
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="cachekit_django_figures_changelist")]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the figures of the process that answers."""
        context = {
            **self.admin_site.each_context(request), "title": "cachekit: live figures", "tables": map(shown, tables()),
            "app_label": "cachekit_django", **(extra_context or {}),
        }  # fmt: skip
        response = TemplateResponse(request, "admin/cachekit_django/figures.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """Let staff look."""
        return bool(getattr(request.user, "is_staff", False))

    def has_module_permission(self, request: HttpRequest) -> bool:
        """List it for staff."""
        return bool(getattr(request.user, "is_staff", False))

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Allow nothing."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """Allow nothing."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - Django's signature
        """Allow nothing."""
        return False


admin.site.register([Page], PageAdmin)
