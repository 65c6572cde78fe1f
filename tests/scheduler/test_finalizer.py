import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text

from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.scheduler.answers import Answered
from batch_api.schemas.ids import line_id
from batch_api.schemas.lines import answered_line
from batch_api.store import batches, files
from batch_api.store.requests import Lease, Settlement
from tests.scheduler.site import INPUT, Site, ids, questions, until
from tests.store import rows

OUTPUT, ERRORS = "file-out-batch_1", "file-err-batch_1"
COMPLETED, FAILED = RequestState.COMPLETED, RequestState.FAILED


async def begin(site: Site, lines: int, *, expires_after_seconds: int | None = None) -> int:
    """A batch in progress."""
    number = await site.submit(
        questions(lines),
        expires_at=int(site.clock.now()) + 86_400,
        output_expires_after_seconds=expires_after_seconds,
    )
    assert await site.intake.validate_once()
    return number


async def lease(site: Site, number: int, limit: int) -> list[Lease]:
    return await site.ledger.lease([rows.running(number)], limit)


async def settle(site: Site, leases: Sequence[Lease], state: RequestState = COMPLETED) -> None:
    ledger = site.ledger
    for lease in leases:
        line = answered_line(
            id=line_id("batch_1", lease.line),
            custom_id=lease.custom_id,
            status=200 if state == COMPLETED else 400,
            request_id="req_1",
            body=b'{"n": %d}' % lease.line,
        )
        ledger.enter(Answered(Settlement(lease, state, line)))
    await ledger.record_once()


async def expire(site: Site, number: int) -> None:
    site.clock.turn(86_400)
    assert await site.janitor.expire_once() == 1


def contents(site: Site) -> dict[str, bytes]:
    return {id: site.blobs.path(id).read_bytes() for id in site.blobs_on_disk()}


async def published(site: Site) -> list[str]:
    async with site.database.read() as session:
        page = await files.page(
            session,
            after=None,
            limit=9,
            order="asc",
            purpose="batch_output",
            now=site.clock.now(),
        )
    return [row.id for row in page.rows]


@asynccontextmanager
async def caught_before_the_commit(site: Site) -> AsyncIterator[asyncio.Task[int]]:
    """A finalizing whose files are written, and that waits for its turn to say so."""
    async with site.database.write.begin() as session:
        await session.execute(text("DELETE FROM files WHERE id = 'nobody'"))
        finalizing = asyncio.create_task(site.finalizer.finalize_once())
        await until(lambda: {OUTPUT, ERRORS} <= site.blobs_on_disk())
        yield finalizing


async def test_output_is_in_input_order_whatever_came_first(site: Site) -> None:
    number = await begin(site, 4)
    first, second, third, fourth = await lease(site, number, 4)
    for it in (third, first, fourth, second):
        await settle(site, [it])

    assert await site.finalizer.finalize_once() == 1
    output = await site.output(number)
    assert ids(output) == ["row-1", "row-2", "row-3", "row-4"]
    assert [line["response"]["body"] for line in output] == [{"n": it} for it in (1, 2, 3, 4)]
    assert len({line["id"] for line in output}) == 4


async def test_a_clean_batch_has_no_error_file(site: Site) -> None:
    number = await begin(site, 1)
    await settle(site, await lease(site, number, 1))

    await site.finalizer.finalize_once()
    batch = await site.batch(number)
    assert (batch.status, batch.completed_at) == ("completed", site.clock.now())
    assert await published(site) == [OUTPUT]
    assert site.blobs_on_disk() == {INPUT, OUTPUT}


async def test_a_batch_of_which_all_failed_is_completed_and_has_no_output_file(site: Site) -> None:
    number = await begin(site, 2)
    await settle(site, await lease(site, number, 2), FAILED)

    await site.finalizer.finalize_once()
    assert await site.status(number) == BatchStatus.COMPLETED
    assert await published(site) == [ERRORS]
    assert ids(await site.errors(number)) == ["row-1", "row-2"]


