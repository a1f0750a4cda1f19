"""Django's cache API: our backend beside django-redis and Django's own, on one server, interleaved.

Run alone with ``python -m benchmarks.django_cache``. Peers that are not installed are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.measure import blocking, interleaved, show
from cachekit.stores.embedded import EmbeddedServer

CALLS, ROUNDS = 500, 11
SMALL = {"name": "a product", "price": 12.5, "stock": 7}
LARGE = {**SMALL, "text": "some text " * 200, "list": list(range(200))}


def others(caches: dict[str, Any]) -> dict[str, dict[str, Callable[[], object]]]:
    """Return by operation what each of *caches* does."""
    many = {f"product:{number}": SMALL for number in range(20)}
    found: dict[str, dict[str, Callable[[], object]]] = {}
    for name, cache in caches.items():
        cache.set("number", 1)
        cache.set_many(many)
        assert cache.get_many(many) == many
        assert cache.incr("number") == 2
        for title, call in {
            "get(), a miss": partial(cache.get, "absent"),
            "get_many(), 20 values": partial(cache.get_many, many),
            "set_many(), 20 values": partial(cache.set_many, many),
            "add(), of what is there": partial(cache.add, "number", 1),
            "incr()": partial(cache.incr, "number"),
            "touch()": partial(cache.touch, "product:1", 300),
            "delete(), of what is not there": partial(cache.delete, "absent"),
            "has_key()": partial(cache.has_key, "product:2"),
        }.items():
            found.setdefault(title, {})[name] = call
    return found


def main() -> bool:
    if find_spec("django") is None:
        print("\nDjango is not installed")
        return True
    from django.conf import settings

    server = EmbeddedServer()
    url = f"unix://{server.socket}"
    caches: dict[str, Any] = {
        "Django's RedisCache": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url},
        "cachekit": {"BACKEND": "cachekit_django.CacheBackend", "LOCATION": server.url},
        # In a namespace of its own: what it listens to would else be work that the other one makes for this process.
        "cachekit, in process": {
            "BACKEND": "cachekit_django.CacheBackend",
            "LOCATION": f"tiered+{server.url}",
            "OPTIONS": {"NAMESPACE": "tiered"},
        },
    }
    if find_spec("django_redis") is not None:
        caches["django-redis"] = {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": url,
            "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
        }
    if not settings.configured:
        settings.configure(CACHES={"default": caches["cachekit"]}, SECRET_KEY="benchmark")
    import django
    from django.core.cache import CacheHandler

    django.setup()
    made = CacheHandler({"default": caches["cachekit"], **caches})
    try:
        for title, value in (("small", SMALL), ("large", LARGE)):
            reads: dict[str, Callable[[int], float]] = {}
            writes: dict[str, Callable[[int], float]] = {}
            for name in caches:
                cache = made[name]
                cache.set(title, value)
                assert cache.get(title) == value
                reads[name] = blocking(partial(cache.get, title))
                writes[name] = blocking(partial(cache.set, "written", value))
            show(f"Django get(), {title} value", interleaved(reads, calls=CALLS, rounds=ROUNDS), "Django's RedisCache")
            show(f"Django set(), {title} value", interleaved(writes, calls=CALLS, rounds=ROUNDS), "Django's RedisCache")
        peer = "django-redis" if "django-redis" in caches else "Django's RedisCache"
        for title, calls in others({name: made[name] for name in caches}).items():
            rows = {name: blocking(call) for name, call in calls.items()}
            show(f"Django {title}", interleaved(rows, calls=CALLS // 5, rounds=ROUNDS), peer)
    finally:
        for name in caches:
            getattr(made[name], "cache", made[name]).close()
        server.close()
    return True


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
