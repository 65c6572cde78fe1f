"""The sums that `/metrics` tells: right, and cheap however many lines there are."""

from itertools import chain

import pytest

from batch_api.lifecycle import BatchStatus
from batch_api.store import batches, totals
from batch_api.store.batches import Tally, Usage
from batch_api.store.database import Database
from batch_api.store.totals import Group, Work
from tests.store.plans import planned
from tests.store.rows import add_batch, add_file, answer, lease, settle


async def _work(database: Database, *, now: float = 100.0) -> Work:
    async with database.read() as session:
        return await totals.work(session, now=now)


async def _tally(database: Database, number: int, *, completed: int, failed: int = 0) -> None:
    async with database.write.begin() as session:
        await batches.tally(session, number, Tally(completed, failed, Usage()))


async def test_nothing_is_no_work(database: Database) -> None:
    assert await _work(database) == Work([], 0, 0.0, 0, 0, None)


async def test_active_batches_of_all_tenants_are_added_up_by_status(database: Database) -> None:
    first = await add_batch(database, "batch_1", lines=10, tenant="a", expires_at=500)
    await add_batch(database, "batch_2", lines=5, tenant="b", expires_at=400)
    await add_batch(database, "batch_3")
    await _tally(database, first, completed=3, failed=1)

    work = await _work(database)

    assert sorted(work.groups, key=lambda group: group.status) == [
        Group(BatchStatus.IN_PROGRESS, 2, 15, 3, 1, 1, 400),
        Group(BatchStatus.VALIDATING, 1, 0, 0, 0, 1, None),
    ]


async def test_a_line_is_pending_until_it_is_leased_and_in_flight_until_it_is_answered(
    database: Database,
) -> None:
    number = await add_batch(database, lines=5)
    before = await _work(database)
    held = await lease(database, number, limit=2)
    leased = await _work(database)
    await settle(database, answer(held[0]))
    await _tally(database, number, completed=1)
    after = await _work(database)

    assert (before.pending, before.leased) == (5, 0)
    assert (leased.pending, leased.leased) == (3, 2)
    assert (after.pending, after.leased) == (3, 1)


async def test_a_batch_that_is_over_counts_no_more(database: Database) -> None:
    number = await add_batch(database, lines=2, expires_at=200)
    await _tally(database, number, completed=2)
    async with database.write.begin() as session:
        assert await batches.finalize_if_done(session, number, now=9.0)
        left, final = BatchStatus.FINALIZING, BatchStatus.COMPLETED
        assert await batches.finish(session, number, left, final, now=9.0, webhook_urls=[])

    assert await _work(database) == Work([], 0, 0.0, 0, 0, None)


@pytest.mark.parametrize(
    ("deadlines", "needed"),
    [
        ([], 0.0),
        ([(110, 50)], 5.0),
        ([(110, 50), (200, 50)], 5.0),  # 50 in 10 s, then 100 in 100 s
        ([(110, 10), (120, 90)], 5.0),  # 10 in 10 s, but 100 in 20 s
        ([(110, 10), (110, 40)], 5.0),
        ([(90, 7)], 7.0),  # too late: as if it had a second left
    ],
)
async def test_the_needed_rate_is_that_of_the_deadline_which_asks_the_most(
    database: Database, deadlines: list[tuple[int, int]], needed: float
) -> None:
    for number, (expires_at, lines) in enumerate(deadlines):
        await add_batch(database, f"batch_{number}", lines=lines, expires_at=expires_at)
    await add_batch(database, "endless", lines=1000)

    assert (await _work(database, now=100.0)).needed_lines_per_second == needed


async def test_the_bytes_of_all_files_are_added_up(database: Database) -> None:
    await add_file(database, "file-1", tenant="a")
    await add_file(database, "file-2", tenant="b")

    assert (await _work(database)).stored_bytes == 2


async def test_no_sum_looks_at_every_line_or_every_batch(database: Database) -> None:
    async with database.read() as session, planned(session) as plans:
        await totals.work(session, now=100.0)

    steps = list(chain.from_iterable(plans))
    assert len(plans) == 5

    scans = [step for step in steps if step.startswith("SCAN")]
    assert any("ix_requests_leased" in step for step in steps)
    assert any("deliveries USING INDEX ix_deliveries_pending" in step for step in steps)
    assert not [step for step in scans if "requests" in step or "batches" in step]
    assert [step for step in scans if "files" in step] == [
        "SCAN files USING COVERING INDEX ix_files_by_size"
    ]
