"""The blobs against the rows that speak of them."""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping

from batch_api.lifecycle import FINAL_STATUSES
from batch_api.store.blobs import BLOBS_FOLDER, ORPHAN, are_gone, is_ours
from batch_api.store.folders import UNFINISHED
from batch_api.store.inspecting.findings import Finding, Kind
from batch_api.store.inspecting.folder import Blob, Folder

_FINAL = ", ".join(repr(str(status)) for status in sorted(FINAL_STATUSES))
_KNOWN = "SELECT id, bytes, sha256 FROM files UNION ALL SELECT id, bytes, NULL FROM parts"
_INPUTS = f"""
    SELECT batches.id, input_file_id, max(body_offset + body_length) AS least_bytes
    FROM batches LEFT JOIN requests ON batch_number = number
    WHERE status NOT IN ({_FINAL}) GROUP BY number
"""  # noqa: S608 our own words
_NEEDED = f"""
    SELECT id FROM files UNION SELECT id FROM parts
    UNION SELECT input_file_id FROM batches WHERE status NOT IN ({_FINAL})
    UNION SELECT earlier_output_file_id FROM batches
    WHERE status NOT IN ({_FINAL}) AND earlier_output_file_id IS NOT NULL
"""  # noqa: S608
_RESULTS = f"""
    SELECT output_file_id FROM batches WHERE status NOT IN ({_FINAL})
    UNION ALL SELECT error_file_id FROM batches WHERE status NOT IN ({_FINAL})
"""  # noqa: S608
_STILL_A_RESULT = """
    SELECT 1 FROM batches WHERE :id IN (output_file_id, error_file_id) AND removed_at IS NULL
"""
_STILL_KNOWN = "SELECT 1 FROM files WHERE id = :id UNION ALL SELECT 1 FROM parts WHERE id = :id"

_FRESH_SECONDS = 3600.0


class Bytes:
    """What the rows say of blobs, read once."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        rows = folder.database.execute(_KNOWN).fetchall()
        self.known: Mapping[str, tuple[int, str | None]] = {
            id: (bytes, sha256) for id, bytes, sha256 in rows
        }
        self._inputs = folder.database.execute(_INPUTS).fetchall()
        self._needed = needed_blobs(folder.database)
        self._results = {id for (id,) in folder.database.execute(_RESULTS)}

    def all_missing(self) -> Iterator[Finding]:
        if are_gone(self._folder.path / BLOBS_FOLDER, self._needed):
            what = "None of the files that the database speaks of is there."
            yield Finding(Kind.MISSING_FILES, BLOBS_FOLDER, what)

    def missing(self) -> Iterator[Finding]:
        for id, (bytes, _) in self.known.items():
            if id not in self._folder.blobs:
                yield Finding(Kind.MISSING_BYTES, id, f"Its {bytes} bytes are not on the disk.")

    def missing_inputs(self) -> Iterator[Finding]:
        for batch_id, id, least_bytes in self._inputs:
            blob = self._folder.blobs.get(id)
            if blob is None:
                what = f"Its input {id} is not on the disk, and it is not over."
                yield Finding(Kind.MISSING_INPUT, batch_id, what)
            elif blob.bytes < (least_bytes or 0):
                what = f"Its input {id} ends before its last line, and it is not over."
                yield Finding(Kind.MISSING_INPUT, batch_id, what)

    def damaged(self) -> Iterator[Finding]:
        for id, (bytes, _) in self.known.items():
            blob = self._folder.blobs.get(id)
            if blob is not None and blob.bytes != bytes:
                what = f"It has {blob.bytes} bytes on the disk, and should have {bytes}."
                yield Finding(Kind.DAMAGED_BYTES, id, what)

    def altered(self) -> Iterator[Finding]:
        """Those that have their size and not their SHA-256. Reads them, and not the database."""
        for id, (bytes, sha256) in self.known.items():
            blob = self._folder.blobs.get(id)
            if blob is None or blob.bytes != bytes or sha256 is None:
                continue
            if self._sha256(id) not in (sha256, None):
                yield Finding(Kind.DAMAGED_BYTES, id, "Its bytes are not the ones it came with.")

    def orphaned(self, *, now: float) -> Iterator[Finding]:
        """Of a running server only what is too old to be on its way to a row."""
        held = self._needed | self._results
        oldest = now - _FRESH_SECONDS
        for name, blob in self._folder.blobs.items():
            if name in held or not is_ours(name) or name.endswith(ORPHAN):
                continue
            if not self._folder.is_running or (
                blob.changed_at < oldest and not name.endswith(UNFINISHED)
            ):
                what = f"No row speaks of its {blob.bytes} bytes."
                yield Finding(Kind.ORPHANED_BYTES, name, what)

    def foreign(self) -> list[str]:
        """Names that are not ours."""
        return sorted(name for name in self._folder.blobs if not is_ours(name))

    def set_aside(self) -> list[Blob]:
        blobs = self._folder.blobs
        return [blobs[name] for name in blobs if is_ours(name) and name.endswith(ORPHAN)]

    def _sha256(self, id: str) -> str | None:
        """None if it has been deleted by now."""
        try:
            with self._folder.blob_path(id).open("rb", buffering=0) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None


def needed_blobs(database: sqlite3.Connection) -> set[str]:
    """What the rows speak of, and so has to be on the disk."""
    return {id for (id,) in database.execute(_NEEDED)}


def is_still_so(folder: Folder, finding: Finding) -> bool:
    """Looks again: under a running server a file may have gone between row and blob."""
    match finding.kind:
        case Kind.MISSING_FILES:
            return are_gone(folder.path / BLOBS_FOLDER, needed_blobs(folder.database))
        case Kind.MISSING_BYTES | Kind.DAMAGED_BYTES:
            return _is_known(folder.database, finding.subject)
        case Kind.WRONG_RESULTS:
            return _is_a_result(folder.database, finding.subject)
        case Kind.ORPHANED_BYTES:
            return folder.blob_path(finding.subject).exists()
        case _:
            return True


def _is_known(database: sqlite3.Connection, id: str) -> bool:
    return database.execute(_STILL_KNOWN, {"id": id}).fetchone() is not None


def _is_a_result(database: sqlite3.Connection, id: str) -> bool:
    return database.execute(_STILL_A_RESULT, {"id": id}).fetchone() is not None
