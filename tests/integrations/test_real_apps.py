"""Real applications behind the cache, with a rule that would keep everything: nobody gets what is somebody else's.

``real_apps.py`` crawls them; here is what a crawler does not do: log in, be refused, ask for a part, read a long stream.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys

import pytest

httpx = pytest.importorskip("httpx")

from cachekit import Cache  # noqa: E402
from cachekit.asgi import CacheKit as AsgiKit  # noqa: E402
from cachekit.asgi import Rule  # noqa: E402
from cachekit.wsgi import CacheKit as WsgiKit  # noqa: E402

EVERYTHING = [Rule("/**", ttl="1h")]
pytestmark = pytest.mark.filterwarnings("ignore")  # of the applications, whatever versions they meet


@pytest.fixture(autouse=True)
def importers(monkeypatch):
    """Let nobody stay among those who are asked for modules: pypiserver brings one of an old kind, which Python warns of."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))


async def datasette(path):
    from datasette.app import Datasette

    with sqlite3.connect(path) as connection:
        connection.execute("create table product (number integer primary key, name text)")
        connection.executemany("insert into product values (?, ?)", [(n, f"product {n}") for n in range(3000)])
        connection.execute("create table salary (number integer primary key, name text)")
        connection.execute("insert into salary values (1, 'secret')")
    connection.close()
    metadata = {"databases": {"shop": {"tables": {"salary": {"allow": {"id": "root"}}}}}}
    found = Datasette([str(path)], metadata=metadata)
    found._root_token = "token"
    await found.invoke_startup()
    return found


def client(app, **more):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://real", **more)


@pytest.mark.parametrize("compression", [False, True])
def test_datasette(tmp_path, compression):
    pytest.importorskip("datasette")

    async def main():
        found = await datasette(tmp_path / "shop.db")
        bare = found.app()
        wrapped = AsgiKit(found.app(), cache=Cache(), rules=EVERYTHING, compression=compression)
        async with client(wrapped) as stranger, client(wrapped) as root, client(bare) as plain:
            for _ in range(2):  # refused before and after, also where the page of who may is in between
                assert (await stranger.get("/-/actor.json")).json() == {"actor": None}
                assert (await stranger.get("/shop/salary.json")).status_code == 403
                assert "salary" not in (await stranger.get("/shop")).text
                if not root.cookies:
                    assert (await root.get("/-/auth-token", params={"token": "token"})).status_code == 302
                assert (await root.get("/-/actor.json")).json() == {"actor": {"id": "root"}}
                assert "secret" in (await root.get("/shop/salary.json")).text
                assert "salary" in (await root.get("/shop")).text
            hit = await stranger.get("/shop")
            assert "hit" in hit.headers["cache-status"]
            # A stream of many pieces.
            for _ in range(2):
                csv = await stranger.get("/shop/product.csv?_stream=on")
                assert csv.text == (await plain.get("/shop/product.csv?_stream=on")).text
                assert csv.text.count("\n") == 3001
            # Static files, whole and in part.
            style = (await plain.get("/-/static/app.css")).content
            whole = await stranger.get("/-/static/app.css")
            assert whole.content == style
            headers = {"range": "bytes=10-19", "accept-encoding": "identity"}
            part = await stranger.get("/-/static/app.css", headers=headers)
            assert (part.status_code, part.content) == (206, style[10:20])

    asyncio.run(main())


def test_pypiserver(tmp_path, monkeypatch):
    # Its framework puts a finder of old times there, about which every import that follows would warn.
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    package = pytest.importorskip("pypiserver")
    for version in range(3):
        (tmp_path / f"shop-{version}.0.tar.gz").write_bytes(b"0123456789" * 1000)

    def made():
        return package.app(
            roots=[tmp_path], authenticate=["list", "update"], password_file=".",
            auther=lambda user, password: (user, password) == ("ann", "x"),
        )  # fmt: skip

    wrapped = WsgiKit(made(), cache=Cache(), rules=EVERYTHING, compression=True)
    with (
        httpx.Client(transport=httpx.WSGITransport(app=wrapped), base_url="http://real") as stranger,
        httpx.Client(transport=httpx.WSGITransport(app=wrapped), base_url="http://real", auth=("ann", "x")) as ann,
    ):
        for _ in range(2):
            assert stranger.get("/simple/shop/").status_code == 401
            listed = ann.get("/simple/shop/")
            assert listed.status_code == 200
            assert "shop-2.0.tar.gz" in listed.text
        for _ in range(2):
            got = stranger.get("/packages/shop-1.0.tar.gz")
            assert got.content == b"0123456789" * 1000
        assert "hit" in got.headers["cache-status"]
        part = stranger.get("/packages/shop-1.0.tar.gz", headers={"range": "bytes=5-14"})
        assert (part.status_code, part.content) == (206, b"5678901234")
        sent = {"content": ("shop-9.0.tar.gz", b"new")}
        refused = stranger.post("/", data={":action": "file_upload"}, files=sent)
        assert refused.status_code == 401
        assert ann.post("/", data={":action": "file_upload"}, files=sent).status_code == 200
        assert "shop-9.0.tar.gz" in ann.get("/simple/shop/").text
