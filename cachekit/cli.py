"""The commands. ``cachekit run package.module:app`` serves an existing application with the middleware around it, and
``cachekit proxy --to http://127.0.0.1:3000`` one that is written in another language.

Reads options, shows what will happen, starts the server. Decides nothing that config.py and serve.py decide.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from cachekit import __version__
from cachekit.config import INTERFACES, LOG_LEVELS, RunConfig, load
from cachekit.edge_config import protection_of, purgers_of
from cachekit.errors import CacheKitError, ConfigError
from cachekit.policy import FOREVER
from cachekit.stores.build import is_private

if TYPE_CHECKING:
    from rich.table import Table

    from cachekit.facade import Cache
    from cachekit.stores.embedded import EmbeddedServer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0, or 2 for a wrong configuration."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        return {"run": _run, "proxy": _run, "invalidate": _invalidate, "purges": _purges}[given.command](given)
    except ConfigError as exc:
        print(f"cachekit: {exc}", file=sys.stderr)
        return 2
    except CacheKitError as exc:
        print(f"cachekit: {exc}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cachekit", description="Make an existing web application fast.")
    parser.add_argument("--version", action="version", version=f"cachekit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="serve an ASGI or WSGI application with the cache around it",
        description="Serve an ASGI or WSGI application with the cache around it; no line of the application changes. "
        "Options override CACHEKIT_URL, which overrides the [tool.cachekit] table of cachekit.toml or pyproject.toml.",
    )
    run.add_argument("app", nargs="?", help="the application, as package.module:attribute")
    run.add_argument("--interface", choices=INTERFACES, help="what the application is; told by itself when left out")
    run.add_argument("--factory", action="store_true", default=None, help="APP is a function that returns it")
    run.add_argument("--threads", type=int, help="threads for a WSGI application (16)")
    _serving(run)
    proxy = commands.add_parser(
        "proxy",
        help="serve what another server answers, with the cache in front of it",
        description="A reverse proxy with the cache in it, for applications in any language. Options as for `cachekit run`.",
    )
    proxy.add_argument("--to", metavar="ORIGIN", help="the server to ask, such as http://127.0.0.1:3000")
    proxy.add_argument("--upstream-timeout", type=float, metavar="SECONDS", help="how long to wait for it (60)")
    _serving(proxy)
    invalidate = commands.add_parser(
        "invalidate",
        help="drop everything that carries a tag, in every process and at the CDNs",
        description="Drop everything that carries one of the tags: on the server, in every process, and at the purgers of "
        "the [tool.cachekit] table. Ends with 1 when a CDN has not confirmed in time; the purge then goes on.",
    )
    invalidate.add_argument("tags", nargs="+", metavar="TAG")
    invalidate.add_argument("--wait", type=float, default=10.0, metavar="SECONDS", help="for the CDNs (10)")
    purges = commands.add_parser("purges", help="show what waits to be purged at the CDNs")
    purges.add_argument("--retry-dead", action="store_true", help="try the purges anew that were given up")
    for command in (invalidate, purges):
        command.add_argument("--config", type=Path, metavar="FILE", help="TOML file with a [tool.cachekit] table")
        command.add_argument("--store", dest="url", metavar="URL", help="redis://..., tiered+redis://...")
    return parser


def _serving(run: argparse.ArgumentParser) -> None:
    """Add the options of every command that serves."""
    run.add_argument("--config", type=Path, metavar="FILE", help="TOML file with a [tool.cachekit] table")
    run.add_argument(
        "--store", dest="url", metavar="URL", help="memory://, redis://..., tiered+redis://..., embedded://"
    )
    run.add_argument("--host", help="address to listen on (127.0.0.1)")
    run.add_argument("--port", type=int, help="port to listen on (8000); 0 for a free one")
    run.add_argument("--workers", type=int, help="number of processes (1)")
    run.add_argument(
        "--metrics-port", type=int, metavar="N", help="show figures to Prometheus here; one port for each worker"
    )
    run.add_argument("--log-level", choices=LOG_LEVELS)
    run.add_argument("--access-log", action="store_true", default=None, help="log each request")
    run.add_argument("--check", action="store_true", help="show what would happen, and stop")


def _open(given: argparse.Namespace) -> Cache:
    """Return the cache that the commands other than ``run`` work on."""
    config = load(given.config, {"url": given.url})
    if is_private(config.url):
        raise ConfigError(
            f"url={config.url} is in the processes that serve, which cannot be reached from here: name a server"
        )
    return config.cache()


def _invalidate(given: argparse.Namespace) -> int:
    with _open(given) as cache:
        cache.invalidate(*given.tags)
        if cache.stats().pending:
            print("cachekit: the store is away; nothing was invalidated", file=sys.stderr)
            return 1
        done = cache.flush_purges(given.wait)
        print(f"invalidated {', '.join(given.tags)}")
        _show(cache)
        return 0 if done else 1


def _purges(given: argparse.Namespace) -> int:
    with _open(given) as cache:
        if not cache.available():
            print("cachekit: the store cannot be reached, and what waits there with it", file=sys.stderr)
            return 1
        if given.retry_dead:
            print(f"{cache.retry_purges()} purges are tried anew")
        _show(cache)
        return 0


def _show(cache: Cache) -> None:
    for name, status in cache.purges().items():
        error = f"; last error: {status.last_error}" if status.last_error else ""
        oldest = f", the oldest for {status.oldest_age:.0f} s" if status.pending else ""
        print(
            f"{name}: {status.pending} pending{oldest}, {status.dead} given up, {status.delivered} delivered, "
            f"{status.failed} failed{error}"
        )


def _run(given: argparse.Namespace) -> int:
    options = {name: value for name, value in vars(given).items() if name not in ("command", "config", "check")}
    config = load(given.config, options)
    if given.command == "run":
        config = replace(config, to="")
        if not config.app:
            raise ConfigError(
                'app is missing: write `cachekit run package.module:app`, or app = "..." in [tool.cachekit]'
            )
    elif not config.to:
        raise ConfigError(
            'to is missing: write `cachekit proxy --to http://...`, or to = "http://..." in [tool.cachekit]'
        )
    try:
        import uvicorn
        from rich.console import Console

        if config.to:
            import httpx  # noqa: F401 - told now that it is missing, not by a worker
        if config.metrics_port:
            import prometheus_client  # noqa: F401
    except ImportError as exc:
        needed = "metrics_port needs the extra `prometheus`"
        if exc.name != "prometheus_client":
            needed = f"`cachekit {given.command}` needs the extra `server`"
        raise ConfigError(f"{needed}, and {exc.name} is not installed") from exc
    from cachekit import default, serve

    try:
        socket.getaddrinfo(config.host, config.port)
    except (OSError, UnicodeError) as exc:  # the second for what no name may be
        raise ConfigError(f"host={config.host!r} is nothing to listen on here: {exc}") from exc
    server: EmbeddedServer | None = None
    shown = config
    if config.workers > 1 and "embedded://" in config.url and not given.check:
        config, server = _share_embedded(config)
    try:
        if config.workers == 1 or given.check:
            default.use(config.cache())
        serve.publish(config)
        if config.to:
            interface = "proxy"
        else:
            interface = serve.interface_of(serve.load_app(config.app, factory=config.factory), config.interface)
        console = Console(highlight=False)
        console.print(summary(shown, interface))
        for warning in warnings(shown):
            console.print(f"[yellow]warning:[/] {warning}")
        if given.check:
            return 0
        uvicorn.run(
            "cachekit.serve:create",
            factory=True,
            host=config.host,
            port=config.port,
            workers=config.workers,
            log_level=config.log_level,
            access_log=config.access_log,
            date_header=not config.to,  # a proxy passes on the Date of the server behind it
            server_header=not config.to,
        )
        return 0
    finally:
        if default.is_made():
            default.default_cache().close()
        if server is not None:
            server.close()


def _share_embedded(config: RunConfig) -> tuple[RunConfig, EmbeddedServer]:
    """Start one embedded server for all workers."""
    from cachekit.stores.embedded import EmbeddedServer

    parts = urlsplit(config.url)
    server = EmbeddedServer(parts.netloc + parts.path or None)
    prefix = "tiered+" if parts.scheme.startswith("tiered+") else ""
    return replace(config, url=prefix + server.url), server


def warnings(config: RunConfig) -> list[str]:
    """Return what the reader of the table should know."""
    found = []
    if config.workers > 1 and config.url.startswith("memory:"):
        found.append(
            "each of the workers has a cache of its own, and an invalidation reaches only one of them: "
            "use --store tiered+embedded:// or a server"
        )
    if not config.rules:
        found.append("no rules are given: only responses that declare their own freshness are cached")
    return found


def summary(config: RunConfig, interface: str) -> Table:
    """Return the table that says what will happen."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="cachekit", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    workers = f", {config.workers} workers" if config.workers > 1 else ""
    rows: list[tuple[str, str]] = [
        ("server behind", config.to) if config.to else ("application", f"{config.app} ({interface.upper()})"),
        ("address", f"http://{config.host}:{config.port}{workers}"),
        ("store", _without_password(config.url)),
        ("configuration", config.source or "defaults"),
    ]
    rows += [(f"class {name}", _span(policy.ttl)) for name, policy in config.classes().items()]
    rows += [(f"rule {rule.path}", _describe(rule)) for rule in config.header_rules()]
    if (compression := config.compressed()) is not None:
        rows.append(("compression", ", ".join(compression.offered)))
    rows += [("purges", repr(purger)) for purger in purgers_of(config.purgers)]
    if (webhook := config.received()) is not None:
        rows.append(("webhook", f"{webhook.path}: {', '.join(webhook.events.effects)}"))
    if (degraded := config.degraded()) is not None:
        rows.append(("degradation", f"protected {', '.join(degraded.protected) or 'nothing'}; {degraded.health_path}"))
    if (visitors := config.visitors()) is not None:
        where = _without_password(visitors[0]) if visitors[0] else "where the cache is"
        rows.append(("sessions", f"{visitors[1].cookie}, kept {_span(visitors[1].life(remembered=False))}, {where}"))
    if (protection := protection_of(config.protection)) is not None:
        rows.append(("protection", repr(protection)))
    if config.metrics_port:
        last = f" to {config.metrics_port + config.workers - 1}" if config.workers > 1 else ""
        rows.append(("figures", f"http://{config.host}:{config.metrics_port}{last}"))
    if (dashboard := config.observed()) is not None:
        rows.append(("status page", dashboard.path))
    rows += [
        (f"route {route.path}", f"time-out {route.timeout}, concurrency {route.concurrency}")
        for route in config.guarded()
    ]
    for label, text in rows:
        table.add_row(Text(label), Text(text))
    return table


def _describe(rule: Any) -> str:
    parts = []
    if not rule.store:
        parts.append("never stored")
    if rule.ttl is not None:
        parts.append(f"kept {_span(rule.ttl)}")
    windows = ("stale_while_revalidate", "stale_if_error")
    parts += [f"{name.replace('_', '-')} {_span(value)}" for name in windows if (value := getattr(rule, name))]
    if rule.cache_control:
        parts.append(f"Cache-Control: {rule.cache_control}")
    if rule.surrogate_control:
        parts.append(f"Surrogate-Control: {rule.surrogate_control}")
    if rule.tags:
        parts.append(f"tags {', '.join(rule.tags)}")
    return "; ".join(parts) or "no change"


def _span(seconds: float) -> str:
    if seconds == FOREVER:
        return "until invalidated"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***{at}{host}")) if at else url
