"""The contract of every store, in both worlds, on memory, on Valkey and Redis in each topology, and in two levels."""

from __future__ import annotations

import pytest

from cachekit.events import Events
from cachekit.stores.build import Settings, build
from cachekit.stores.memory import Memory
from cachekit.testing import StoreContract


def settings(clock):
    from cachekit.codecs.msgpack import MsgpackCodec

    return Settings(
        namespace="t", codec=MsgpackCodec(), clock=clock, emit=Events(), timeout=5.0, max_entries=1000,
        max_bytes=10_000_000, compress_from=1024, max_value_bytes=1_000_000, isolated_ttl=30.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def embedded():
    from cachekit.stores.embedded import EmbeddedServer

    server = EmbeddedServer()
    yield server
    server.close()
    assert not server.directory.exists()


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self, clock):
        return Memory(clock=clock)


@pytest.mark.server
class TestServer(StoreContract):
    @pytest.fixture
    def store(self, world, clock, server):
        store, _ = build(server.url, settings(clock))
        yield store
        world.run(store.close)


@pytest.mark.server
class TestTcp(StoreContract):
    @pytest.fixture
    def store(self, world, clock, server):
        store, _ = build(server.tcp, settings(clock))
        yield store
        world.run(store.close)


@pytest.mark.server
class TestTiered(StoreContract):
    @pytest.fixture
    def store(self, world, clock, server):
        store, _ = build(f"tiered+{server.url}", settings(clock))
        yield store
        world.run(store.close)


@pytest.mark.server
class TestCluster(StoreContract):
    @pytest.fixture
    def store(self, world, clock, cluster):
        store, _ = build(cluster.url, settings(clock))
        yield store
        world.run(store.close)


@pytest.mark.server
class TestTieredCluster(StoreContract):
    @pytest.fixture
    def store(self, world, clock, cluster):
        store, _ = build(f"tiered+{cluster.url}", settings(clock))
        yield store
        world.run(store.close)


@pytest.mark.server
class TestSentinel(StoreContract):
    @pytest.fixture
    def store(self, world, clock, sentinels):
        store, _ = build(sentinels.url, settings(clock))
        yield store
        world.run(store.close)


@pytest.mark.server
class TestTieredSentinel(StoreContract):
    @pytest.fixture
    def store(self, world, clock, sentinels):
        store, _ = build(f"tiered+{sentinels.url}", settings(clock))
        yield store
        world.run(store.close)


@pytest.mark.server
class TestEmbedded(StoreContract):
    @pytest.fixture
    def store(self, world, clock, embedded):
        store, _ = build(embedded.url, settings(clock))
        world.run(store.clear)
        yield store
        world.run(store.close)
