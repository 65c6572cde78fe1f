"""A consistent copy of a data folder, while its server runs or not.

Blobs never change once they have their name, and go only after their row. So they are taken first;
then begins a transaction that reads the database, and what has come meanwhile is taken. If some of
that has gone already, another transaction is begun. The last one is copied.
"""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from batch_api.errors import Unusable
from batch_api.store.blobs import BLOBS_FOLDER, ORPHAN
from batch_api.store.database import DATABASE_NAME
from batch_api.store.folders import UNFINISHED, make, sync
from batch_api.store.inspecting.bytes import needed_blobs
from batch_api.store.inspecting.folder import Folder, opened

_MOST_ROUNDS = 100
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}


class BackupFailed(Unusable):
    """Nothing is left of it."""


@dataclass(frozen=True, slots=True)
class Backup:
    files: int
    bytes: int
    """Of the files."""


def back_up(data_dir: Path, destination: Path) -> Backup:
    """Raises Uninspectable and BackupFailed. Blocks."""
    if destination.resolve().is_relative_to(data_dir.resolve()):
        raise BackupFailed(f"{destination} lies in the data folder itself.")
    with opened(data_dir) as folder:
        _make_empty(destination)
        try:
            return _back_up(folder, destination)
        except BaseException as error:
            shutil.rmtree(destination, ignore_errors=True)
            if isinstance(error, OSError):
                raise BackupFailed(f"{destination} can't be written: {error}.") from error
            if isinstance(error, sqlite3.Error):
                raise BackupFailed(f"The database can't be copied: {error}.") from error
            raise


def _make_empty(destination: Path) -> None:
    try:
        make(destination)
        is_empty = not any(destination.iterdir())
    except OSError as error:
        raise BackupFailed(f"{destination} can't be written: {error.strerror}.") from error
    if not is_empty:
        raise BackupFailed(f"{destination} is not empty.")


def _back_up(folder: Folder, destination: Path) -> Backup:
    """The database gets its name last: without it, a folder is no backup."""
    blobs = destination / BLOBS_FOLDER
    blobs.mkdir()
    database = destination / f"{DATABASE_NAME}{UNFINISHED}"
    _take_blobs(
        folder, blobs, {name for name in folder.blobs if not name.endswith((UNFINISHED, ORPHAN))}
    )
    needed = _take_until_complete(folder, blobs)
    _copy_database(folder, database)
    for name in _names(blobs) - needed:
        (blobs / name).unlink()
    sync(blobs)
    database.rename(destination / DATABASE_NAME)
    sync(destination)
    sizes = [path.stat().st_size for path in blobs.iterdir()]
    return Backup(len(sizes), sum(sizes))


def _take_until_complete(folder: Folder, blobs: Path) -> set[str]:
    """Begin to read the database as of a moment whose blobs are all taken; return their names."""
    missed: set[str] = set()
    for _ in range(_MOST_ROUNDS):
        folder.begin_anew()
        needed = needed_blobs(folder.database)
        _take_blobs(folder, blobs, needed)
        missing = needed - _names(blobs)
        # What is missing twice was not deleted meanwhile: its row would have gone first.
        if missing == missed:
            return needed
        missed = missing
    raise BackupFailed("Files are deleted faster than they can be copied; try again later.")


def _copy_database(folder: Folder, copy: Path) -> None:
    """As of the moment at which it was last begun to be read."""
    with closing(sqlite3.connect(copy)) as target:
        folder.database.backup(target)
        # So that it is one file; the first server that opens it turns the WAL on again.
        target.execute("PRAGMA journal_mode = DELETE")
    sync(copy)


def _take_blobs(folder: Folder, blobs: Path, names: Iterable[str]) -> None:
    """Those that are not taken yet and are still there."""
    for name in names:
        if not (blobs / name).exists():
            with suppress(FileNotFoundError):
                _take(folder.blob_path(name), blobs / name)


def _take(source: Path, target: Path) -> None:
    """By another name for the same bytes, where the file system can do that."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)
        sync(target)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
