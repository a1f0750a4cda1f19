"""How a warm-up shows how far it is: a bar on a terminal, a line for each tenth elsewhere, or nothing.

rich draws the bar, if it is there; it is imported only then.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from cachekit.warm.report import Report

log = logging.getLogger("cachekit")


class Progress(Protocol):
    """Is told how far a warm-up is, from one thread."""

    def start(self, total: int) -> None:
        """Begin; *total* jobs are to be run."""
        ...

    def advance(self, done: int, failed: int) -> None:
        """Take in that *done* jobs have ended, of which *failed* failed."""
        ...

    def finish(self, report: Report) -> None:
        """End. Is called once for each ``start``."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, total: int) -> None:
        """Show nothing."""

    def advance(self, done: int, failed: int) -> None:
        """Show nothing."""

    def finish(self, report: Report) -> None:
        """Show nothing."""


def is_logged(report: Report) -> bool:
    """Say whether somebody reads *report* in the log."""
    return log.hasHandlers() and log.isEnabledFor(report.level)


class Lines:
    """Writes a line to *stream* for each tenth, as logs like it; the report too, unless it is *once* in the log."""

    def __init__(self, stream: TextIO, *, once: bool = False) -> None:
        self._stream = stream
        self._once = once
        self._total = 0
        self._shown = 0

    def start(self, total: int) -> None:
        """Write how many jobs there are."""
        self._total, self._shown = total, 0
        self._write(f"{total} jobs")

    def advance(self, done: int, failed: int) -> None:
        """Write a line if another tenth is done."""
        tenths = done * 10 // self._total if self._total else 10
        if tenths > self._shown and done < self._total:
            self._shown = tenths
            self._write(f"{done}/{self._total}" + (f", {failed} failed" if failed else ""))

    def finish(self, report: Report) -> None:
        """Write the report."""
        if not (self._once and is_logged(report)):
            self._write(str(report))

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed stream is no reason not to warm
            self._stream.write(f"cachekit: warming: {text}\n")
            self._stream.flush()


class Bar:
    """Draws a bar with rich on *stream*, and the report, unless it is *once* in the log.

    Raises:
        ImportError: rich is not there.
    """

    def __init__(self, stream: TextIO, *, once: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._make: Any = lambda: RichProgress(
            TextColumn("warming"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("[red]{task.fields[failed]}"),
            TimeElapsedColumn(),
            console=Console(file=stream),
        )
        self._once = once
        self._bar: Any = None
        self._task: Any = None

    def start(self, total: int) -> None:
        """Draw an empty bar."""
        self._bar = self._make()
        self._task = self._bar.add_task("warming", total=total, failed="")
        self._bar.start()

    def advance(self, done: int, failed: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, failed=f"{failed} failed" if failed else "")

    def finish(self, report: Report) -> None:
        """Let the bar stand, with the report below it."""
        self._bar.stop()
        if not (self._once and is_logged(report)):
            self._bar.console.print(str(report), markup=False, highlight=False)


class Careful:
    """Passes on to *inner* what it is told; one that fails is not told any more, and stops no warm-up."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._begun = False

    def start(self, total: int) -> None:
        """Begin."""
        self._begun = True
        self._tell(lambda: self._inner.start(total))

    def advance(self, done: int, failed: int) -> None:
        """Go on."""
        self._tell(lambda: self._inner.advance(done, failed))

    def finish(self, report: Report) -> None:
        """End, and begin before if it was cut off so early."""
        if not self._begun:
            self.start(report.total)
        self._tell(lambda: self._inner.finish(report))

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.exception("the progress of the warm-up cannot be shown")
            self._inner = Silent()


def suited(stream: TextIO | None = None) -> Progress:
    """Return what suits *stream*: a bar on a terminal if rich is there, lines elsewhere.

    Standard error when left out, where the log mostly goes too: the report is then there or in the log.
    """
    once = stream is None
    stream = sys.stderr if stream is None else stream
    if stream is None:  # a program without a console, such as pythonw
        return Silent()
    if stream.isatty():
        with contextlib.suppress(ImportError):
            return Bar(stream, once=once)
    return Lines(stream, once=once)
