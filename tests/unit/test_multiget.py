"""Reads that share round trips on an event loop: each caller has its own time, and its own end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cachekit.errors import StoreTimeout, StoreUnavailable
from cachekit.stores.multiget import MultiGet, Name


class Server:
    """Answers when it is told to; *at_once* takes what can be sent without a task, as a connection does that is open."""

    def __init__(self, timeout: float = 60, *, at_once: bool = False) -> None:
        self.asked: list[list[Name]] = []
        self.answers: list[asyncio.Future[None]] = []
        self.reads = MultiGet(
            lambda names: list(names), self.fetch, timeout=timeout, name="the server",
            ask_now=self.ask_now if at_once else None,
        )  # fmt: skip

    def sent(self, names: Sequence[Name]) -> asyncio.Future[None]:
        self.asked.append(list(names))
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return answer

    async def fetch(self, names: Sequence[Name]) -> list[Any]:
        await self.sent(names)
        return [f"value of {name!r}" for name in names]

    def ask_now(self, names: Sequence[Name], then: Callable[[Any], object]) -> bool:
        def arrived(answer: asyncio.Future[None]) -> None:
            exc = answer.exception()
            if isinstance(exc, ConnectionError):
                then(None)
            else:
                then(exc or [f"value of {name!r}" for name in names])

        self.sent(names).add_done_callback(arrived)
        return True

    async def read(self, names: Sequence[str]) -> list[Any]:
        return await self.reads.aread(names)

    async def started(self, *reads: Sequence[str]) -> list[asyncio.Task[list[Any]]]:
        tasks = [asyncio.create_task(self.read(names)) for names in reads]
        await asyncio.sleep(0)
        return tasks


ways = pytest.mark.parametrize("at_once", [False, True], ids=["in a task", "at once"])


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@ways
def test_those_who_come_meanwhile_go_out_together(at_once: bool) -> None:
    async def main() -> None:
        server = Server(at_once=at_once)
        first, *others = await server.started(["a"], ["b", "t"], ["c", "t"], ["b", "t"])
        assert server.asked == [["a"]]
        server.answers[0].set_result(None)
        await settle()
        assert server.asked[1:] == [["b", "t", "c"]], "each name once"
        server.answers[1].set_result(None)
        assert await first == ["value of 'a'"]
        assert [await one for one in others] == [
            [f"value of {name!r}" for name in names] for names in ("bt", "ct", "bt")
        ]

    asyncio.run(main())


@ways
def test_those_whom_one_answer_woke_go_out_together_again(at_once: bool) -> None:
    async def main() -> None:
        server = Server(at_once=at_once)

        async def reader(name: str) -> None:
            for _ in range(3):
                await server.read([name])

        tasks = [asyncio.create_task(reader(name)) for name in "abc"]
        for turn in range(4):
            await settle()
            server.answers[turn].set_result(None)
        await asyncio.gather(*tasks)
        assert server.asked == [["a"], ["b", "c", "a"], ["b", "c", "a"], ["b", "c"]], "and none ahead of the others"

    asyncio.run(main())


@ways
def test_one_who_leaves_takes_nobody_along(at_once: bool) -> None:
    async def main() -> None:
        server = Server(at_once=at_once)
        first, second, third, fourth = await server.started(["a"], ["b"], ["c"], ["d"])
        third.cancel()
        server.answers[0].set_result(None)
        await settle()
        assert server.asked[1:] == [["b", "d"]], "and is not asked for any more"
        server.answers[1].set_result(None)
        assert [await one for one in (first, second, fourth)] == [[f"value of {name!r}"] for name in "abd"]
        assert third.cancelled()

    asyncio.run(main())


@ways
def test_a_failure_reaches_everybody_of_its_batch_and_nobody_else(at_once: bool) -> None:
    async def main() -> None:
        server = Server(at_once=at_once)
        tasks = await server.started(["a"], ["b"], ["c"])
        server.answers[0].set_result(None)
        await settle()
        (later,) = await server.started(["d"])
        server.answers[1].set_exception(StoreUnavailable("gone"))
        await settle()
        server.answers[2].set_result(None)
        found = await asyncio.gather(*tasks, later, return_exceptions=True)
        assert [type(one).__name__ for one in found] == ["list", "StoreUnavailable", "StoreUnavailable", "list"]

    asyncio.run(main())


@ways
def test_whoever_waits_too_long_is_told_whether_sent_or_not(at_once: bool) -> None:
    async def main() -> None:
        server = Server(timeout=0.02, at_once=at_once)
        first, sent = await server.started(["a"], ["b"])
        server.answers[0].set_result(None)
        await settle()
        (waiting,) = await server.started(["c"])
        for task in (sent, waiting):
            with pytest.raises(StoreTimeout, match="the server did not answer in time"):
                await task
        assert await first == ["value of 'a'"]
        server.answers[1].set_result(None)
        await settle()
        (after,) = await server.started(["d"])
        server.answers[2].set_result(None)
        assert await after == ["value of 'd'"], "the lane goes on"

    asyncio.run(main())


@ways
def test_two_large_batches_may_be_under_way(at_once: bool) -> None:
    async def main() -> None:
        server = Server(at_once=at_once)
        names = [f"n{number}" for number in range(100)]
        tasks = await server.started(*[[name] for name in names])
        await settle()
        assert server.asked == [["n0"], names[1:33]], (
            "the next goes out when enough wait; the third waits for one of them"
        )
        server.answers[1].set_result(None)
        await settle()
        assert server.asked[2:] == [names[33:]]
        for answer in (server.answers[2], server.answers[0]):
            answer.set_result(None)
        assert [await one for one in tasks] == [[f"value of {name!r}"] for name in names]

    asyncio.run(main())


def test_a_batch_whose_connection_was_lost_is_asked_for_once_more() -> None:
    async def main() -> None:
        server = Server(at_once=True)
        first, second, third = await server.started(["a"], ["b"], ["c"])
        server.answers[0].set_result(None)
        await settle()
        server.answers[1].set_exception(ConnectionError("closed"))
        await settle()
        assert server.asked == [["a"], ["b", "c"], ["b", "c"]]
        (fourth,) = await server.started(["d"])
        server.answers[2].set_result(None)
        await settle()
        server.answers[3].set_result(None)
        assert [await one for one in (first, second, third, fourth)] == [[f"value of {name!r}"] for name in "abcd"]

    asyncio.run(main())


def test_where_nothing_can_be_sent_at_once_a_task_does_it() -> None:
    async def main() -> None:
        for ask_now in (lambda names, then: False, lambda names, then: 1 / 0):
            server = Server()
            server.reads._ask_now = ask_now  # type: ignore[assignment]
            tasks = await server.started(["a"], ["b"])
            for turn in range(2):
                server.answers[turn].set_result(None)
                await settle()
            assert [await one for one in tasks] == [["value of 'a'"], ["value of 'b'"]]

    asyncio.run(main())
