"""Opens a data folder for reading only, whether its server runs or not.

A stopped server's database is not opened as usual: that would recover its journal, and so change
it. It is read as it lies; or as a copy, if a journal lies beside it.
"""

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from batch_api.errors import Unusable
from batch_api.store.blobs import BLOBS_FOLDER
from batch_api.store.database import DATABASE_NAME, LOCK_NAME
from batch_api.store.schema import has_lost_database, lost_database

_BUSY_SECONDS = 10.0
_JOURNALS = ("-wal", "-journal")


class Uninspectable(Unusable):
    """There is nothing to look at, or no way to."""


@dataclass(frozen=True, slots=True)
class Blob:
    bytes: int
    changed_at: float
    """Wall time, as the file system gives it."""


@dataclass(frozen=True, slots=True)
class Folder:
    """`database` is in a read transaction, until it is let go: what it says is of one moment."""

    path: Path
    database: sqlite3.Connection
    blobs: Mapping[str, Blob]
    """All that was in the folder of blobs just before that moment, by name."""
    is_running: bool
    """A server is at work there, so blobs come and go."""

    def begin_anew(self) -> None:
        """From here on the database tells of a later moment."""
        self.let_go()
        self.database.execute("BEGIN")

    def let_go(self) -> None:
        """From here on each statement tells of its own moment.

        For what takes long: while a transaction reads, a server can't begin its journal anew.
        """
        if self.database.in_transaction:
            self.database.execute("ROLLBACK")

    def blob_path(self, name: str) -> Path:
        return self.path / BLOBS_FOLDER / name


@contextmanager
def opened(path: Path, *, is_ours: bool = False) -> Iterator[Folder]:
    """Raises Uninspectable. `is_ours`: the caller holds the folder's lock."""
    check_is_there(path)
    try:
        with (
            _undisturbed(path, is_ours) as is_running,
            _readable(path / DATABASE_NAME, is_running) as database,
        ):
            yield Folder(path, database, _blobs(path / BLOBS_FOLDER), is_running)
    except OSError as error:
        raise Uninspectable(f"The folder {path} can't be read: {error}.") from error


def check_is_there(path: Path) -> None:
    """Raises Uninspectable."""
    if has_lost_database(path / DATABASE_NAME, path / BLOBS_FOLDER):
        raise Uninspectable(lost_database(path / DATABASE_NAME))
    if not (path / DATABASE_NAME).is_file():
        raise Uninspectable(f"There is no {DATABASE_NAME} in the folder {path}.")


@contextmanager
def _undisturbed(path: Path, is_ours: bool) -> Iterator[bool]:
    """Whether a server runs there; if none does, none can start within the block."""
    if is_ours or not (path / LOCK_NAME).exists():
        yield False
        return
    lock = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield not _take_shared(lock)
    finally:
        os.close(lock)


def _take_shared(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _readable(path: Path, is_running: bool) -> Iterator[sqlite3.Connection]:
    if is_running:
        with _connected(path, "mode=ro") as database:
            yield database
    elif any(_is_there(journal) for journal in _journals(path)):
        with tempfile.TemporaryDirectory(prefix="batch-api-") as name:
            for file in (path, *filter(Path.exists, _journals(path))):
                shutil.copyfile(file, Path(name) / file.name)
            with _connected(Path(name) / path.name, "mode=rw") as database:
                yield database
    else:
        with _connected(path, "immutable=1") as database:
            yield database


@contextmanager
def _connected(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?{how}"
    with closing(
        sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    ) as database:
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA query_only = ON")
        database.execute("BEGIN")
        yield database


def _journals(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in _JOURNALS]


def _is_there(journal: Path) -> bool:
    return journal.exists() and journal.stat().st_size > 0


def _blobs(folder: Path) -> Mapping[str, Blob]:
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return dict(_stated(entries))


def _stated(entries: Iterator[os.DirEntry[str]]) -> Iterator[tuple[str, Blob]]:
    for entry in entries:
        with suppress(FileNotFoundError):  # gone since the folder was read
            status = entry.stat(follow_symlinks=False)
            yield entry.name, Blob(status.st_size, status.st_mtime)
