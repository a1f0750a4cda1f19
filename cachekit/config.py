"""The configuration of ``cachekit run``: a ``[tool.cachekit]`` table, the environment and options, checked as one.

Owns names, types and defaults of the settings, and where they come from. Every mistake is reported with the name of the
setting, its value and what is allowed, before anything starts. Must not start anything.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cachekit.compress.options import Compression
from cachekit.dashboard import Dashboard
from cachekit.degrade import DegradeOptions, Route
from cachekit.edge_config import (
    compression_of,
    dashboard_of,
    degradation_of,
    known,
    protection_of,
    purgers_of,
    purging_of,
    routes_of,
    sessions_of,
    webhook_of,
)
from cachekit.errors import ConfigError
from cachekit.facade import Cache
from cachekit.http.message import check_origin
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from cachekit.policy import Duration, Policy, TTLClasses
from cachekit.sessions.options import SessionOptions
from cachekit.webhook import Webhook

FILES: Final = ("cachekit.toml", "pyproject.toml")
INTERFACES: Final = ("auto", "asgi", "wsgi")
LISTS: Final = ("rules", "purgers", "routes")
LOG_LEVELS: Final = ("critical", "error", "warning", "info", "debug")

_RULE_FIELDS: Final = tuple(f.name for f in dataclasses.fields(Rule) if f.init)
_HTTP_FIELDS: Final = tuple(f.name for f in dataclasses.fields(HttpOptions) if f.init)
_CLASS_FIELDS: Final = ("ttl", "stale_while_revalidate", "stale_if_error", "jitter")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What ``cachekit run`` and ``cachekit proxy`` do.

    Attributes:
        app: the application as ``package.module:attribute``.
        to: the origin that ``cachekit proxy`` asks.
        upstream_timeout: seconds that it waits for it.
        url: URL of the store.
        host: address to listen on.
        port: port to listen on; 0 chooses a free one.
        workers: number of processes.
        interface: ``auto`` tells ASGI and WSGI apart by the application itself.
        factory: whether *app* is a function that returns the application.
        log_level: of the server.
        access_log: whether the server logs each request.
        threads: threads that run a WSGI application.
        metrics_port: the first of the ports on which the workers show figures to Prometheus, one each; 0 for none.
        namespace: prefix of all keys in the store.
        timeout: seconds that a request may wait for the store.
        max_entries: bound on entries held in a process.
        max_bytes: bound on their estimated bytes.
        jitter: part of a lifetime by which it is randomly shortened.
        ttl_classes: named lifetimes.
        rules: header rules, in order.
        http: settings of the HTTP cache.
        compression: whether responses are encoded, or a table that says how.
        purgers: the CDNs in front, see ``edge_config``.
        purging: when purges are delivered.
        webhook: deliveries that invalidate.
        degradation: what happens while the store is away.
        routes: time-outs, bounds and breakers of the application.
        dashboard: where the status page is, and which variable holds its password.
        protection: how values are protected on a server, and which variables hold the keys.
        sessions: what the requests of one visitor share, and which variables hold the secrets.
        source: the file that the table was read from, or empty.
    """

    app: str = ""
    to: str = ""
    upstream_timeout: float = 60.0
    url: str = "memory://"
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    interface: str = "auto"
    factory: bool = False
    log_level: str = "info"
    access_log: bool = False
    threads: int = 16
    metrics_port: int = 0
    namespace: str = "cachekit"
    timeout: float = 0.25
    max_entries: int = 100_000
    max_bytes: int = 256 * 1024 * 1024
    jitter: float = 0.0
    ttl_classes: Mapping[str, Duration | Mapping[str, Any]] = field(default_factory=dict)
    rules: tuple[Mapping[str, Any], ...] = ()
    http: Mapping[str, Any] = field(default_factory=dict)
    compression: bool | Mapping[str, Any] = False
    purgers: tuple[Mapping[str, Any], ...] = ()
    purging: Mapping[str, Any] = field(default_factory=dict)
    webhook: Mapping[str, Any] = field(default_factory=dict)
    degradation: Mapping[str, Any] = field(default_factory=dict)
    routes: tuple[Mapping[str, Any], ...] = ()
    dashboard: Mapping[str, Any] = field(default_factory=dict)
    protection: Mapping[str, Any] = field(default_factory=dict)
    sessions: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        for name, kind, allowed in _CHECKS:
            value = getattr(self, name)
            right = isinstance(value, kind) and not (
                isinstance(value, bool) and bool not in (kind if isinstance(kind, tuple) else (kind,))
            )
            if not right:
                raise ConfigError(f"{name}={value!r} must be {allowed}")
        _in_range("port", self.port, 0, 65535)
        _in_range("workers", self.workers, 1, 256)
        _in_range("threads", self.threads, 1, 1024)
        _in_range("metrics_port", self.metrics_port, 0, 65536 - self.workers)
        if self.metrics_port and self.metrics_port <= self.port < self.metrics_port + self.workers:
            raise ConfigError(
                f"metrics_port={self.metrics_port!r} is where requests arrive: each worker needs one of its own"
            )
        if self.interface not in INTERFACES:
            raise ConfigError(f"interface={self.interface!r} must be one of {', '.join(INTERFACES)}")
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(f"log_level={self.log_level!r} must be one of {', '.join(LOG_LEVELS)}")
        if not 0 < self.upstream_timeout <= 86400:
            raise ConfigError(f"upstream_timeout={self.upstream_timeout!r} must be a number of seconds, more than 0")
        if not self.host or any(one in "/[]" or one.isspace() for one in self.host):
            raise ConfigError(f"host={self.host!r} must be an address or a name to listen on, such as 0.0.0.0 or ::1")
        if self.to:
            object.__setattr__(self, "to", check_origin(self.to))
        if self.app and not all(self.app.partition(":")[::2]):
            raise ConfigError(f"app={self.app!r} must be written package.module:attribute, such as shop.main:app")

    def classes(self) -> dict[str, Policy]:
        """Return the TTL classes. Raises ``ConfigError``."""
        made: dict[str, Duration | Policy] = {}
        for name, value in self.ttl_classes.items():
            if not isinstance(value, Mapping):
                made[name] = value
                continue
            known(value, _CLASS_FIELDS, f"ttl_classes.{name}")
            try:
                made[name] = Policy.of(value.get("ttl"), **{"jitter": self.jitter, **_without(value, "ttl")})
            except ConfigError as exc:
                raise ConfigError(f"ttl_classes.{name}: {exc}") from exc
        resolved = TTLClasses(made, jitter=self.jitter)
        return {name: resolved.resolve(name, Policy()) for name in resolved.names}

    def header_rules(self) -> tuple[Rule, ...]:
        """Return the header rules, TTL classes resolved. Raises ``ConfigError``."""
        classes = TTLClasses(self.classes())
        made: list[Rule] = []
        for number, given in enumerate(self.rules, 1):
            where = f"rules[{number}] ({given.get('path', 'no path')})"
            known(given, _RULE_FIELDS, where)
            if "path" not in given:
                raise ConfigError(f'{where}: path is missing; write path = "/products/{{id}}"')
            values = dict(given)
            if "ttl" in values:
                try:
                    policy = classes.resolve(values["ttl"], Policy())
                except ConfigError as exc:
                    raise ConfigError(f"{where}: {exc}") from exc
                values["ttl"] = policy.ttl
                values.setdefault("stale_while_revalidate", policy.stale_while_revalidate or None)
                values.setdefault("stale_if_error", policy.stale_if_error or None)
            try:
                made.append(Rule(**values))
            except (ConfigError, TypeError) as exc:
                raise ConfigError(f"{where}: {exc}") from exc
        return tuple(made)

    def http_options(self) -> HttpOptions:
        """Return the settings of the HTTP cache. Raises ``ConfigError``."""
        known(self.http, _HTTP_FIELDS, "http")
        try:
            return HttpOptions(**self.http)
        except (ConfigError, TypeError) as exc:
            raise ConfigError(f"http: {exc}") from exc

    def cache(self) -> Cache:
        """Build the cache. Connects to nothing. Raises ``ConfigError``."""
        return Cache(
            self.url,
            ttl_classes=self.classes(),
            jitter=self.jitter,
            namespace=self.namespace,
            timeout=self.timeout,
            max_entries=self.max_entries,
            max_bytes=self.max_bytes,
            purgers=purgers_of(self.purgers),
            purging=purging_of(self.purging),
            protection=protection_of(self.protection),
        )

    def compressed(self) -> Compression | None:
        """Return how responses are encoded, or None. Raises ``ConfigError``."""
        return compression_of(self.compression)

    def received(self) -> Webhook | None:
        """Return the webhook, or None. Raises ``ConfigError``."""
        return webhook_of(self.webhook)

    def degraded(self) -> DegradeOptions | None:
        """Return what happens while the store is away, or None. Raises ``ConfigError``."""
        return degradation_of(self.degradation)

    def guarded(self) -> tuple[Route, ...]:
        """Return the routes. Raises ``ConfigError``."""
        return routes_of(self.routes)

    def observed(self) -> Dashboard | None:
        """Return the status page, or None. Raises ``ConfigError``."""
        return dashboard_of(self.dashboard)

    def visitors(self) -> tuple[str, SessionOptions] | None:
        """Return the URL of the sessions (empty: where the cache is) and their settings, or None. Raises ``ConfigError``."""
        found = sessions_of(self.sessions)
        if found is None:
            return None
        if self.to:
            raise ConfigError("sessions: a proxy has none: the server behind it keeps its own")
        url = found[0] or self.url
        if self.workers > 1 and (url.startswith("memory:") or "embedded:" in found[0]):
            raise ConfigError(
                f"sessions: with {self.workers} workers each would know other sessions at {url}: name a server, or "
                "embedded:// for the cache and no url in [tool.cachekit.sessions]"
            )
        return found

    def check(self) -> None:
        """Raise ``ConfigError`` for whatever would be found wrong only later."""
        self.header_rules()
        self.http_options()
        purgers_of(self.purgers)
        purging_of(self.purging)
        self.compressed()
        self.received()
        self.degraded()
        self.guarded()
        self.observed()
        protection_of(self.protection)
        self.visitors()


