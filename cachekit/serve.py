"""The application that ``cachekit run`` serves: an existing one with the middleware around it, built in each worker.

Tells ASGI and WSGI applications apart. Must not know about the command line.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachekit import default
from cachekit.closing import Closing
from cachekit.config import LISTS, RunConfig
from cachekit.errors import ConfigError

if TYPE_CHECKING:
    from cachekit.sessions import Sessions

ENVIRONMENT: Final = "CACHEKIT_RUN"
"""How a worker process receives the configuration: as JSON."""


def load_app(path: str, *, factory: bool) -> Any:
    """Import the application. Raises ``ConfigError`` when there is none; an error inside of it is raised as it is."""
    module_name, _, attribute = path.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (module_name + ".").startswith(exc.name + "."):
            raise
        raise ConfigError(f"app={path!r}: there is no module {exc.name!r} here or on the Python path") from exc
    app: Any = module
    for name in attribute.split("."):
        if not hasattr(app, name):
            found = [other for other, value in vars(module).items() if callable(value) and not other.startswith("_")]
            raise ConfigError(
                f"app={path!r}: {module_name} has no {attribute!r}; it has {', '.join(found) or 'nothing'}"
            )
        app = getattr(app, name)
    if factory:
        app = app()
    if not callable(app):
        raise ConfigError(f"app={path!r} is {type(app).__name__}, which is no application")
    return app


def interface_of(app: Any, wanted: str = "auto") -> str:
    """Return ``asgi`` or ``wsgi``. Raises ``ConfigError`` when *app* could be neither, or either."""
    if wanted != "auto":
        return wanted
    call: Callable[..., Any] = app if inspect.isroutine(app) or inspect.isclass(app) else type(app).__call__
    if inspect.iscoroutinefunction(inspect.unwrap(call)) or inspect.iscoroutinefunction(app):
        return "asgi"
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) == 3:
        return "asgi"
    if len(required) == 2:
        return "wsgi"
    hint = "it takes no arguments: if it returns the application, use --factory" if not required else "use --interface"
    raise ConfigError(f"the application could be neither told to be ASGI nor WSGI: {hint} (allowed: asgi, wsgi)")


def sessions_of(config: RunConfig) -> Sessions | None:
    """Return where sessions are kept, None where there are none. Raises ``ConfigError``."""
    found = config.visitors()
    if found is None:
        return None
    from cachekit.sessions import Sessions

    return Sessions(found[0] or default.default_cache(), found[1])


def wrap(app: Any, config: RunConfig, sessions: Sessions | None = None) -> Any:
    """Return *app* as an ASGI application with the middleware around it.

    A WSGI application runs in threads; what the cache answers never reaches them. It gets its session from the middleware of
    its own kind, in the thread in which it runs.
    """
    from cachekit.asgi import CacheKit

    degradation = config.degraded()
    if not config.to and interface_of(app, config.interface) == "wsgi":
        from a2wsgi import WSGIMiddleware

        if sessions is not None:
            from cachekit.sessions.wsgi import SessionMiddleware

            store_away, app, sessions = sessions.store_away, SessionMiddleware(app, sessions), None
            if degradation is not None:
                degradation = degradation.watching("sessions", lambda: not store_away())
        app = WSGIMiddleware(app, workers=config.threads)
    return CacheKit(
        app,
        cache=default.default_cache(),
        rules=config.header_rules(),
        options=config.http_options(),
        compression=config.compressed(),
        webhook=config.received(),
        degradation=degradation,
        sessions=sessions,
        routes=config.guarded(),
        dashboard=config.observed(),
    )


def publish(config: RunConfig) -> None:
    """Leave *config* where ``create`` of this process and of the workers finds it."""
    os.environ[ENVIRONMENT] = json.dumps(asdict(config))


class Readable(logging.Filter):
    """Keeps what a proxy meets every day to one line of the server's log.

    A response that the server behind broke off needs no traceback through this process; a WebSocket that was refused with
    an answer of HTTP has no handshake to complete.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether *record* is logged."""
        from cachekit.proxy import BrokenBody

        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, BrokenBody):
            record.msg, record.args, record.exc_info = "%s", (error,), None
        return "without completing handshake" not in record.getMessage()


def create() -> Any:
    """Build the application of one worker."""
    values = json.loads(os.environ[ENVIRONMENT])
    config = RunConfig(**{**values, **{name: tuple(values[name]) for name in LISTS}})
    if not default.is_made():
        default.use(config.cache())
    if config.to:
        from cachekit.proxy import ReverseProxy

        server = logging.getLogger("uvicorn.error")
        if not any(isinstance(one, Readable) for one in server.filters):
            server.addFilter(Readable())
        wrapped = wrap(ReverseProxy(config.to, timeout=config.upstream_timeout), config)
        sessions = None
    else:
        app, sessions = load_app(config.app, factory=config.factory), sessions_of(config)
        wrapped = wrap(app, config, sessions)
    cache = default.default_cache()
    if config.metrics_port:
        from cachekit.observe.endpoint import expose

        expose(cache, config.host, config.metrics_port, config.workers)
    return Closing(wrapped, cache) if sessions is None else Closing(wrapped, sessions, cache)
