from batch_api.lifecycle import BatchStatus
from batch_api.store import batches, files, uploads
from batch_api.store.database import Database
from tests.scheduler.site import INPUT, Site, questions
from tests.store import rows

DAY = 86_400


async def file_ids(site: Site) -> list[str]:
    async with site.database.read() as session:
        page = await files.page(session, after=None, limit=9, order="asc", purpose=None, now=0.0)
    return [row.id for row in page.rows]


async def complete(database: Database, number: int) -> None:
    held = await rows.lease(database, number, limit=10_000)
    await rows.settle(database, *map(rows.answer, held))
    left, final = BatchStatus.FINALIZING, BatchStatus.COMPLETED
    async with database.write.begin() as session:
        assert await batches.cut_off(session, number, now=3.0)
        assert await batches.finish(session, number, left, final, now=4.0, webhook_urls=())


async def test_a_lease_that_ran_out_is_taken_back_and_the_dispatcher_told(site: Site) -> None:
    number = await rows.add_batch(site.database, lines=2)
    bell = site.wakeup.bell()
    await site.ledger.lease([rows.running(number)], 1)

    assert await site.janitor.reclaim_once() == 0
    assert not bell.is_set()
    site.clock.steady += site.settings.lease_seconds
    assert await site.janitor.reclaim_once() == 1
    assert bell.is_set()
    assert await rows.states(site.database, number) == ["pending", "pending"]


async def test_a_jump_of_the_wall_clock_takes_no_lease(site: Site) -> None:
    number = await rows.add_batch(site.database, lines=1)
    await site.ledger.lease([rows.running(number)], 1)

    for jump in (DAY, -3 * DAY):
        site.clock.wall += jump
        assert await site.janitor.reclaim_once() == 0


async def test_a_deadline_follows_the_wall_clock(site: Site) -> None:
    deadline = int(site.clock.now()) + DAY
    number = await rows.add_batch(site.database, lines=2, expires_at=deadline)
    await rows.add_batch(site.database, "batch_2", lines=1)
    await rows.lease(site.database, number, limit=1)

    site.clock.steady += 2 * DAY
    assert await site.janitor.expire_once() == 0
    site.clock.wall += DAY
    assert await site.janitor.expire_once() == 1
    assert await site.janitor.expire_once() == 0
    batch = await site.batch(number)
    assert (batch.status, batch.finalizing_at) == ("finalizing", site.clock.now())
    assert await rows.states(site.database, number) == ["expired", "expired"]


async def test_a_batch_that_is_being_cancelled_does_not_expire(site: Site) -> None:
    number = await rows.add_batch(site.database, lines=1, expires_at=1)
    await site.cancel(number)

    assert await site.janitor.expire_once() == 0
    assert await site.status(number) == BatchStatus.CANCELLING


async def test_an_expired_file_goes_with_its_bytes(site: Site) -> None:
    await site.upload(b"x", "file-old")
    await site.upload(b"x", "file-new")
    await site.delete_file("file-old")
    await rows.add_file(site.database, "file-old", expires_at=int(site.clock.now()) + DAY)

    assert await site.janitor.drop_expired_files_once() == 0
    site.clock.wall += DAY
    assert await site.janitor.drop_expired_files_once() == 1
    assert await file_ids(site) == ["file-new"]
    assert site.blobs_on_disk() == {"file-new"}


async def test_the_bytes_of_an_expired_input_stay_while_a_batch_reads_them(site: Site) -> None:
    number = await site.submit(questions(1))
    await site.delete_file()
    await rows.add_file(site.database, INPUT, expires_at=1)

    assert await site.janitor.drop_expired_files_once() == 1
    assert await file_ids(site) == []
    assert site.blobs_on_disk() == {INPUT}
    assert (await site.run(number)).status == BatchStatus.COMPLETED
    assert INPUT not in site.blobs_on_disk()


async def test_answers_are_dropped_in_pieces_once_the_files_have_them(site: Site) -> None:
    number = await rows.add_batch(site.database, lines=2_500)
    assert await site.janitor.trim_once() == 0
    await complete(site.database, number)

    trimmed = [await site.janitor.trim_once() for _ in range(4)]
    assert trimmed == [1_000, 1_000, 500, 0]
    assert (await site.batch(number)).trimmed_at == int(site.clock.now())
    assert {it.answer for it in await rows.outcomes(site.database, number)} == {None}


async def test_batches_are_trimmed_one_after_the_other(site: Site) -> None:
    for id in ("batch_1", "batch_2"):
        await complete(site.database, await rows.add_batch(site.database, id, lines=1))

    assert [await site.janitor.trim_once() for _ in range(3)] == [1, 1, 0]


async def test_a_start_takes_back_leases(site: Site) -> None:
    number = await rows.add_batch(site.database, lines=2)
    await site.ledger.lease([rows.running(number)], 1)

    await site.janitor.recover()
    assert await rows.states(site.database, number) == ["pending", "pending"]


async def test_an_upload_that_is_not_completed_in_time_expires_with_its_parts(site: Site) -> None:
    now = int(site.clock.now())
    await rows.add_upload(site.database, "upload_1", "part_1", "part_2", expires_at=now + 3600)
    await rows.add_upload(site.database, "upload_2", "part_3", expires_at=now + 3601)
    await site.put_blobs("part_1", "part_2", "part_3")

    assert await site.janitor.expire_uploads_once() == 0
    site.clock.wall += 3600
    assert await site.janitor.expire_uploads_once() == 1
    assert await site.janitor.expire_uploads_once() == 0

    assert site.blobs_on_disk() == {"part_3"}
    async with site.database.read() as session:
        upload = await uploads.get(session, "upload_1")
    assert upload is not None
    assert upload.status == "expired"
