"""Each damage is done for real, and a server goes on with what was mended."""

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batch_api.store.blobs import BLOBS_FOLDER
from batch_api.store.database import DATABASE_NAME, DataFolderUnusable
from batch_api.store.inspecting.findings import Kind
from batch_api.store.inspecting.folder import Uninspectable
from batch_api.store.inspection import inspect
from batch_api.store.repair import Repair, repair
from tests.clock import START
from tests.lived_in import LivedIn, finished
from tests.server import HasEnded, Server, StandinProcess

COMPLETED = (
    "IN (SELECT requests.id FROM requests JOIN batches ON number = batch_number"
    " WHERE batches.id = ? AND state = 'completed')"
)


@pytest.fixture
def lived_in(tmp_path: Path, killed: LivedIn) -> LivedIn:
    return killed.copy(tmp_path / "data")


def mend(lived_in: LivedIn) -> Repair:
    return repair(lived_in.data_dir, deep=True, now=START, lost=lost)


def lost(batch_id: str, line: int, custom_id: str) -> bytes:
    error = {"code": "lost", "message": f"{batch_id} {line}"}
    return json.dumps({"custom_id": custom_id, "response": None, "error": error}).encode() + b"\n"


def kinds(done: Repair) -> list[Kind]:
    assert done.left.is_all_right, str(done.left)
    return [finding.kind for finding in done.mended]


def states(lived_in: LivedIn, id: str) -> Counter[str]:
    rows = lived_in.execute(
        "SELECT state FROM requests JOIN batches ON number = batch_number WHERE batches.id = ?", id
    )
    return Counter(state for (state,) in rows)


def counts(lived_in: LivedIn, id: str) -> tuple[str, int, int]:
    ((status, completed, failed),) = lived_in.execute(
        "SELECT status, completed, failed FROM batches WHERE id = ?", id
    )
    return status, completed, failed


def test_nothing_is_done_where_nothing_is_wrong(lived_in: LivedIn) -> None:
    done = mend(lived_in)

    assert kinds(done) == []
    assert done.copy is None


def test_the_database_is_kept_as_it_was_each_time(lived_in: LivedIn) -> None:
    copies = []
    for completed in (1, 2):
        lived_in.execute("UPDATE batches SET completed = ?", completed)
        copies.append(mend(lived_in).copy)

    for copy, completed in zip(copies, (1, 2), strict=True):
        assert copy is not None
        with closing(sqlite3.connect(copy)) as database:
            assert database.execute("SELECT max(completed) FROM batches").fetchone() == (completed,)


@pytest.mark.slow
def test_a_folder_whose_server_runs_is_left_alone(lived_in: LivedIn) -> None:
    with Server(lived_in.data_dir.parent, "http://127.0.0.1:9"):
        lived_in.blob("file-orphan").touch()

        with pytest.raises(DataFolderUnusable, match="in use by another batch-api"):
            mend(lived_in)
    assert lived_in.blob("file-orphan").exists()


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Uninspectable):
        repair(tmp_path / "nowhere", deep=False, now=START, lost=lost)

    assert not (tmp_path / "nowhere").exists()


def test_a_corrupt_database_is_left_as_it_is(lived_in: LivedIn) -> None:
    database = lived_in.data_dir / DATABASE_NAME
    database.write_bytes(b"no database")
    lived_in.data_dir.joinpath(f"{DATABASE_NAME}-wal").unlink()
    lived_in.blob("file-orphan").touch()

    left = mend(lived_in).left

    assert [finding.kind for finding in left.findings] == [Kind.CORRUPT_DATABASE]
    assert database.read_bytes() == b"no database"
    assert lived_in.blob("file-orphan").exists()


def test_orphans_are_set_aside_and_strange_files_stay(lived_in: LivedIn) -> None:
    for name in ("file-orphan", "part_half.unfinished", "notes.txt"):
        lived_in.blob(name).touch()

    assert kinds(mend(lived_in)) == [Kind.ORPHANED_BYTES] * 2
    assert not lived_in.blob("file-orphan").exists()
    assert lived_in.blob("file-orphan.orphan").stat().st_mtime == START
    assert not list(lived_in.blob("any").parent.glob("part_half.*"))
    assert lived_in.blob("notes.txt").exists()


