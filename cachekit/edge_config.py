"""The tables of ``[tool.cachekit]`` that concern the edge (compression, purgers, webhook, degradation, routes, the status
page), and what is kept secret: sessions, protection at rest.

Owns their names and where secrets come from: a table names environment variables, never secrets, since it is kept in
files and handed to workers. Every mistake names the setting. Must not start anything.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cachekit.cdn.base import Purger
from cachekit.cdn.cloudflare import Cloudflare
from cachekit.cdn.fastly import Fastly
from cachekit.cdn.options import PurgeOptions
from cachekit.cdn.varnish import Varnish
from cachekit.codecs.protection import Encryption, Protection, Signing
from cachekit.compress.options import Compression
from cachekit.dashboard import Dashboard
from cachekit.degrade import DegradeOptions, Route
from cachekit.errors import ConfigError
from cachekit.sessions.options import SessionOptions
from cachekit.webhook import Effect, Events, Scheme, Webhook, catalogue

_PURGERS: Final[Mapping[str, Any]] = {"cloudflare": Cloudflare, "fastly": Fastly, "varnish": Varnish}
_SECRETS: Final = ("token", "secret")
_MAPPINGS: Final = {"catalogue": catalogue}
_EVENT_FIELDS: Final = ("event_field", "data_field", "changed_field", "previous_field")
_WEBHOOK: Final = (
    "path", "secret_env", "scheme", "tolerance", "max_body", "remember", "name", "mapping", "events", *_EVENT_FIELDS
)  # fmt: skip
_DASHBOARD: Final = ("path", "password_env", "title", "refresh", "hot_keys")
_PROTECTIONS: Final[Mapping[str, Any]] = {"encryption": Encryption, "signing": Signing}
_NOT_IN_A_TABLE: Final = ("secrets", "codec", "keys")
_SESSIONS: Final = (
    "url", "secrets_env", *(f.name for f in dataclasses.fields(SessionOptions) if f.name not in _NOT_IN_A_TABLE)
)  # fmt: skip
_DEGRADATION: Final = ("protected", "retry_after", "body", "health_path", "codes", "max_age", "status_name")


def known(given: object, allowed: Sequence[str], where: str) -> None:
    """Raise ``ConfigError`` for what is no table, or for a name in it that is not allowed."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} must be a table, not {given!r}")
    for name in given:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigError(f"{where}: there is no setting {name!r}{hint}; the settings are {', '.join(allowed)}")


def purgers_of(tables: Sequence[Any], environ: Mapping[str, str] = os.environ) -> list[Purger]:
    """Return the purgers that *tables* describe. Raises ``ConfigError``."""
    return [_purger(table, f"purgers[{number}]", environ) for number, table in enumerate(tables, 1)]


def _purger(table: Any, where: str, environ: Mapping[str, str]) -> Purger:
    if not isinstance(table, Mapping) or table.get("type") not in _PURGERS:
        raise ConfigError(f"{where}: type must be one of {', '.join(_PURGERS)}")
    kind = _PURGERS[table["type"]]
    where = f"{where} ({table['type']})"
    fields = [f.name for f in dataclasses.fields(kind)]
    for name in _SECRETS:
        if name in table:
            raise ConfigError(f'{where}: {name} does not belong in a file: write {name}_env = "NAME_OF_A_VARIABLE"')
    allowed = ["type", *(f"{name}_env" if name in _SECRETS else name for name in fields)]
    known(table, allowed, where)
    values = {name: value for name, value in table.items() if name != "type" and not name.endswith("_env")}
    for name in _SECRETS:
        if (variable := table.get(f"{name}_env")) is not None:
            values[name] = _secret(variable, f"{where}: {name}_env", environ)
    return _made(kind, values, where)  # type: ignore[no-any-return]


def purging_of(table: Any) -> PurgeOptions | None:
    """Return when purges are delivered, None for the defaults. Raises ``ConfigError``."""
    if not table:
        return None
    known(table, [f.name for f in dataclasses.fields(PurgeOptions)], "purging")
    return _made(PurgeOptions, table, "purging")  # type: ignore[no-any-return]


def webhook_of(table: Any, environ: Mapping[str, str] = os.environ) -> Webhook | None:
    """Return the webhook that *table* describes, None without one. Raises ``ConfigError``."""
    if not table:
        return None
    if isinstance(table, Mapping) and {"secret", "secrets"} & table.keys():
        raise ConfigError('webhook: secrets do not belong in a file: write secret_env = "NAME_OF_A_VARIABLE"')
    known(table, _WEBHOOK, "webhook")
    variables = _variables(table, "webhook", "secret_env")
    values: dict[str, Any] = {
        name: table[name] for name in ("path", "tolerance", "max_body", "remember", "name") if name in table
    }
    values["secrets"] = [_secret(variable, "webhook: secret_env", environ) for variable in variables]
    if "scheme" in table:
        values["scheme"] = _scheme(table["scheme"])
    values["events"] = _events(table)
    return _made(Webhook, values, "webhook")  # type: ignore[no-any-return]


