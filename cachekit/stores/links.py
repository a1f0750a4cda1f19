"""Which link leads to which kind of deployment: the one place that knows all of them."""

from __future__ import annotations

from cachekit.stores.address import Topology, parse
from cachekit.stores.cluster import ClusterLink
from cachekit.stores.link import Link, RedisLink
from cachekit.stores.sentinel import SentinelLink


def connect(url: str, *, timeout: float = 0.25, max_connections: int = 64) -> Link:
    """Return the link that *url* asks for. Connects to nothing. Raises ``ConfigError``."""
    topology = parse(url).topology
    if topology is Topology.CLUSTER:
        return ClusterLink(url, timeout=timeout, max_connections=max_connections)
    if topology is Topology.SENTINEL:
        return SentinelLink(url, timeout=timeout, max_connections=max_connections)
    return RedisLink(url, timeout=timeout, max_connections=max_connections)
