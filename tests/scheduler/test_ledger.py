import asyncio
from dataclasses import replace

import pytest

from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.scheduler.answers import NO_TOKENS, Answered
from batch_api.scheduler.ledger import Ledger
from batch_api.store.batches import Usage
from batch_api.store.requests import Lease, Settlement
from tests.scheduler.site import Site
from tests.store import rows


def answered(lease: Lease, *, usage: Usage = NO_TOKENS, model: str | None = None) -> Answered:
    return Answered(Settlement(lease, RequestState.COMPLETED, b"{}\n"), usage, model)


def failed(lease: Lease) -> Answered:
    return Answered(Settlement(lease, RequestState.FAILED, b"{}\n"))


@pytest.fixture
async def number(site: Site) -> int:
    return await rows.add_batch(site.database, lines=4)


async def test_answers_are_recorded_in_a_group_with_their_counts(site: Site, number: int) -> None:
    ledger = site.ledger
    first, second, third = await ledger.lease([rows.running(number)], 3)
    ledger.enter(answered(first, usage=Usage(1, 2, 3, 4), model="m"))
    ledger.enter(answered(second, usage=Usage(1, 2, 3, 4)))
    ledger.enter(replace(failed(third), is_refused=True))
    assert await site.counts(number) == (4, 0, 0)

    assert await ledger.record_once() == 3
    batch = await site.batch(number)
    assert (batch.completed, batch.failed, batch.refused, batch.model) == (2, 1, 1, "m")
    assert (batch.input_tokens, batch.cached_tokens) == (2, 4)
    assert (batch.output_tokens, batch.reasoning_tokens) == (6, 8)
    assert batch.status == BatchStatus.IN_PROGRESS
    assert await ledger.record_once() == 0


async def test_the_last_answer_starts_the_finalizing_and_rings(site: Site, number: int) -> None:
    bell, ledger = site.wakeup.bell(), site.ledger
    for lease in await ledger.lease([rows.running(number)], 4):
        assert not bell.is_set()
        ledger.enter(failed(lease))
        await ledger.record_once()

    assert bell.is_set()
    batch = await site.batch(number)
    assert (batch.status, batch.finalizing_at) == ("finalizing", site.clock.now())


async def test_answers_for_several_batches_are_counted_apart(site: Site, number: int) -> None:
    other = await rows.add_batch(site.database, "batch_2", lines=1)
    ledger = site.ledger
    leases = await ledger.lease([rows.running(number), rows.running(other)], 5)
    for lease in leases:
        ledger.enter(answered(lease))

    assert [lease.batch_number for lease in leases] == [number] * 4 + [other]
    assert await ledger.record_once() == 5
    assert await site.counts(number) == (4, 4, 0)
    assert await site.counts(other) == (1, 1, 0)


async def test_a_late_answer_is_dropped_and_not_counted(
    site: Site, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = site.ledger
    (late,) = await ledger.lease([rows.running(number)], 1)
    site.clock.steady += site.settings.lease_seconds
    await site.janitor.reclaim_once()
    (in_time,) = await ledger.lease([rows.running(number)], 1)
    ledger.enter(answered(late))

    assert await ledger.record_once() == 0
    assert await site.counts(number) == (4, 0, 0)
    assert "late answers dropped" in caplog.text
    ledger.enter(answered(in_time))
    assert await ledger.record_once() == 1
    assert await site.counts(number) == (4, 1, 0)


async def test_a_late_answer_does_not_end_the_renewals_of_the_lease_after_it(
    site: Site, number: int
) -> None:
    ledger = site.ledger
    (late,) = await ledger.lease([rows.running(number)], 1)
    site.clock.steady += site.settings.lease_seconds
    await site.janitor.reclaim_once()
    await ledger.lease([rows.running(number)], 1)
    ledger.enter(answered(late))
    await ledger.record_once()

    assert await ledger.renew_once() == 1


async def test_what_is_held_is_renewed_and_not_taken_back(site: Site, number: int) -> None:
    ledger = site.ledger
    first, second = await ledger.lease([rows.running(number)], 2)
    for _ in range(5):
        site.clock.steady += site.settings.lease_seconds / 2
        assert await ledger.renew_once() == 2
        assert await site.janitor.reclaim_once() == 0

    ledger.enter(answered(first))
    await ledger.record_once()
    await ledger.release(second, failures=1, delay_seconds=5.0)
    assert await ledger.renew_once() == 0


async def test_an_answer_is_held_until_it_is_recorded(site: Site, number: int) -> None:
    ledger = site.ledger
    (lease,) = await ledger.lease([rows.running(number)], 1)
    ledger.enter(answered(lease))

    assert await ledger.renew_once() == 1
    await ledger.record_once()
    assert await ledger.renew_once() == 0


async def test_a_renewal_while_answers_are_recorded_loses_no_lease(
    site: Site, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = site.ledger
    for lease in await ledger.lease([rows.running(number)], 4):
        ledger.enter(answered(lease))
    recorded, held = await asyncio.gather(ledger.record_once(), ledger.renew_once())

    assert (recorded, held) == (4, 0)
    assert "leases lost" not in caplog.text


async def test_a_released_request_comes_back_after_its_delay(site: Site, number: int) -> None:
    ledger = site.ledger
    first, *_ = await ledger.lease([rows.running(number)], 4)
    await ledger.release(first, failures=2, delay_seconds=5.0)

    assert await ledger.lease([rows.running(number)], 4) == []
    site.clock.steady += 5.0
    (again,) = await ledger.lease([rows.running(number)], 4)
    assert (again.id, again.failures) == (first.id, 2)


async def test_a_closed_ledger_records_what_is_left_and_ends(site: Site, number: int) -> None:
    ledger: Ledger = site.ledger
    recording = [asyncio.create_task(ledger.record()), asyncio.create_task(ledger.renew())]
    for lease in await ledger.lease([rows.running(number)], 4):
        ledger.enter(answered(lease))
    ledger.close()

    await asyncio.wait_for(asyncio.gather(*recording), 5)
    assert await site.counts(number) == (4, 4, 0)
