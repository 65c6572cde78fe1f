"""Each damage is done for real, to a folder that a killed server left."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from pathlib import Path

import pytest

from batch_api.store.database import DATABASE_NAME, take
from batch_api.store.inspecting.findings import Kind
from batch_api.store.inspecting.folder import Uninspectable
from batch_api.store.inspecting.soundness import is_known_to_corrupt
from batch_api.store.inspection import Inspection, inspect
from tests.lived_in import LivedIn
from tests.server import Server


@pytest.fixture
def lived_in(tmp_path: Path, killed: LivedIn) -> LivedIn:
    return killed.copy(tmp_path / "data")


def kinds(inspection: Inspection) -> list[tuple[Kind, str]]:
    return [(finding.kind, finding.subject) for finding in inspection.findings]


def look(lived_in: LivedIn) -> list[tuple[Kind, str]]:
    """Quickly; a deep look finds the same, and perhaps more."""
    found = kinds(inspect(lived_in.data_dir))
    assert set(found) <= set(kinds(inspect(lived_in.data_dir, deep=True)))
    return found


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(it): hashlib.sha256(it.read_bytes()).hexdigest() for it in files}


def test_a_folder_that_a_killed_server_left_is_all_right(lived_in: LivedIn) -> None:
    found = inspect(lived_in.data_dir, deep=True, results_are_kept=True)

    assert found.is_all_right, str(found)
    assert not found.is_running
    assert found.looked_at == {"batches": 4, "requests": 12, "files": 10, "blobs": 10}


def test_a_look_changes_nothing_not_even_the_journal(lived_in: LivedIn) -> None:
    before = contents(lived_in.data_dir)
    assert any(name.endswith("-wal") for name in before)

    inspect(lived_in.data_dir, deep=True)

    assert contents(lived_in.data_dir) == before


def test_a_look_at_a_closed_database_leaves_no_journal(lived_in: LivedIn) -> None:
    with lived_in.database() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = contents(lived_in.data_dir)
    assert not any(name.endswith("-wal") for name in before)

    assert inspect(lived_in.data_dir, deep=True).is_all_right
    assert contents(lived_in.data_dir) == before


def test_a_folder_without_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Uninspectable, match=r"^There is no batch-api\.db in the folder .+\.$"):
        inspect(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_database_of_another_version_is_refused(lived_in: LivedIn) -> None:
    lived_in.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(Uninspectable, match=r"schema is 9999"):
        inspect(lived_in.data_dir)


@pytest.mark.parametrize("damage", [b"no database", bytes(8192)])
def test_a_file_that_is_no_database_is_corrupt(lived_in: LivedIn, damage: bytes) -> None:
    (lived_in.data_dir / DATABASE_NAME).write_bytes(damage)
    (lived_in.data_dir / f"{DATABASE_NAME}-wal").unlink()

    with closing(sqlite3.connect(lived_in.data_dir / DATABASE_NAME)):
        pass
    assert look(lived_in) == [(Kind.CORRUPT_DATABASE, "database")]


def test_a_damaged_page_is_found(lived_in: LivedIn) -> None:
    with lived_in.database() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'batches'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with (lived_in.data_dir / DATABASE_NAME).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)

    assert (Kind.CORRUPT_DATABASE, "database") in look(lived_in)


def test_an_index_that_disagrees_with_its_table_is_found_by_a_deep_look(
    lived_in: LivedIn,
) -> None:
    name = "ix_batches_input_file_id"
    with lived_in.database() as connection:
        (right,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = ?", [name]
        ).fetchone()
        connection.execute(f"DROP INDEX {name}")
        connection.execute(f"{right} WHERE false")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", [right, name])

    assert inspect(lived_in.data_dir).is_all_right
    found = inspect(lived_in.data_dir, deep=True)
    assert {finding.kind for finding in found.findings} == {Kind.CORRUPT_DATABASE}


BATCH = "UPDATE batches SET {} WHERE id = ?"
REQUESTS = (
    "UPDATE requests SET {} WHERE batch_number = (SELECT number FROM batches WHERE id = ?)"
    " AND state = 'completed'"
)
OF_COMPLETED = (
    "WHERE request_id IN (SELECT requests.id FROM requests JOIN batches ON number = batch_number"
    " WHERE batches.id = ? AND state = 'completed')"
)


@pytest.mark.parametrize(
    ("batch", "damage", "kind"),
    [
        ("running", BATCH.format("completed = 2"), Kind.WRONG_COUNTS),
        ("completed", BATCH.format("failed = 0"), Kind.WRONG_COUNTS),
        ("running", BATCH.format("total = 6"), Kind.LOST_LINES),
        ("running", BATCH.format("in_progress_at = NULL"), Kind.WRONG_MOMENT),
        ("running", BATCH.format("completed_at = 1"), Kind.WRONG_MOMENT),
        ("running", BATCH.format("trimmed_at = 1"), Kind.WRONG_MOMENT),
        ("failed", BATCH.format("errors = NULL"), Kind.WRONG_STATE),
        ("failed", BATCH.format("total = 1"), Kind.WRONG_STATE),
        ("completed", REQUESTS.format("state = 'pending'"), Kind.WRONG_STATE),
        ("cancelled", REQUESTS.format("state = 'leased', leased_until = 1"), Kind.WRONG_STATE),
        ("running", REQUESTS.format("state = 'expired'"), Kind.WRONG_STATE),
        (
            "running",
            f"DELETE FROM answers {OF_COMPLETED}",
            Kind.MISSING_ANSWER,
        ),
        ("running", REQUESTS.format("state = 'pending'"), Kind.STRAY_ANSWER),
        (
            "completed",
            "INSERT INTO answers SELECT requests.id, x'7b7d' FROM requests JOIN batches"
            " ON number = batch_number WHERE batches.id = ?",
            Kind.STRAY_ANSWER,
        ),
    ],
)
def test_a_broken_promise_is_found(lived_in: LivedIn, batch: str, damage: str, kind: Kind) -> None:
    id = getattr(lived_in, batch).id
    lived_in.execute(damage, id)

    assert (kind, id) in look(lived_in)


def test_a_count_that_the_tables_forbid_is_found_as_what_it_is(lived_in: LivedIn) -> None:
    lived_in.execute(BATCH.format("completed = 9"), lived_in.running.id)

    assert look(lived_in) == [
        (Kind.BROKEN_RULE, "batches"),
        (Kind.WRONG_COUNTS, lived_in.running.id),
    ]


def test_a_row_of_what_is_gone_is_found(lived_in: LivedIn) -> None:
    lived_in.execute("INSERT INTO parts VALUES ('default', 'part_x', 77, 1, 1)")
    lived_in.blob("part_x").write_bytes(b"x")

    assert look(lived_in) == [(Kind.BROKEN_REFERENCE, "parts 2")]


def test_a_file_without_its_bytes_is_found(lived_in: LivedIn) -> None:
    for id in (lived_in.spare_file_id, lived_in.part_id):
        lived_in.blob(id).unlink()

    assert sorted(look(lived_in)) == sorted(
        (Kind.MISSING_BYTES, id) for id in (lived_in.spare_file_id, lived_in.part_id)
    )


def test_an_input_without_its_bytes_is_found_until_its_batch_is_over(lived_in: LivedIn) -> None:
    for batch in (lived_in.running, lived_in.completed):
        lived_in.execute("DELETE FROM files WHERE id = ?", batch.input_file_id)
        lived_in.blob(batch.input_file_id).unlink()

    assert look(lived_in) == [(Kind.MISSING_INPUT, lived_in.running.id)]


def test_an_input_that_ends_too_early_is_found(lived_in: LivedIn) -> None:
    lived_in.execute("DELETE FROM files WHERE id = ?", lived_in.running.input_file_id)
    os.truncate(lived_in.blob(lived_in.running.input_file_id), 100)

    assert look(lived_in) == [(Kind.MISSING_INPUT, lived_in.running.id)]


def test_a_file_of_another_length_is_found(lived_in: LivedIn) -> None:
    with lived_in.blob(lived_in.spare_file_id).open("ab") as file:
        file.write(b"x")

    assert look(lived_in) == [(Kind.DAMAGED_BYTES, lived_in.spare_file_id)]


def test_a_flipped_bit_is_found_by_a_deep_look(lived_in: LivedIn) -> None:
    blob = lived_in.blob(lived_in.spare_file_id)
    content = bytearray(blob.read_bytes())
    content[10] ^= 1
    blob.write_bytes(content)

    assert inspect(lived_in.data_dir).is_all_right
    found = inspect(lived_in.data_dir, deep=True)
    assert kinds(found) == [(Kind.DAMAGED_BYTES, lived_in.spare_file_id)]


def test_bytes_without_a_row_are_found_and_strange_files_only_told(lived_in: LivedIn) -> None:
    orphans = ["file-orphan", "file-half.unfinished", "part_orphan"]
    for name in (*orphans, "notes.txt"):
        lived_in.blob(name).touch()

    found = inspect(lived_in.data_dir)
    assert sorted(kinds(found)) == sorted((Kind.ORPHANED_BYTES, name) for name in orphans)
    assert "notes.txt is none of ours and is left alone." in found.remarks


def test_parts_of_an_upload_that_is_over_are_found(lived_in: LivedIn) -> None:
    lived_in.execute("UPDATE uploads SET status = 'cancelled'")

    assert look(lived_in) == [(Kind.STRAY_PARTS, lived_in.upload_id)]


def test_a_deleted_result_file_is_missed_only_where_none_was_deleted(lived_in: LivedIn) -> None:
    lived_in.execute("DELETE FROM files WHERE id = ?", lived_in.completed.output_file_id)
    lived_in.blob(lived_in.completed.output_file_id).unlink()

    assert look(lived_in) == []
    found = inspect(lived_in.data_dir, results_are_kept=True)
    assert kinds(found) == [(Kind.MISSING_RESULTS, lived_in.completed.id)]


def doubled(lines: list[bytes]) -> list[bytes]:
    return [*lines, lines[-1]]


def cut(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1].rstrip(b"\n")]


@pytest.mark.parametrize(
    "damage",
    [
        doubled,
        cut,
        lambda lines: lines[1:],
        lambda lines: lines[::-1],
        lambda lines: [*lines[:-1], b"{}\n"],
        lambda lines: [lines[0].replace(b"completed-1", b"completed-7"), *lines[1:]],
        lambda lines: [lines[0].replace(b'"error":null', b'"error":{}'), *lines[1:]],
    ],
)
def test_results_that_are_not_the_inputs_lines_are_found_by_a_deep_look(
    lived_in: LivedIn, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    id = lived_in.completed.output_file_id
    lines = lived_in.blob(id).read_bytes().splitlines(keepends=True)
    damaged = b"".join(damage(lines))
    lived_in.blob(id).write_bytes(damaged)
    sha256 = hashlib.sha256(damaged).hexdigest()
    lived_in.execute(
        "UPDATE files SET bytes = ?, sha256 = ? WHERE id = ?", len(damaged), sha256, id
    )

    assert inspect(lived_in.data_dir).is_all_right
    assert kinds(inspect(lived_in.data_dir, deep=True)) == [(Kind.WRONG_RESULTS, id)]


def test_a_server_at_work_is_all_right(lived_in: LivedIn) -> None:
    with Server(lived_in.data_dir.parent, "http://127.0.0.1:9") as server:
        lived_in.blob("file-fresh").touch()
        lived_in.blob("file-half.unfinished").touch()
        lived_in.blob("file-old").touch()
        os.utime(lived_in.blob("file-old"), (1, 1))

        found = inspect(server.data_dir, deep=True, now=time.time())

    assert found.is_running
    assert kinds(found) == [(Kind.ORPHANED_BYTES, "file-old")]


@pytest.mark.parametrize("name", ["spare_file_id", "output_file_id"])
def test_while_a_deep_look_reads_files_a_server_can_empty_its_journal(
    lived_in: LivedIn, name: str
) -> None:
    """However long that takes: no transaction is held open."""
    id = lived_in.spare_file_id if name == "spare_file_id" else lived_in.completed.output_file_id
    lived_in.blob(id).unlink()
    os.mkfifo(lived_in.blob(id))  # whoever reads it waits for us
    lived_in.execute("UPDATE files SET bytes = 0 WHERE id = ?", id)
    lock = take(lived_in.data_dir)

    with ThreadPoolExecutor() as pool, lived_in.database() as server:
        looking = pool.submit(inspect, lived_in.data_dir, deep=True)
        with lived_in.blob(id).open("wb"):
            server.execute("UPDATE files SET filename = 'later' WHERE id = ?", [id])
            server.commit()
            emptied = server.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        while not wait([looking], timeout=0.01).done:
            with suppress(OSError):  # nobody reads it now
                os.close(os.open(lived_in.blob(id), os.O_WRONLY | os.O_NONBLOCK))
    os.close(lock)

    assert emptied == (0, 0, 0)
    assert {kind for kind, _ in kinds(looking.result())} <= {Kind.DAMAGED_BYTES, Kind.WRONG_RESULTS}
    assert looking.result().is_running


@pytest.mark.parametrize(
    ("version", "is_known"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((4, 0, 0), False),
    ],
)
def test_a_sqlite_that_is_known_to_corrupt_is_told(
    version: tuple[int, ...], is_known: bool
) -> None:
    assert is_known_to_corrupt(version) == is_known
