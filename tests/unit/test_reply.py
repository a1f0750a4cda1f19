"""What a task waits for that has sent a command: it goes on at once, and is cancelled as with any future."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from cachekit.stores.reply import Reply

visitor: ContextVar[str] = ContextVar("visitor", default="nobody")


@pytest.fixture(params=["as it is", "in Python"])
def run(request):
    """Run a coroutine on a loop whose tasks are asyncio's, in C or in Python."""

    def on_loop(job):
        async def main():
            if request.param == "in Python":
                loop = asyncio.get_running_loop()
                kind = asyncio.tasks._PyTask
                loop.set_task_factory(lambda loop, coro, **more: kind(coro, loop=loop, **more))
            return await job(asyncio.get_running_loop())

        return asyncio.run(main())

    return on_loop


async def waiting(reply, seen):
    """Wait for *reply*, and note what came, and for whom."""
    visitor.set("ann")
    try:
        seen.append((await reply, visitor.get()))
    except BaseException as exc:
        seen.append((exc, visitor.get()))
        raise


@pytest.mark.parametrize("failed", [False, True])
def test_who_waits_goes_on_before_the_next_step_of_anybody_else(run, failed) -> None:
    async def job(loop):
        reply, seen, order = Reply(loop), [], []
        task = asyncio.create_task(waiting(reply, seen))
        await asyncio.sleep(0)

        def arrived():
            loop.call_soon(lambda: order.append(len(seen)))
            if failed:
                reply.set_exception(LookupError("none"))
            else:
                reply.set_result(42)
            order.append(len(seen))

        loop.call_soon(arrived)
        if failed:
            with pytest.raises(LookupError):
                await task
        else:
            await task
        await asyncio.sleep(0)
        assert order == [1, 1]
        ((found, who),) = seen
        assert (found == 42 or type(found) is LookupError, who) == (True, "ann")
        assert visitor.get() == "nobody"

    run(job)


def test_an_answer_that_is_there_is_not_waited_for(run) -> None:
    async def job(loop):
        reply = Reply(loop)
        with pytest.raises(asyncio.InvalidStateError):
            reply.result()
        reply.set_result(42)
        assert (await reply, reply.done(), reply.exception(), reply.cancel()) == (42, True, None, False)
        told = []
        reply.add_done_callback(told.append)
        assert told == []
        await asyncio.sleep(0)
        assert told == [reply]

    run(job)


def test_a_task_that_is_cancelled_waits_no_more(run) -> None:
    async def job(loop):
        reply, seen = Reply(loop), []
        task = asyncio.create_task(waiting(reply, seen))
        await asyncio.sleep(0)
        task.cancel("enough")
        assert (reply.done(), seen) == (True, []), "it hears of it from the loop"
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

        never = Reply(loop)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await never
        assert never.done()

    run(job)


def test_a_task_that_is_cancelled_before_it_waits(run) -> None:
    async def job(loop):
        reply, begun = Reply(loop), asyncio.Event()

        async def late():
            begun.set()
            asyncio.current_task().cancel()
            await reply

        task = asyncio.create_task(late())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert begun.is_set()
        assert reply.done()

    run(job)


def test_one_task_waits_for_many_one_after_the_other(run) -> None:
    async def job(loop):
        got = []

        async def client():
            for number in range(5000):
                reply = Reply(loop)
                loop.call_soon(reply.set_result, number)
                got.append(await reply)

        await asyncio.create_task(client())
        assert got == list(range(5000))

    run(job)


def test_what_another_task_brings_is_told_by_the_loop(run) -> None:
    async def job(loop):
        reply, seen = Reply(loop), []
        task = asyncio.create_task(waiting(reply, seen))
        await asyncio.sleep(0)
        reply.set_result(42)
        assert (reply.done(), seen) == (True, []), "this task is in the middle of a step"
        await task
        assert seen == [(42, "ann")]

    run(job)


def test_who_does_not_want_to_be_told_is_not(run) -> None:
    async def job(loop):
        reply, told = Reply(loop), []
        for _ in range(2):
            reply.add_done_callback(told.append)
        assert (reply.remove_done_callback(told.append), reply.get_loop() is loop) == (2, True)
        reply.set_result(1)
        await asyncio.sleep(0)
        assert told == []

    run(job)
