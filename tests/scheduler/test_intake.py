import asyncio
from dataclasses import replace
from typing import Any

import pytest

from batch_api.lifecycle import BatchStatus
from batch_api.store import batches, requests
from batch_api.upstreams import Upstreams
from tests.scheduler.site import INPUT, Site, ids, question, questions
from tests.standin import Standin
from tests.store import rows


async def errors(site: Site, number: int) -> list[tuple[str, str | None, int | None]]:
    found: list[dict[str, Any]] = (await site.batch(number)).errors or []
    return [(error["code"], error["param"], error["line"]) for error in found]


async def test_a_valid_file_makes_a_row_of_each_line_and_the_work_begins(site: Site) -> None:
    number = await site.submit(questions(5_001))

    assert await site.intake.validate_once()
    batch = await site.batch(number)
    assert (batch.status, batch.total) == ("in_progress", 5_001)
    assert batch.in_progress_at == int(site.clock.now())
    assert await rows.states(site.database, number) == ["pending"] * 5_001
    assert not await site.intake.validate_once()


async def test_a_file_with_problems_fails_and_leaves_no_rows(site: Site) -> None:
    number = await site.submit(
        questions(3_000) + b"x\n" + question("row-1") + question("a", model="gpt")
    )

    assert await site.intake.validate_once()
    batch = await site.batch(number)
    assert (batch.status, batch.total, batch.failed_at) == ("failed", None, site.clock.now())
    assert await errors(site, number) == [
        ("invalid_json_line", None, 3_001),
        ("duplicate_custom_id", "custom_id", 3_002),
        ("model_not_found", "body.model", 3_003),
    ]
    assert await rows.states(site.database, number) == []
    assert site.blobs_on_disk() == {INPUT}


async def test_more_lines_than_a_batch_may_have_fail_it(site: Site) -> None:
    settings = site.settings.model_copy(update={"max_batch_lines": 10})
    number = await site.submit(questions(11))

    await replace(site, settings=settings).intake.validate_once()
    assert await errors(site, number) == [("too_many_tasks", None, None)]


async def test_an_input_that_is_gone_fails_the_batch(site: Site) -> None:
    number = await site.submit(questions(1))
    await site.blobs.delete(INPUT)

    assert await site.intake.validate_once()
    assert await errors(site, number) == [("invalid_request", "file_id", None)]


async def test_a_validation_that_was_cut_off_starts_again(site: Site) -> None:
    number = await site.submit(questions(10))
    async with site.database.write.begin() as session:
        await requests.add(session, number, [rows.place(line) for line in (1, 2, 3, 77)])

    await site.intake.validate_once()
    assert await site.counts(number) == (10, 0, 0)
    found = await rows.outcomes(site.database, number)
    assert [it.custom_id for it in found] == [f"row-{line}" for line in range(1, 11)]


async def test_a_batch_waits_in_validating_until_an_upstream_tells_its_models(
    site: Site, free_port: int
) -> None:
    upstreams = Upstreams([f"http://127.0.0.1:{free_port}"], timeout_seconds=10)
    intake = replace(site, upstreams=upstreams).intake
    number = await site.submit(questions(1))

    assert not await intake.validate_once()
    assert await site.status(number) == BatchStatus.VALIDATING
    async with Standin().listening(free_port):
        assert await intake.validate_once()
        await upstreams.close()
    assert await site.status(number) == BatchStatus.IN_PROGRESS


async def test_a_batch_that_is_cancelled_before_its_validation_runs_nothing(site: Site) -> None:
    number = await site.submit(questions(3))
    assert await site.cancel(number)

    batch = await site.run(number)
    assert (batch.status, batch.in_progress_at) == ("cancelled", None)
    await assert_nothing_ran(site, number)


