"""Rows of uploads and their parts."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from batch_api.store import files, uploads
from batch_api.store.database import Database
from batch_api.store.tables import UploadRow
from tests.store.rows import add_upload


async def status(database: Database, number: int) -> str:
    async with database.read() as session:
        return (await session.get_one(UploadRow, number)).status


async def test_an_upload_leaves_pending_only_once(database: Database) -> None:
    number = await add_upload(database, "upload_1", "part_1", expires_at=100)

    async with database.write.begin() as session:
        complete = partial(uploads.complete, part_ids=["part_1"], file_id="file-1", now=99.0)
        assert await complete(session, number)
        assert not await complete(session, number)
        assert not await uploads.cancel(session, number, now=99.0)
        assert not await uploads.expire(session, number)

    assert await status(database, number) == "completed"


async def test_an_upload_whose_time_is_over_is_neither_completed_nor_cancelled(
    database: Database,
) -> None:
    number = await add_upload(database, "upload_1", "part_1", expires_at=100)

    async with database.write.begin() as session:
        assert not await uploads.complete(
            session, number, part_ids=["part_1"], file_id="file-1", now=100.0
        )
        assert not await uploads.cancel(session, number, now=100.0)
        assert await uploads.overdue(session, now=99.9) == []
        assert await uploads.overdue(session, now=100.0) == [number]


async def test_the_bytes_of_parts_are_known_for_as_long_as_their_rows(database: Database) -> None:
    number = await add_upload(database, "upload_1", "part_1", "part_2", expires_at=100)

    async with database.read() as session:
        assert set(await files.known_blobs(session)) == {"part_1", "part_2"}
    async with database.write.begin() as session:
        assert set(await uploads.remove_parts(session, number)) == {"part_1", "part_2"}
        assert list(await files.known_blobs(session)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "nearly"},
        {"status": "completed"},
        {"file_id": "file-1"},
        {"status": "completed", "file_id": "file-1"},
        {"bytes": 0},
    ],
)
async def test_a_row_that_contradicts_itself_is_refused(
    database: Database, wrong: dict[str, Any]
) -> None:
    number = await add_upload(database, "upload_1", expires_at=100)

    with pytest.raises(IntegrityError):
        async with database.write.begin() as session:
            await session.execute(
                update(UploadRow).where(UploadRow.number == number).values(**wrong)
            )
