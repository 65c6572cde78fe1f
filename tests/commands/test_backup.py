import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batch_api.store.backup import BackupFailed, back_up
from batch_api.store.database import DATABASE_NAME
from batch_api.store.inspecting.folder import Uninspectable
from batch_api.store.inspection import inspect
from batch_api.store.repair import repair
from tests.lived_in import LivedIn, finished
from tests.server import HasEnded, Server, StandinProcess

pytestmark = pytest.mark.slow

_SECONDS = 60
_BACKUPS = 2
SLOWLY = [
    *("strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=link,linkat"),
    # Files come while others are linked, and go before they are linked themselves.
    *("-e", "inject=link,linkat:delay_enter=50000"),
]
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def lived_in(tmp_path: Path, killed: LivedIn) -> LivedIn:
    return killed.copy(tmp_path / "data")


def backup(data_dir: Path, destination: Path, *, code: int, under: Sequence[str] = ()) -> str:
    """What it prints, or the sentence with which it refuses."""
    ended = subprocess.run(
        [*under, sys.executable, "-m", "batch_api", "backup", destination, "--data-dir", data_dir],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout if code != 2 else ended.stderr


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {it.name: hashlib.sha256(it.read_bytes()).hexdigest() for it in files}


def is_right(folder: Path) -> bool:
    found = inspect(folder, deep=True, results_are_kept=True)
    assert found.is_all_right, str(found)
    return True


def test_a_backup_of_a_server_at_work_is_whole_and_another_goes_on_with_its_batches(
    lived_in: LivedIn, tmp_path: Path
) -> None:
    restored = tmp_path / "restored"
    with Server(tmp_path, "http://127.0.0.1:9"):
        told = backup(lived_in.data_dir, restored / "data", code=0)
        assert told == f"{restored}/data has the database and 10 files of 4.9 KiB.\n"
        assert {it.name for it in (restored / "data").iterdir()} == {"batch-api.db", "files"}
        assert is_right(restored / "data")

    with (
        StandinProcess(restored) as standin,
        Server(restored, standin.url, settings={"request_timeout_seconds": 1}) as server,
        server.client() as client,
    ):
        batch = finished(client, lived_in.running)
        served = standin.served()
    assert batch.status == "completed"
    assert set(served) == {"running-4", "running-5"}, "what was answered was run again"
    assert is_right(restored / "data")


def test_a_backup_of_what_a_killed_server_left_is_whole(lived_in: LivedIn, tmp_path: Path) -> None:
    back_up(lived_in.data_dir, tmp_path / "backup")

    assert is_right(tmp_path / "backup")


def test_a_backup_has_the_bytes_and_changes_nothing(lived_in: LivedIn, tmp_path: Path) -> None:
    before = contents(lived_in.data_dir)

    back_up(lived_in.data_dir, tmp_path / "a" / "new" / "folder")

    assert contents(lived_in.data_dir) == before
    assert contents(tmp_path / "a" / "new" / "folder" / "files").items() <= before.items()


def test_bytes_are_linked_where_that_can_be_and_outlive_a_delete(
    lived_in: LivedIn, tmp_path: Path
) -> None:
    back_up(lived_in.data_dir, tmp_path / "backup")
    blob, copy = (
        folder / "files" / lived_in.spare_file_id
        for folder in (lived_in.data_dir, tmp_path / "backup")
    )

    assert blob.samefile(copy)
    blob.unlink()
    assert is_right(tmp_path / "backup")


def test_bytes_are_copied_to_another_file_system(lived_in: LivedIn) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        back_up(lived_in.data_dir, Path(elsewhere))

        assert is_right(Path(elsewhere))
        copy = Path(elsewhere, "files", lived_in.spare_file_id).stat()
        is_elsewhere = copy.st_dev != lived_in.data_dir.stat().st_dev
        assert copy.st_nlink == (1 if is_elsewhere else 2)


@pytest.mark.parametrize("under", [(), SLOWLY])
def test_a_backup_is_of_one_moment_while_files_come_and_go(
    lived_in: LivedIn, tmp_path: Path, under: Sequence[str]
) -> None:
    stop = threading.Event()
    with (
        Server(tmp_path, "http://127.0.0.1:9") as server,
        server.client() as client,
        ThreadPoolExecutor() as threads,
    ):

        def come_and_go() -> int:
            files = 0
            while not stop.is_set():
                file = client.files.create(file=("x.jsonl", b"{}"), purpose="batch")
                client.files.delete(file.id)
                files += 1
            return files

        clients = [threads.submit(come_and_go) for _ in range(2)]
        try:
            for number in range(_BACKUPS):
                backup(server.data_dir, tmp_path / str(number), code=0, under=under)
                assert is_right(tmp_path / str(number))
        finally:
            stop.set()
        assert all(client.result() for client in clients)


def test_what_is_missing_at_the_source_is_told_and_the_rest_kept(
    lived_in: LivedIn, tmp_path: Path
) -> None:
    lived_in.blob(lived_in.spare_file_id).unlink()

    told = backup(lived_in.data_dir, tmp_path / "backup", code=1)

    assert f"Wrong in it, as in {lived_in.data_dir}: {lived_in.spare_file_id}: Its" in told
    assert len(list((tmp_path / "backup" / "files").iterdir())) == 9


def test_files_that_are_newer_than_a_restored_database_are_kept_and_come_back_with_theirs(
    lived_in: LivedIn, tmp_path: Path
) -> None:
    database = lived_in.data_dir / DATABASE_NAME
    back_up(lived_in.data_dir, tmp_path / "monday")
    with Server(tmp_path, "http://127.0.0.1:9") as server, server.client() as client:
        newer = client.files.create(file=("newer.jsonl", b"{}\n"), purpose="batch")
        server.terminate()
    blob, orphan = lived_in.blob(newer.id), lived_in.blob(f"{newer.id}.orphan")
    shutil.move(database, tmp_path / "newer.db")
    shutil.copy(tmp_path / "monday" / DATABASE_NAME, database)

    assert repair(lived_in.data_dir, deep=False, now=time.time(), lost=_lost).left.is_all_right
    with Server(tmp_path, "http://127.0.0.1:9") as server:
        server.terminate()
    assert (blob.exists(), orphan.read_bytes()) == (False, b"{}\n")
    assert any("1 file without a row (3 B)" in it for it in inspect(lived_in.data_dir).remarks)

    orphan.rename(blob)
    shutil.move(tmp_path / "newer.db", database)
    with Server(tmp_path, "http://127.0.0.1:9") as server, server.client() as client:
        assert client.files.content(newer.id).content == b"{}\n"


def _lost(batch_id: str, line: int, custom_id: str) -> bytes:
    raise AssertionError("no answer is lost")


def test_orphans_are_not_copied(lived_in: LivedIn, tmp_path: Path) -> None:
    for name in ("file-orphan", "file-old.orphan", "file-half.unfinished", "notes.txt"):
        lived_in.blob(name).touch()

    assert back_up(lived_in.data_dir, tmp_path / "backup").files == 10


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(
    lived_in: LivedIn, tmp_path: Path
) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "notes.txt").touch()

    refused = backup(lived_in.data_dir, tmp_path / "backup", code=2)

    assert refused == f"batch-api: {tmp_path}/backup is not empty.\n"
    assert [it.name for it in (tmp_path / "backup").iterdir()] == ["notes.txt"]


