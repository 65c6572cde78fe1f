"""Whether a final batch's files have each line of its input once, in order, in the right one."""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import zip_longest

import msgspec

from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.store.inspecting.findings import Finding, Kind
from batch_api.store.inspecting.folder import Folder
from batch_api.store.inspecting.promise import Batch

_EXPECTED = """
    SELECT line, custom_id FROM requests
    WHERE batch_number = :batch AND line > :after AND (state = 'completed') = :is_output
    ORDER BY line LIMIT :lines
"""
_PAGE_LINES = 1000
_SHOWN = 100


class _Line(msgspec.Struct):
    custom_id: str
    response: dict[str, msgspec.Raw] | None
    error: dict[str, msgspec.Raw] | None


_decode = msgspec.json.Decoder(_Line).decode


def missing_results(database: sqlite3.Connection, batch: Batch) -> Iterator[Finding]:
    """Files that a batch must have had, and has no longer. That is right if they were deleted."""
    if _is_published(batch):
        for name, id, lines in _files(batch):
            if lines and not _has_row(database, id):
                yield Finding(
                    Kind.MISSING_RESULTS, batch.id, f"Its {name} file of {lines} lines is gone."
                )


def wrong_results(folder: Folder, batch: Batch) -> Iterator[Finding]:
    """Reads the files that are there, a line at a time."""
    if not _is_published(batch):
        return
    for name, id, _ in _files(batch):
        if not _has_row(folder.database, id) or id not in folder.blobs:
            continue
        if difference := _difference(folder, batch, name, id):
            yield Finding(Kind.WRONG_RESULTS, id, f"In {batch.id}'s {name} file {difference}")


def _is_published(batch: Batch) -> bool:
    return batch.status.is_final and batch.status != BatchStatus.FAILED


def _files(batch: Batch) -> Iterator[tuple[str, str, int]]:
    """What it is called, its id, and how many lines belong into it."""
    completed = batch.requests[RequestState.COMPLETED]
    yield "output", batch.row["output_file_id"], completed
    yield "error", batch.row["error_file_id"], batch.requests.total() - completed


def _has_row(database: sqlite3.Connection, id: str) -> bool:
    return database.execute("SELECT 1 FROM files WHERE id = ?", [id]).fetchone() is not None


def _difference(folder: Folder, batch: Batch, name: str, id: str) -> str | None:
    is_output = name == "output"
    expected = _expected(folder.database, batch, is_output=is_output)
    try:
        with folder.blob_path(id).open("rb") as lines:
            return _first_difference(expected, lines, is_output=is_output)
    except FileNotFoundError:  # deleted by now, if a server runs
        return None


def _expected(database: sqlite3.Connection, batch: Batch, *, is_output: bool) -> Iterator[str]:
    """The custom_ids; no statement is open while one of them is compared with its line."""
    page = {"batch": batch.number, "is_output": is_output, "lines": _PAGE_LINES, "after": 0}
    while rows := database.execute(_EXPECTED, page).fetchall():
        yield from (custom_id for _, custom_id in rows)
        page["after"], _ = rows[-1]


def _first_difference(
    expected: Iterable[str], lines: Iterable[bytes], *, is_output: bool
) -> str | None:
    for number, (custom_id, line) in enumerate(zip_longest(expected, lines), 1):
        if custom_id is None or line is None:
            there = "has nothing" if line is None else "should not be there"
            return f"line {number} {there}."
        if (wrong := _wrong(custom_id, line, is_output=is_output)) is not None:
            return f"line {number} {wrong}."
    return None


def _wrong(custom_id: str, line: bytes, *, is_output: bool) -> str | None:
    if not line.endswith(b"\n"):
        return "does not end"
    try:
        told = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"is none of ours: {error}"
    if told.custom_id != custom_id:
        return f"is of {told.custom_id[:_SHOWN]!r}, not of {custom_id[:_SHOWN]!r}"
    if is_output and (told.response is None or told.error is not None):
        return "is of a request that was not answered"
    return None
