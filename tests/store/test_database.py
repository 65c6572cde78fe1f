import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from batch_api.store.database import Database, DataFolderUnusable
from tests.store.rows import add_file

NOBODY = 65534
MIB = 1024 * 1024

OPEN = """
import asyncio, sys
from pathlib import Path
from batch_api.store.database import Database
asyncio.run(Database.open(Path(sys.argv[1])))
"""


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder in one that anybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


async def pragma(database: Database, name: str, *, of_the_writer: bool = False) -> object:
    sessions = database.write if of_the_writer else database.read
    async with sessions() as session:
        return await session.scalar(text(f"PRAGMA {name}"))


async def test_a_database_is_in_wal_mode_before_anybody_reads_it(folder: Path) -> None:
    database = await Database.open(folder)
    written_by, read_by = (folder / "batch-api.db").read_bytes()[18:20]
    await database.close()

    assert (written_by, read_by) == (2, 2)


async def test_a_second_opening_of_the_same_folder_is_refused(
    database: Database, folder: Path
) -> None:
    with pytest.raises(
        DataFolderUnusable, match=rf"in use by another batch-api \(process {os.getpid()}\)"
    ):
        await Database.open(folder)


async def test_a_second_process_on_the_same_folder_is_refused(
    database: Database, folder: Path
) -> None:
    second = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", OPEN, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert second.returncode != 0
    assert f"in use by another batch-api (process {os.getpid()})" in second.stderr


async def test_a_folder_can_be_opened_again_once_it_is_closed(folder: Path) -> None:
    for _ in range(2):
        database = await Database.open(folder)
        await database.close()


async def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "new" / "data")
    await database.close()

    assert (tmp_path / "new" / "data" / "batch-api.db").is_file()


async def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(
    read_only: Path,
) -> None:
    with (
        without_privileges(),
        pytest.raises(DataFolderUnusable, match=r"^The data folder .+ can't be written: .+\.$"),
    ):
        await Database.open(read_only)


async def test_a_data_folder_that_is_a_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataFolderUnusable, match=r"^The data folder .+ can't be written: .+\.$"):
        await Database.open(tmp_path / "file")


async def test_what_fails_to_open_leaves_no_lock_behind(folder: Path) -> None:
    (folder / "batch-api.db").rename(folder / "aside")
    (folder / "batch-api.db").mkdir()
    with pytest.raises(Exception, match="unable to open"):
        await Database.open(folder)
    (folder / "batch-api.db").rmdir()
    (folder / "aside").rename(folder / "batch-api.db")

    database = await Database.open(folder)
    await database.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("mmap_size", 0)],
)
async def test_the_writer_loses_nothing_it_has_committed(
    database: Database, name: str, value: object
) -> None:
    assert await pragma(database, name, of_the_writer=True) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [("query_only", 1), ("wal_autocheckpoint", 0), ("foreign_keys", 1), ("mmap_size", 0)],
)
async def test_a_reader_writes_nothing_and_checkpoints_nothing(
    database: Database, name: str, value: object
) -> None:
    assert await pragma(database, name) == value


async def test_a_write_through_a_reader_fails(database: Database) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        async with database.read.begin() as session:
            await session.execute(text("DELETE FROM files"))


async def test_there_is_one_writer_at_a_time(database: Database) -> None:
    entered = 0

    async def write() -> None:
        nonlocal entered
        async with database.write.begin() as session:
            await session.execute(text("DELETE FROM files"))
            entered += 1
            assert entered == 1
            await session.execute(text("SELECT count(*) FROM files"))
            entered -= 1

    await asyncio.gather(*(write() for _ in range(20)))


async def test_readers_read_on_while_somebody_writes(database: Database) -> None:
    async with database.write.begin() as writing:
        await writing.execute(text("DELETE FROM files"))
        async with database.read() as session:
            assert await session.scalar(text("SELECT count(*) FROM files")) == 0


async def test_a_write_ahead_log_that_a_reader_let_grow_is_cut_once_it_is_gone(
    folder: Path,
) -> None:
    log = folder / "batch-api.db-wal"
    database = await Database.open(folder)
    async with database.read() as reader:
        await reader.scalar(text("SELECT count(*) FROM files"))
        for id in range(25):
            await write_much(database, id)
        assert log.stat().st_size > 90 * MIB
    for id in range(25, 28):
        await write_much(database, id)

    assert log.stat().st_size <= 64 * MIB
    await database.close()


async def write_much(database: Database, id: int) -> None:
    """Of 4 MiB."""
    async with database.write.begin() as session:
        await session.execute(
            text(
                "INSERT INTO idempotency_keys (tenant, operation, key, fingerprint, object_id,"
                " expires_at) VALUES ('', '', :id, hex(zeroblob(2097152)), '', 0)"
            ),
            {"id": id},
        )


async def test_a_closed_database_is_one_whole_file(folder: Path) -> None:
    database = await Database.open(folder)
    await add_file(database, "file-1")
    await database.close()

    assert names(folder) == {"batch-api.db", "lock"}
    with closing(sqlite3.connect(folder / "batch-api.db")) as connection:
        assert connection.execute("SELECT id FROM files").fetchall() == [("file-1",)]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def without_privileges() -> Iterator[None]:
    """As somebody whom permissions bind; the superuser may write everywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)
