"""A real Varnish with the VCL of docs/cdn.md, where one is installed: what is invalidated leaves it."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cachekit import Cache, PurgeOptions, Varnish
from tests.ports import free_port

VARNISHD = shutil.which("varnishd") or shutil.which("varnishd", path="/usr/sbin")
pytestmark = [
    pytest.mark.skipif(VARNISHD is None, reason="varnishd is not installed"),
    pytest.mark.skipif(
        not list(Path("/usr/lib").glob("**/vmods/libvmod_xkey.so")), reason="vmod_xkey is not installed"
    ),
]


class Shop:
    """An application that counts how often each page is made."""

    def __init__(self) -> None:
        self.made: dict[str, int] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.made[self.path] = outer.made.get(self.path, 0) + 1
                body = f"{self.path} version {outer.made[self.path]}".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "public, s-maxage=86400")
                self.send_header("xkey", f"product:{self.path[3:]} catalog")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture(scope="module")
def varnish() -> Iterator[tuple[str, Shop]]:
    shop = Shop()
    directory = Path(tempfile.mkdtemp(prefix="ck-v-"))
    directory.chmod(0o755)
    vcl = directory / "purge.vcl"
    template = (Path(__file__).parent / "purge.vcl").read_text()
    vcl.write_text(template.replace("@PORT@", str(shop.server.server_port)))
    port = free_port()
    process = subprocess.Popen(
        [
            VARNISHD, "-j", "none", "-F", "-a", f"127.0.0.1:{port}", "-f", str(vcl), "-n", str(directory / "work"),
            "-s", "malloc,32m",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"varnishd did not start: {process.communicate()[1].decode()[-1000:]}")
            time.sleep(0.02)
    yield f"http://127.0.0.1:{port}", shop
    process.terminate()
    process.wait(15)
    process.stderr.close()
    shop.server.shutdown()
    shop.server.server_close()
    shutil.rmtree(directory, ignore_errors=True)


def get(url: str, path: str) -> tuple[str, str]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET", path, headers={"Host": "shop.example"})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.getheader("X-Cache"), body


@pytest.mark.parametrize("options", [{}, {"mode": "ban"}], ids=["xkey", "ban"])
def test_an_invalidation_drops_the_tagged_pages_and_no_others(varnish, options) -> None:
    url, _ = varnish
    with Cache(purgers=[Varnish(url, **options)], purging=PurgeOptions(delay=0, rebound=0)) as cache:
        for path in ("/p/42", "/p/4", "/p/43"):
            get(url, path)
            assert get(url, path)[0] == "hit"
        cache.invalidate("product:42")
        assert cache.flush_purges()
        assert get(url, "/p/42")[0] == "miss"
        assert (get(url, "/p/4")[0], get(url, "/p/43")[0]) == ("hit", "hit")
        cache.invalidate("product:4", "product:43")
        assert cache.flush_purges()
        assert (get(url, "/p/4")[0], get(url, "/p/43")[0], get(url, "/p/42")[0]) == ("miss", "miss", "hit")
        assert cache.purges()[f"varnish-{url[7:]}"].delivered == 3


def test_urls_and_everything(varnish) -> None:
    url, _ = varnish
    with Cache(purgers=[Varnish(url)], purging=PurgeOptions(delay=0, rebound=0)) as cache:
        for path in ("/p/1?a=1", "/p/2"):
            get(url, path)
        cache.purge(urls=["https://shop.example/p/1?a=1"])
        assert cache.flush_purges()
        assert (get(url, "/p/1?a=1")[0], get(url, "/p/2")[0]) == ("miss", "hit")
        cache.purge(everything=True)
        assert cache.flush_purges()
        assert (get(url, "/p/1?a=1")[0], get(url, "/p/2")[0]) == ("miss", "miss")


def test_a_soft_purge_serves_stale_once_while_it_fetches(varnish) -> None:
    url, shop = varnish
    with Cache(purgers=[Varnish(url, soft=True)], purging=PurgeOptions(delay=0, rebound=0)) as cache:
        _, before = get(url, "/p/7")
        cache.invalidate("product:7")
        assert cache.flush_purges()
        assert get(url, "/p/7") == ("hit", before)  # within its grace
        deadline = time.monotonic() + 15
        while get(url, "/p/7")[1] == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert shop.made["/p/7"] == 2