_CHECKS: Final[tuple[tuple[str, Any, str], ...]] = (
    ("app", str, "a string such as shop.main:app"),
    ("to", str, "a string such as http://127.0.0.1:3000"),
    ("upstream_timeout", (int, float), "a number of seconds"),
    ("url", str, "a string such as memory:// or redis://localhost"),
    ("host", str, "an address such as 127.0.0.1"),
    ("port", int, "a whole number from 0 to 65535"),
    ("workers", int, "a whole number from 1 to 256"),
    ("interface", str, f"one of {', '.join(INTERFACES)}"),
    ("factory", bool, "true or false"),
    ("log_level", str, f"one of {', '.join(LOG_LEVELS)}"),
    ("access_log", bool, "true or false"),
    ("threads", int, "a whole number from 1 to 1024"),
    ("metrics_port", int, "a whole number from 0 to 65535"),
    ("namespace", str, "a word"),
    ("timeout", (int, float), "a number of seconds"),
    ("max_entries", int, "a whole number"),
    ("max_bytes", int, "a number of bytes"),
    ("jitter", (int, float), "a number from 0 to 1"),
    ("ttl_classes", Mapping, 'a table such as ttl_classes = {prices = "5m"}'),
    ("rules", tuple, "a list of tables, each written [[tool.cachekit.rules]]"),
    ("http", Mapping, "a table, written [tool.cachekit.http]"),
    ("compression", (bool, Mapping), "true, false, or a table, written [tool.cachekit.compression]"),
    ("purgers", tuple, "a list of tables, each written [[tool.cachekit.purgers]]"),
    ("purging", Mapping, "a table, written [tool.cachekit.purging]"),
    ("webhook", Mapping, "a table, written [tool.cachekit.webhook]"),
    ("degradation", Mapping, "a table, written [tool.cachekit.degradation]"),
    ("routes", tuple, "a list of tables, each written [[tool.cachekit.routes]]"),
    ("dashboard", Mapping, "a table, written [tool.cachekit.dashboard]"),
    ("protection", Mapping, "a table, written [tool.cachekit.protection]"),
    ("sessions", Mapping, "a table, written [tool.cachekit.sessions]"),
)


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}={value!r} must be a whole number from {low} to {high}")


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def find_file(directory: Path) -> Path | None:
    """Return the file in *directory* that has a ``[tool.cachekit]`` table: ``cachekit.toml`` or ``pyproject.toml``."""
    for name in FILES:
        path = directory / name
        if path.is_file() and _table(path) is not None:
            return path
    return None


def _table(path: Path) -> Mapping[str, Any] | None:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"--config: {path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not valid TOML: {exc}") from exc
    table = document.get("tool", {}).get("cachekit")
    return table if isinstance(table, Mapping) else None


def load(file: Path | None, options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> RunConfig:
    """Return the configuration: *options* before ``CACHEKIT_URL`` before *file* before the defaults.

    Args:
        file: where the table is; None looks for it in the current directory.
        options: what was given on the command line, by the names of the settings; None means not given.
        environ: the environment.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
    """
    path = file if file is not None else find_file(Path.cwd())
    values: dict[str, Any] = {}
    if path is not None:
        table = _table(path)
        if table is None:
            raise ConfigError(f"--config: {path} has no [tool.cachekit] table")
        settings = tuple(f.name for f in dataclasses.fields(RunConfig) if f.name != "source")
        known(table, settings, f"{path.name} [tool.cachekit]")
        values = {**table, "source": str(path)}
        values.update({name: tuple(values[name]) for name in LISTS if isinstance(values.get(name), list)})
    if url := environ.get("CACHEKIT_URL"):
        values["url"] = url
    values.update({name: value for name, value in options.items() if value is not None})
    config = RunConfig(**values)
    config.check()
    return config