async def test_a_batch_that_is_cancelled_during_its_validation_runs_nothing(site: Site) -> None:
    number = await site.submit(questions(3))
    async with site.database.write.begin() as session:
        await batches.cancel(session, "batch_1", now=site.clock.now())
        # It has read that the batch is validating, and waits for its turn to write.
        validation = asyncio.create_task(site.intake.validate_once())
        while not site.standin.stats.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await validation
    assert await site.status(number) == BatchStatus.CANCELLING

    batch = await site.run(number)
    assert (batch.status, batch.in_progress_at) == ("cancelled", None)
    await assert_nothing_ran(site, number)


async def assert_nothing_ran(site: Site, number: int) -> None:
    lines = await site.errors(number)
    assert ids(lines) == ["row-1", "row-2", "row-3"]
    assert {line["error"]["code"] for line in lines} == {"batch_cancelled"}
    assert await site.counts(number) == (3, 0, 0)
    assert await site.output(number) == []
    assert site.standin.stats.received == 0


async def test_a_cancelled_batch_waits_for_no_upstream_nor_behind_one_that_does(
    site: Site, free_port: int
) -> None:
    upstreams = Upstreams([f"http://127.0.0.1:{free_port}"], timeout_seconds=10)
    await site.submit(questions(1))
    number = await site.submit(questions(1), id="batch_2")
    await site.cancel(number)

    batch = await replace(site, upstreams=upstreams).run(number)
    await upstreams.close()
    assert batch.status == BatchStatus.CANCELLED
    assert await site.status(1) == BatchStatus.VALIDATING


async def test_a_cancelled_batch_with_an_invalid_file_ends_cancelled_and_says_why(
    site: Site,
) -> None:
    number = await site.submit(questions(2) + b"x\n")
    await site.cancel(number)

    batch = await site.run(number)
    assert (batch.status, batch.total) == ("cancelled", 0)
    assert await errors(site, number) == [("invalid_json_line", None, 3)]
    assert await rows.states(site.database, number) == []
    assert await site.errors(number) == []


@pytest.mark.parametrize("others", [0, 1])
async def test_the_bytes_of_a_deleted_input_go_with_the_last_batch_that_reads_them(
    site: Site, others: int
) -> None:
    await site.submit(b"x\n")
    for other in range(others):
        await site.submit(b"x\n", id=f"other_{other}")
    await site.delete_file()

    await site.intake.validate_once()
    assert site.blobs_on_disk() == ({INPUT} if others else set())


async def test_a_batch_that_is_too_long_for_its_tenants_queue_fails_and_others_do_not(
    site: Site,
) -> None:
    settings = site.settings.model_copy(update={"max_queued_lines": 5})
    intake = replace(site, settings=settings).intake
    await rows.add_batch(site.database, "batch_b", lines=5, tenant="team-b")
    first, second, third = [
        await site.submit(questions(2), id=f"batch_{number}") for number in range(3)
    ]

    for _ in range(3):
        assert await intake.validate_once()

    assert [await site.status(number) for number in (first, second)] == ["in_progress"] * 2
    assert await site.status(third) == "failed"
    assert await errors(site, third) == [("token_limit_exceeded", None, None)]
    (told,) = (await site.batch(third)).errors or []
    assert told["message"].startswith("Enqueued request limit reached: Limit 5, enqueued 4, ")


async def test_a_batch_that_is_being_cancelled_needs_no_place_in_the_queue(site: Site) -> None:
    settings = site.settings.model_copy(update={"max_queued_lines": 1})
    number = await site.submit(questions(2))
    await site.cancel(number)

    await replace(site, settings=settings).intake.validate_once()
    await site.finalizer.finalize_once()

    assert await site.status(number) == "cancelled"
    assert ids(await site.errors(number)) == ["row-1", "row-2"]


async def test_of_two_tenants_none_waits_behind_all_batches_of_the_other(site: Site) -> None:
    """Also if they all fail, and are never in progress."""
    for number in range(3):
        await site.submit(b"nonsense\n", id=f"batch_{number}", tenant="many", input_id=f"f{number}")
    other = await site.submit(questions(1), id="batch_other", tenant="one", input_id="f-other")
    intake = site.intake
    for _ in range(2):
        assert await intake.validate_once()
    assert await site.status(other) == BatchStatus.IN_PROGRESS