async def test_each_line_stands_in_one_of_the_two_files(site: Site) -> None:
    number = await begin(site, 3)
    good, bad, last = await lease(site, number, 3)
    await settle(site, [bad], FAILED)
    await settle(site, [good, last])

    await site.finalizer.finalize_once()
    assert ids(await site.output(number)) == ["row-1", "row-3"]
    assert ids(await site.errors(number)) == ["row-2"]
    assert await published(site) == [OUTPUT, ERRORS]


async def test_a_batch_in_progress_is_left_alone(site: Site) -> None:
    await begin(site, 1)

    assert await site.finalizer.finalize_once() == 0


async def test_a_result_file_expires_as_long_after_its_making_as_was_asked(site: Site) -> None:
    number = await begin(site, 1, expires_after_seconds=3_600)
    await settle(site, await lease(site, number, 1))
    site.clock.turn(500)

    await site.finalizer.finalize_once()
    async with site.database.read() as session:
        row = await files.get(session, OUTPUT, now=site.clock.now())
    assert row is not None
    assert (row.created_at, row.expires_at) == (site.clock.now(), site.clock.now() + 3_600)
    assert (row.filename, row.purpose) == ("batch_1_output.jsonl", "batch_output")


async def test_a_crash_between_writing_and_commit_changes_no_byte(site: Site) -> None:
    number = await begin(site, 3)
    good, bad, last = await lease(site, number, 3)
    await settle(site, [good, last])
    await settle(site, [bad], FAILED)

    async with caught_before_the_commit(site) as finalizing:
        finalizing.cancel()
        await asyncio.wait([finalizing])
    first = contents(site)
    assert await published(site) == []
    assert await site.status(number) == BatchStatus.FINALIZING

    site.clock.turn(100)
    await site.janitor.recover()
    assert await site.finalizer.finalize_once() == 1
    assert contents(site) == first
    assert await published(site) == [OUTPUT, ERRORS]


async def test_a_cancel_while_the_files_are_written_wins_and_changes_no_line(site: Site) -> None:
    number = await begin(site, 2)
    good, bad = await lease(site, number, 2)
    await settle(site, [good])
    await settle(site, [bad], FAILED)

    async with site.database.write.begin() as session:
        assert await batches.cancel(session, "batch_1", now=site.clock.now())
        finalizing = asyncio.create_task(site.finalizer.finalize_once())
        await until(lambda: {OUTPUT, ERRORS} <= site.blobs_on_disk())
    first = contents(site)

    assert await finalizing == 0
    assert await site.status(number) == BatchStatus.CANCELLING
    assert await site.finalizer.finalize_once() == 1
    assert await site.status(number) == BatchStatus.CANCELLED
    assert contents(site) == first
    assert await site.counts(number) == (2, 1, 1)


async def test_a_cancel_that_comes_too_late_changes_nothing(site: Site) -> None:
    number = await begin(site, 1)
    await settle(site, await lease(site, number, 1))
    await site.finalizer.finalize_once()

    assert not await site.cancel(number)
    assert await site.status(number) == BatchStatus.COMPLETED


async def test_a_cancelled_batch_waits_for_what_is_in_flight(site: Site) -> None:
    number = await begin(site, 4)
    done, in_flight, bad = await lease(site, number, 3)
    await settle(site, [done])
    await site.cancel(number)

    assert await site.finalizer.finalize_once() == 0
    assert (await site.batch(number)).finalizing_at is None
    site.clock.turn(site.settings.cancel_grace_seconds - 1)
    await settle(site, [bad], FAILED)
    assert await site.finalizer.finalize_once() == 0
    await settle(site, [in_flight])
    assert await site.finalizer.finalize_once() == 1

    batch = await site.batch(number)
    assert (batch.status, batch.cancelled_at) == ("cancelled", site.clock.now())
    assert batch.finalizing_at == site.clock.now()
    assert ids(await site.output(number)) == ["row-1", "row-2"]
    bad_line, unrun = await site.errors(number)
    assert (bad_line["custom_id"], bad_line["error"]) == ("row-3", None)
    assert (unrun["custom_id"], unrun["response"]) == ("row-4", None)
    assert unrun["error"]["code"] == "batch_cancelled"
    assert await site.counts(number) == (4, 2, 1)


