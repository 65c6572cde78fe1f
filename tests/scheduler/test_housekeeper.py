import asyncio

import pytest

from batch_api.lifecycle import BatchStatus, DeliveryState
from batch_api.settings import Settings
from batch_api.store import batches, deliveries, progress
from batch_api.store.batches import Tally, Usage
from batch_api.store.database import DATABASE_NAME
from batch_api.store.deliveries import Attempt
from batch_api.store.inspection import inspect
from batch_api.store.pages import UnknownCursor
from batch_api.store.tables import BatchRow, IdempotencyKeyRow
from tests.clock import START
from tests.scheduler.site import INPUT, Site, questions
from tests.store import rows

DAY = 86_400
MINUTE = START // 60 * 60
"""The beginning of one."""
MIB = 1024 * 1024
_LOOK_SECONDS = 0.05


async def finish(site: Site, number: int, answer: bytes = b"{}\n") -> None:
    """Complete it, with the same answer to each line, and write no files."""
    total = 0
    while held := await rows.lease(site.database, number, limit=1_000):
        total += len(held)
        await rows.settle(site.database, *(rows.answer(lease, answer) for lease in held))
    left, final = BatchStatus.FINALIZING, BatchStatus.COMPLETED
    now = site.clock.now()
    async with site.database.write.begin() as session:
        await batches.tally(session, number, Tally(completed=total, failed=0, usage=Usage()))
        assert await batches.cut_off(session, number, now=now)
        assert await batches.finish(session, number, left, final, now=now, webhook_urls=())


async def remove(site: Site, number: int) -> bool:
    async with site.database.write.begin() as session:
        return await batches.remove(session, number, now=site.clock.now())


async def has_batch(site: Site, id: str) -> bool:
    async with site.database.read() as session:
        return await batches.get(session, id) is not None


async def trim(site: Site) -> None:
    while await site.janitor.trim_once():
        pass


class TestSweep:
    async def test_a_start_sets_aside_what_no_row_speaks_of_and_keeps_the_rest(
        self, site: Site
    ) -> None:
        await rows.add_batch(site.database, lines=2, input_file_id="file-held")
        await rows.add_upload(site.database, "upload_1", "part_1", expires_at=1)
        await site.upload(b"x", "file-kept")
        await site.put_blobs(
            "file-held", "part_1", "file-orphan", "part_orphan", "file-x.unfinished"
        )
        site.blobs.path("notes.txt").touch()

        assert await site.housekeeper.sweep() == 3
        kept = {"file-kept", "file-held", "part_1", "notes.txt"}
        assert site.blobs_on_disk() == kept | {"file-orphan.orphan", "part_orphan.orphan"}

    async def test_what_was_set_aside_goes_after_a_week(self, site: Site) -> None:
        await site.put_blobs("file-orphan")
        await site.housekeeper.sweep()

        for days, left in [(6.9, {"file-orphan.orphan"}), (7.1, set[str]())]:
            site.clock.wall = START + days * DAY
            assert await site.housekeeper.sweep() == 0
            assert await site.housekeeper.drop_orphans_once() == 1 - len(left)
            assert site.blobs_on_disk() == left

    async def test_while_serving_a_blob_may_be_ahead_of_its_row_once(self, site: Site) -> None:
        housekeeper = site.housekeeper
        await site.put_blobs("file-late", "file-orphan")

        assert await housekeeper.sweep_once() == 0
        await rows.add_file(site.database, "file-late")
        assert await housekeeper.sweep_once() == 1
        assert site.blobs_on_disk() == {"file-late", "file-orphan.orphan"}

    async def test_what_is_being_written_is_never_swept(self, site: Site) -> None:
        housekeeper = site.housekeeper
        async with site.blobs.writing("file-slow") as writer:
            for _ in range(3):
                await writer.write(b"x")
                assert await housekeeper.sweep_once() == 0
            await site.blobs.publish("file-slow", writer)
            assert await housekeeper.sweep_once() == 0

        assert site.blobs_on_disk() == {"file-slow"}

    async def test_files_of_a_batch_that_can_not_end_for_a_full_disk_are_kept(
        self, site: Site
    ) -> None:
        await rows.add_batch(site.database, lines=1)
        await site.put_blobs("file-out-batch_1", "file-err-batch_1")

        assert await site.housekeeper.sweep() == 0
        assert site.blobs_on_disk() == {"file-out-batch_1", "file-err-batch_1"}


