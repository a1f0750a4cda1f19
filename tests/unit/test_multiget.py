"""Reads that share round trips on an event loop: each caller has its own time, and its own end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from cachekit.errors import StoreTimeout, StoreUnavailable
from cachekit.stores.multiget import MultiGet, Name


class Server:
    """Answers when it is told to."""

    def __init__(self, timeout: float = 60) -> None:
        self.asked: list[list[Name]] = []
        self.answers: list[asyncio.Future[None]] = []
        self.reads = MultiGet(lambda names: list(names), self.fetch, timeout=timeout, name="the server")

    async def fetch(self, names: Sequence[Name]) -> list[Any]:
        self.asked.append(list(names))
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        await answer
        return [f"value of {name!r}" for name in names]

    async def read(self, names: Sequence[str]) -> list[Any]:
        return await self.reads.aread(names)

    async def started(self, *reads: Sequence[str]) -> list[asyncio.Task[list[Any]]]:
        tasks = [asyncio.create_task(self.read(names)) for names in reads]
        await asyncio.sleep(0)
        return tasks


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_those_who_come_meanwhile_go_out_together() -> None:
    async def main() -> None:
        server = Server()
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


def test_those_whom_one_answer_woke_go_out_together_again() -> None:
    async def main() -> None:
        server = Server()

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


def test_one_who_leaves_takes_nobody_along() -> None:
    async def main() -> None:
        server = Server()
        first, second, third, fourth = await server.started(["a"], ["b"], ["c"], ["d"])
        third.cancel()
        server.answers[0].set_result(None)
        await settle()
        assert server.asked[1:] == [["b", "d"]], "and is not asked for any more"
        server.answers[1].set_result(None)
        assert [await one for one in (first, second, fourth)] == [[f"value of {name!r}"] for name in "abd"]
        assert third.cancelled()

    asyncio.run(main())


def test_a_failure_reaches_everybody_of_its_batch_and_nobody_else() -> None:
    async def main() -> None:
        server = Server()
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


def test_whoever_waits_too_long_is_told_whether_sent_or_not() -> None:
    async def main() -> None:
        server = Server(timeout=0.02)
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
