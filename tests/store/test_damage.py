"""A data folder that the disk, or somebody, has spoilt: refused, with nothing in it touched."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from batch_api.store.backup import back_up
from batch_api.store.database import Database
from batch_api.store.inspecting.folder import Uninspectable
from batch_api.store.inspection import inspect
from batch_api.store.schema import DatabaseCorrupt
from batch_api.store.wal import fault_of_wal

FILES = 30
DATABASE = "batch-api.db"
WAL = "batch-api.db-wal"
PAGE = 4096

CRASH = """
import asyncio, os, sys
from pathlib import Path
from batch_api.store.database import Database
from tests.store.rows import add_file

async def main():
    database = await Database.open(Path(sys.argv[1]))
    for number in range(int(sys.argv[2])):
        await add_file(database, f"file-{number}")
    os._exit(0)

asyncio.run(main())
"""

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process left that died after 30 commits, which lie in the write-ahead log."""
    folder = tmp_path_factory.mktemp("crashed")
    subprocess.run([sys.executable, "-c", CRASH, str(folder), str(FILES)], check=True)
    (folder / "files").mkdir()
    (folder / "files" / "file-0").write_bytes(b"x")
    assert (folder / WAL).stat().st_size > FILES * PAGE
    return folder


@pytest.fixture
def spoilt(crashed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(crashed, tmp_path / "data")


def overwrite(name: str, place: float, content: bytes) -> Damage:
    """From `place` on, a share of the file's length."""

    def damage(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.seek(int((folder / name).stat().st_size * place))
            file.write(content)

    return damage


def both(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def without_wal(folder: Path) -> None:
    (folder / WAL).unlink()


async def count_files(folder: Path) -> int:
    database = await Database.open(folder)
    try:
        async with database.read() as session:
            return int(await session.scalar(text("SELECT count(*) FROM files")) or 0)
    finally:
        await database.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(overwrite(DATABASE, 0, b"garbage!" * 2), id="header"),
        pytest.param(
            both(overwrite(DATABASE, 0, b"garbage!" * 2), without_wal), id="header, without a log"
        ),
        pytest.param(overwrite(DATABASE, 0.2, b"\xff" * PAGE), id="middle"),
        pytest.param(lambda folder: os.truncate(folder / DATABASE, 5 * PAGE), id="cut short"),
        pytest.param(lambda folder: (folder / DATABASE).write_text("hello"), id="text"),
        pytest.param(overwrite(WAL, 0, b"garbage!" * 4), id="header of the log"),
        pytest.param(overwrite(WAL, 0.5, b"\xff" * 100), id="middle of the log"),
        pytest.param(overwrite(WAL, 0.1, os.urandom(PAGE)), id="beginning of the log"),
    ],
)
async def test_a_spoilt_database_is_refused_and_nothing_is_swept(
    spoilt: Path, damage: Damage
) -> None:
    damage(spoilt)

    with pytest.raises(DatabaseCorrupt, match=r"is corrupt \(.+\); restore a copy .+ \.recover"):
        await Database.open(spoilt)

    assert (spoilt / "files" / "file-0").exists()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda folder: os.truncate(folder / DATABASE, 0), "empty", id="empty"),
        pytest.param(lambda folder: (folder / DATABASE).unlink(), "missing", id="missing"),
        pytest.param(
            both(without_wal, lambda folder: os.truncate(folder / DATABASE, 0)),
            "empty",
            id="all empty",
        ),
        pytest.param(
            both(without_wal, lambda folder: (folder / DATABASE).unlink()),
            "missing",
            id="all missing",
        ),
    ],
)
async def test_a_lost_database_is_to_be_restored_say_server_doctor_and_backup(
    spoilt: Path, damage: Damage, told: str, tmp_path: Path
) -> None:
    damage(spoilt)
    sentence = (
        f"The database {spoilt / DATABASE} is {told}, and there are files that it spoke of. "
        "Restore a copy that `batch-api backup` made: "
        f"`mv {spoilt} {spoilt}.broken && cp -r BACKUP {spoilt}`."
    )

    with pytest.raises(DatabaseCorrupt) as refused:
        await Database.open(spoilt)
    assert str(refused.value) == sentence
    with pytest.raises(Uninspectable) as refused_too:
        inspect(spoilt)
    assert str(refused_too.value) == sentence
    with pytest.raises(Uninspectable) as refused_as_well:
        back_up(spoilt, tmp_path / "backup")
    assert str(refused_as_well.value) == sentence
    assert (spoilt / "files" / "file-0").exists()


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        pytest.param(lambda folder: None, FILES, id="none"),
        pytest.param(
            lambda folder: (folder / "batch-api.db-shm").write_bytes(os.urandom(8 * PAGE)),
            FILES,
            id="its index, which is made anew",
        ),
        pytest.param(
            lambda folder: append(folder / WAL, os.urandom(3 * PAGE)),
            FILES,
            id="garbage after the log's end",
        ),
        pytest.param(
            lambda folder: os.truncate(folder / WAL, (folder / WAL).stat().st_size - 100),
            FILES - 1,
            id="a commit that was cut off",
        ),
        pytest.param(overwrite(WAL, 0.999, b"\xff" * 50), FILES - 1, id="a commit half written"),
    ],
)
async def test_what_a_crash_leaves_is_recovered(spoilt: Path, damage: Damage, kept: int) -> None:
    damage(spoilt)

    assert await count_files(spoilt) == kept


def test_old_frames_in_a_log_that_was_begun_anew_are_no_damage(tmp_path: Path) -> None:
    """They stay behind the new ones, with other salts."""
    path = tmp_path / DATABASE
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "wal_autocheckpoint=20"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE numbers (number)")
        for number in range(30):
            connection.execute("INSERT INTO numbers VALUES (?)", [number])
        times_begun_anew = int.from_bytes((tmp_path / WAL).read_bytes()[12:16])

        assert times_begun_anew > 0
        assert fault_of_wal(path) is None
