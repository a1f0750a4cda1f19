"""What else stands in front of an application: Python peers, nginx and Varnish, each where it is installed.

Owns how each is set up: one process, in memory where it can, the response's own Cache-Control honoured.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

_NGINX = """
daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {directory}/a; fastcgi_temp_path {directory}/b; uwsgi_temp_path {directory}/c;
  scgi_temp_path {directory}/d; proxy_temp_path {directory}/e;
  proxy_cache_path {directory}/cache keys_zone=kept:8m;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_cache kept; proxy_cache_lock on; add_header Age 0; add_header Cache-Status "nginx; $upstream_cache_status";
    }}
  }}
}}
"""


def _hishel(app: Any) -> Any:
    from hishel import AsyncSqliteStorage
    from hishel.asgi import ASGICacheMiddleware

    path = Path(tempfile.mkdtemp(prefix="ck-bench-")) / "hishel.db"
    return ASGICacheMiddleware(app, storage=AsyncSqliteStorage(database_path=str(path)))


def _asgi_caches(app: Any) -> Any:
    from asgi_caches.middleware import CacheMiddleware
    from caches import Cache

    cache = Cache("locmem://default", ttl=3600)
    wrapped = CacheMiddleware(app, cache=cache)

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if not cache.is_connected:
            await cache.connect()
        await wrapped(scope, receive, send)

    return call


_PEERS: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "hishel": (("hishel", "anysqlite"), _hishel),
    "asgi-caches": (("asgi_caches",), _asgi_caches),
}


def peers() -> dict[str, Callable[[Any], Any]]:
    """Return what wraps an ASGI application, by name and version, of those peers that are installed."""
    return {
        f"{name} {version(name)}": wrap
        for name, (modules, wrap) in _PEERS.items()
        if all(importlib.util.find_spec(module) for module in modules)
    }


def proxies() -> dict[str, Callable[[int, int], list[str]]]:
    """Return what makes a command of an own port and that of the application, of those servers that are installed."""
    found: dict[str, Callable[[int, int], list[str]]] = {}
    if (nginx := shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")) is not None:
        found["nginx"] = lambda port, origin: _nginx(nginx, port, origin)
    if (varnish := shutil.which("varnishd") or shutil.which("varnishd", path="/usr/sbin")) is not None:
        found["Varnish"] = lambda port, origin: [
            varnish, "-F", "-j", "none", "-n", tempfile.mkdtemp(prefix="ck-bench-"), "-a", f"127.0.0.1:{port}",
            "-b", f"127.0.0.1:{origin}", "-s", "malloc,64m",
        ]  # fmt: skip
    return found


def _nginx(binary: str, port: int, origin: int) -> list[str]:
    directory = tempfile.mkdtemp(prefix="ck-bench-")
    conf = Path(directory) / "nginx.conf"
    conf.write_text(_NGINX.format(directory=directory, port=port, origin=origin))
    return [binary, "-e", f"{directory}/error.log", "-p", directory, "-c", str(conf)]
