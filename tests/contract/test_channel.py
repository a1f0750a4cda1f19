"""The invalidation channel: tracking where the server allows it, publishing where it does not, TLS, and what breaks it."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import trustme

from cachekit import Cache, Kind, StoreError
from cachekit.errors import StoreUnavailable
from cachekit.stores.resp import NOTHING, Push, Reader, ReplyError
from tests.proxies import Proxy

pytestmark = pytest.mark.server


@pytest.fixture
def process(clock, watch):
    made: list[Cache] = []

    def start(url: str, **options) -> Cache:
        observer = watch.__class__()
        made.append(Cache(url, **{"clock": clock, "timeout": 5.0, "observers": [observer], **options}))
        made[-1].watch = observer
        if url.startswith("tiered+"):
            made[-1].get("opens the bus")
            observer.wait(Kind.CHANNEL_LIVE)
        return made[-1]

    yield start
    for cache in made:
        cache.close()


@pytest.fixture
def proxy(server):
    made = Proxy(("127.0.0.1", server.port))
    yield made
    made.close()


REFUSALS = {
    "tracking": (None, "tracking"),
    "no CLIENT TRACKING": (["+@all", "-client|tracking"], "pubsub"),
    "no RESP3": (["HELLO"], "pubsub"),
}


@pytest.fixture(params=REFUSALS)
def url(request, server):
    """A URL by which tracking is allowed, refused by an access list, or where nobody speaks RESP3."""
    rules, kind = REFUSALS[request.param]
    if rules is None:
        yield server.tcp, kind
        return
    if rules == ["HELLO"]:
        proxy = request.getfixturevalue("proxy")
        proxy.unknown = b"HELLO"
        yield f"redis://127.0.0.1:{proxy.port}/0", kind
        return
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">word", "~*", "&*", *rules)
        yield server.tcp.replace("://", "://limited:word@"), kind
        client.execute_command("ACL", "DELUSER", "limited")


CHANGES = {
    "invalidate": lambda cache: cache.invalidate("t"),
    "delete": lambda cache: cache.delete("k"),
    "set": lambda cache: cache.set("k", "new"),
    "clear": lambda cache: cache.clear(),
    "incr": lambda cache: (cache.delete("k"), cache.incr("k")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_both_kinds_carry_every_change(url, server, process, patient, name) -> None:
    """Writers do not know how readers listen: one that may not track hears the same as one that may."""
    address, kind = url
    limited, free, writer = process(f"tiered+{address}"), process(f"tiered+{server.url}"), process(server.url)
    assert [one.stats().channel for one in (limited, free)] == ["live", "live"]
    assert limited.stats().channel_kind == kind
    assert writer.stats().channel_kind == "none"
    for reader in (limited, free):
        assert reader.get_or_set("k", lambda: "old", tags=["t"]) == "old"
        assert reader.peek("k").value == "old"
    CHANGES[name](writer)
    for reader in (limited, free):
        patient(lambda reader=reader: reader.peek("k") is None)


def test_an_announcement_is_heard_once_and_leaves_nothing(server, process, patient) -> None:
    heard = []
    reader, writer = process(f"tiered+{server.url}"), process(server.url)
    reader.store.l2.inner.channel.subscribe(heard.append, lambda: None, lambda exc: None)
    for i in range(50):
        writer.get_or_set(f"k{i}", lambda: 1, tags=["t", f"t{i}"], ttl=60)  # stamps are made and given a longer life
    writer.invalidate("t")
    patient(lambda: heard)
    writer.delete("nothing")
    patient(lambda: len(heard) >= 2)
    assert len(heard) == 2
    assert b'"tags", "t"' in heard[0]
    with server.client() as client:
        assert list(client.scan_iter("cachekit:i:*")) == []


def test_a_server_that_is_flushed_empties_the_first_level(server, process, patient) -> None:
    cache = process(f"tiered+{server.url}")
    cache.get_or_set("k", lambda: "v")
    with server.client() as client:
        client.flushall()
    patient(lambda: cache.peek("k") is None)


def test_thousands_of_announcements_behind_each_other(server, process, patient, proxy) -> None:
    """A reader that calls itself for each queued message fails at the thousandth."""
    reader = process(f"tiered+redis://127.0.0.1:{proxy.port}/0")
    writer = process(server.url)
    reader.get_or_set("k", lambda: "v", tags=["last"])
    proxy.freeze()
    for i in range(3000):
        writer.invalidate(f"t{i}")
    writer.invalidate("last")
    proxy.thaw()
    patient(lambda: reader.peek("k") is None)
    assert len(reader.watch.of(Kind.CHANNEL_LOST)) <= 1


def test_a_cluster_is_listened_to_as_a_whole(cluster, process, patient) -> None:
    reader, writer = process(f"tiered+{cluster.url}"), process(cluster.url)
    tags = [f"t{i}" for i in range(20)]
    assert len({cluster.owner(f"cachekit:t:{{{tag}}}").port for tag in tags}) == 3
    for tag in tags:
        reader.get_or_set(f"k {tag}", lambda: 1, tags=[tag])
    for tag in tags:
        writer.invalidate(tag)
        patient(lambda tag=tag: reader.peek(f"k {tag}") is None)
    victim = cluster.primaries()[1]
    for client in victim.client.client_list():
        if client["cmd"].startswith("client|tracking") or client["cmd"].startswith("cluster|slots"):
            victim.client.client_kill_filter(_id=client["id"])
    reader.watch.wait(Kind.CHANNEL_LOST)
    reader.watch.wait(Kind.CHANNEL_LIVE, 2)


def test_slots_that_change_hands_are_noticed(cluster, process) -> None:
    """From then on another primary announces what concerns them, so that the channel begins anew."""
    reader = process(f"tiered+{cluster.url}")
    source = cluster.owner("cachekit:v:{k}")
    target = next(member for member in cluster.primaries() if member is not source)
    reader.store.l2.inner.channel._bus.first.result(5)
    cluster.move("cachekit:v:{k}", target, lambda: None)
    try:
        reader.watch.wait(Kind.CHANNEL_LOST)
        reader.watch.wait(Kind.CHANNEL_LIVE, 2)
    finally:
        cluster.move("cachekit:v:{k}", source, lambda: None)


# -- TLS -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["", "tiered+"])
def test_tls(server, process, patient, tmp_path, tier) -> None:
    """A TLS endpoint in front of the server, because the wheels' servers were built without TLS."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    roots = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(roots))
    proxy = Proxy(("127.0.0.1", server.port), tls=context)
    try:
        url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={roots}"
        cache, writer = process(tier + url), process(server.url)
        cache.set("k", "x" * 200_000, tags=["t"])
        assert len(cache.get("k")) == 200_000
        assert proxy.connections >= (2 if tier else 1)

        async def there() -> object:
            found = await cache.aget("k")
            await (cache.store.l2 if tier else cache.store).inner.link._aclose()
            return found

        assert len(asyncio.run(there())) == 200_000
        if tier:
            assert cache.stats().channel_kind == "tracking"
            assert cache.peek("k") is not None
        writer.invalidate("t")
        patient(lambda: cache.get("k") is None)
        stranger = process(f"rediss://127.0.0.1:{proxy.port}/0")
        assert stranger.get_or_set("k", lambda: "own") == "own"
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.watch.of(Kind.STORE_ERROR)[0].detail
    finally:
        proxy.close()


