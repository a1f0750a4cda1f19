"""What a request of Django costs with our middlewares and sessions, beside Django's own over django-redis.

The bare project, with a view that costs nothing, is the floor. Whole requests through the WSGI handler, on one server.
Run alone with ``python -m benchmarks.django_requests``. Peers that are not installed are left out.
"""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from benchmarks.measure import blocking, interleaved, show
from benchmarks.sessions import LARGE, SMALL, act
from cachekit.stores.embedded import EmbeddedServer

CALLS, ROUNDS, VISITORS = 200, 15, 200
TEXT = "".join(f"<li>product {number}: {number * 7919 % 100} pieces left</li>" for number in range(120))
OWN = "cachekit_django.middleware."
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
THEIRS = ("django.middleware.cache.UpdateCacheMiddleware", "django.middleware.cache.FetchFromCacheMiddleware")


def main() -> bool:
    if find_spec("django") is None:
        print("\nDjango is not installed")
        return True
    # A process of its own: there is one Django in each, and other benchmarks have set it up in other ways.
    return subprocess.run([sys.executable, "-m", "benchmarks.django_requests"], check=False).returncode == 0


def measure() -> bool:
    server = EmbeddedServer()
    try:
        prepare(server)
        pages()
        encodings()
        sessions()
    finally:
        from cachekit_django import conf

        for made in conf._made.values():
            made.close()
        server.close()
    return True


def prepare(server: EmbeddedServer) -> None:
    import django
    from django.conf import settings
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def page(request: HttpRequest) -> HttpResponse:
        what = request.META["QUERY_STRING"].replace("+", " ")
        if what and what != "nothing":
            act(request.session, what)
        return HttpResponse("page")

    def listed(request: HttpRequest) -> HttpResponse:
        response = HttpResponse(TEXT)
        if request.path == "/kept":
            response["Cache-Control"] = "public, max-age=3600"
        return response

    module = types.ModuleType("benchmarks_urls")
    module.urlpatterns = [path("", page), path("kept", listed), path("passing", listed)]  # type: ignore[attr-defined]
    sys.modules["benchmarks_urls"] = module
    caches: dict[str, Any] = {"default": {"BACKEND": "cachekit_django.CacheBackend"}}
    if peer():
        caches["peer"] = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"unix://{server.socket}"}
    settings.configure(
        SECRET_KEY="a secret for benchmarks alone, long enough",  # not a secret
        ROOT_URLCONF="benchmarks_urls", ALLOWED_HOSTS=["*"], MIDDLEWARE=[], CACHES=caches,
        INSTALLED_APPS=["cachekit_django", "django.contrib.contenttypes", "django.contrib.auth"],
        CACHEKIT={"URL": server.url, "SESSIONS": {"URL": server.url}}, CACHE_MIDDLEWARE_ALIAS="peer",
        SESSION_CACHE_ALIAS="peer",
    )  # fmt: skip
    django.setup()


def peer() -> bool:
    return find_spec("django_redis") is not None


def project(*middleware: str, **more: Any) -> Any:
    """Return the WSGI application with these middlewares, and with other settings while it is made."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    with override_settings(MIDDLEWARE=list(middleware), **more):
        return WSGIHandler()


def request(app: Any, where: str, what: str = "", cookie: str = "", coding: str = "") -> Callable[[], str]:
    """Return what asks *app*, and returns the cookie that came back."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": where, "SERVER_NAME": "bench", "SERVER_PORT": "80",
        "HTTP_HOST": "bench", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.version": (1, 0),
        "QUERY_STRING": what.replace(" ", "+"), "HTTP_ACCEPT": "*/*", "wsgi.multithread": True,
        "wsgi.multiprocess": True, "wsgi.run_once": False,
    }  # fmt: skip
    environ |= {"HTTP_COOKIE": cookie} if cookie else {}
    environ |= {"HTTP_ACCEPT_ENCODING": coding} if coding else {}

    def call() -> str:
        lines: list[str] = []

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            assert status.startswith("200"), status
            lines.extend(value for name, value in headers if name.lower() == "set-cookie")

        body = app({**environ, "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO()}, start)
        assert sum(map(len, body)) > 0
        if hasattr(body, "close"):
            body.close()
        return lines[0].partition(";")[0] if lines else ""

    call()
    return call


def table(title: str, calls: Mapping[str, Callable[[], object]]) -> None:
    rows = {name: blocking(call) for name, call in calls.items()}
    show(title, interleaved(rows, calls=CALLS, rounds=ROUNDS), "bare Django")


def pages() -> None:
    from cachekit_django import get_wsgi_application
    from django.test import override_settings

    memory = {"URL": "memory://bench", "SESSIONS": {"URL": "memory://"}}
    for where, title in (("/kept", "a hit"), ("/passing", "a page that is not stored")):
        calls = {
            "bare Django": request(project(), where),
            "cachekit, in memory": request(project(f"{OWN}HttpCacheMiddleware", CACHEKIT=memory), where),
            "cachekit, on the server": request(project(f"{OWN}HttpCacheMiddleware"), where),
        }
        with override_settings(CACHEKIT=memory, MIDDLEWARE=[]):
            calls["cachekit in front of Django, in memory"] = request(get_wsgi_application(), where)
        if peer() and where == "/kept":  # it stores whatever is not private
            calls["UpdateCache and FetchFromCache, django-redis"] = request(project(*THEIRS), where)
        table(f"Django, a page of {len(TEXT) // 1024 + 1} KB: {title}", calls)


def encodings() -> None:
    own = [f"{OWN}CompressionMiddleware", f"{OWN}HttpCacheMiddleware"]
    memory = {"URL": "memory://bench", "SESSIONS": {"URL": "memory://"}}
    calls = {
        "bare Django": request(project(), "/passing", coding="gzip"),
        "cachekit, gzip": request(project(own[0]), "/passing", coding="gzip"),
        "cachekit, zstd": request(project(own[0]), "/passing", coding="zstd"),
        "cachekit, a hit, gzip": request(project(*own, CACHEKIT=memory), "/kept", coding="gzip"),
        "GZipMiddleware": request(project("django.middleware.gzip.GZipMiddleware"), "/passing", coding="gzip"),
    }
    table("Django, the same page compressed", calls)


def sessions() -> None:
    apps = {"bare Django": project(), "cachekit": project(SESSIONS, SESSION_ENGINE="cachekit_django.sessions")}
    if peer():
        apps["Django's cache engine, django-redis"] = project(
            SESSIONS, SESSION_ENGINE="django.contrib.sessions.backends.cache"
        )
    for size in (SMALL, LARGE):
        cookies = {name: request(app, "/", f"fill {size}" * (name != "bare Django"))() for name, app in apps.items()}
        for what in ("nothing", "read", "modify"):
            calls = {
                name: request(app, "/", what if name != "bare Django" else "nothing", cookies[name])
                for name, app in apps.items()
            }
            table(f"Django, a session of {size}: {what}", calls)
    crowds = {name: crowd(app, name != "bare Django") for name, app in apps.items()}
    table(f"Django, sessions of {LARGE}, of {VISITORS} visitors in turn: read", crowds)


def crowd(app: Any, looks: bool) -> Callable[[], object]:
    """Return what asks *app* for one of many visitors, each time for another: nothing is remembered of the last time."""
    cookies = [request(app, "/", f"fill {LARGE}" * looks)() for _ in range(VISITORS)]
    calls = itertools.cycle([request(app, "/", "read" if looks else "nothing", cookie) for cookie in cookies])

    def call() -> object:
        return next(calls)()

    return call


if __name__ == "__main__":
    raise SystemExit(0 if measure() else 1)
