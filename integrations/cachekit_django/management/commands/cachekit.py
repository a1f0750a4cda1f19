"""``manage.py cachekit stats|invalidate|warm|sessions|clear``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import import_string

from cachekit import Cache, CacheKitError
from cachekit.sessions.memory import MemorySessions
from cachekit_django import conf, keeping, logins
from cachekit_django.figures import shown, tables, unreached

_IN_MEMORY: Final = (
    "in the memory of each process, or on a server of its own, where a command cannot reach them: "
    'set CACHEKIT["URL"] to a server, such as redis://localhost'
)


class Command(BaseCommand):
    """Look at the cache, drop what carries a tag, warm it, count or end sessions, empty it."""

    help = "Look at the cache, drop what carries a tag, warm it, count or end sessions, empty it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the sub-commands."""
        commands = parser.add_subparsers(dest="what", required=True, metavar="COMMAND")
        stats = commands.add_parser("stats", help="show the figures of this process and the state of the store")
        stats.add_argument("--json", action="store_true", help="for a program to read")
        invalidate = commands.add_parser("invalidate", help="drop what carries one of these tags, in every process")
        invalidate.add_argument("tags", nargs="+", metavar="TAG")
        commands.add_parser("warm", help='run the warmer of CACHEKIT["WARMER"]')
        sessions = commands.add_parser("sessions", help="count the sessions of cachekit_django.sessions")
        sessions.add_argument("--user", metavar="ID", help="list those of the user with this primary key")
        sessions.add_argument("--handle", metavar="HANDLE", help="with --user and --end: end this one alone")
        sessions.add_argument("--end", action="store_true", help="end them: without --user, everybody's")
        clear = commands.add_parser("clear", help="drop everything in the namespace; sessions stay")
        clear.add_argument("--no-input", "--noinput", action="store_false", dest="interactive", help="do not ask")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run one of them. Raises ``CommandError``."""
        try:
            getattr(self, f"_{options['what']}")(**options)
        except CacheKitError as exc:
            raise CommandError(str(exc)) from exc

    def _stats(self, **options: Any) -> None:
        away = unreached()
        found = tables(away)
        if options["json"]:
            self.stdout.write(json.dumps(found, indent=2))
        else:
            for table in map(shown, found):
                self.stdout.write(self.style.MIGRATE_HEADING(table["title"]))
                for row in (table["columns"], *table["rows"]):
                    self.stdout.write("  " + "  ".join(f"{cell!s:<24}" for cell in row).rstrip())
        if away:
            raise CommandError(f"the store cannot be reached: {', '.join(away)}")

    def _invalidate(self, **options: Any) -> None:
        caches = _reached(conf.caches())
        conf.invalidate(*options["tags"])
        _delivered(caches)
        self.stdout.write(f"dropped what carries {', '.join(options['tags'])}")

    def _warm(self, **_: Any) -> None:
        path = conf.read().warmer
        if not path:
            raise CommandError('CACHEKIT["WARMER"] is not set: give the dotted path of a cachekit.warm.Warmer')
        self.stdout.write(str(import_string(path).run()))

    def _sessions(self, **options: Any) -> None:
        user, handle = options["user"], options["handle"]
        if handle is not None and (user is None or not options["end"]):
            raise CommandError("--handle needs --user and --end")
        if isinstance(keeping.sessions().store.inner, MemorySessions):
            raise CommandError(f"sessions are kept {_IN_MEMORY}")
        if user is None:
            count = logins.end_all() if options["end"] else logins.count()
        elif options["end"]:
            count = logins.revoke_all(user) if handle is None else int(logins.revoke(user, handle))
        else:
            found = logins.of(user)
            for one in found:
                seen = datetime.fromtimestamp(one.last_seen, tz=UTC)
                self.stdout.write(f"{one.handle}  {seen:%Y-%m-%d %H:%M} UTC  {one.agent}".rstrip())
            count = len(found)
        self.stdout.write(f"{count} sessions{' ended' if options['end'] else ''}")

    def _clear(self, **options: Any) -> None:
        caches = _reached(conf.caches())
        if options["interactive"] and not _yes("Drop everything in the cache? [y/N] "):
            raise CommandError("nothing was dropped")
        for cache in caches:
            cache.clear()
        _delivered(caches)
        self.stdout.write("the cache is empty")


def _reached(caches: list[Cache]) -> list[Cache]:
    """Return those of *caches* that other processes share. Raises ``CommandError`` where none is."""
    found = [cache for cache in caches if not cache.private]
    if not found:
        raise CommandError(f"the caches lie {_IN_MEMORY}")
    return found


def _delivered(caches: list[Cache]) -> None:
    """Raise ``CommandError`` where a store is away: what waits for it ends with this process."""
    away = [repr(cache) for cache in caches if cache.stats().pending]
    if away:
        raise CommandError(f"the store is away, nothing was dropped in {', '.join(away)}: try again when it is back")


def _yes(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # nobody is there to answer
        return False
