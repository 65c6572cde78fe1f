"""Opens the database of a data folder: lock, migrations, one writer and several readers."""

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, Self

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from batch_api.errors import Unusable
from batch_api.failpoints import failpoint
from batch_api.store.blobs import BLOBS_FOLDER
from batch_api.store.schema import check_presence, upgrade
from batch_api.store.trouble import (
    DiskFailed,
    StoreError,
    has_failed,
    is_out_of_space,
    passes,
)

DATABASE_NAME = "batch-api.db"
LOCK_NAME = "lock"

_READERS = 4
_WAIT_SECONDS = 60
_JOURNAL_BYTES = 64 * 1024 * 1024
_RECENT_SECONDS = 30
"""A busy database is tried again and again: longer than one try takes."""

_ALWAYS = {"foreign_keys": "ON", "busy_timeout": 10_000, "mmap_size": 0}
_WRITER = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "journal_size_limit": _JOURNAL_BYTES,
}
# SQLite before 3.51.3 can corrupt a WAL when two connections checkpoint at once.
_READER = {"query_only": "ON", "wal_autocheckpoint": 0}


class DataFolderUnusable(Unusable):
    pass


class Database:
    """`write` and `read` make sessions; of the first kind there is one at a time."""

    def __init__(self, path: Path, lock: int) -> None:
        self._lock = lock
        self._writer = _engine(path, size=1, begin="BEGIN IMMEDIATE", pragmas=_WRITER)
        self._readers = _engine(path, size=_READERS, begin="BEGIN", pragmas=_READER)
        for engine in (self._writer, self._readers):
            event.listen(engine.sync_engine, "handle_error", self._on_error)
        self._trouble: Exception | None = None
        self._troubled_at = 0.0
        self._failure: DiskFailed | None = None
        self._has_failed = asyncio.Event()
        self.write = async_sessionmaker(self._writer, expire_on_commit=False)
        self.read = async_sessionmaker(self._readers, expire_on_commit=False)

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """Raises DataFolderUnusable; blocks while migrations run."""
        await failpoint("replicas_execute_once")
        lock = await asyncio.to_thread(take, folder)
        try:
            with opening(folder):
                path = folder / DATABASE_NAME
                await asyncio.to_thread(check_presence, path, folder / BLOBS_FOLDER)
                await asyncio.to_thread(upgrade, path)
                database = cls(path, lock)
                # The writer comes first: it turns WAL on, which a reader may not.
                async with database._writer.connect():
                    pass
        except BaseException:
            os.close(lock)
            raise
        return database

    @property
    def trouble(self) -> Exception | None:
        """Why something could not be written a moment ago, if it could not."""
        is_recent = time.monotonic() < self._troubled_at + _RECENT_SECONDS
        return self._trouble if is_recent else None

    def give_up(self, failure: DiskFailed) -> None:
        """Nothing is to be written any more, not even to close it well."""
        self._failure = self._failure or failure
        self._has_failed.set()

    async def failed(self) -> NoReturn:
        """Wait until the disk fails. Raises DiskFailed."""
        await self._has_failed.wait()
        assert self._failure is not None
        raise self._failure

    async def close(self) -> None:
        if self._failure is not None:
            return  # the last to close it would copy the WAL into it, and delete that
        await self._readers.dispose()
        await self._writer.dispose()
        os.close(self._lock)

    def _on_error(self, context: ExceptionContext) -> None:
        error = context.original_exception
        if has_failed(error):
            self.give_up(DiskFailed("the database can't be read or written", error))
            context.chained_exception = self._failure
        elif passes(error):
            self._trouble, self._troubled_at = context.sqlalchemy_exception, time.monotonic()


Sessions = async_sessionmaker[AsyncSession]


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """What would pass in a server that runs is no way to start one. Raises DataFolderUnusable."""
    try:
        yield
    except (OSError, sqlite3.Error, StoreError) as error:
        if not passes(error):
            raise
        why = "its disk is full" if is_out_of_space(error) else f"it is in use ({error})"
        raise DataFolderUnusable(f"The data folder {folder} can't be opened: {why}.") from error


def take(folder: Path) -> int:
    """Make the folder and hold its lock, until the returned descriptor is closed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DataFolderUnusable(
            f"The data folder {folder} can't be written: {error.strerror}."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise DataFolderUnusable(
            f"The data folder {folder} is in use by another batch-api (process {owner})."
        ) from error
    _sign(lock)
    return lock


def _sign(lock: int) -> None:
    """So that another one can tell who holds it; on a full disk it can't."""
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _engine(path: Path, *, size: int, begin: str, pragmas: dict[str, Any]) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=size,
        max_overflow=0,
        pool_timeout=_WAIT_SECONDS,
        connect_args={"isolation_level": None},
    )
    _configure(engine.sync_engine, begin, _ALWAYS | pragmas)
    return engine


def _configure(engine: Engine, begin: str, pragmas: dict[str, Any]) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name}={value}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)
