"""A price changes: how long until nobody sees the old one, and how many pages had to be made again.

Starts a private Valkey, three worker processes of the catalogue and the stand-in CDN; lets everybody keep every page;
changes one price in the database; sends the signed event; asks every worker and the CDN until the new price is everywhere.

``python -m examples.catalogue.demo``
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cachekit.stores.embedded import EmbeddedServer
from cachekit.webhook import sign
from examples.catalogue import data
from examples.catalogue.cdn import HOST

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass
class Shop:
    """A running catalogue.

    Attributes:
        workers: addresses of the worker processes.
        cdn: address of the CDN.
        database: its file.
        made: the file that counts pages.
        secret: what events are signed with.
    """

    workers: list[str]
    cdn: str
    database: Path
    made: Path
    secret: str

    def get(self, address: str, path: str) -> tuple[int, dict[str, str], str]:
        """Ask one worker, or the CDN."""
        connection = http.client.HTTPConnection(address, timeout=10)
        try:
            connection.request("GET", path, headers={"Host": HOST})
            response = connection.getresponse()
            return response.status, {n.lower(): v for n, v in response.getheaders()}, response.read().decode()
        finally:
            connection.close()

    def everybody(self) -> list[str]:
        """Return who serves pages."""
        return [*self.workers, self.cdn]

    def event(self, event: str, product: dict[str, int], changed: list[str]) -> dict[str, object]:
        """Send a signed event to one worker and return its answer."""
        body = json.dumps({"event": event, "data": product, "changed": changed}).encode()
        headers = dict(sign(self.secret, body, delivery_id=secrets.token_hex(8), now=time.time()))
        connection = http.client.HTTPConnection(self.workers[0], timeout=10)
        try:
            connection.request("POST", "/hooks/catalogue", body, {"Host": HOST, **headers})
            response = connection.getresponse()
            answer: dict[str, object] = json.loads(response.read())
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {answer}")
            return answer
        finally:
            connection.close()

    def counts(self) -> Counter[str]:
        """Return how often each page was made, by all workers together."""
        return Counter(self.made.read_text().splitlines() if self.made.exists() else [])


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def await_port(process: subprocess.Popen[bytes], address: str) -> None:
    """Wait until *address* accepts connections."""
    host, _, port = address.partition(":")
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), 1).close()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nothing answers at {address}")
        time.sleep(0.02)


@contextlib.contextmanager
def running(workers: int = 3, products: int = 5_000) -> Iterator[Shop]:
    """Start a catalogue, and end it."""
    with tempfile.TemporaryDirectory(prefix="ck-shop-") as name:
        directory = Path(name)
        database = data.build(directory / "catalogue.sqlite", products)
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(workers)]
        cdn = f"127.0.0.1:{free_port()}"
        config = directory / "cachekit.toml"
        config.write_text((HERE / "cachekit.toml").read_text().replace("127.0.0.1:8090", cdn))
        shop = Shop(addresses, cdn, database, directory / "made", secrets.token_hex(16))
        token = secrets.token_hex(16)
        environ = {
            **os.environ, "CATALOGUE_DATABASE": str(database), "CATALOGUE_MADE": str(shop.made),
            "CATALOGUE_SECRET": shop.secret, "CATALOGUE_CDN_TOKEN": token,
        }  # fmt: skip
        server = EmbeddedServer()
        processes: list[subprocess.Popen[bytes]] = []

        def start(*command: str) -> subprocess.Popen[bytes]:
            log = (directory / f"log-{len(processes)}").open("wb")
            with log:
                process = subprocess.Popen(
                    [sys.executable, "-m", *command], cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                )  # fmt: skip
            processes.append(process)
            return process

        try:
            started = [
                start(
                    "cachekit", "run", "--config", str(config), "--store", f"tiered+{server.url}", "--port",
                    address.rpartition(":")[2],
                )
                for address in addresses
            ]  # fmt: skip
            started.append(start("examples.catalogue.cdn", cdn.rpartition(":")[2], *addresses))
            for process, address in zip(started, shop.everybody(), strict=True):
                try:
                    await_port(process, address)
                except RuntimeError as exc:
                    logs = "".join(log.read_text() for log in sorted(directory.glob("log-*")))
                    raise RuntimeError(f"{exc}\n{logs}") from exc
            yield shop
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            server.close()


def pages(products: int = 60, categories: int = 10) -> list[str]:
    """Return the pages that are visited."""
    found = [f"/products/{number}" for number in range(1, products + 1)]
    found += [f"/categories/{number}" for number in range(1, categories + 1)]
    return [*found, "/search?q=Oak", "/search?q=Lamp", "/static/style.5d41402a.css"]


def fill(shop: Shop, visited: list[str]) -> None:
    """Have everybody keep every page."""
    for _ in range(2):
        for path in visited:
            for address in shop.everybody():
                status, _, _ = shop.get(address, path)
                if status != 200:
                    raise RuntimeError(f"{address}{path}: {status}")


def until_new(shop: Shop, paths: list[str], price: str, patience: float = 30.0) -> float:
    """Ask everybody for *paths* until all of them show *price*. Returns the seconds that it took."""
    began = time.monotonic()
    left = {(address, path) for address in shop.everybody() for path in paths}
    while left:
        left = {(address, path) for address, path in left if price not in shop.get(address, path)[2]}
        if time.monotonic() - began > patience:
            raise RuntimeError(f"still the old price: {sorted(left)}")
    return time.monotonic() - began


def main() -> None:
    """Show it."""
    visited = pages()
    with running() as shop:
        fill(shop, visited)
        before = shop.counts()
        print(
            f"{len(visited)} pages, kept by {len(shop.workers)} workers and the CDN; made {sum(before.values())} times"
        )
        data.set_price(shop.database, 42, 123_456_78)
        answer = shop.event("product.updated", {"id": 42, "category_id": 1, "brand_id": 1}, ["price"])
        took = until_new(shop, ["/products/42"], "123456.78")
        print(f"the event invalidated {answer['invalidated']}; the new price is everywhere after {took * 1000:.0f} ms")
        fill(shop, visited)
        again = shop.counts() - before
        print(f"made again: {sum(again.values())} of {len(visited)} pages: {', '.join(sorted(again))}")


if __name__ == "__main__":
    main()
