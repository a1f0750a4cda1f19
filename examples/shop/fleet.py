"""Serve the shop by several workers and replace each of them, twice, while people fill their carts; count what is lost.

``python -m examples.shop.fleet``; ``--serve`` goes on serving for a browser afterwards. The socket belongs to this process
and is handed to the workers, so that a connection waits for the next one to accept it while a worker goes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from examples.shop.catalogue import PRODUCTS

ROOT = Path(__file__).parents[2]
READY_SECONDS = 30.0


@dataclass
class Tally:
    """What the visitors saw."""

    requests: int = 0
    sessions: int = 0
    lost: int = 0
    wrong: int = 0
    retried: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    workers: set[int] = field(default_factory=set)
    restarts: int = 0


class Worker:
    """One process that serves the shop."""

    def __init__(self, listener: socket.socket, store: str, directory: Path) -> None:
        self.ready = directory / f"ready-{time.monotonic_ns()}"
        environment = {**os.environ, "SHOP_STORE": store, "SHOP_READY": str(self.ready)}
        command = [
            sys.executable, "-m", "uvicorn", "examples.shop.app:create", "--factory", "--fd", str(listener.fileno()),
            "--log-level", "warning", "--timeout-graceful-shutdown", "10",
        ]  # fmt: skip
        self.log = directory / f"{self.ready.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    async def started(self) -> None:
        """Wait until it serves."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"a worker did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            await asyncio.sleep(0.02)

    async def stopped(self) -> None:
        """Ask it to finish what it does, and wait until it has ended."""
        self.process.terminate()
        while self.process.poll() is None:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Visitor:
    """Somebody who fills a cart, and knows what must be in it."""

    def __init__(self, base_url: str, tally: Tally, chance: random.Random) -> None:
        self.client = httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=10)
        self.tally, self.chance = tally, chance
        self.cart: dict[str, int] = {}
        self.user = ""

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request; one that a closing connection did not answer is sent again, as browsers and proxies do."""
        for _ in range(5):
            try:
                answer = await self.client.request(method, path, **more)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.ConnectError, httpx.WriteError):
                self.tally.retried += 1
                continue
            self.tally.requests += 1
            if answer.status_code >= 400:
                said = f"{method} {path}: {answer.status_code}"
                self.tally.failed[said] = self.tally.failed.get(said, 0) + 1
            return answer
        self.tally.failed["no answer"] = self.tally.failed.get("no answer", 0) + 1
        raise SystemExit("the fleet does not answer")

    async def token(self) -> str:
        """Return the token of a form on the cart's page."""
        page = (await self.ask("GET", "/cart")).text
        return page.partition("name=token value=")[2].partition(">")[0]

    async def check(self) -> None:
        """Compare the session with what it must hold."""
        found = (await self.ask("GET", "/state")).json()
        self.tally.workers.add(found["worker"])
        if found["cart"] != self.cart or found["user"] != self.user:
            if not found["cart"] and not found["user"]:
                self.tally.lost += 1
            else:
                self.tally.wrong += 1
            self.cart, self.user = found["cart"], found["user"]

    async def visit(self, until: float) -> None:
        """Fill the cart until the end."""
        self.tally.sessions += 1
        await self.put()
        while time.monotonic() < until:
            step = self.chance.random()
            if step < 0.4:
                await self.put()
            elif step < 0.45 and not self.user:
                name = f"visitor-{self.chance.randrange(10**9)}"
                await self.ask("POST", "/login", data={"token": await self.token(), "name": name})
                self.user = name
            elif step < 0.6:
                await self.ask("GET", "/")
            await self.check()
            await asyncio.sleep(self.chance.uniform(0.01, 0.1))
        await self.client.aclose()

    async def put(self) -> None:
        """Set the count of one thing: a request that may be sent twice."""
        sku, count = self.chance.choice(list(PRODUCTS)), self.chance.randint(1, 9)
        await self.ask("POST", "/set", data={"token": await self.token(), "sku": sku, "count": str(count)})
        self.cart[sku] = count


async def roll(workers: list[Worker], listener: socket.socket, store: str, directory: Path, tally: Tally) -> None:
    """Replace each worker by a new one: the new one serves before the old one goes."""
    for place, old in enumerate(list(workers)):
        new = Worker(listener, store, directory)
        workers.append(new)
        await new.started()
        await old.stopped()
        workers.remove(old)
        workers.remove(new)
        workers.insert(place, new)
        tally.restarts += 1


async def run(given: argparse.Namespace, listener: socket.socket, store: str, directory: Path) -> Tally:
    """Serve, send visitors, and replace workers meanwhile."""
    tally, workers = Tally(), [Worker(listener, store, directory) for _ in range(given.workers)]
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        await asyncio.gather(*(worker.started() for worker in workers))
        print(
            f"{len(workers)} workers serve {base_url}; {given.clients} people for {given.seconds:g} s ...", flush=True
        )
        until = time.monotonic() + given.seconds
        people = [Visitor(base_url, tally, random.Random(number)).visit(until) for number in range(given.clients)]
        load = asyncio.gather(*people)
        rolls = 0
        while not load.done() and rolls < given.rolls:
            await roll(workers, listener, store, directory, tally)
            rolls += 1
        await load
        report(tally)
        if given.serve:
            print(f"Open {base_url} - Ctrl-C stops.", flush=True)
            await asyncio.Event().wait()
    finally:
        for worker in workers:
            worker.kill()
    return tally


def report(tally: Tally) -> None:
    """Print what happened."""
    print(
        f"{tally.requests:,} requests in {tally.sessions} sessions, answered by {len(tally.workers)} workers; "
        f"{tally.restarts} of them were replaced meanwhile.\n"
        f"sessions lost: {tally.lost}\ncarts that were not what they must be: {tally.wrong}\n"
        f"requests that failed: {sum(tally.failed.values())} {tally.failed or ''}\n"
        f"requests sent again because their connection closed: {tally.retried}",
        flush=True,
    )


@contextlib.contextmanager
def served(url: str) -> Iterator[str]:
    """Yield the URL of a store that several processes can use."""
    if url != "embedded://":
        yield url
        return
    from cachekit.stores.embedded import EmbeddedServer

    server = EmbeddedServer()
    try:
        yield server.url
    finally:
        server.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the fleet. Returns 1 when a session was lost, a cart was wrong or a request failed."""
    parser = argparse.ArgumentParser(prog="python -m examples.shop.fleet", description=(__doc__ or "").strip())
    parser.add_argument("--url", default="embedded://", help="store of the sessions (default: embedded://)")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=24, help="people at a time (default: 24)")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rolls", type=int, default=2, help="how often every worker is replaced (default: 2)")
    parser.add_argument("--port", type=int, default=0, help="port to serve on (default: a free one)")
    parser.add_argument("--serve", action="store_true", help="go on serving afterwards")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with served(given.url) as store, socket.socket() as listener, tempfile.TemporaryDirectory(prefix="shop-") as logs:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", given.port))
        listener.listen(1024)
        try:
            tally = asyncio.run(run(given, listener, store, Path(logs)))
        except KeyboardInterrupt:
            print("\nStopped.")
            return 130
    return int(bool(tally.lost or tally.wrong or tally.failed))


if __name__ == "__main__":
    sys.exit(main())