async def test_a_cancelled_batch_waits_no_longer_than_its_grace_period(site: Site) -> None:
    number = await begin(site, 2)
    (in_flight,) = await lease(site, number, 1)
    await site.cancel(number)
    site.clock.turn(site.settings.cancel_grace_seconds)

    assert await site.finalizer.finalize_once() == 1
    assert await site.status(number) == BatchStatus.CANCELLED
    assert ids(await site.errors(number)) == ["row-1", "row-2"]
    await settle(site, [in_flight])
    assert await site.counts(number) == (2, 0, 0)


async def test_without_a_grace_period_a_cancel_ends_at_once(site: Site) -> None:
    number = await begin(site, 2)
    await lease(site, number, 1)
    await site.cancel(number)
    settings = site.settings.model_copy(update={"cancel_grace_seconds": 0})

    assert await replace(site, settings=settings).finalizer.finalize_once() == 1
    assert await site.status(number) == BatchStatus.CANCELLED


async def test_a_batch_past_its_deadline_ends_with_what_there_is(site: Site) -> None:
    number = await begin(site, 4)
    done, bad, in_flight = await lease(site, number, 3)
    await settle(site, [done])
    await settle(site, [bad], FAILED)

    await expire(site, number)
    assert await site.finalizer.finalize_once() == 1
    batch = await site.batch(number)
    assert (batch.status, batch.expired_at) == ("expired", site.clock.now())
    assert await site.counts(number) == (4, 1, 1)
    assert ids(await site.output(number)) == ["row-1"]
    errors = await site.errors(number)
    assert ids(errors) == ["row-2", "row-3", "row-4"]
    assert [line["error"] and line["error"]["code"] for line in errors] == [
        None,
        "batch_expired",
        "batch_expired",
    ]
    await settle(site, [in_flight])
    assert await site.counts(number) == (4, 1, 1)


async def test_an_expired_batch_that_is_cancelled_before_its_end_is_cancelled(site: Site) -> None:
    number = await begin(site, 2)
    await expire(site, number)
    await site.cancel(number)

    assert await site.finalizer.finalize_once() == 1
    assert await site.status(number) == BatchStatus.CANCELLED
    assert [line["error"]["code"] for line in await site.errors(number)] == ["batch_expired"] * 2


async def test_the_bytes_of_a_deleted_input_go_when_the_batch_ends(site: Site) -> None:
    number = await begin(site, 1)
    await site.delete_file()
    await settle(site, await lease(site, number, 1))
    assert INPUT in site.blobs_on_disk()

    await site.finalizer.finalize_once()
    assert site.blobs_on_disk() == {OUTPUT}


async def test_the_bytes_of_a_deleted_input_stay_for_another_batch(site: Site) -> None:
    number = await begin(site, 1)
    other = await site.submit(questions(1), id="batch_2")
    await site.delete_file()
    await settle(site, await lease(site, number, 1))
    await site.finalizer.finalize_once()

    assert await site.status(number) == BatchStatus.COMPLETED
    assert INPUT in site.blobs_on_disk()
    assert (await site.run(other)).completed == 1
    assert INPUT not in site.blobs_on_disk()


async def test_what_a_final_batch_says_does_not_change_when_its_answers_are_dropped(
    site: Site,
) -> None:
    number = await begin(site, 2)
    await settle(site, await lease(site, number, 2))
    await site.finalizer.finalize_once()
    before = contents(site)

    assert await site.janitor.trim_once() == 2
    assert await site.finalizer.finalize_once() == 0
    assert contents(site) == before


@pytest.mark.parametrize("lines", [500, 501, 1_200])
async def test_no_line_is_lost_between_pages(site: Site, lines: int) -> None:
    number = await begin(site, lines)
    await settle(site, await lease(site, number, lines))

    await site.finalizer.finalize_once()
    assert ids(await site.output(number)) == [f"row-{it}" for it in range(1, lines + 1)]
