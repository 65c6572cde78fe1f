import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text

from batch_api.lifecycle import BatchStatus
from tests.scheduler.site import Site, ids, questions, until

pytestmark = pytest.mark.slow

LINES = 500
TROUBLE = "the disk is full or the database busy"


async def allow_pages(site: Site, pages: int) -> None:
    """Of the database file: SQLite answers SQLITE_FULL beyond it."""
    async with site.database.write() as session:
        await session.execute(text(f"PRAGMA max_page_count = {pages}"))


async def pages_now(site: Site) -> int:
    async with site.database.read() as session:
        return int((await session.scalar(text("PRAGMA page_count"))) or 0)


async def test_answers_wait_for_space_and_none_is_lost_or_asked_for_twice(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    number = await site.submit(questions(LINES, "x" * 500))
    assert await site.intake.validate_once()
    await allow_pages(site, await pages_now(site) + 20)

    async with site.running():
        await until(lambda: TROUBLE in caplog.text)
        assert await site.status(number) == BatchStatus.IN_PROGRESS
        await allow_pages(site, 1_000_000)
        async with asyncio.timeout(60):
            while not (await site.status(number)).is_final:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert await site.counts(number) == (LINES, LINES, 0)
    assert ids(await site.output(number)) == [f"row-{n}" for n in range(1, LINES + 1)]
    assert site.standin.stats.received == LINES


async def test_a_lease_that_runs_out_while_its_answer_waits_for_space_is_not_given_away(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site = replace(site, settings=site.settings.model_copy(update={"lease_seconds": 60}))
    number = await site.submit(questions(LINES, "x" * 500))
    assert await site.intake.validate_once()
    await allow_pages(site, await pages_now(site) + 20)

    async with site.running():
        await until(lambda: TROUBLE in caplog.text)
        sent = site.standin.stats.received
        site.clock.turn(61)
        await asyncio.sleep(2.5)  # two rounds of the scheduler's janitor
        assert site.standin.stats.received <= sent + site.settings.max_in_flight
        await allow_pages(site, 1_000_000)
        async with asyncio.timeout(60):
            while not (await site.status(number)).is_final:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert await site.counts(number) == (LINES, LINES, 0)
    assert site.standin.stats.received == LINES


async def test_a_validation_waits_for_space(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    number = await site.submit(questions(5000))
    await allow_pages(site, await pages_now(site) + 10)

    async with site.running():
        await until(lambda: TROUBLE in caplog.text)
        assert await site.status(number) == BatchStatus.VALIDATING
        await allow_pages(site, 1_000_000)

    assert (await site.run(number)).completed == 5000