def _scheme(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    known(given, [f.name for f in dataclasses.fields(Scheme)], "webhook.scheme")
    values = {name: value or None for name, value in given.items()}  # TOML has no null: "" says that there is none
    return _made(Scheme, values, "webhook.scheme")


def _events(table: Mapping[str, Any]) -> Events:
    tables = table.get("events", {})
    named = table.get("mapping", None if tables else "catalogue")
    if named is not None and named not in _MAPPINGS:
        raise ConfigError(f"webhook: mapping={named!r} must be one of {', '.join(_MAPPINGS)}")
    known(tables, list(tables) if isinstance(tables, Mapping) else (), "webhook.events")
    effects = dict(_MAPPINGS[named]().effects) if named is not None else {}
    for name, one in tables.items():
        where = f"webhook.events.{name}"
        known(one, ("tags", "changed"), where)
        effects[name] = _made(Effect, one, where)
    return _made(Events, {"effects": effects, **{n: table[n] for n in _EVENT_FIELDS if n in table}}, "webhook")  # type: ignore[no-any-return]


def compression_of(given: Any) -> Compression | None:
    """Return how responses are encoded, None where they are not. Raises ``ConfigError``."""
    if given is False or given is None:
        return None
    if given is True:
        return Compression()
    known(given, [f.name for f in dataclasses.fields(Compression) if f.init], "compression")
    return _made(Compression, given, "compression")  # type: ignore[no-any-return]


def degradation_of(table: Any) -> DegradeOptions | None:
    """Return what happens while something is away, None without a table. Raises ``ConfigError``."""
    if not table:
        return None
    known(table, _DEGRADATION, "degradation")
    values = dict(table)
    if values.get("health_path") == "":
        values["health_path"] = None
    return _made(DegradeOptions, values, "degradation")  # type: ignore[no-any-return]


def sessions_of(table: Any, environ: Mapping[str, str] = os.environ) -> tuple[str, SessionOptions] | None:
    """Return the URL of the sessions that *table* describes (empty: where the cache is) and their settings, or None.

    Raises:
        ConfigError: a setting is unknown or wrong, or names a variable that is not set.
    """
    if not table:
        return None
    if isinstance(table, Mapping) and {"secret", "secrets"} & table.keys():
        raise ConfigError('sessions: secrets do not belong in a file: write secrets_env = "NAME_OF_A_VARIABLE"')
    known(table, _SESSIONS, "sessions")
    url = table.get("url", "")
    if not isinstance(url, str):
        raise ConfigError(f"sessions: url={url!r} must be a string such as redis://localhost")
    values = {name: value for name, value in table.items() if name not in ("url", "secrets_env", "protection")}
    variables = _variables(table, "sessions", "secrets_env")
    values["secrets"] = [_secret(variable, "sessions: secrets_env", environ) for variable in variables]
    try:
        values["protection"] = protection_of(table.get("protection"), environ)
    except ConfigError as exc:
        raise ConfigError(f"sessions.{exc}") from exc
    return url, _made(SessionOptions, values, "sessions")


def dashboard_of(table: Any, environ: Mapping[str, str] = os.environ) -> Dashboard | None:
    """Return the status page that *table* describes, None without one. Raises ``ConfigError``."""
    if not table:
        return None
    if isinstance(table, Mapping) and "password" in table:
        raise ConfigError('dashboard: a password does not belong in a file: write password_env = "NAME_OF_A_VARIABLE"')
    known(table, _DASHBOARD, "dashboard")
    if "path" not in table:
        raise ConfigError('dashboard: path is missing; write path = "/-/cachekit"')
    if "password_env" not in table:
        raise ConfigError('dashboard: password_env is missing: write password_env = "NAME_OF_A_VARIABLE"')
    values = {name: value for name, value in table.items() if name != "password_env"}
    values["password"] = _secret(table["password_env"], "dashboard: password_env", environ)
    return _made(Dashboard, values, "dashboard")  # type: ignore[no-any-return]


def protection_of(table: Any, environ: Mapping[str, str] = os.environ) -> Protection | None:
    """Return how values are protected at rest, None without a table. Raises ``ConfigError``."""
    if not table:
        return None
    if isinstance(table, Mapping) and {"key", "keys"} & table.keys():
        raise ConfigError('protection: keys do not belong in a file: write keys_env = ["NAME_OF_A_VARIABLE"]')
    known(table, ("kind", "keys_env"), "protection")
    kind = table.get("kind")
    if kind not in _PROTECTIONS:
        raise ConfigError(f"protection: kind={kind!r} must be one of {', '.join(_PROTECTIONS)}")
    keys = [
        _secret(variable, "protection: keys_env", environ) for variable in _variables(table, "protection", "keys_env")
    ]
    return _made(_PROTECTIONS[kind], {"keys": keys}, "protection")  # type: ignore[no-any-return]


def routes_of(tables: Sequence[Any]) -> tuple[Route, ...]:
    """Return the routes that *tables* describe. Raises ``ConfigError``."""
    made: list[Route] = []
    for number, table in enumerate(tables, 1):
        where = f"routes[{number}]"
        known(table, [f.name for f in dataclasses.fields(Route)], where)
        if "path" not in table:
            raise ConfigError(f'{where}: path is missing; write path = "/reports/**"')
        made.append(_made(Route, table, where))
    return tuple(made)


def _variables(table: Mapping[str, Any], where: str, name: str) -> list[Any]:
    """Return the variables that the setting *name* lists. Raises ``ConfigError`` when there is none."""
    named = table.get(name)
    variables = [named] if isinstance(named, str) else named
    if not isinstance(variables, list) or not variables:
        raise ConfigError(f'{where}: {name} is missing: write {name} = "NAME_OF_A_VARIABLE", or a list of them')
    return variables


def _secret(variable: object, where: str, environ: Mapping[str, str]) -> str:
    if not isinstance(variable, str) or not variable:
        raise ConfigError(f"{where} must be the name of an environment variable")
    if not environ.get(variable):
        raise ConfigError(f"{where} names the environment variable {variable}, which is not set")
    return environ[variable]


def _made(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    try:
        return kind(**values)
    except TypeError as exc:
        raise ConfigError(f"{where}: {str(exc).rpartition('() ')[2]}") from exc
    except ConfigError as exc:
        message = str(exc)
        raise ConfigError(message if message.startswith(f"{where}: ") else f"{where}: {message}") from exc