def test_a_file_whose_bytes_are_gone_is_forgotten(lived_in: LivedIn) -> None:
    for id in (lived_in.spare_file_id, lived_in.part_id):
        lived_in.blob(id).unlink()

    assert kinds(mend(lived_in)) == [Kind.MISSING_BYTES] * 2
    assert lived_in.execute("SELECT 1 FROM files WHERE id = ?", lived_in.spare_file_id) == []
    assert lived_in.execute("SELECT 1 FROM parts") == []


def hide(files: Path) -> None:
    files.rename(files.with_name("elsewhere"))


def hide_under_an_empty_one(files: Path) -> None:
    hide(files)
    files.mkdir()


def hide_under_another(files: Path) -> None:
    hide_under_an_empty_one(files)
    (files / "file-of-another-server").touch()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [hide, hide_under_an_empty_one, hide_under_another])
def test_files_on_a_disk_that_is_not_mounted_are_not_forgotten(
    lived_in: LivedIn, damage: Callable[[Path], None]
) -> None:
    files = lived_in.data_dir / BLOBS_FOLDER
    damage(files)
    there = sorted(files.glob("*"))

    done = mend(lived_in)
    assert [finding.kind for finding in done.left.findings] == [Kind.MISSING_FILES]
    assert (done.mended, done.copy) == ((), None)
    with pytest.raises(HasEnded, match=r"(?s)with 2.+None of the files .+ mount the disk"):
        Server(lived_in.data_dir.parent, "http://127.0.0.1:9").start()
    assert sorted(files.glob("*")) == there

    shutil.rmtree(files, ignore_errors=True)
    files.with_name("elsewhere").rename(files)
    assert mend(lived_in).left.is_all_right


def test_parts_of_an_upload_that_is_over_go_with_their_bytes(lived_in: LivedIn) -> None:
    lived_in.execute("UPDATE uploads SET status = 'expired'")

    assert kinds(mend(lived_in)) == [Kind.STRAY_PARTS, Kind.ORPHANED_BYTES]
    assert not lived_in.blob(lived_in.part_id).exists()


@pytest.mark.parametrize("wrong", [0, 5, 99])
def test_wrong_counts_are_counted_again(lived_in: LivedIn, wrong: int) -> None:
    lived_in.execute("UPDATE batches SET completed = ? WHERE id = ?", wrong, lived_in.running.id)

    assert Kind.WRONG_COUNTS in kinds(mend(lived_in))
    assert counts(lived_in, lived_in.running.id) == ("in_progress", 3, 0)


@pytest.mark.parametrize("name", ["completed", "running"])
def test_a_batch_whose_lines_are_lost_is_left_as_it_is(lived_in: LivedIn, name: str) -> None:
    id = getattr(lived_in, name).id
    before = counts(lived_in, id)
    lived_in.execute(
        "DELETE FROM answers WHERE request_id IN (SELECT requests.id FROM requests"
        " JOIN batches ON number = batch_number WHERE batches.id = ? AND line = 1)",
        id,
    )
    lived_in.execute(
        "DELETE FROM requests WHERE line != 1"
        " AND batch_number = (SELECT number FROM batches WHERE id = ?)",
        id,
    )

    done = mend(lived_in)
    assert (done.mended, done.copy) == ((), None)
    assert {Kind.LOST_LINES, Kind.WRONG_COUNTS} <= {it.kind for it in done.left.findings}
    assert counts(lived_in, id) == before


def test_the_counts_of_a_batch_that_is_over_are_left_as_they_are(lived_in: LivedIn) -> None:
    id = lived_in.completed.id
    lived_in.execute("UPDATE batches SET completed = 3 WHERE id = ?", id)

    done = mend(lived_in)
    assert (done.mended, done.copy) == ((), None)
    ((kind, is_mendable),) = {(it.kind, it.is_mendable) for it in done.left.findings}
    assert (kind, is_mendable) == (Kind.WRONG_COUNTS, False)


