"""The connections of an event loop: replies in pieces, in bulk and in error; who leaves, and what is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cachekit import Cache
from cachekit.errors import StoreError, StoreTimeout, StoreUnavailable
from cachekit.stores import aiolane
from cachekit.stores.aiolane import AioLane, Deadlines, _plain_packer_of, _PlainReader
from cachekit.stores.link import RedisLink
from cachekit.stores.places import Places


@pytest.fixture(params=["hiredis", "plain"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        # What is there without hiredis; the client library, which chose its own when it was imported, keeps it.
        monkeypatch.setattr(aiolane, "_reader_of", lambda connection: _PlainReader(connection._parser.parse_error))
        monkeypatch.setattr(aiolane, "_packer_of", _plain_packer_of)


class Served:
    """A server that says what it is told to, whatever it is asked; *greeted* answers what the client library asks first."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while data := await reader.read(65536):
            if b"SETINFO" in data:
                writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
                continue
            self.asked += 1
            for piece in self.replies.pop(0).split(b"|"):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()


async def with_server(tmp_path: Path, job: Any, timeout: float = 10) -> Any:
    served = Served()
    path = str(tmp_path / "s")
    server = await asyncio.start_unix_server(served.serve, path)
    link = RedisLink(f"unix://{path}", timeout=timeout)
    try:
        return await job(served, link)
    finally:
        await link._aclose()
        for writer in served.writers:
            writer.close()
        server.close()
        await server.wait_closed()


def test_replies_are_put_together_and_errors_are_told_apart(tmp_path, reader) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        served.replies = [
            b"$5\r|\nhel|lo\r|\n",
            b"-NOSCRIPT no such script\r\n",
            b":1\r\n|-OOM no room\r\n|$-1\r\n",
            b"*2\r\n$1\r\na\r\n|$-1\r\n",
        ]
        assert await link.aio_command(("GET", "k")) == b"hello"
        with pytest.raises(StoreError, match="no such script"):
            await link.aio_command(("EVALSHA", "x", 0))
        one, refused, absent = await link.node.arun_all([("INCR", "n"), ("SET", "a", 1.5), ("GET", "b")])
        assert (one, str(refused), absent) == (1, "no room", None)
        assert await link.aio_command(("MGET", b"a", "b")) == [b"a", None]
        assert len(served.writers) == 1, "an error reply is an answer: the connection goes on"

    asyncio.run(with_server(tmp_path, job))


def test_bytes_that_are_no_reply_end_the_connection(tmp_path, reader) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        served.replies = [b"what?\r\n", b"+OK\r\n"]
        with pytest.raises(StoreError):
            await link.aio_command(("GET", "k"))
        assert await link.aio_command(("SET", "k", "v")) == b"OK"
        assert len(served.writers) == 2

    asyncio.run(with_server(tmp_path, job))


def test_more_than_was_asked_for_is_never_taken_for_the_next_answer(tmp_path, reader) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        served.replies = [b"$1\r\na\r\n$1\r\nb\r\n", b"$1\r\nc\r\n"]
        assert await link.aio_command(("GET", "k")) == b"a"
        assert await link.aio_command(("GET", "k")) == b"c"
        assert len(served.writers) == 2

    asyncio.run(with_server(tmp_path, job))


def test_a_fault_of_who_is_told_is_nobody_else_s(tmp_path, reader) -> None:
    """It goes on within the callback that brought the answer, and its connection may be somebody else's by then."""

    async def job(served: Served, link: RedisLink) -> None:
        served.replies = [b"+PONG\r\n", b"$1\r\na\r\n", b"$1\r\nb\r\n"]
        await link.aio_command(("PING",))
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context["exception"]))
        others: list[Any] = []

        def told(*_: Any) -> None:
            others.append(link.node._aio()._free().ask(("GET", "b")))  # type: ignore[union-attr]
            raise KeyError("told")

        assert link.node._aio().ask_now(("GET", "a"), told)
        while not others:
            await asyncio.sleep(0)
        assert await others[0] == b"b"
        assert [type(fault) for fault in faults] == [KeyError]

    asyncio.run(with_server(tmp_path, job))


