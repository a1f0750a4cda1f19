"""``flask cachekit ...``: look at the cache, invalidate, clear and warm it from a shell."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Protocol

import click
from flask.cli import AppGroup, with_appcontext

from cachekit import Cache, CacheKitError
from cachekit.warm import Warmer


class Kit(Protocol):
    """What is looked at."""

    @property
    def cache(self) -> Cache:
        """Return the cache of the running application."""
        ...

    @property
    def warmer(self) -> Warmer | None:
        """Return what fills it."""
        ...


def commands(kit: Kit) -> AppGroup:
    """Return the group of commands for *kit*."""
    group = AppGroup("cachekit", help="Look at the cache, invalidate, clear and warm it.")

    def shared() -> Any:
        cache = kit.cache
        if cache.private:
            raise click.ClickException(
                "this cache lies in the memory of each process, or on a server of its own, where a command cannot reach it: "
                "set CACHEKIT_URL to a server, such as tiered+redis://localhost"
            )
        return cache

    def delivered(cache: Cache) -> None:
        if cache.stats().pending:  # what waits for the store ends with this process
            raise click.ClickException("the store is away, nothing was dropped: try again when it is back")

    @group.command()
    @with_appcontext
    def stats() -> None:
        """Print what the cache knows of itself, as JSON. Fails where its store cannot be reached."""
        cache = kit.cache
        answers = cache.private or cache.available(max_age=0)  # asked first: nothing else in this process has asked it
        found = dataclasses.asdict(cache.stats())
        if not answers:
            found["store"] = "away"
        found["by_function_and_class"] = [
            {"function": function, "class": name, **figures}
            for (function, name), figures in found["by_function_and_class"].items()
        ]
        click.echo(json.dumps({"cache": repr(cache), **found}, indent=2, default=str))
        if not answers:
            raise click.ClickException(f"the store of {cache!r} cannot be reached")

    @group.command()
    @click.argument("tags", nargs=-1, required=True)
    @with_appcontext
    def invalidate(tags: tuple[str, ...]) -> None:
        """Drop everything that carries one of TAGS, in every process."""
        try:
            cache = shared()
            cache.invalidate(*tags)
        except CacheKitError as exc:
            raise click.ClickException(str(exc)) from exc
        delivered(cache)
        click.echo(f"invalidated {', '.join(tags)}")

    @group.command()
    @click.confirmation_option(prompt="Drop everything in the cache's namespace?")
    @with_appcontext
    def clear() -> None:
        """Drop everything in the cache's namespace."""
        cache = shared()
        cache.clear()
        delivered(cache)
        click.echo("cleared")

    @group.command()
    @with_appcontext
    def warm() -> None:
        """Run the warm-up."""
        cache, warmer = shared(), kit.warmer
        if warmer is None:
            raise click.ClickException(
                "there is nothing to warm: give CacheKit(app, warmer=...) a cachekit.warm.Warmer"
            )
        report = warmer.run()
        click.echo(
            f"{cache!r}: {report.succeeded} done, {len(report.failed)} failed, {len(report.unfinished)} unfinished"
        )
        if report.failed:
            raise click.exceptions.Exit(1)

    return group
