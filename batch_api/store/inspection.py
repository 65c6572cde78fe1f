"""Whether a data folder is all right: the promise, checked.

Nothing is changed, and a server may be at work there meanwhile.
"""

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from batch_api.in_words import bytes_in_words
from batch_api.store.blobs import BLOBS_FOLDER, KEEP_ORPHANS_DAYS, ORPHAN
from batch_api.store.inspecting import promise, results, soundness
from batch_api.store.inspecting.bytes import Bytes, is_still_so
from batch_api.store.inspecting.findings import Finding, Kind
from batch_api.store.inspecting.folder import Folder, opened
from batch_api.store.inspecting.promise import Batch
from batch_api.store.inspecting.soundness import is_known_to_corrupt

_LITTLE_BYTES = 1024 * 1024 * 1024

_STRAY_PARTS = """
    SELECT uploads.id, status, count(*) FROM uploads JOIN parts ON upload_number = number
    WHERE status != 'pending' GROUP BY number
"""


@dataclass(frozen=True, slots=True)
class Inspection:
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]
    """Worth knowing, and not wrong."""
    looked_at: Mapping[str, int]
    """How many of each kind of thing."""
    is_running: bool

    @property
    def is_all_right(self) -> bool:
        return not self.findings

    def __str__(self) -> str:
        return "\n".join(f"{it.kind} {it.subject}: {it.what}" for it in self.findings)


def inspect(
    data_dir: Path,
    *,
    deep: bool = False,
    results_are_kept: bool = False,
    is_ours: bool = False,
    now: float = 0.0,
) -> Inspection:
    """Raises Uninspectable. Blocks.

    `deep`: reads every byte. `results_are_kept`: nobody has deleted a result file, so each is to be
    there. `is_ours`: the caller holds the folder's lock. `now`: wall time; bytes without a row are
    no orphans while a server runs, unless they are older than an hour then.
    """
    with opened(data_dir, is_ours=is_ours) as folder:
        return _inspect(folder, deep=deep, results_are_kept=results_are_kept, now=now)


def _inspect(folder: Folder, *, deep: bool, results_are_kept: bool, now: float) -> Inspection:
    if corrupt := tuple(soundness.corruption(folder, deep=deep)):
        return Inspection(corrupt, (), {}, folder.is_running)
    soundness.check_revision(folder.database)
    batches, blobs = promise.read_batches(folder.database), Bytes(folder)
    findings = list(blobs.all_missing()) or [
        *soundness.broken_rules(folder.database),
        *soundness.broken_references(folder.database),
        *_of_batches(folder, batches, results_are_kept=results_are_kept),
        *_stray_parts(folder.database),
        *blobs.missing_inputs(),
        *blobs.missing(),
        *blobs.damaged(),
        *blobs.orphaned(now=now),
    ]
    if deep:
        folder.let_go()
        findings += _in_files(folder, batches, blobs)
    if folder.is_running:
        folder.begin_anew()
        findings = [finding for finding in findings if is_still_so(folder, finding)]
    return Inspection(
        tuple(findings),
        tuple(_remarks(folder, blobs)),
        _looked_at(folder, batches, blobs),
        folder.is_running,
    )


def _of_batches(
    folder: Folder, batches: list[Batch], *, results_are_kept: bool
) -> Iterator[Finding]:
    for batch in batches:
        yield from promise.broken_promises(batch)
        if results_are_kept:
            yield from results.missing_results(folder.database, batch)


def _in_files(folder: Folder, batches: list[Batch], blobs: Bytes) -> Iterator[Finding]:
    """Reads all of them."""
    for batch in batches:
        yield from results.wrong_results(folder, batch)
    yield from blobs.altered()


def _stray_parts(database: sqlite3.Connection) -> Iterator[Finding]:
    for id, status, parts in database.execute(_STRAY_PARTS):
        yield Finding(Kind.STRAY_PARTS, id, f"It is {status}, and {parts} parts of it are kept.")


def _remarks(folder: Folder, blobs: Bytes) -> Iterator[str]:
    for name in blobs.foreign():
        yield f"{name} is none of ours and is left alone."
    if orphans := blobs.set_aside():
        size = bytes_in_words(sum(it.bytes for it in orphans))
        yield (
            f"{len(orphans)} files without a row ({size}) are set "
            f"aside in {BLOBS_FOLDER}/ as *{ORPHAN}; each goes after {KEEP_ORPHANS_DAYS} days."
        )
    if is_known_to_corrupt(sqlite3.sqlite_version_info):
        yield (
            f"SQLite {sqlite3.sqlite_version} can corrupt a database of which two connections move "
            "the journal at once (mended in 3.51.3): let no other program write to this one."
        )
    free = shutil.disk_usage(folder.path).free
    if free < _LITTLE_BYTES:
        yield f"The disk has only {bytes_in_words(free)} left."


def _looked_at(folder: Folder, batches: list[Batch], blobs: Bytes) -> Mapping[str, int]:
    return {
        "batches": len(batches),
        "requests": sum(batch.requests.total() for batch in batches),
        "files": len(blobs.known),
        "blobs": len(folder.blobs),
    }
