"""Leases run on monotonic time, deadlines on the wall clock."""

import asyncio

from batch_api.lifecycle import BatchStatus
from batch_api.scheduler.scheduler import Scheduler
from tests.scheduler.site import Site, question, until
from tests.standin import Fault

DAY = 86_400
_LOOK_SECONDS = 0.01
SLOW = Fault(delay_ms=300)


async def end(site: Site, scheduler: Scheduler, number: int) -> None:
    while not (await site.status(number)).is_final:
        await asyncio.sleep(_LOOK_SECONDS)
        scheduler.ring()


async def test_a_wall_clock_that_jumps_a_day_either_way_runs_no_line_twice(site: Site) -> None:
    deadline = int(site.clock.now()) + 2 * DAY
    lines = b"".join(question(f"row-{n}", f"{SLOW}{n}") for n in range(8))
    number = await site.submit(lines, expires_at=deadline)

    async with site.running() as scheduler:
        await until(lambda: site.standin.stats.open == 8)
        for jump in (DAY, -2 * DAY, DAY):
            site.clock.wall += jump
            assert await site.janitor.reclaim_once() == 0
            assert await site.janitor.expire_once() == 0
            scheduler.ring()
        await end(site, scheduler, number)

    assert await site.status(number) == BatchStatus.COMPLETED
    assert await site.counts(number) == (8, 8, 0)
    assert site.standin.stats.received == 8


async def test_a_wall_clock_that_jumps_past_the_deadline_ends_the_batch_with_what_there_is(
    site: Site,
) -> None:
    number = await site.submit(
        question("row-1") + question("row-2", f"{Fault(ending='hang')}"),
        expires_at=int(site.clock.now()) + DAY,
    )
    async with site.running() as scheduler:
        while await site.counts(number) != (2, 1, 0):  # noqa: ASYNC110 no bell rings
            await asyncio.sleep(_LOOK_SECONDS)
        site.clock.wall += DAY
        await end(site, scheduler, number)

    assert await site.status(number) == BatchStatus.EXPIRED
    assert [line["error"]["code"] for line in await site.errors(number)] == ["batch_expired"]
