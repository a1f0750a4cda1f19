"""A cache with purgers: what is invalidated anywhere is purged there, also when a process ends in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from cachekit import Cache, Cloudflare, ConfigError, Kind, PurgeOptions, Varnish
from cachekit.http.options import HttpOptions
from cachekit.http.wsgi import HttpCache
from cachekit.testing import World
from tests.cdn.stand_in import Answer, StandIn

OK = {"success": True, "errors": [], "messages": [], "result": {"id": "z1"}}
NOW = PurgeOptions(delay=0, rebound=0)


@pytest.fixture
def cdn() -> Iterator[StandIn]:
    made = StandIn(Answer(200, OK))
    yield made
    made.close()


def cloudflare(cdn: StandIn) -> Cloudflare:
    return Cloudflare(zone="z1", token="sesame", base_url=cdn.url, plan="enterprise")


@pytest.fixture(params=["memory://", "valkey", "redis", "tiered+valkey"])
def cache(request: pytest.FixtureRequest, cdn: StandIn, watch, world: World) -> Iterator[Cache]:
    url = request.param
    if not url.endswith("//"):
        prefix, _, name = url.rpartition("+")
        server = request.getfixturevalue("valkey" if name == "valkey" else "redis_server")
        with server.client() as client:
            client.flushall()
        url = f"{prefix}+{server.url}" if prefix else server.url
    made = Cache(url, timeout=5, purgers=[cloudflare(cdn)], purging=NOW, observers=[watch])
    yield made
    world.run(made._close)


def test_invalidate_purges_in_both_worlds(cache: Cache, cdn: StandIn, watch, world: World) -> None:
    world.run(lambda io: cache._invalidate(io, "product:42"))
    watch.wait(Kind.PURGED)
    assert [seen.json for seen in cdn.seen] == [{"tags": ["product:42"]}]
    assert cache.flush_purges()
    status = cache.purges()["cloudflare-z1"]
    assert (status.pending, status.delivered) == (0, 1)
    assert world.run(cache._purges)["cloudflare-z1"].delivered == status.delivered
    assert cache.stats().events["purged"] == 1


def test_a_transaction_tells_the_cdn_at_its_end_or_not_at_all(cache: Cache, cdn: StandIn) -> None:
    @cache.cached(ttl="5m", tags=["product:{number}"])
    def load(number: int) -> int:
        return number

    with cache.transaction():
        cache.invalidate("product:1")
        load.invalidate_all()
        assert cache.flush_purges()
        assert cdn.seen == []
    assert cache.flush_purges()
    with pytest.raises(ZeroDivisionError), cache.transaction():
        cache.invalidate("product:2")
        raise ZeroDivisionError
    assert cache.flush_purges()
    assert [seen.json for seen in cdn.seen] == [{"tags": ["product:1"]}]


def test_the_cdn_is_told_after_what_is_here_was_dropped(cache: Cache, cdn: StandIn, watch, monkeypatch) -> None:
    """Otherwise the CDN fetches the old page from here, and keeps it."""
    order = []
    inner = cache.store.invalidate

    async def invalidate(io, tags):
        await inner(io, tags)
        order.append("invalidated")

    put = cache.outbox.put

    async def noted(io, *args, **kwargs):
        order.append("put")
        return await put(io, *args, **kwargs)

    monkeypatch.setattr(cache.store, "invalidate", invalidate)
    monkeypatch.setattr(cache.engine, "beyond", noted)
    cache.invalidate("a")
    assert order == ["invalidated", "put"]


def test_urls_and_everything_are_purged_on_demand(cache: Cache, cdn: StandIn, world: World) -> None:
    assert world.run(lambda io: cache._purge(io, urls=["https://shop.example/p/42"]))
    assert world.run(cache._flush_purges)
    assert world.run(lambda io: cache._purge(io, everything=True))
    assert world.run(cache._flush_purges)
    assert [seen.json for seen in cdn.seen] == [{"files": ["https://shop.example/p/42"]}, {"purge_everything": True}]


def test_purgers_are_attached_once(cdn: StandIn) -> None:
    cache = Cache()
    assert cache.purges() == {}
    cache.attach(cloudflare(cdn), purging=NOW)
    with pytest.raises(ConfigError, match="already"):
        cache.attach(cloudflare(cdn))
    cache.close()


def test_close_delivers_what_would_be_lost(cdn: StandIn) -> None:
    cache = Cache(purgers=[cloudflare(cdn)], purging=PurgeOptions(delay="1ms", rebound=10, flush=5))
    cache.outbox.stop()  # whatever the background had in mind
    cache.invalidate("a")
    cache.close()
    assert [seen.json for seen in cdn.seen][:1] == [{"tags": ["a"]}]


def test_close_does_not_wait_for_ever(caplog) -> None:
    cdn = StandIn(Answer(500))
    try:
        cache = Cache(purgers=[cloudflare(cdn)], purging=PurgeOptions(delay=0, flush=0.05))
        cache.invalidate("a")
        cache.close()
        assert "are lost with this process" in caplog.text
    finally:
        cdn.close()


def test_tokens_are_not_in_what_a_cache_shows(cdn: StandIn, caplog, watch) -> None:
    cdn.usual = Answer(403, {"success": False, "errors": [{"code": 1, "message": "the token sesame is bad"}]})
    cache = Cache(purgers=[cloudflare(cdn)], purging=NOW, observers=[watch])
    cache.invalidate("a")
    watch.wait(Kind.PURGE_FAILED)
    shown = repr(cache) + repr(cache.outbox) + repr(cache.purges()) + repr(watch.events) + caplog.text
    assert "***" in shown
    assert "sesame" not in shown
    cache.outbox.stop()


@pytest.mark.server
@pytest.mark.parametrize("how", [signal.SIGKILL, None], ids=["killed", "ended"])
def test_a_purge_survives_its_process(valkey, watch, how) -> None:
    """The CDN is down while one process invalidates and ends; another one, started later, tells it."""
    with valkey.client() as client:
        client.flushall()
    cdn = StandIn(Answer(503))
    try:
        program = f"""
            from cachekit import Cache, Cloudflare, PurgeOptions
            purger = Cloudflare(zone="z1", token="sesame", base_url={cdn.url!r}, plan="enterprise")
            cache = Cache({valkey.url!r}, timeout=5, purgers=[purger], purging=PurgeOptions(delay=0, rebound=0))
            cache.invalidate("product:42")
            print("acknowledged", flush=True)
            input()
        """
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout.readline() == b"acknowledged\n"
        if how is None:
            child.communicate(b"\n", timeout=15)
        else:
            os.kill(child.pid, how)
            child.communicate(timeout=15)
        cdn.usual = Answer(200, OK)
        with valkey.client() as client:  # the lease of a killed process would end by itself, in a quarter of a minute
            client.delete("{cachekit:outbox}:cloudflare-z1:lease")
        purging = PurgeOptions(delay=0, rebound=0, first_pause=0.01, longest_pause=0.01)
        with Cache(valkey.url, timeout=5, purgers=[cloudflare(cdn)], purging=purging, observers=[watch]) as later:
            watch.wait(Kind.PURGED)  # nothing was called: the start alone is enough
            assert later.flush_purges()
            assert later.purges()["cloudflare-z1"].pending == 0
        assert cdn.seen[-1].json == {"tags": ["product:42"]}
    finally:
        cdn.close()


@pytest.mark.server
def test_a_lost_store_loses_no_purge(own_server, cdn: StandIn, watch, patient) -> None:
    purging = PurgeOptions(delay=0, rebound=0)
    cache = Cache(own_server.url, timeout=0.5, purgers=[cloudflare(cdn)], purging=purging, observers=[watch])
    cache.set("k", 1, tags=["a"])
    own_server.stop()
    from cachekit._io import BLOCKING, drive

    assert drive(cache.drop_tags(BLOCKING, ["a"])) is False
    watch.wait(Kind.PURGED)
    assert cdn.seen[-1].json == {"tags": ["a"]}
    own_server.start()
    patient(lambda: len(cdn.seen) >= 2)
    patient(lambda: cache.stats().pending == 0)
    assert cache.purges()["cloudflare-z1"].unsaved == 0
    cache.close()


@pytest.mark.parametrize("option", [True, False])
def test_unsafe_methods_purge_urls_if_wanted(cdn: StandIn, option: bool) -> None:
    cache = Cache(purgers=[cloudflare(cdn)], purging=NOW)

    def app(environ, start_response):
        start_response("201 Created", [("Location", "/p/43"), ("Content-Length", "0")])
        return []

    site = HttpCache(app, cache, options=HttpOptions(purge_urls=option))
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/p", "SCRIPT_NAME": "", "QUERY_STRING": "a=1", "HTTP_HOST": "shop.example",
        "wsgi.url_scheme": "https", "SERVER_NAME": "x", "SERVER_PORT": "443",
    }  # fmt: skip
    for _ in range(2):  # the long way and the short one
        assert list(site(dict(environ), lambda *_: lambda _: None)) == []
    cache.flush_purges()
    cache.close()
    purged = {url for seen in cdn.seen for url in seen.json["files"]}
    assert purged == ({"https://shop.example/p?a=1", "https://shop.example/p/43"} if option else set())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_delivers_too(valkey, cdn: StandIn) -> None:
    with valkey.client() as client:
        client.flushall()
    program = f"""
        import os
        from cachekit import Cache, Cloudflare, PurgeOptions
        purger = Cloudflare(zone="z1", token="sesame", base_url={cdn.url!r}, plan="enterprise")
        cache = Cache({valkey.url!r}, timeout=5, purgers=[purger], purging=PurgeOptions(delay=0, rebound=0))
        child = os.fork()
        if child == 0:
            cache.invalidate("from-the-child")
            os._exit(0 if cache.flush_purges(10) else 1)
        cache.outbox.stop()
        assert os.waitpid(child, 0)[1] == 0
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], timeout=60, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert cdn.seen[-1].json == {"tags": ["from-the-child"]}


def test_varnish_and_cloudflare_at_once(cdn: StandIn) -> None:
    varnish = StandIn(Answer(200, b"purged"))
    try:
        cache = Cache(purgers=[cloudflare(cdn), Varnish(varnish.url, name="v1")], purging=NOW)
        cache.invalidate("a")
        assert cache.flush_purges()
        assert cdn.seen[0].json == {"tags": ["a"]}
        assert (varnish.seen[0].method, varnish.seen[0].headers["xkey-purge"]) == ("PURGE", "a")
        cache.close()
    finally:
        varnish.close()
