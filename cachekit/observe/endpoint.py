"""Figures for Prometheus on a port of their own, for a server whose workers share one port.

Owns which port a worker gets. HTTP and the format are prometheus_client's business. Needs the extra ``prometheus``.
"""

from __future__ import annotations

import logging

try:
    from prometheus_client import REGISTRY, start_http_server
    from prometheus_client.registry import CollectorRegistry
except ImportError as exc:
    raise ImportError("cachekit.observe.endpoint needs the extra `prometheus`") from exc

from cachekit.observe.prometheus import CacheCollector
from cachekit.observe.series import Counted

log = logging.getLogger("cachekit")


def expose(
    cache: Counted, host: str, port: int, workers: int = 1, *, registry: CollectorRegistry = REGISTRY
) -> int | None:
    """Serve what *registry* holds, the figures of *cache* among it, until this process ends.

    Args:
        cache: the cache of this worker.
        host: address to listen on.
        port: the first port.
        workers: how many ports from there on may be taken: each worker takes the first that is free.
        registry: what else is shown; a collector of caches that the application has registered shows them by itself.

    Returns:
        The port, or None where none is free: that is logged, and nothing else fails because of it.
    """
    try:
        registry.register(CacheCollector(cache))
    except ValueError:
        log.info("the application shows figures of caches by itself")
    for one in range(port, port + workers):
        try:
            start_http_server(one, host, registry)
        except OSError:
            continue
        return one
    log.error("no figures are shown: none of the ports %d to %d on %s is free", port, port + workers - 1, host)
    return None


__all__ = ["expose"]