class TestRemoval:
    async def test_a_removed_batch_is_gone_at_once_and_its_rows_go_in_bites(
        self, site: Site
    ) -> None:
        number = await rows.add_batch(site.database, lines=2_500)
        other = await rows.add_batch(site.database, "batch_2", lines=3)
        await finish(site, number)

        assert await remove(site, number)
        assert not await has_batch(site, "batch_1")
        dropped = [await site.housekeeper.drop_removed_once() for _ in range(4)]
        assert dropped == [1_001, 1_001, 501, 0]
        assert await rows.outcomes(site.database, number) == []
        assert len(await rows.outcomes(site.database, other)) == 3

    async def test_a_removal_that_was_cut_off_keeps_the_promise_and_goes_on(
        self, site: Site
    ) -> None:
        number = await rows.add_batch(site.database, lines=1_500)
        await finish(site, number)
        await remove(site, number)
        assert await site.housekeeper.drop_removed_once() == 1_001

        found = await asyncio.to_thread(inspect, site.settings.data_dir)
        assert found.is_all_right, str(found)
        while await site.housekeeper.drop_removed_once():
            pass
        assert await rows.outcomes(site.database, number) == []

    async def test_the_history_of_a_removed_batch_goes_with_it_in_the_same_bites(
        self, site: Site
    ) -> None:
        number = await rows.add_batch(site.database, lines=400)
        await finish(site, number)
        async with site.database.write.begin() as session:
            for minute in range(500):
                one = Tally(completed=1, failed=0, usage=Usage(), seconds=(1.0,))
                await progress.record(session, {number: one}, now=60.0 * minute)
        await remove(site, number)

        assert [await site.housekeeper.drop_removed_once() for _ in range(3)] == [1_001, 401, 0]
        assert not await has_batch(site, "batch_1")

    async def test_a_removed_batch_is_no_cursor(self, site: Site) -> None:
        number = await rows.add_batch(site.database)
        async with site.database.write.begin() as session:
            await batches.fail(session, number, errors=["no"], now=1.0, webhook_urls=())
        await remove(site, number)

        async with site.database.read() as session:
            assert (await batches.page(session, after=None, limit=9)).rows == []
            with pytest.raises(UnknownCursor):
                await batches.page(session, after="batch_1", limit=9)


class TestRetention:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        kept = {"keep_files_days": 3, "keep_results_days": 2, "keep_batches_days": 1}
        return settings.model_copy(update=kept)

    async def test_what_is_older_than_the_settings_say_goes(self, site: Site) -> None:
        batch = await self.completed(site)
        assert batch.completed_at is not None
        left = {INPUT, batch.output_file_id}
        for days, kept in [(1, left), (2, left - {batch.output_file_id})]:
            site.clock.wall = batch.completed_at + days * DAY + 1
            await self.round(site)
            assert not await has_batch(site, batch.id)
            assert site.blobs_on_disk() == kept

    async def test_until_then_all_of_it_is_kept(self, site: Site) -> None:
        batch = await self.completed(site)
        assert batch.completed_at is not None

        site.clock.wall = batch.completed_at + DAY - 1
        await self.round(site)

        assert await has_batch(site, batch.id)
        assert site.blobs_on_disk() == {INPUT, batch.output_file_id}

    async def test_a_batch_that_is_not_over_is_kept_for_ever(self, site: Site) -> None:
        number = await site.submit(questions(2))
        site.clock.wall += 1_000 * DAY
        await self.round(site)

        assert await has_batch(site, "batch_1")
        assert INPUT in site.blobs_on_disk()
        assert (await site.run(number)).status == BatchStatus.COMPLETED

    async def completed(self, site: Site) -> BatchRow:
        number = await site.submit(questions(2))
        await site.delete_file()
        await rows.add_file(site.database, INPUT, created_at=int(site.clock.now()))
        return await site.run(number)

    async def round(self, site: Site) -> None:
        await site.housekeeper.retire_once()
        await site.janitor.drop_expired_files_once()


