"""Mends what `store/inspection.py` finds, where that can be mended; all else is left alone."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.store.blobs import BLOBS_FOLDER
from batch_api.store.database import DATABASE_NAME, take
from batch_api.store.inspecting.findings import Finding, Kind
from batch_api.store.inspecting.folder import check_is_there
from batch_api.store.inspection import Inspection, inspect
from batch_api.store.schema import copy_database

_MOST_ROUNDS = 4
"""What is mended may bring something else to light: dropped parts leave their bytes."""

ErrorLine = Callable[[str, int, str], bytes]
"""The line of an error file for a batch's id, a line's number and its custom_id."""

_FORGET = ("DELETE FROM files WHERE id = :id", "DELETE FROM parts WHERE id = :id")
_DROP_PARTS = "DELETE FROM parts WHERE upload_number = (SELECT number FROM uploads WHERE id = :id)"
_RECOUNT = """
    UPDATE batches SET (completed, failed) = (
        SELECT count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE state = 'failed')
        FROM requests WHERE batch_number = number)
    WHERE id = :id
"""
_FINALIZE = """
    UPDATE batches SET status = :new, finalizing_at = :now
    WHERE id = :id AND status = :left AND completed + failed = total
"""
_DROP_STRAY_ANSWERS = """
    DELETE FROM answers WHERE request_id IN (
        SELECT requests.id FROM requests JOIN batches ON batch_number = number
        WHERE batches.id = :id
        AND (state NOT IN ('completed', 'failed') OR trimmed_at IS NOT NULL))
"""
_WITHOUT_ANSWER = """
    SELECT requests.id, line, custom_id, status FROM requests JOIN batches ON batch_number = number
    WHERE batches.id = :id AND state IN ('completed', 'failed')
    AND NOT EXISTS (SELECT 1 FROM answers WHERE request_id = requests.id)
"""
_RUN_AGAIN = "UPDATE requests SET state = :state WHERE id = :id"
_ANSWER = "INSERT INTO answers VALUES (:id, :line)"


@dataclass(frozen=True, slots=True)
class Repair:
    mended: tuple[Finding, ...]
    copy: Path | None
    """Of the database as it was before; None if nothing was to be mended."""
    left: Inspection


def repair(data_dir: Path, *, deep: bool, now: float, lost: ErrorLine) -> Repair:
    """Raises DataFolderUnusable if a server runs there, and Uninspectable. Blocks."""
    check_is_there(data_dir)
    lock = take(data_dir)
    try:
        return _repair(data_dir, deep=deep, now=now, lost=lost)
    finally:
        os.close(lock)


def _repair(data_dir: Path, *, deep: bool, now: float, lost: ErrorLine) -> Repair:
    mended, copy = list[Finding](), None
    left = inspect(data_dir, deep=deep, is_ours=True)
    for _ in range(_MOST_ROUNDS):
        if not (mendable := [finding for finding in left.findings if finding.is_mendable]):
            break
        copy = copy or _keep_copy(data_dir / DATABASE_NAME)
        _mend(data_dir, mendable, now=now, lost=lost)
        mended += mendable
        left = inspect(data_dir, deep=deep, is_ours=True)
    return Repair(tuple(mended), copy, left)


def _keep_copy(database: Path) -> Path:
    names = (database.with_name(f"{database.name}.before-repair-{n}") for n in count(1))
    copy = next(name for name in names if not name.exists())
    copy_database(database, copy)
    return copy


def _mend(data_dir: Path, findings: list[Finding], *, now: float, lost: ErrorLine) -> None:
    with _writing(data_dir / DATABASE_NAME) as database:
        for finding in findings:
            id = {"id": finding.subject}
            match finding.kind:
                case Kind.MISSING_BYTES:
                    for statement in _FORGET:
                        database.execute(statement, id)
                case Kind.STRAY_PARTS:
                    database.execute(_DROP_PARTS, id)
                case Kind.WRONG_COUNTS:
                    database.execute(_RECOUNT, id)
                case Kind.STRAY_ANSWER:
                    database.execute(_DROP_STRAY_ANSWERS, id)
                case Kind.MISSING_ANSWER:
                    _replace_answers(database, finding.subject, lost)
                    database.execute(_RECOUNT, id)
                case Kind.STRANDED:
                    _let_finalize(database, finding.subject, now)
    # Only now: a blob whose row is to go must not go before it.
    for finding in findings:
        if finding.kind == Kind.ORPHANED_BYTES:
            (data_dir / BLOBS_FOLDER / finding.subject).unlink()


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("BEGIN IMMEDIATE")
        yield database
        database.execute("COMMIT")


def _replace_answers(database: sqlite3.Connection, batch_id: str, lost: ErrorLine) -> None:
    """Lines of a batch in progress run again; for others it is too late."""
    for id, line, custom_id, status in database.execute(
        _WITHOUT_ANSWER, {"id": batch_id}
    ).fetchall():
        state = RequestState.FAILED
        if status == BatchStatus.IN_PROGRESS:
            state = RequestState.PENDING
        else:
            answer = lost(batch_id, line, custom_id)
            database.execute(_ANSWER, {"id": id, "line": answer})
        database.execute(_RUN_AGAIN, {"id": id, "state": state})


def _let_finalize(database: sqlite3.Connection, batch_id: str, now: float) -> None:
    left, new = BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING
    assert left.can_become(new)
    database.execute(_FINALIZE, {"id": batch_id, "left": left, "new": new, "now": int(now)})
