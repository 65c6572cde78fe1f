from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.store import batches, requests
from batch_api.store.batches import Tally, Usage
from batch_api.store.database import Database
from batch_api.store.pages import UnknownCursor
from batch_api.store.tenancy import DEFAULT_TENANT
from tests.store.rows import add_batch, answer, batch, lease, settle, status

Move = Callable[[AsyncSession, int], Awaitable[bool]]

NOW = 100.9
IDLE = Usage()


def finish(left: BatchStatus, final: BatchStatus) -> Move:
    return lambda session, number: batches.finish(
        session, number, left, final, now=NOW, webhook_urls=()
    )


async def cancel(session: AsyncSession, number: int) -> bool:
    return await batches.cancel(session, f"batch_{number}", now=NOW)


async def complete_all(session: AsyncSession, number: int) -> bool:
    await batches.tally(session, number, Tally(completed=1, failed=1, usage=IDLE))
    return await batches.finalize_if_done(session, number, now=NOW)


start: Move = partial(batches.start, now=NOW)
fail: Move = partial(batches.fail, errors=[{"code": "empty_file"}], now=NOW, webhook_urls=())
abandon: Move = partial(batches.abandon, errors=[{"code": "empty_file"}], now=NOW, webhook_urls=())
cut_off: Move = partial(batches.cut_off, now=NOW)
complete = finish(BatchStatus.FINALIZING, BatchStatus.COMPLETED)
expire = finish(BatchStatus.FINALIZING, BatchStatus.EXPIRED)
end_cancelled = finish(BatchStatus.CANCELLING, BatchStatus.CANCELLED)

MOVES = [
    ([], start, "in_progress", "in_progress_at"),
    ([], fail, "failed", "failed_at"),
    ([], cancel, "cancelling", "cancelling_at"),
    ([cancel], abandon, "cancelled", "cancelled_at"),
    ([start], cut_off, "finalizing", "finalizing_at"),
    ([start], complete_all, "finalizing", "finalizing_at"),
    ([start], cancel, "cancelling", "cancelling_at"),
    ([start, cut_off], complete, "completed", "completed_at"),
    ([start, cut_off], expire, "expired", "expired_at"),
    ([start, cut_off], cancel, "cancelling", "cancelling_at"),
    ([start, cancel], end_cancelled, "cancelled", "cancelled_at"),
]

RESULT = {
    start: BatchStatus.IN_PROGRESS,
    fail: BatchStatus.FAILED,
    abandon: BatchStatus.CANCELLED,
    cut_off: BatchStatus.FINALIZING,
    complete: BatchStatus.COMPLETED,
    expire: BatchStatus.EXPIRED,
    end_cancelled: BatchStatus.CANCELLED,
}


async def move(database: Database, number: int, *moves: Move) -> list[bool]:
    made = []
    for it in moves:
        async with database.write.begin() as session:
            made.append(await it(session, number))
    return made


async def set_total(database: Database, number: int, total: int) -> None:
    async with database.write.begin() as session:
        await batches.set_total(session, number, total)


async def tally(database: Database, number: int, tally: Tally) -> None:
    async with database.write.begin() as session:
        await batches.tally(session, number, tally)


@pytest.mark.parametrize(("before", "made", "new", "moment"), MOVES)
async def test_a_move_is_made_once_and_writes_its_moment(
    database: Database, before: list[Move], made: Move, new: str, moment: str
) -> None:
    number = await add_batch(database)
    await set_total(database, number, 2)
    assert all(await move(database, number, *before))

    assert await move(database, number, made) == [True]
    row = await batch(database, number)
    assert (row.status, getattr(row, moment)) == (new, 100)


@pytest.mark.parametrize(("before", "last", "new", "_moment"), MOVES)
async def test_a_move_that_lost_its_race_changes_nothing(
    database: Database, before: list[Move], last: Move, new: str, _moment: str
) -> None:
    number = await add_batch(database)
    await set_total(database, number, 2)
    await move(database, number, *before, last)
    found = await columns(database)

    late = [move for move, to in RESULT.items() if not BatchStatus(new).can_become(to)]
    assert await move(database, number, *late) == [False] * len(late)
    assert await columns(database) == found


async def columns(database: Database) -> object:
    async with database.read() as session:
        return (await session.execute(text("SELECT * FROM batches"))).all()


@pytest.mark.parametrize("ends", [[fail], [start, cut_off, complete], [start, cut_off, expire]])
async def test_a_batch_that_is_over_cannot_be_cancelled(
    database: Database, ends: list[Move]
) -> None:
    number = await add_batch(database)
    assert all(await move(database, number, *ends))

    assert await move(database, number, cancel) == [False]
    assert (await status(database, number)).is_final


async def test_a_batch_finalizes_when_each_line_is_counted_and_not_before(
    database: Database,
) -> None:
    number = await add_batch(database, lines=3)
    await tally(database, number, Tally(completed=1, failed=1, usage=IDLE))
    finalize: Move = partial(batches.finalize_if_done, now=NOW)

    assert await move(database, number, finalize) == [False]
    await tally(database, number, Tally(completed=0, failed=1, usage=IDLE))
    assert await move(database, number, finalize) == [True]


async def test_more_answers_than_lines_are_refused(database: Database) -> None:
    number = await add_batch(database, lines=1)

    with pytest.raises(IntegrityError, match="ck_batches_counts"):
        await tally(database, number, Tally(completed=1, failed=1, usage=IDLE))


