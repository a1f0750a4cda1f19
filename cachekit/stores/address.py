"""What a store URL says: which servers, of which kind, and with which options. Pure: it connects to nothing.

One URL names one server, the Sentinels that know where one is, or some nodes of a cluster. The parts behind ``?`` that are
not read here are the client library's (``ssl_ca_certs``, ``client_name`` and so on).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cachekit.errors import ConfigError


class Topology(Enum):
    """How the servers behind a URL belong together."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


SCHEMES: Final = {
    "redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss",
    "unix": "unix", "redis+unix": "unix", "valkey+unix": "unix",
    "sentinel": "redis", "redis+sentinel": "redis", "valkey+sentinel": "redis",
    "sentinels": "rediss", "rediss+sentinel": "rediss", "valkeys+sentinel": "rediss",
    "redis+cluster": "redis", "valkey+cluster": "redis", "rediss+cluster": "rediss", "valkeys+cluster": "rediss",
}  # fmt: skip
"""Our schemes, and the scheme by which the client library reaches one of the servers."""

_PORTS: Final = {Topology.SINGLE: 6379, Topology.SENTINEL: 26379, Topology.CLUSTER: 6379}


_READING: Final = "how replies are read is not up to the URL"
_WAITING: Final = "how long a command may take is Cache(timeout=...)"
_TRYING: Final = "what is tried again is not up to the URL"
_OURS: Final = {
    **dict.fromkeys(("decode_responses", "encoding", "encoding_errors", "protocol", "legacy_responses"), _READING),
    **dict.fromkeys(("parser_class", "socket_read_size"), _READING),
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout"), _WAITING),
    **dict.fromkeys(("retry", "retry_on_timeout", "retry_on_error"), _TRYING),
}
"""Options of the client library that would break what is promised here, and what is said of them."""
_LAST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """A store URL, taken apart.

    Attributes:
        topology: how the servers belong together.
        url: a URL that the client library understands; of one of the servers, where there are several.
        hosts: the hosts and ports that were named, where there may be several.
        service: the name under which the Sentinels know the primary.
        sentinel_url: like *url*, with the credentials that the Sentinels ask for.
        shown: the URL without credentials, for messages.
    """

    topology: Topology
    url: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_url: str = ""
    shown: str = ""


def parse(url: str) -> Address:
    """Take *url* apart. Raises ``ConfigError`` with what to write instead."""
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise ConfigError(f"the store URL cannot be used: {exc}") from exc
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"unknown URL scheme {parts.scheme!r}: use one of {', '.join(f'{s}://' for s in SCHEMES)}")
    scheme = SCHEMES[parts.scheme]
    credentials, at, places = parts.netloc.rpartition("@")
    kind = parts.scheme.rpartition("+")[2]
    single = kind not in ("sentinel", "sentinels", "cluster")
    if single and scheme != "unix" and (not places or places.startswith(":")):
        places = "localhost" + places  # as for the client library
    shown = urlunsplit((parts.scheme, places, parts.path, "", ""))
    if single:
        if scheme == "unix" and not parts.path:
            raise ConfigError(f"{shown!r} names no socket: write unix:///path/to/server.sock")
        if scheme != "unix" and not (database := parts.path.strip("/")).isdigit() and database:
            raise ConfigError(f"{shown!r}: {database!r} is no number of a database: write {parts.scheme}://host:port/0")
        if scheme != "unix":
            _host(places, _PORTS[Topology.SINGLE], shown)
        _check_options(parts.query, shown)
        plain = urlunsplit(parts._replace(scheme=scheme, netloc=credentials + at + places))
        if parts.scheme == "unix":
            plain = url
        return Address(Topology.SINGLE, plain, shown=shown)
    topology = Topology.CLUSTER if kind == "cluster" else Topology.SENTINEL
    hosts = tuple(_host(place, _PORTS[topology], shown) for place in places.split(","))
    _check_options(parts.query, shown)
    query = dict(parse_qsl(parts.query))
    names = [name for name in parts.path.split("/") if name]
    if len(names) > len({name.isdigit() for name in names}):
        raise ConfigError(f"{shown!r}: {parts.path!r} is no database and no name of a primary: write /mymaster/0")
    database = next((name for name in names if name.isdigit()), query.pop("db", "0"))
    service = query.pop("service", next((name for name in names if not name.isdigit()), ""))
    user, word = query.pop("sentinel_username", ""), query.pop("sentinel_password", "")
    if topology is Topology.CLUSTER and (database != "0" or service):
        raise ConfigError(
            f"{shown!r}: a cluster has the database 0 alone, and no name: write redis+cluster://host:port"
        )
    if topology is Topology.SENTINEL and not service:
        raise ConfigError(f"{shown!r} does not say which primary: write sentinel://host:26379/0?service=mymaster")
    first = f"[{hosts[0][0]}]:{hosts[0][1]}" if ":" in hosts[0][0] else f"{hosts[0][0]}:{hosts[0][1]}"
    rest = ("/" + database, urlencode(query), "")
    inner = urlunsplit((scheme, credentials + at + first, *rest))
    sentinel = urlunsplit((scheme, (f"{user}:{word}@" if user or word else "") + first, "", urlencode(query), ""))
    return Address(topology, inner, hosts, service, sentinel, shown)


def _check_options(query: str, shown: str) -> None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _OURS:
            raise ConfigError(f"{shown!r}: {name}= cannot be chosen: {_OURS[name]}")
        if name == "max_connections" and not (value.isdecimal() and int(value)):
            raise ConfigError(f"{shown!r}: max_connections={value} must be at least 1")


def _host(place: str, default: int, shown: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":") if not place.endswith("]") and ":" in place else (place, "", "")
    right = not port or (port.isdecimal() and 0 < int(port) <= _LAST_PORT)
    if not host or not right or any(map(str.isspace, host)):
        raise ConfigError(f"the store URL cannot be used: {place!r} in {shown!r} is not host:port")
    return host.strip("[]"), int(port) if port else default
