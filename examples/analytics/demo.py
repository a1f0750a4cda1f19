"""Measure the dashboard as it is, then the same application behind ``cachekit run``, and go on serving the second.

``python -m examples.analytics.demo``; ``--once`` stops after the table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import httpx
from rich import box
from rich.console import Console
from rich.table import Table

from examples.analytics import data, load
from examples.analytics.load import Report

APP = "examples.analytics.app:app"
ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / "cachekit.toml"
READY_SECONDS = 30.0
STOP_SECONDS = 10.0
SEED = 2013


class DemoError(Exception):
    """Something that the demo needs does not work; the message says what."""


def plain_command(port: int) -> list[str]:
    """Return the command that serves the application as it is."""
    serve = ["-m", "uvicorn", APP, "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return [sys.executable, *serve]


def wrapped_command(port: int, store: str | None) -> list[str]:
    """Return the command that serves the same application with the cache around it."""
    serve = ["-m", "cachekit", "run", APP, "--config", str(CONFIG), "--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, *serve, *(["--store", store] if store else [])]


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends, however it ends; it answers when the block begins."""
    # A session of its own: Ctrl-C reaches the demo alone, which then stops the server in order.
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_ready(process, port, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(trust_env=False, timeout=2) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise DemoError(f"The server ended with code {process.returncode}. Its log:\n{tail(log)}")
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"http://127.0.0.1:{port}/meter").is_success:
                    return
            time.sleep(0.05)
    raise DemoError(f"The server did not answer within {READY_SECONDS:.0f} s. Its log:\n{tail(log)}")


def tail(log: Path, lines: int = 40) -> str:
    """Return the end of a server's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) or "(empty)"


def milliseconds(seconds: float) -> str:
    """Return *seconds* for a reader."""
    return f"{seconds * 1000:,.1f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"


def times(larger: float, smaller: float) -> str:
    """Return how many times *larger* holds *smaller*."""
    if not smaller > 0:
        return ""
    ratio = larger / smaller
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.1f}x"


def share(value: float | None) -> str:
    """Return a share as a percentage; a dash where there is none."""
    return "–" if value is None else f"{value:.1%}"


def comparison(before: Report, after: Report) -> Table:
    """Return the table of both measurements."""
    table = Table(box=box.SIMPLE_HEAD, title="The same requests, without and with the cache", title_justify="left")
    table.add_column("")
    for name in ("before", "after", "ratio"):
        table.add_column(name, justify="right")

    def less(name: str, of: Callable[[Report], float], show: Callable[[float], str]) -> None:
        table.add_row(name, show(of(before)), show(of(after)), times(of(before), of(after)))

    less("P50", lambda r: r.p50, milliseconds)
    less("P99", lambda r: r.p99, milliseconds)
    less("mean", lambda r: r.mean, milliseconds)
    rates = before.requests_per_second, after.requests_per_second
    table.add_row("requests/s", f"{rates[0]:,.1f}", f"{rates[1]:,.1f}", times(rates[1], rates[0]))
    table.add_row("requests answered", f"{before.count:,}", f"{after.count:,}", times(after.count, before.count))
    table.add_row("hit rate", share(before.hit_rate), share(after.hit_rate), "")
    less("database seconds", lambda r: r.database_seconds, lambda s: f"{s:,.2f}")
    less("database CPU, of one core", lambda r: r.database_cpu_seconds / r.seconds, lambda s: f"{s:.1%}")
    # More requests are answered in the same time, so totals compare only when divided by them.
    table.add_row("database queries", f"{before.queries:,}", f"{after.queries:,}", "")
    less("queries per request", lambda r: r.queries / max(1, r.count), lambda n: f"{n:.3f}")
    less("database time per request", lambda r: r.database_seconds / max(1, r.count), milliseconds)
    table.add_row("errors", f"{before.errors:,}", f"{after.errors:,}", "")
    return table


def describe_first(report: Report) -> str:
    """Return the line about the first requests."""
    return (
        f"First requests: each dashboard once, {report.count} requests in {report.seconds:.1f} s, "
        f"P50 {milliseconds(report.p50)}, P99 {milliseconds(report.p99)}, {report.queries:,} queries. Not in the table."
    )


def run(given: argparse.Namespace, console: Console, logs: Path) -> int:
    """Measure both and print the table. Returns the exit code."""
    data.build(say=console.print)
    port = given.port or free_port()
    base_url = f"http://127.0.0.1:{port}"
    people = f"{given.clients} people for {given.seconds:g} s"

    def measure() -> Report:
        return asyncio.run(load.measure(base_url, seconds=given.seconds, clients=given.clients, seed=SEED))

    console.print(f"Before: the application as it is, {people} ...")
    with serving(plain_command(port), port, logs / "before.log"):
        before = measure()
    console.print(f"After: the same behind `cachekit run`, {people} ...")
    with serving(wrapped_command(port, given.url), port, logs / "after.log") as server:
        first = asyncio.run(load.first_requests(base_url, clients=given.clients))
        console.print(describe_first(first), soft_wrap=True)
        after = measure()
        console.print()
        console.print(comparison(before, after))
        failed = _report_failures(console, {"before": before, "first requests": first, "after": after})
        if given.once:
            return failed
        console.print(
            f"Open [bold]{base_url}/[/] - each panel shows what the cache said. Ctrl-C stops.", soft_wrap=True
        )
        with contextlib.suppress(KeyboardInterrupt):
            code = server.wait()
            raise DemoError(f"The server ended with code {code}. Its log:\n{tail(logs / 'after.log')}")
        console.print("\nStopped.")
        return failed


def _report_failures(console: Console, reports: dict[str, Report]) -> int:
    for name, report in reports.items():
        for failure, count in sorted(report.failures.items()):
            console.print(f"[red]{name}: {count} x {failure}[/]")
    return int(any(report.errors for report in reports.values()))


def main(arguments: list[str] | None = None) -> int:
    """Run the demo. Returns the exit code: 1 when a request failed or a server did not work."""
    parser = argparse.ArgumentParser(prog="python -m examples.analytics.demo", description=(__doc__ or "").strip())
    parser.add_argument("--once", action="store_true", help="stop after the table")
    parser.add_argument(
        "--url", help="store of the cache, such as memory:// or embedded:// (default: the config file's)"
    )
    parser.add_argument("--port", type=int, default=0, help="port to serve on (default: a free one)")
    parser.add_argument("--seconds", type=float, default=15, help="length of each measurement (default: 15)")
    parser.add_argument("--clients", type=int, default=4, help="people at a time (default: 4)")
    given = parser.parse_args(arguments)
    # A plain terminate would leave the server behind; as an exception it unwinds through serving().
    signal.signal(signal.SIGTERM, _terminated)
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="analytics-demo-") as logs:
        try:
            return run(given, console, Path(logs))
        except KeyboardInterrupt:
            console.print("\nStopped.")
            return 130
        except (DemoError, httpx.HTTPError) as problem:
            console.print(str(problem) or type(problem).__name__, style="red", markup=False, soft_wrap=True)
            for log in sorted(Path(logs).iterdir()) if isinstance(problem, httpx.HTTPError) else ():
                console.print(f"{log.name}:{os.linesep}{tail(log)}", markup=False, soft_wrap=True)
            return 1


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main())
