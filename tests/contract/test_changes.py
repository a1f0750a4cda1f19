"""Changes that the server makes where a value lies: one command each, and never from what it must not change itself."""

from __future__ import annotations

import math
import zlib

import pytest

from cachekit import Cache, CacheKitError
from cachekit.codecs.protection import Encryption
from cachekit.stores.cluster import ClusterLink
from cachekit.stores.record import read_record

pytestmark = pytest.mark.server


@pytest.fixture
def cache(server):
    with Cache(server.url, timeout=5.0) as made:
        yield made


def test_each_is_one_command(cache, commands) -> None:
    cache.delete("absent")  # its script is known from now on
    for name, start, tags in (("n", 1, ()), ("below", -5000, ()), ("large", 2**40, ()), ("tagged", 1, ("a", "b"))):
        cache.set(name, start, tags=tags)
        assert (cache.incr(name), cache.touch(name, ttl=60)) == (start + 1, True)  # the scripts are known, and the tags
        for change in (lambda name=name: cache.incr(name), lambda name=name: cache.touch(name, ttl=60),
                       lambda name=name: cache.change(name, lambda value: value + 1, adds=1),
                       lambda: cache.touch("absent"), lambda: cache.delete("absent")):  # fmt: skip
            with commands() as seen:
                change()
            assert seen == ["EVALSHA"]


def test_in_a_cluster_each_is_one_round_trip(cluster, monkeypatch, request) -> None:
    cache, trips = Cache(cluster.url, timeout=5.0), []
    request.addfinalizer(cache.close)
    cache.set("n", 1, tags=["a", "b", "c"])
    assert (cache.incr("n"), cache.touch("n", ttl=60)) == (2, True)
    for name in ("evaluate", "read"):

        async def counted(self, io, *args, done=getattr(ClusterLink, name), name=name, **options):
            trips.append(name)
            return await done(self, io, *args, **options)

        monkeypatch.setattr(ClusterLink, name, counted)
    assert cache.incr("n") == 3 and trips == ["evaluate"]
    assert cache.touch("n", ttl=60) and trips == ["evaluate"] * 2
    assert not cache.touch("absent") and trips == ["evaluate"] * 3


def test_the_frame_is_whole_afterwards(cache, server) -> None:
    """Another process checks what the server has written; and a damaged frame is not made a whole one by it."""
    with server.client() as client:
        for size in (0, 1, 100, 1000, 70_000):
            cache.set("k", "x" * size)
            cache.touch("k", ttl=60)
            (name,) = client.keys("*:v:*")
            frame = read_record(client.get(name)).frame
            assert int.from_bytes(frame[9:13]) == zlib.crc32(frame[:9] + frame[13:])
        for change in (cache.incr, cache.touch):
            cache.set("k", 5)
            damaged = bytearray(client.get(name))
            damaged[-1] ^= 1
            client.set(name, bytes(damaged))
            if change == cache.incr:
                assert change("k") == 1  # counted anew: nobody knows what was there
            else:
                change("k")
                assert cache.get("k") is None


@pytest.mark.parametrize("value", [True, None, "5", [1], b"1"])
def test_what_is_no_number_is_left_alone(cache, value) -> None:
    cache.set("k", value)
    with pytest.raises(CacheKitError):
        cache.incr("k")
    assert cache.get("k") == value


def test_a_server_without_the_keys_changes_nothing(server) -> None:
    with Cache(server.url, timeout=5.0, protection=Encryption([b"k" * 32])) as cache:
        cache.set("n", 1)
        assert cache.incr("n") == 2
        assert cache.touch("n", ttl=60) is True
        assert cache.get("n") == 2


def test_tags_outlive_what_was_prolonged(cache, server) -> None:
    cache.set("k", 1, ttl=60, tags=["t"])
    cache.touch("k", ttl=86_400)
    with server.client() as client:
        assert client.ttl("cachekit:t:t") > 86_400
        cache.touch("k", ttl=math.inf)
        assert client.ttl("cachekit:t:t") == client.ttl("cachekit:v:{k}") == -1


def test_other_processes_hear_of_it(server, patient) -> None:
    with Cache(f"tiered+{server.url}", timeout=5.0) as near, Cache(f"tiered+{server.url}", timeout=5.0) as far:
        near.set("n", 1)
        assert far.get("n") == 1
        near.incr("n")
        patient(lambda: far.get("n") == 2)


def test_a_primary_that_is_new_is_noticed(cluster, monkeypatch, request) -> None:
    """Its namespace got a new stamp, perhaps after that stamp was read: what lies there counts as absent."""
    cache = Cache(cluster.url, timeout=5.0)
    request.addfinalizer(cache.close)
    cache.set("n", 41)
    evaluate = ClusterLink.evaluate

    async def promoted(self, io, *args, **options):
        replies = await evaluate(self, io, *args, **options)
        monkeypatch.undo()
        cluster.owner("cachekit:n:{cachekit}").client.set("cachekit:n:{cachekit}", b"x" * 16)
        self.settlings += 1
        return replies

    monkeypatch.setattr(ClusterLink, "evaluate", promoted)
    assert cache.incr("n") == 1