# -- a reply that is lost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_count_whose_reply_is_lost_is_not_counted_twice(server, process, proxy, kind) -> None:
    cache, plain = process(f"redis://127.0.0.1:{proxy.port}/0"), process(server.url)

    async def there() -> None:
        await cache.aincr("n")
        with pytest.raises(StoreError):
            await _swallowing(proxy, cache.aincr)
        await cache.store.inner.link._aclose()

    if kind == "asyncio":
        asyncio.run(there())
    else:
        cache.incr("n")
        reads = cache.store.inner.link.node._lanes
        run = reads.run

        def lose_the_write(command, *, once=False):
            proxy.swallow = once
            return run(command, once=once)

        reads.run = lose_the_write
        with pytest.raises(StoreError):
            cache.incr("n")
        reads.run = run
    assert plain.get("n") == 2  # counted, once
    assert plain.incr("n") == 3


async def _swallowing(proxy, incr) -> None:
    from cachekit.stores.lanes import AioLanes

    run = AioLanes.run

    async def lose_the_write(self, command, *, once=False):
        proxy.swallow = once
        return await run(self, command, once=once)

    AioLanes.run = lose_the_write
    try:
        await incr("n")
    finally:
        AioLanes.run = run


# -- the reader ------------------------------------------------------------------------------------------------------------


def test_the_reader_takes_bytes_in_any_pieces() -> None:
    data = (
        b"+OK\r\n:12\r\n$3\r\na\r\n\r\n*2\r\n$1\r\nx\r\n_\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$2\r\nab\r\n-ERR no\r\n"
        b"%1\r\n+k\r\n:1\r\n#t\r\n,1.5\r\n=7\r\ntxt:abc\r\n$-1\r\n*0\r\n|1\r\n+a\r\n+b\r\n:7\r\n"
    )
    expected = [
        b"OK", 12, b"a\r\n", [b"x", None], Push([b"invalidate", [b"ab"]]), "ERR no", [b"k", 1], b"t", b"1.5", b"txt:abc",
        None, [], 7,
    ]  # fmt: skip
    for size in (1, 2, 3, 7, len(data)):
        reader, found = Reader(), []
        for at in range(0, len(data), size):
            reader.feed(data[at : at + size])
            while (value := reader.next()) is not NOTHING:
                found.append(str(value) if isinstance(value, ReplyError) else value)
        assert found == expected
        assert [type(value) is Push for value in found].index(True) == 4
    reader = Reader()
    reader.feed(b"?what\r\n")
    with pytest.raises(StoreUnavailable):
        reader.next()
