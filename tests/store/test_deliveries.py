"""Who is to hear of a batch's end is written down with that end, or neither is."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import BatchStatus, DeliveryState
from batch_api.schemas.ids import batch_id
from batch_api.store import batches, deliveries
from batch_api.store.database import Database
from batch_api.store.deliveries import Attempt
from batch_api.store.tables import DeliveryRow
from tests.store.rows import add_batch, status

NOW = 100.9
ALL = "https://all.example.com/hook?token=1"
OWN = "https://own.example.com:8443/hook"
DAY = 86_400.0

ENDS = ["completed", "expired", "cancelled", "failed", "abandoned"]


async def end(session: AsyncSession, number: int, how: str, *urls: str) -> bool:
    """A batch in validating, however it may end."""
    move: Any = {"now": NOW, "webhook_urls": urls}
    errors = [{"code": "empty_file"}]
    if how in ("cancelled", "abandoned"):
        await batches.cancel(session, f"batch_{number}", now=NOW)
    match how:
        case "failed":
            return await batches.fail(session, number, errors=errors, **move)
        case "abandoned":
            return await batches.abandon(session, number, errors=errors, **move)
        case "cancelled":
            left, final = BatchStatus.CANCELLING, BatchStatus.CANCELLED
        case _:
            await batches.start(session, number, now=NOW)
            await batches.cut_off(session, number, now=NOW)
            left, final = BatchStatus.FINALIZING, BatchStatus(how)
    return await batches.finish(session, number, left, final, **move)


async def ended(database: Database, number: int, *urls: str) -> None:
    await add_batch(database, f"batch_{number}")
    async with database.write.begin() as session:
        assert await end(session, number, "failed", *urls)


async def all_rows(database: Database) -> Sequence[DeliveryRow]:
    async with database.read() as session:
        return (await session.scalars(select(DeliveryRow).order_by(DeliveryRow.number))).all()


async def due(database: Database, now: float = NOW, *, but_not: Sequence[int] = ()) -> list[int]:
    async with database.read() as session:
        rows = await deliveries.due(
            session, now=now, within=DAY, of_url=2, of_origin=3, but_not=but_not
        )
        return [row.number for row in rows]


async def record(database: Database, *attempts: Attempt) -> set[int]:
    async with database.write.begin() as session:
        return set(await deliveries.record(session, attempts, now=NOW))


@pytest.mark.parametrize("how", ENDS)
async def test_each_end_of_a_batch_is_to_be_told_to_its_receiver_and_to_all_of_the_settings(
    database: Database, how: str
) -> None:
    await add_batch(database, tenant="b", webhook_url=OWN)
    async with database.write.begin() as session:
        assert await end(session, 1, how, ALL)

    rows = await all_rows(database)
    final = "cancelled" if how == "abandoned" else how
    assert [(row.batch_id, row.status, row.tenant) for row in rows] == [
        ("batch_1", final, "b"),
        ("batch_1", final, "b"),
    ]
    assert [(row.url, row.origin) for row in rows] == [
        (ALL, "https://all.example.com"),
        (OWN, "https://own.example.com:8443"),
    ]
    assert {(row.state, row.attempts, row.ended_at) for row in rows} == {("pending", 0, int(NOW))}


@pytest.mark.parametrize("how", ENDS)
async def test_the_end_and_what_is_to_be_told_of_it_are_one_transaction(
    database: Database, how: str
) -> None:
    await add_batch(database)
    async with database.write() as session:
        assert await end(session, 1, how, ALL)
        await session.rollback()

    assert await status(database, 1) == BatchStatus.VALIDATING
    assert await all_rows(database) == []


@pytest.mark.parametrize("how", ["failed", "abandoned"])
async def test_of_an_end_that_lost_its_race_nothing_is_told(database: Database, how: str) -> None:
    await ended(database, 1)
    async with database.write.begin() as session:
        assert not await end(session, 1, how, ALL)

    assert await all_rows(database) == []


async def test_a_receiver_that_is_named_twice_is_told_once(database: Database) -> None:
    await add_batch(database, webhook_url=ALL)
    async with database.write.begin() as session:
        await end(session, 1, "failed", ALL, ALL)

    assert len(await all_rows(database)) == 1


async def test_each_url_and_each_host_gets_a_few_in_turn_the_oldest_first(
    database: Database,
) -> None:
    one, another, elsewhere = "http://a/1", "http://a/2", "http://b/1"
    for number in range(1, 5):
        await ended(database, number, one)  # 1 to 4
    await ended(database, 5, another, elsewhere)  # 5 and 6
    await ended(database, 6, another, elsewhere)  # 7 and 8

    assert await due(database) == [1, 5, 6, 2, 8]
    assert await due(database, but_not=[1, 5, 6]) == [2, 7, 8, 3]


async def test_reading_what_is_due_costs_what_is_read_however_much_waits(
    database: Database,
) -> None:
    await add_pending(database, 100)
    few = await steps_of_due(database)
    await add_pending(database, 4_900)

    assert await steps_of_due(database) < few * 1.5


async def add_pending(database: Database, count: int) -> None:
    async with database.write.begin() as session:
        session.add_all(
            DeliveryRow(
                tenant="default",
                batch_id=batch_id(),
                status="failed",
                ended_at=1,
                url=ALL,
                origin="https://all.example.com",
                next_at=1.0,
            )
            for _ in range(count)
        )


async def steps_of_due(database: Database) -> int:
    """That SQLite takes for it, in tens."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    async with database.read() as session:
        driver = (await (await session.connection()).get_raw_connection()).driver_connection
        assert driver is not None
        await driver.set_progress_handler(count, 10)
        await deliveries.due(session, now=NOW, within=DAY, of_url=2, of_origin=3)
        await driver.set_progress_handler(None, 10)
    return steps


async def test_what_waits_is_not_due_until_then_unless_the_clock_was_set_back(
    database: Database,
) -> None:
    await ended(database, 1, ALL)
    again = Attempt(1, DeliveryState.PENDING, "answers 500", NOW + DAY)
    assert await record(database, again) == {1}

    (row,) = await all_rows(database)
    assert (row.attempts, row.failure, row.over_at) == (1, "answers 500", None)
    assert await due(database) == []
    assert await due(database, NOW + DAY) == [1]
    assert await due(database, NOW - 1) == [1]


@pytest.mark.parametrize("state", [DeliveryState.DELIVERED, DeliveryState.GIVEN_UP])
async def test_what_is_over_is_recorded_once_and_dropped_when_it_is_old(
    database: Database, state: DeliveryState
) -> None:
    await ended(database, 1, ALL)
    await ended(database, 2, ALL)
    assert await record(database, Attempt(1, state)) == {1}
    late = Attempt(1, DeliveryState.PENDING, "late", NOW)
    assert await record(database, late, Attempt(2, DeliveryState.PENDING, "in time", NOW)) == {2}

    (row, _) = await all_rows(database)
    assert (row.state, row.attempts, row.failure, row.over_at) == (state, 1, None, int(NOW))
    for over_before, dropped, left in [(NOW, 0, [1, 2]), (NOW + 1, 1, [2])]:
        async with database.write.begin() as session:
            assert await deliveries.drop_old(session, over_before=over_before, limit=9) == dropped
        assert [row.number for row in await all_rows(database)] == left
