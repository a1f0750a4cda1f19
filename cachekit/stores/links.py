"""Which link leads to which kind of deployment, and how stamps travel there: the one place that knows all of them."""

from __future__ import annotations

from cachekit.stores.address import Topology, parse
from cachekit.stores.apart import Apart
from cachekit.stores.cluster import ClusterLink
from cachekit.stores.link import Link, RedisLink
from cachekit.stores.names import Names
from cachekit.stores.sentinel import SentinelLink
from cachekit.stores.stamps import Stamps
from cachekit.stores.together import Together


def connect(url: str, *, timeout: float = 0.25, max_connections: int = 64) -> Link:
    """Return the link that *url* asks for. Connects to nothing. Raises ``ConfigError``."""
    topology = parse(url).topology
    if topology is Topology.CLUSTER:
        return ClusterLink(url, timeout=timeout, max_connections=max_connections)
    if topology is Topology.SENTINEL:
        return SentinelLink(url, timeout=timeout, max_connections=max_connections)
    return RedisLink(url, timeout=timeout, max_connections=max_connections)


def stamps_of(link: Link, namespace: str) -> tuple[Names, Stamps]:
    """Return the names and the way of stamps that *link* needs. Raises ``ConfigError`` for a namespace."""
    if isinstance(link, ClusterLink):
        names = Names(namespace, apart=True)
        return names, Apart(link, names)
    names = Names(namespace, apart=False)
    return names, Together(link, names)
