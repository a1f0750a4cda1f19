"""The options of ``cached``, checked and resolved when a function is decorated.

Owns what each option may be; must not know functions or caches.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cachekit.errors import ConfigError
from cachekit.loading import Outcomes
from cachekit.policy import Duration, Policy, positive_seconds, seconds
from cachekit.signatures import CachedOptions, KeySource, ResultTags, TagsSource


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one decoration, resolved by the cache it belongs to."""

    policy: Policy
    tags: TagsSource = ()
    result_tags: ResultTags = None
    key: KeySource = None
    ignore: tuple[str, ...] = ()
    lock: bool = True
    copy: bool = False
    outcomes: Outcomes = field(default_factory=Outcomes)
    version: str = ""


def resolve(policy_of: Callable[[Duration | Policy | None], Policy], options: Mapping[str, Any]) -> Options:
    """Return *options* checked and complete; *policy_of* gives the policy that a ``ttl`` means. Raises ``ConfigError``."""
    return _resolve(policy_of, **options)


def _resolve(
    policy_of: Callable[[Duration | Policy | None], Policy],
    *,
    ttl: Duration | Policy | None = None,
    tags: TagsSource = (),
    result_tags: ResultTags = None,
    key: KeySource = None,
    ignore: Sequence[str] = (),
    lock: bool = True,
    copy: bool = False,
    keep_if: Callable[[Any], object] | None = None,
    none_ttl: Duration | None = None,
    exceptions: Mapping[type[Exception], Duration] | None = None,
    version: str | int = "",
    **changes: Any,
) -> Options:
    policy = policy_of(ttl)
    unknown = changes.keys() - _POLICY_CHANGES
    if unknown:
        known = ", ".join(CachedOptions.__annotations__)
        raise ConfigError(f"cached() has no option {', '.join(sorted(unknown))}: the options are {known}")
    for name in ("stale_while_revalidate", "stale_if_error"):
        if name in changes:
            changes[name] = seconds(changes[name], name)
    for name in ("lease", "soft_timeout", "hard_timeout"):
        if name in changes:
            changes[name] = positive_seconds(changes[name], name)
    for name, flag in (("lock", lock), ("copy", copy)):
        if not isinstance(flag, bool):
            raise ConfigError(f"{name}={flag!r} must be True or False")
    return Options(
        policy=replace(policy, **changes) if changes else policy,
        tags=tuple(tags) if isinstance(tags, Iterable) and not isinstance(tags, str) else tags,
        result_tags=result_tags,
        key=key,
        ignore=(ignore,) if isinstance(ignore, str) else tuple(ignore),
        lock=lock,
        copy=copy,
        outcomes=_outcomes(keep_if, none_ttl, exceptions or {}),
        version=_version(version),
    )


_POLICY_CHANGES: Final = frozenset(
    {
        "stale_while_revalidate", "stale_if_error", "jitter", "beta", "lease", "refresh_at", "soft_timeout", "hard_timeout",
    }
)  # fmt: skip


def _outcomes(
    keep_if: Callable[[Any], object] | None, none_ttl: Duration | None, exceptions: Mapping[type[Exception], Duration]
) -> Outcomes:
    if keep_if is not None and not callable(keep_if):
        raise ConfigError(f"keep_if={keep_if!r} must be a callable that takes the result and says whether to keep it")
    kinds: dict[type[Exception], float] = {}
    for kind, ttl in exceptions.items():
        given: Any = kind
        if not (isinstance(given, type) and issubclass(given, Exception)):
            raise ConfigError(f'exceptions: {kind!r} is no kind of Exception: write exceptions={{LookupError: "30s"}}')
        kinds[kind] = positive_seconds(ttl, f"exceptions[{kind.__name__}]")
    return Outcomes(keep_if, None if none_ttl is None else seconds(none_ttl, "none_ttl"), kinds)


def _version(version: str | int) -> str:
    text = str(version)
    if not all(char.isalnum() or char in "._-" for char in text):
        raise ConfigError(f"version={version!r} must be a number or a word of letters, digits, dots and dashes")
    return text


def return_type(fn: Callable[..., Any]) -> Any:
    """Return the resolved return annotation of *fn*, or None where it cannot be resolved yet."""
    try:
        return typing.get_type_hints(fn, include_extras=True).get("return")
    except Exception:  # noqa: BLE001 - annotations may name anything
        return None
