import json
from pathlib import Path

import pytest

from tests.command_line import batch_api
from tests.lived_in import LivedIn
from tests.server import Server


@pytest.fixture
def lived_in(tmp_path: Path, killed: LivedIn) -> LivedIn:
    return killed.copy(tmp_path / "data")


def doctor(data_dir: Path, *options: str, code: int) -> str:
    """What it prints, or the sentence with which it refuses."""
    ended = batch_api("doctor", "--data-dir", str(data_dir), *options)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout if code != 2 else ended.stderr


def test_a_folder_that_is_all_right_is_told_in_plain_words(lived_in: LivedIn) -> None:
    told = doctor(lived_in.data_dir, "--deep", code=0).splitlines()

    assert told[0] == f"Looked at {lived_in.data_dir}:"
    assert told[1] == "  4 batches, 12 requests, 10 files, 10 blobs; every byte."
    assert told[-1] == "All is right."


def test_what_is_wrong_is_told_with_what_to_do(lived_in: LivedIn) -> None:
    blob = lived_in.blob(lived_in.spare_file_id)
    size = blob.stat().st_size
    blob.unlink()

    told = doctor(lived_in.data_dir, code=1).splitlines()

    assert told[2] == (
        f"Wrong: {lived_in.spare_file_id}: Its {size} bytes are not on the disk. "
        "--repair forgets it, so that clients get a 404; a backup may have it."
    )
    assert told[-1] == "One thing is wrong; --repair can mend it."


def test_a_corrupt_database_is_told_and_a_backup_asked_for(lived_in: LivedIn) -> None:
    for file in lived_in.data_dir.glob("batch-api.db*"):
        file.write_bytes(b"no database")

    told = doctor(lived_in.data_dir, code=1)

    assert "Wrong: database: SQLite says: file is not a database." in told
    assert "Stop the server and restore a backup." in told
    assert told.endswith("\nOne thing is wrong; --repair does not mend it.\n")


def test_several_wrongs_are_counted(lived_in: LivedIn) -> None:
    lived_in.blob(lived_in.spare_file_id).unlink()
    lived_in.blob(lived_in.spare_file_id).with_name("file-orphan").write_bytes(b"x")
    lived_in.execute("UPDATE batches SET completed_at = 1 WHERE id = ?", lived_in.running.id)

    told = doctor(lived_in.data_dir, code=1).splitlines()

    assert told[-1] == "3 things are wrong; --repair can mend 2 of them."


def test_a_repair_says_what_it_mended_and_where_the_copy_is(lived_in: LivedIn) -> None:
    lived_in.execute("UPDATE batches SET completed = 1 WHERE id = ?", lived_in.running.id)

    told = doctor(lived_in.data_dir, "--repair", code=0)

    assert f"Mended: {lived_in.running.id}: It counts 1 requests as completed, and 3 are." in told
    assert f"kept as {lived_in.data_dir}/batch-api.db.before-repair-1." in told
    assert doctor(lived_in.data_dir, code=0).endswith("All is right.\n")


def test_programs_are_told_the_same(lived_in: LivedIn) -> None:
    lived_in.blob("file-orphan").write_bytes(b"x")

    told = json.loads(doctor(lived_in.data_dir, "--json", code=1))

    assert told["is_all_right"] is False
    assert told["looked_at"]["batches"] == 4
    assert told["findings"] == [
        {
            "kind": "orphaned_bytes",
            "subject": "file-orphan",
            "what": "No row speaks of its 1 bytes.",
            "remedy": "--repair sets it aside.",
            "is_mendable": True,
        }
    ]


def test_a_folder_without_a_database_can_not_be_examined(tmp_path: Path) -> None:
    refused = doctor(tmp_path, code=2)

    assert refused == f"batch-api: There is no batch-api.db in the folder {tmp_path}.\n"


def test_a_server_at_work_is_looked_at_and_not_repaired(lived_in: LivedIn) -> None:
    with Server(lived_in.data_dir.parent, "http://127.0.0.1:9") as server:
        told = doctor(lived_in.data_dir, "--deep", code=0)
        refused = doctor(lived_in.data_dir, "--repair", code=2)

    assert f"Looked at {lived_in.data_dir}, where a server is at work:" in told
    assert f"is in use by another batch-api (process {server.pid})" in refused
