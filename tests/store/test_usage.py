from itertools import chain

from sqlalchemy import update

from batch_api.store import usage
from batch_api.store.database import Database
from batch_api.store.tables import FileRow
from batch_api.store.usage import Share
from tests.store import rows
from tests.store.plans import planned


async def test_a_tenant_is_told_of_its_own_files_only(database: Database) -> None:
    await rows.add_file(database, "file-1")
    await rows.add_file(database, "file-2", purpose="batch_output")
    await rows.add_file(database, "file-3", tenant="other")
    await rows.add_upload(database, "upload_1", "part_1", "part_2", expires_at=9)
    await rows.add_batch(database, input_file_id="file-gone", tenant="other")

    async with database.of("default").read() as session:
        assert await usage.by_purpose(session) == [
            Share("batch", 1, 1),
            Share("batch_output", 1, 1),
        ]
        assert (await usage.parts(session)).files == 2
        assert (await usage.deleted_inputs(session)).files == 0
        found = await usage.largest(session, limit=9, now=1.0)
    assert [file.id for file in found] == ["file-2", "file-1"]
    async with database.of("other").read() as session:
        assert (await usage.parts(session)).files == 0
        assert (await usage.deleted_inputs(session)).files == 1


async def test_the_largest_files_come_first_and_expired_ones_not_at_all(
    database: Database,
) -> None:
    for number in range(1, 5):
        await rows.add_file(database, f"file-{number}", expires_at=5 if number == 4 else None)
    async with database.write.begin() as session:
        await session.execute(update(FileRow).values(bytes=FileRow.number * 10))

    async with database.of("default").read() as session:
        found = await usage.largest(session, limit=2, now=9.0)
    assert [(file.id, file.bytes) for file in found] == [("file-3", 30), ("file-2", 20)]


async def test_what_is_large_or_removed_is_found_without_looking_at_all_rows(
    database: Database,
) -> None:
    async with database.of("default").read() as session, planned(session) as plans:
        await usage.by_purpose(session)
        await usage.largest(session, limit=10, now=1.0)
        await usage.removed_batches(session)

    by_purpose, _, largest, removed = chain.from_iterable(plans)
    assert by_purpose.startswith("SEARCH files USING COVERING INDEX ix_files_listed_by_purpose")
    assert largest.startswith("SEARCH files USING INDEX ix_files_by_size (tenant=?)")
    assert removed.startswith("SEARCH batches USING COVERING INDEX ix_batches_removed_of")
