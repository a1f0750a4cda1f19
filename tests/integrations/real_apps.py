"""Real applications, bare and behind cachekit: ``python -m tests.integrations.real_apps``. Both must answer the same.

Each is crawled twice bare (what differs there is the application's own) and three times wrapped: plainly, with compression,
and with a rule that keeps everything. Applications that are not installed are skipped.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx

from cachekit import Cache
from cachekit.asgi import CacheKit as AsgiKit
from cachekit.asgi import Rule
from cachekit.compress.asgi import Compress as AsgiCompress
from cachekit.compress.wsgi import Compress as WsgiCompress
from cachekit.wsgi import CacheKit as WsgiKit

PAGES = 60
OWN = frozenset(
    {
        "cache-status",
        "age",
        "date",
        "vary",
        "etag",
        "content-encoding",
        "content-length",
        "cache-tag",
        "accept-ranges",
        "server-timing",
    }
)
"""Fields that the middleware is there to add or to change."""
CHANGING = re.compile(rb'(csrftoken|_id|nonce)["=:][^"&>]*|\d+(\.\d+)? ?ms')

Answers = dict[str, tuple[int, list[tuple[str, str]], bytes]]


async def crawl(app: Any, start: str, *, wsgi: bool) -> Answers:
    """Return what *app* answers to *start* and to what it links to."""
    seen: Answers = {}
    if wsgi:
        transport: Any = httpx.WSGITransport(app=app)
        client: Any = httpx.Client(transport=transport, base_url="http://real")
    else:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://real")
    todo = [start]
    while todo and len(seen) < PAGES:
        path = todo.pop(0)
        if path in seen:
            continue
        made = client.get(path)
        response = made if wsgi else await made
        headers = sorted((n.lower(), v) for n, v in response.headers.multi_items() if n.lower() not in OWN)
        seen[path] = (response.status_code, headers, CHANGING.sub(b"", response.content))
        for link in re.findall(rb'(?:href|src)="([^"]+)"', response.content):
            url = urldefrag(urljoin(f"http://real{path}", link.decode("utf-8", "replace").replace("&amp;", "&")))[0]
            if urlsplit(url).netloc == "real":
                todo.append(url.removeprefix("http://real"))
    return seen


def wrappings(app: Any, *, wsgi: bool) -> dict[str, Any]:
    """Return *app* in each wrapping."""
    kit: Any = WsgiKit if wsgi else AsgiKit
    compress: Any = WsgiCompress if wsgi else AsgiCompress
    return {
        "cache": kit(app, cache=Cache()),
        "cache and compression": compress(kit(app, cache=Cache())),
        "a rule that keeps everything": kit(app, cache=Cache(), rules=[Rule("/**", ttl="1h")]),
    }


async def compare(name: str, app: Any, start: str = "/", *, wsgi: bool) -> int:
    """Print how the wrapped answers differ from the bare ones; returns in how many pages."""
    bare, again = await crawl(app, start, wsgi=wsgi), await crawl(app, start, wsgi=wsgi)
    steady = {path: answer for path, answer in bare.items() if again.get(path) == answer}
    wrong = 0
    for how, wrapped in wrappings(app, wsgi=wsgi).items():
        for _ in range(2):  # the second time from the cache, where anything is kept
            found = await crawl(wrapped, start, wsgi=wsgi)
            differ = [path for path, answer in steady.items() if found.get(path) != answer]
            wrong += len(differ)
        print(
            f"{name:12} {how:30} {len(steady)} of {len(bare)} pages compared, {len(differ)} differ",
            *differ[:5],
            sep="\n    ",
        )
    return wrong


async def datasette() -> int:
    """A database browser, ASGI."""
    from datasette.app import Datasette

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "shop.db"
        with sqlite3.connect(path) as connection:
            connection.execute("create table product (number integer primary key, name text)")
            connection.executemany("insert into product values (?, ?)", [(n, f"product {n}") for n in range(50)])
        connection.close()
        found = Datasette([str(path)])
        await found.invoke_startup()
        return await compare("datasette", found.app(), wsgi=False)


async def pypiserver() -> int:
    """A package index, WSGI."""
    import pypiserver as package

    with tempfile.TemporaryDirectory() as directory:
        for version in range(5):
            (Path(directory) / f"shop-{version}.0.tar.gz").write_bytes(b"package" * 1000)
        return await compare("pypiserver", package.app(roots=[Path(directory)]), wsgi=True)


async def flaskr(source: str) -> int:
    """The blog of Flask's tutorial, WSGI. *source*: the folder `examples/tutorial` of Flask's source."""
    sys.path.insert(0, source)
    from flaskr import create_app  # type: ignore[import-not-found]
    from flaskr.db import get_db, init_db  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as directory:
        app = create_app({"DATABASE": f"{directory}/blog.sqlite", "SECRET_KEY": "x", "TESTING": True})
        with app.app_context():
            init_db()
            get_db().execute("insert into user (username, password) values ('ada', 'x')")
            get_db().executemany(
                "insert into post (title, body, author_id) values (?, ?, 1)", [(f"post {n}", "text") for n in range(9)]
            )
            get_db().commit()
        return await compare("flaskr", app, wsgi=True)


async def main() -> int:
    """Compare what is installed. Give the folder of Flask's tutorial as an argument for the blog."""
    wrong = 0
    known: dict[str, Callable[[], Any]] = {"datasette": datasette, "pypiserver": pypiserver}
    for name, run in known.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name:12} is not installed")
        else:
            wrong += await run()
    if sys.argv[1:]:
        wrong += await flaskr(sys.argv[1])
    return wrong


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main()) else 0)