@pytest.mark.parametrize("stands", [False, True])
def test_one_who_leaves_takes_the_connection_along(tmp_path, reader, stands) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        served.replies = [b"+OK\r\n"] * stands + [b"", b"$1\r\nb\r\n"]
        if stands:
            await link.aio_command(("PING",))
        asking = asyncio.create_task(link.aio_command(("GET", "a")))
        while served.asked < stands + 1:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await link.aio_command(("GET", "b")) == b"b", "not the answer to what was asked before"
        assert len(served.writers) == 2
        await asyncio.wait_for(served.writers[0].wait_closed(), 10)

    asyncio.run(with_server(tmp_path, job))


def test_a_command_has_its_time_and_no_more(tmp_path, reader) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        served.replies = [b"+OK\r\n", b"", b"+OK\r\n"]
        await link.aio_command(("PING",))
        with pytest.raises(StoreTimeout, match=r"no answer within 0\.5 s"):
            await link.aio_command(("GET", "a"))
        await link.aio_command(("PING",))
        assert len(served.writers) == 2, "the late answer has nowhere to go"

    asyncio.run(with_server(tmp_path, job, timeout=0.5))


def test_a_connection_lost_while_idle_costs_nothing_and_one_lost_in_use_is_tried_again_once(tmp_path, reader) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        async def lose() -> None:
            writer = served.writers[-1]
            writer.close()
            while not all(lane.lost for lane in link.node._aio()._idle):  # until the client's side has been told
                await asyncio.sleep(0)

        served.replies = [b"+OK\r\n", b"+OK\r\n", b"", b"+OK\r\n", b"", b"+sent twice\r\n"]
        await link.aio_command(("PING",))
        await lose()
        assert await link.aio_command(("INCR", "n"), once=True) == b"OK"
        asking = asyncio.create_task(link.aio_command(("GET", "a")))
        while served.asked < 3:
            await asyncio.sleep(0)
        await lose()
        assert await asking == b"OK"
        asking = asyncio.create_task(link.aio_command(("INCR", "n"), once=True))
        while served.asked < 5:
            await asyncio.sleep(0)
        await lose()
        with pytest.raises(StoreUnavailable):
            await asking
        assert served.asked == 5

    asyncio.run(with_server(tmp_path, job))


def test_a_server_that_is_not_there_is_an_error_and_leaves_nothing(tmp_path) -> None:
    async def job() -> None:
        link = RedisLink(f"unix://{tmp_path}/nobody", timeout=1)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await link.aio_command(("PING",))

    asyncio.run(job())


def test_deadlines_hold_on_to_nothing_that_is_done() -> None:
    async def job() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop, 0.01, lambda: TimeoutError("late"))
        for _ in range(100):
            future = loop.create_future()
            deadlines.watch(future)
            future.set_result(b"x" * 1000)
        assert len(deadlines._waiting) == 1
        first, second = loop.create_future(), loop.create_future()
        deadlines.watch(first)
        deadlines.watch(second)
        for late in (first, second):
            with pytest.raises(TimeoutError, match="late"):
                await late
        assert deadlines._timer is None
        deadlines.watch(third := loop.create_future())
        with pytest.raises(TimeoutError, match="late"):
            await third

    asyncio.run(job())


@pytest.mark.server
def test_loops_that_end_without_closing_the_cache_leave_one_connection_at_most(server) -> None:
    cache = Cache(server.url, namespace="loops")

    async def job() -> None:
        await cache.aset("k", "v", ttl=60)
        assert await asyncio.gather(*(cache.aget("k") for _ in range(3))) == ["v"] * 3

    opened = []
    for _ in range(5):
        asyncio.run(job())
        opened.append(len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0)
    assert opened[-1] == opened[1]

    async def last() -> None:
        await cache.aclose()

    asyncio.run(last())


def test_no_command_at_all_is_answered_at_once(tmp_path) -> None:
    async def job(_served: Served, link: RedisLink) -> None:
        assert await link.node.arun_all([]) == []

    asyncio.run(with_server(tmp_path, job))