def test_a_backup_into_the_data_folder_itself_is_refused(lived_in: LivedIn) -> None:
    with pytest.raises(BackupFailed, match="in the data folder itself"):
        back_up(lived_in.data_dir, lived_in.data_dir / "files" / "backup")
    assert not (lived_in.data_dir / "files" / "backup").exists()


def test_nothing_stays_of_a_backup_that_failed(lived_in: LivedIn, tmp_path: Path) -> None:
    for file in lived_in.data_dir.glob("batch-api.db*"):
        file.write_bytes(b"no database")

    with pytest.raises(BackupFailed, match=r"^The database .+ is not a database\.$"):
        back_up(lived_in.data_dir, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_folder_without_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Uninspectable):
        back_up(tmp_path / "nowhere", tmp_path / "backup")

    assert not (tmp_path / "backup").exists()


def test_a_corrupt_database_stops_the_start_until_it_is_restored_as_the_readme_says(
    lived_in: LivedIn, tmp_path: Path
) -> None:
    back_up(lived_in.data_dir, tmp_path / "monday")
    with (lived_in.data_dir / DATABASE_NAME).open("r+b") as file:
        file.write(b"\xff" * 4096)
    server = Server(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(HasEnded, match=r"(?s)with 2.+ is corrupt .+ `batch-api backup`"):
        server.start()

    for command in _commands_to_restore():
        told = command.replace("/backups", str(tmp_path)).replace("batch-api-data", "data")
        told = told.replace("batch-api ", f"{sys.executable} -m batch_api ")
        subprocess.run(told, shell=True, cwd=tmp_path, check=True, env=_environment())

    with server, server.client() as client:
        assert client.batches.retrieve(lived_in.running.id).request_counts is not None


def _commands_to_restore() -> list[str]:
    _, after = README.read_text().split("To restore a backup", 1)
    block = after.split("```")[1]
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def _environment() -> dict[str, str]:
    return os.environ | {"BATCH_API_DATA_DIR": "data"}
