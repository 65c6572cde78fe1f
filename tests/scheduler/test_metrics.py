"""What the scheduler counts is what it did."""

import pytest

from batch_api.lifecycle import BatchStatus
from batch_api.metrics import exposition
from batch_api.scheduler.answers import Answered
from tests.scheduler.site import Site, line, question, questions
from tests.scraping import Scrape
from tests.standin import Fault
from tests.store.rows import answer, lease


def _told(site: Site) -> Scrape:
    return Scrape.of(bytes(exposition(site.registry).body))


async def test_lines_tokens_and_the_batch_are_counted_as_its_counts_say(site: Site) -> None:
    number = await site.submit(questions(20))
    batch = await site.run(number)

    told = _told(site)

    assert batch.completed == 20
    assert told.value("batch_api_lines_ended_total", outcome="completed") == 20
    assert told.value("batch_api_lines_ended_total", outcome="failed") == 0
    assert told.value("batch_api_input_tokens_total") == batch.input_tokens > 0
    assert told.value("batch_api_output_tokens_total") == batch.output_tokens > 0
    assert told.value("batch_api_commit_seconds_count") > 0
    durations = "batch_api_batch_duration_seconds"
    assert told.value(f"{durations}_count", status="completed") == 1
    assert batch.completed_at is not None
    took = told.value(f"{durations}_sum", status="completed")
    assert took == pytest.approx(batch.completed_at - batch.created_at, abs=1.0)


async def test_a_line_that_fails_for_its_own_sake_is_counted_with_its_retries(site: Site) -> None:
    site.standin.fault = Fault(status=500)
    await site.run(await site.submit(questions(1)))

    told = _told(site)

    assert told.value("batch_api_lines_ended_total", outcome="failed") == 1
    assert told.value("batch_api_retries_total", reason="failed") == 2


async def test_a_refusal_is_a_retry_that_counts_against_nobody(site: Site) -> None:
    fault = Fault(status=429, retry_after="1", times=1)
    await site.run(await site.submit(question("a", f"{fault} hi")))

    told = _told(site)

    assert told.value("batch_api_retries_total", reason="refused") == 1
    assert told.value("batch_api_retries_total", reason="failed") == 0
    assert told.value("batch_api_lines_ended_total", outcome="completed") == 1


async def test_a_batch_that_is_not_valid_is_a_failed_one(site: Site) -> None:
    number = await site.submit(line("a", b"[]"))
    assert (await site.run(number)).status == BatchStatus.FAILED

    assert _told(site).value("batch_api_batch_duration_seconds_count", status="failed") == 1


async def test_lines_that_no_longer_run_are_counted_by_why(site: Site) -> None:
    expired = await site.submit(questions(3), expires_at=int(site.clock.now()) + 10)
    await site.intake.validate_once()
    site.clock.turn(11)
    await site.janitor.expire_once()
    await site.finalizer.finalize_once()
    cancelled = await site.submit(questions(2), id="batch_2", input_id="file-2")
    await site.intake.validate_once()
    await site.cancel(cancelled)
    await site.finalizer.finalize_once()

    told = _told(site)

    assert await site.status(expired) == BatchStatus.EXPIRED
    assert await site.status(cancelled) == BatchStatus.CANCELLED
    assert told.value("batch_api_lines_ended_total", outcome="expired") == 3
    assert told.value("batch_api_lines_ended_total", outcome="cancelled") == 2
    assert told.value("batch_api_batch_duration_seconds_count", status="expired") == 1
    assert told.value("batch_api_batch_duration_seconds_count", status="cancelled") == 1


async def test_what_was_taken_back_is_counted_by_when(site: Site) -> None:
    number = await site.submit(questions(5))
    await site.intake.validate_once()
    await lease(site.database, number, limit=3, now=site.clock.monotonic())
    await site.janitor.recover()
    await lease(site.database, number, limit=2, now=site.clock.monotonic())
    site.clock.turn(1000)
    assert await site.janitor.reclaim_once() == 2

    told = _told(site)

    assert told.value("batch_api_recovered_requests_total", when="start") == 3
    assert told.value("batch_api_recovered_requests_total", when="overdue") == 2


async def test_a_late_answer_is_counted_and_nothing_else_of_it(site: Site) -> None:
    number = await site.submit(questions(1))
    await site.intake.validate_once()
    (late,) = await lease(site.database, number, now=site.clock.monotonic())
    await site.janitor.recover()
    ledger = site.ledger
    ledger.enter(Answered(answer(late)))

    assert await ledger.record_once() == 0

    told = _told(site)
    assert told.value("batch_api_late_answers_total") == 1
    assert told.value("batch_api_lines_ended_total", outcome="completed") == 0


async def test_every_counter_is_there_before_its_first_step(site: Site) -> None:
    told = _told(site)

    for outcome in ("completed", "failed", "expired", "cancelled"):
        assert told.value("batch_api_lines_ended_total", outcome=outcome) == 0
    for reason in ("failed", "company", "refused", "away"):
        assert told.value("batch_api_retries_total", reason=reason) == 0