@pytest.mark.parametrize(("waits", "stands"), [(False, False), (True, False), (True, True)])
def test_waiting_for_a_place_and_connecting_are_part_of_a_command_s_time(tmp_path, monkeypatch, waits, stands) -> None:
    """What bounds the whole of it bounds the reply too, which would have the whole time again by itself."""
    monkeypatch.setattr(Deadlines, "watch", lambda _self, _future: None)

    async def job(served: Served, link: RedisLink) -> None:
        lanes = link.node._aio()
        if stands:
            served.replies = [b"+PONG\r\n"]
            await link.aio_command(("PING",))
        served.replies = [b""]
        if waits:
            lanes._places = Places(0)
        asking = asyncio.create_task(link.aio_command(("PING",)))
        if waits:
            await asyncio.sleep(0)
            lanes._places.give_back()
        with pytest.raises(StoreTimeout):
            await asyncio.wait_for(asking, 10)

    asyncio.run(with_server(tmp_path, job, timeout=0.1))


def test_who_waited_has_one_place_and_sends_once_what_must_not_run_twice(tmp_path) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        lanes = link.node._aio()
        lanes._places = Places(1)
        served.replies = [b"+OK\r\n", b"", b"", b"+sent twice\r\n"]
        await link.aio_command(("PING",))
        first = asyncio.create_task(link.aio_command(("GET", "a")))
        second = asyncio.create_task(link.aio_command(("INCR", "n"), once=True))
        while served.asked < 2:
            await asyncio.sleep(0)
        served.writers[-1].write(b"+first\r\n")
        assert await first == b"first"
        while served.asked < 3:
            await asyncio.sleep(0)
        assert not lanes._places.take()
        served.writers[-1].close()
        with pytest.raises(StoreUnavailable):
            await second
        assert (served.asked, lanes._places.take(), lanes._places.take()) == (3, True, False)

    asyncio.run(with_server(tmp_path, job))


@pytest.mark.parametrize("why", ["no connection stands ready", "it cannot be sent"])
def test_what_is_not_sent_takes_no_place(tmp_path, monkeypatch, why) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        lanes = link.node._aio()
        lanes._places = Places(1)
        if why == "it cannot be sent":
            served.replies = [b"+PONG\r\n"]
            await link.aio_command(("PING",))
            monkeypatch.setattr(AioLane, "_send", lambda *_: {}["sent"])
            with pytest.raises(KeyError):
                lanes.ask_now(("PING",), lambda *_: None)
        else:
            assert not lanes.ask_now(("PING",), lambda *_: None)
        assert lanes._places.take()

    asyncio.run(with_server(tmp_path, job))


def test_a_lane_is_asked_by_one_at_a_time(tmp_path) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        served.replies = [b"+OK\r\n"] * 8
        assert await asyncio.gather(*(link.aio_command(("PING",)) for _ in range(8))) == [b"OK"] * 8
        lanes = link.node._aio()
        assert all(isinstance(lane, AioLane) and lane._future is None for lane in lanes._idle)
        assert len(lanes._idle) == len(served.writers) <= 8

    asyncio.run(with_server(tmp_path, job))


def test_what_is_under_way_when_the_connections_are_closed_is_closed_afterwards(tmp_path) -> None:
    async def job(served: Served, link: RedisLink) -> None:
        served.replies = [b"$1\r\na\r\n"]
        lanes = link.node._aio()
        asked = asyncio.ensure_future(link.aio_command(("GET", "k")))
        while not served.asked:
            await asyncio.sleep(0)
        await link.node.aclose()
        assert await asked == b"a"
        assert not lanes._idle

    asyncio.run(with_server(tmp_path, job))


@pytest.mark.server
def test_in_threads_too(server) -> None:
    link = RedisLink(server.url, timeout=5.0)
    lanes = link.node._blocking()
    under_way = lanes.send([("PING",)])
    link.node.run(("PING",))
    link.node.close()
    assert lanes.receive(under_way, 1) == [b"PONG"]
    assert under_way.connection._sock is None
    assert not lanes._idle
    assert link.node.run(("PING",)) == b"PONG", "and others are opened where they are needed"
    link.node.close()