def test_only_what_is_no_longer_found_is_told_as_mended(lived_in: LivedIn) -> None:
    lived_in.blob("file-orphan").touch()
    lived_in.execute("UPDATE batches SET completed = 1 WHERE id = ?", lived_in.running.id)
    lived_in.execute(
        "CREATE TRIGGER stubborn BEFORE UPDATE ON batches BEGIN SELECT RAISE(IGNORE); END"
    )

    done = mend(lived_in)
    assert [finding.kind for finding in done.mended] == [Kind.ORPHANED_BYTES]
    assert [finding.kind for finding in done.left.findings] == [Kind.WRONG_COUNTS]


def test_a_batch_that_is_stranded_for_a_wrong_count_goes_on(lived_in: LivedIn) -> None:
    id = lived_in.running.id
    lived_in.execute(
        "UPDATE requests SET state = 'failed', leased_until = NULL WHERE state = 'leased'"
    )
    lived_in.execute(
        "INSERT INTO answers SELECT id, x'7b7d0a' FROM requests WHERE state = 'failed'"
        " AND batch_number = (SELECT number FROM batches WHERE id = ?)",
        id,
    )

    assert kinds(mend(lived_in)) == [Kind.WRONG_COUNTS, Kind.STRANDED]
    assert counts(lived_in, id) == ("finalizing", 3, 2)


def test_a_lost_answer_lets_its_line_run_again(lived_in: LivedIn, tmp_path: Path) -> None:
    id = lived_in.running.id
    lived_in.execute(f"DELETE FROM answers WHERE request_id {COMPLETED}", id)

    assert kinds(mend(lived_in)) == [Kind.MISSING_ANSWER]
    assert states(lived_in, id) == {"pending": 3, "leased": 2}
    assert counts(lived_in, id) == ("in_progress", 0, 0)


def test_a_lost_answer_of_a_batch_that_no_longer_runs_becomes_an_error(
    lived_in: LivedIn, tmp_path: Path
) -> None:
    id = lived_in.running.id
    lived_in.execute("UPDATE batches SET status = 'cancelling', cancelling_at = 1 WHERE id = ?", id)
    lived_in.execute(f"DELETE FROM answers WHERE request_id {COMPLETED}", id)

    assert kinds(mend(lived_in)) == [Kind.MISSING_ANSWER]
    assert states(lived_in, id) == {"failed": 3, "leased": 2}
    assert counts(lived_in, id) == ("cancelling", 0, 3)


def test_stray_answers_go(lived_in: LivedIn) -> None:
    lived_in.execute(
        "UPDATE requests SET state = 'pending' WHERE id = (SELECT min(requests.id) FROM requests"
        " JOIN batches ON number = batch_number WHERE batches.id = ?)",
        lived_in.running.id,
    )

    assert Kind.STRAY_ANSWER in kinds(mend(lived_in))
    assert counts(lived_in, lived_in.running.id) == ("in_progress", 2, 0)


@pytest.mark.slow
def test_a_server_goes_on_with_what_was_mended(lived_in: LivedIn, tmp_path: Path) -> None:
    id = lived_in.running.id
    lived_in.execute("DELETE FROM answers")
    lived_in.execute("UPDATE batches SET completed = 1 WHERE id = ?", id)
    lived_in.blob(lived_in.spare_file_id).unlink()
    mend(lived_in)

    with (
        StandinProcess(tmp_path) as standin,
        Server(tmp_path, standin.url, settings={"request_timeout_seconds": 1}) as server,
        server.client() as client,
    ):
        batch = finished(client, lived_in.running)
        server.terminate()

    assert batch.status == "completed"
    found = inspect(lived_in.data_dir, deep=True, results_are_kept=True)
    assert found.is_all_right, str(found)
