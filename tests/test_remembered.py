"""What is found out once for many, with a clock that is turned."""

import asyncio

import pytest

from batch_api.remembered import Remembered
from tests.clock import TurnableClock


@pytest.fixture
def clock() -> TurnableClock:
    return TurnableClock()


class Slow:
    """Something that takes until it is let go."""

    def __init__(self) -> None:
        self.looks = 0
        self.at_once = 0
        self.most_at_once = 0
        self.go = asyncio.Event()

    async def look(self) -> int:
        self.looks += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.go.wait()
        self.at_once -= 1
        return self.looks


async def test_what_was_found_is_kept_for_its_time_and_no_longer(clock: TurnableClock) -> None:
    remembered, slow = Remembered(clock), Slow()
    slow.go.set()

    found = []
    for seconds in (0, 59, 2):
        clock.steady += seconds
        found.append(await remembered.find("history", slow.look, keep_seconds=60))

    assert found == [1, 1, 2]


async def test_many_who_want_the_same_wait_for_one_look(clock: TurnableClock) -> None:
    remembered, slow = Remembered(clock), Slow()
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(remembered.find("history", slow.look, keep_seconds=60))
            for _ in range(12)
        ]
        await asyncio.sleep(0)
        slow.go.set()

    assert {task.result() for task in waiting} == {1}


async def test_different_things_are_looked_for_one_after_the_other(clock: TurnableClock) -> None:
    remembered, slow = Remembered(clock), Slow()
    async with asyncio.TaskGroup() as group:
        for tenant in range(12):
            group.create_task(remembered.find(tenant, slow.look, keep_seconds=60))
        await asyncio.sleep(0)
        slow.go.set()

    assert (slow.looks, slow.most_at_once) == (12, 1)


async def test_who_leaves_takes_it_from_nobody_else(clock: TurnableClock) -> None:
    remembered, slow = Remembered(clock), Slow()
    leaving, staying = [
        asyncio.create_task(remembered.find("history", slow.look, keep_seconds=60))
        for _ in range(2)
    ]
    await asyncio.sleep(0)
    leaving.cancel()
    slow.go.set()

    assert await staying == 1


async def test_what_could_not_be_found_is_looked_for_again(clock: TurnableClock) -> None:
    remembered, slow = Remembered(clock), Slow()
    slow.go.set()

    async def fail() -> int:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 there is no more to it
        await remembered.find("history", fail, keep_seconds=60)

    assert await remembered.find("history", slow.look, keep_seconds=60) == 1
