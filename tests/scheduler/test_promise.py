"""However a batch ends, its data folder keeps the promise."""

import asyncio

from batch_api.store.inspecting.findings import Kind
from batch_api.store.inspection import inspect
from tests.scheduler.site import INPUT, Site, questions


async def test_a_batch_that_expired_or_was_cancelled_unread_is_all_right(site: Site) -> None:
    expired = await site.submit(questions(2), expires_at=int(site.clock.now()) + 1)
    await site.intake.validate_once()
    site.clock.wall += 1
    await site.janitor.expire_once()
    cancelled = await site.submit(b"no line of ours", id="batch_2")
    await site.cancel(cancelled)
    await site.intake.validate_once()
    await site.finalizer.finalize_once()
    assert await site.status(expired) == "expired"
    assert await site.status(cancelled) == "cancelled"

    found = await asyncio.to_thread(inspect, site.settings.data_dir, deep=True)

    # The row of a test's input says nothing true of its bytes.
    assert {(it.kind, it.subject) for it in found.findings} == {(Kind.DAMAGED_BYTES, INPUT)}
