from __future__ import annotations

from django import template

import cachekit
from tests.apps.django_shop import urls

register = template.Library()


@register.simple_tag
def drawn(pk):
    cachekit.tag(f"product:{pk}")
    urls.calls.append("drawn")
    return f"drawn {len(urls.calls)}"
