"""The status page: the live figures of a cache, for those who run it. One page, its JSON twin, and who may see them.

``Dashboard`` says where it is and who may look; ``CacheKit(app, dashboard=...)`` answers there. By itself it is
``cachekit.dashboard.asgi.DashboardApp`` or ``cachekit.dashboard.wsgi.DashboardApp``.
"""

from cachekit.dashboard.access import Dashboard

__all__ = ["Dashboard"]
