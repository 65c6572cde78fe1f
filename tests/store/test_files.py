import pytest

from batch_api.store import batches, files
from batch_api.store.database import Database
from batch_api.store.pages import Order, UnknownCursor
from tests.store.rows import add_batch, add_file


async def page(
    database: Database,
    *,
    after: str | None = None,
    limit: int = 2,
    order: Order = "desc",
    purpose: str | None = None,
    now: float = 0.0,
) -> tuple[list[str], bool]:
    async with database.read() as session:
        found = await files.page(
            session, after=after, limit=limit, order=order, purpose=purpose, now=now
        )
    return [row.id for row in found.rows], found.has_more


async def add_some(database: Database, *ids: str) -> None:
    for id in ids:
        await add_file(database, id)


async def is_held(database: Database, id: str) -> bool:
    async with database.read() as session:
        held = await files.is_held(session, id)
        assert held == (id in await files.known_blobs(session))
    return held


async def remove(database: Database, id: str) -> bool:
    async with database.write.begin() as session:
        return await files.remove(session, id)


async def test_a_page_is_newest_first_and_begins_after_its_cursor(database: Database) -> None:
    await add_some(database, "file-1", "file-2", "file-3")

    assert await page(database) == (["file-3", "file-2"], True)
    assert await page(database, after="file-2") == (["file-1"], False)
    assert await page(database, order="asc", after="file-1") == (["file-2", "file-3"], False)


async def test_pages_stay_stable_while_files_are_added(database: Database) -> None:
    await add_some(database, "file-1", "file-2", "file-3")
    first, _ = await page(database)
    await add_some(database, "file-4")
    second, has_more = await page(database, after=first[-1])

    assert (first + second, has_more) == (["file-3", "file-2", "file-1"], False)


async def test_an_unknown_cursor_gives_no_page(database: Database) -> None:
    await add_some(database, "file-1")

    with pytest.raises(UnknownCursor):
        await page(database, after="file-2")


async def test_a_page_may_be_of_one_purpose(database: Database) -> None:
    await add_file(database, "file-1", purpose="batch_output")
    await add_file(database, "file-2")

    assert await page(database, purpose="batch_output") == (["file-1"], False)


async def test_an_expired_file_is_not_found(database: Database) -> None:
    await add_file(database, "file-1", expires_at=10)

    assert await page(database, now=9.9) == (["file-1"], False)
    assert await page(database, now=10.0) == ([], False)
    async with database.read() as session:
        assert await files.get(session, "file-1", now=9.9) is not None
        assert await files.get(session, "file-1", now=10.0) is None
        assert await files.expired(session, now=9.9) == []
        assert await files.expired(session, now=10.0) == ["file-1"]


async def test_a_file_can_be_removed_once(database: Database) -> None:
    await add_some(database, "file-1")

    assert await remove(database, "file-1")
    assert not await remove(database, "file-1")


async def test_bytes_are_held_by_their_file_and_by_every_unfinished_batch(
    database: Database,
) -> None:
    await add_some(database, "file-in")
    first = await add_batch(database, "batch_1")
    second = await add_batch(database, "batch_2")

    assert await is_held(database, "file-in")
    await remove(database, "file-in")
    assert await is_held(database, "file-in")
    await fail(database, first)
    assert await is_held(database, "file-in")
    await fail(database, second)
    assert not await is_held(database, "file-in")


async def fail(database: Database, number: int) -> None:
    async with database.write.begin() as session:
        assert await batches.fail(session, number, errors=[], now=3.0, webhook_urls=())