async def test_tallies_add_up_and_the_first_model_stays(database: Database) -> None:
    number = await add_batch(database, lines=4)
    await tally(database, number, Tally(completed=0, failed=1, usage=IDLE))
    await tally(database, number, Tally(2, 0, Usage(10, 4, 20, 5), model="first"))
    await tally(database, number, Tally(1, 0, Usage(1, 1, 1, 1), model="second"))

    row = await batch(database, number)
    assert (row.completed, row.failed, row.model) == (3, 1, "first")
    assert (row.input_tokens, row.cached_tokens) == (11, 5)
    assert (row.output_tokens, row.reasoning_tokens) == (21, 6)


async def test_a_page_is_newest_first_and_stays_stable_while_batches_are_added(
    database: Database,
) -> None:
    for id in ("batch_1", "batch_2", "batch_3"):
        await add_batch(database, id)

    first, has_more = await page(database)
    await add_batch(database, "batch_4")
    assert (first, has_more) == (["batch_3", "batch_2"], True)
    assert await page(database, after="batch_2") == (["batch_1"], False)
    with pytest.raises(UnknownCursor):
        await page(database, after="batch_5")


async def page(database: Database, *, after: str | None = None) -> tuple[list[str], bool]:
    async with database.read() as session:
        found = await batches.page(session, after=after, limit=2)
    return [row.id for row in found.rows], found.has_more


async def test_the_oldest_batch_is_validated_first_after_those_being_cancelled(
    database: Database,
) -> None:
    numbers = [await add_batch(database, f"batch_{it}") for it in (1, 2, 3)]
    await move(database, numbers[1], cancel)

    assert await validated(database) == ["batch_2", "batch_1", "batch_3"]


async def validated(database: Database) -> list[str]:
    """In which order all that wait for it are."""
    order: list[str] = []
    while True:
        async with database.read() as session:
            row = await batches.to_validate(session, tenant=DEFAULT_TENANT, now=0.0)
        if row is None:
            return order
        order.append(row.id)
        await set_total(database, row.number, 1)
        await move(database, row.number, start)


async def test_a_deadline_counts_only_while_a_batch_is_in_progress(database: Database) -> None:
    number = await add_batch(database, lines=1, expires_at=50)
    await add_batch(database, "batch_2", lines=1)
    await add_batch(database, "batch_3", expires_at=50)

    async def due(now: float) -> list[int]:
        async with database.read() as session:
            return [row.number for row in await batches.due(session, now=now)]

    assert await due(49.9) == []
    assert await due(50.0) == [number]
    await move(database, number, cut_off)
    assert await due(50.0) == []


async def test_a_final_batch_is_trimmed_once(database: Database) -> None:
    number = await add_batch(database, lines=1)

    async def untrimmed() -> int | None:
        async with database.read() as session:
            return await batches.untrimmed(session)

    assert await untrimmed() is None
    await move(database, number, cut_off, complete)
    assert await untrimmed() == number
    async with database.write.begin() as session:
        await batches.mark_trimmed(session, number, now=NOW)
    assert await untrimmed() is None


@pytest.mark.parametrize(
    ("column", "value"),
    [("status", "'done'"), ("status", "'completed'"), ("completed", "-1"), ("failed", "-1")],
)
async def test_the_database_refuses_what_the_lifecycle_does_not_know(
    database: Database, column: str, value: str
) -> None:
    await add_batch(database, lines=5)

    with pytest.raises(IntegrityError, match="CHECK constraint failed"):
        async with database.write.begin() as session:
            await session.execute(text(f"UPDATE batches SET {column} = {value}"))


async def test_a_deleted_batch_leaves_no_rows_and_its_numbers_are_not_used_again(
    database: Database,
) -> None:
    number = await add_batch(database, lines=2)
    (first, _) = await lease(database, number)
    await settle(database, answer(first))
    async with database.write.begin() as session:
        assert await batches.cancel(session, "batch_1", now=3.0)
        await requests.end_unrun(session, number, RequestState.CANCELLED, leased_too=True)
        left, final = BatchStatus.CANCELLING, BatchStatus.CANCELLED
        assert await batches.finish(session, number, left, final, now=4.0, webhook_urls=())
        assert await batches.remove(session, number, now=5.0)
        assert not await batches.remove(session, number, now=6.0)
        assert await batches.removed(session) == number
        assert await requests.remove(session, number, limit=10) == 2
        await batches.drop(session, number)
        assert await batches.removed(session) is None

    other = await add_batch(database, "batch_2", lines=2)
    (again, _) = await lease(database, other)

    assert other > number
    assert again.id > first.id + 1
    assert await settle(database, answer(first)) == []


async def test_only_a_final_batch_is_removed(database: Database) -> None:
    number = await add_batch(database)

    async with database.write.begin() as session:
        assert not await batches.remove(session, number, now=5.0)

    assert await status(database, number) == BatchStatus.VALIDATING


async def test_batches_in_progress_tell_whose_they_are(database: Database) -> None:
    for number, tenant in enumerate(("a", "b", "a")):
        await add_batch(database, f"batch_{number}", lines=1, tenant=tenant)

    async with database.read() as session:
        assert [batch.tenant for batch in await batches.running(session)] == ["a", "b", "a"]
    async with database.of("b").read() as session:
        assert await batches.count_active(session) == 1
        assert await batches.count_queued_lines(session) == 1