async def test_without_settings_nothing_is_too_old(site: Site) -> None:
    await site.run(await site.submit(questions(1)))
    before = site.blobs_on_disk()
    site.clock.wall += 1_000 * DAY

    assert await site.housekeeper.retire_once() == 0
    await site.janitor.drop_expired_files_once()
    assert site.blobs_on_disk() == before


async def test_idempotency_keys_are_forgotten_in_bites_when_they_are_old(site: Site) -> None:
    async with site.database.write.begin() as session:
        session.add_all(
            IdempotencyKeyRow(
                tenant="default",
                operation="create",
                key=str(number),
                fingerprint="",
                object_id="file-new",
                expires_at=int(START) + number,
            )
            for number in range(1_500)
        )
    site.clock.wall = START + 1_499

    assert [await site.housekeeper.forget_keys_once() for _ in range(3)] == [1_000, 500, 0]


async def test_history_is_forgotten_after_two_weeks(site: Site) -> None:
    number = await rows.add_batch(site.database, lines=1)
    one = Tally(completed=1, failed=0, usage=Usage(), seconds=(1.0,))
    async with site.database.write.begin() as session:
        await progress.record(session, {number: one}, now=MINUTE)
    site.clock.wall = MINUTE + 14 * DAY
    assert await site.housekeeper.forget_progress_once() == 0

    site.clock.wall += 1
    assert await site.housekeeper.forget_progress_once() == 2


async def test_a_database_grown_by_answers_shrinks_again_in_bites(site: Site) -> None:
    number = await rows.add_batch(site.database, lines=15_000)
    await finish(site, number, b"x" * 4_000)
    database = site.settings.data_dir / DATABASE_NAME
    grown = database.stat().st_size
    assert grown > 55 * MIB
    assert database.with_name(f"{DATABASE_NAME}-wal").stat().st_size < 20 * MIB

    await trim(site)
    assert database.stat().st_size >= grown, "nothing is given back before"
    bites = [await site.housekeeper.shrink_once()]
    while bites[-1]:
        bites.append(await site.housekeeper.shrink_once())

    assert len(bites) > 5
    assert max(bites) == 1_000
    assert database.stat().st_size < 30 * MIB, "more than what is kept for the next answers"
    found = await asyncio.to_thread(inspect, site.settings.data_dir, deep=True)
    assert found.is_all_right, str(found)


async def test_a_server_at_work_keeps_house_by_itself(site: Site) -> None:
    number = await rows.add_batch(site.database, lines=3)
    await finish(site, number)
    await remove(site, number)
    async with site.running():
        await site.put_blobs("file-orphan")
        while await rows.outcomes(site.database, number) or "file-orphan" in site.blobs_on_disk():
            site.clock.steady += 3_600
            await asyncio.sleep(_LOOK_SECONDS)


class TestDeliveries:
    async def test_what_was_delivered_or_given_up_goes_after_a_week_and_what_waits_never(
        self, site: Site
    ) -> None:
        for number, state in enumerate(DeliveryState, start=1):
            await rows.add_batch(site.database, f"batch_{number}")
            async with site.database.write.begin() as session:
                assert await batches.fail(
                    session, number, errors=["no"], now=START, webhook_urls=["https://a/"]
                )
                attempt = Attempt(number, state, next_at=START)
                assert await deliveries.record(session, [attempt], now=START)

        for days, forgotten in [(6.9, 0), (7.1, 2), (99, 0)]:
            site.clock.wall = START + days * DAY
            assert await site.housekeeper.forget_deliveries_once() == forgotten
