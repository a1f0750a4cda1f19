"""Places of an event loop: as many as there are, in the order in which they were asked for, and none of them lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from cachekit.stores.places import Places


def test_there_are_as_many_as_were_made() -> None:
    places = Places(2)
    assert [places.take() for _ in range(3)] == [True, True, False]
    places.give_back()
    assert [places.take(), places.take()] == [True, False]


def test_who_waits_comes_before_who_comes_later() -> None:
    async def job() -> None:
        places, order = Places(1), []

        async def one(name: str) -> None:
            await places.wait()
            order.append(name)

        assert places.take()
        tasks = [asyncio.create_task(one(name)) for name in "abc"]
        await asyncio.sleep(0)
        for expected in ("a", "ab", "abc"):
            places.give_back()
            assert not places.take(), "it is another one's turn"
            await asyncio.sleep(0)
            assert "".join(order) == expected
        await asyncio.gather(*tasks)
        places.give_back()
        assert places.take()

    asyncio.run(job())


@pytest.mark.parametrize("when", ["before its turn", "in the moment of its turn"])
def test_who_gives_up_takes_no_place_along(when: str) -> None:
    async def job() -> None:
        places = Places(1)
        assert places.take()
        leaving, staying = asyncio.create_task(places.wait()), asyncio.create_task(places.wait())
        await asyncio.sleep(0)
        if when == "before its turn":
            leaving.cancel()
            await asyncio.sleep(0)
            places.give_back()
        else:
            places.give_back()
            leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await asyncio.wait_for(staying, 10)
        assert not places.take()
        places.give_back()
        assert places.take()

    asyncio.run(job())


@pytest.mark.parametrize("seed", range(20))
def test_no_place_is_lost_or_given_twice(seed: int) -> None:
    """Tasks that wait, work, and are cancelled at any moment."""
    chance = random.Random(seed)

    async def job() -> None:
        places, busy, most = Places(3), 0, 0

        async def one() -> None:
            nonlocal busy, most
            if not places.take():
                await places.wait()
            busy += 1
            most = max(most, busy)
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                busy -= 1
                places.give_back()

        tasks = []
        for _ in range(200):
            tasks.append(asyncio.create_task(one()))
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most == 3
        assert [places.take() for _ in range(4)] == [True, True, True, False]

    asyncio.run(job())
