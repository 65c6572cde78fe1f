"""Opens the database of a data folder: lock, migrations, one writer and several readers."""

import asyncio
import fcntl
import os
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from sqlalchemy import Connection, Engine, ExceptionContext, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import ConnectionPoolEntry

from batch_api.errors import Unusable
from batch_api.failpoints import failpoint
from batch_api.store import folders
from batch_api.store.blobs import BLOBS_FOLDER
from batch_api.store.schema import check_presence, upgrade
from batch_api.store.tenancy import guard, sessions_of
from batch_api.store.trouble import (
    DiskFailed,
    StoreError,
    end_at_once,
    has_failed,
    is_out_of_space,
    passes,
)

DATABASE_NAME = "batch-api.db"
LOCK_NAME = "lock"

_READERS = 4
_WAIT_SECONDS = 60
_JOURNAL_BYTES = 64 * 1024 * 1024
_COMMITTED_BY = "committed by"
_RECENT_SECONDS = 30
"""A busy database is tried again and again: longer than one try takes."""

_ALWAYS = {"foreign_keys": "ON", "busy_timeout": 5_000, "mmap_size": 0}
_WRITER = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "journal_size_limit": _JOURNAL_BYTES,
}
# SQLite before 3.51.3 can corrupt a WAL when two connections checkpoint at once.
_READER = {"query_only": "ON", "wal_autocheckpoint": 0}


class DataFolderUnusable(Unusable):
    pass


class DataFolderInUse(DataFolderUnusable):
    pass


Sessions = async_sessionmaker[AsyncSession]


@dataclass(frozen=True, slots=True)
class OneTenant:
    """As a database; but its sessions see one tenant's rows, and add rows for that one only."""

    tenant: str
    write: Sessions
    read: Sessions


class Database:
    """`write` and `read` make sessions; of the first kind there is one at a time.

    They see the rows of all tenants, and add none: a row belongs to whose session adds it.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self._lock = lock
        self._writer = _engine(path, size=1, begin="BEGIN IMMEDIATE", pragmas=_WRITER)
        self._readers = _engine(path, size=_READERS, begin="BEGIN", pragmas=_READER)
        for engine in (self._writer, self._readers):
            event.listen(engine.sync_engine, "handle_error", self._on_error)
        event.listen(self._writer.sync_engine, "commit", _sign_commit)
        event.listen(self._writer.sync_engine, "checkin", self._on_checkin)
        self._commits: Counter[str | None] = Counter()
        self._trouble: Exception | None = None
        self._troubled_at = 0.0
        self._failure: DiskFailed | None = None
        self._has_failed = asyncio.Event()
        self.write = async_sessionmaker(self._writer, expire_on_commit=False)
        self.read = async_sessionmaker(self._readers, expire_on_commit=False)
        self._tenants: dict[str, OneTenant] = {}

    def of(self, tenant: str) -> OneTenant:
        if tenant not in self._tenants:
            self._tenants[tenant] = OneTenant(
                tenant,
                write=sessions_of(tenant, self._writer),
                read=sessions_of(tenant, self._readers),
            )
        return self._tenants[tenant]

    def commits(self, tenant: str) -> int:
        """That are done, and may have changed what this tenant sees: its own, and those of all."""
        return self._commits[tenant] + self._commits[None]

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

    async def shrink(self, *, by_pages: int, but_leave: int) -> int:
        """Give free pages back to the file system; return how many were, all but `but_leave`."""
        async with self.read() as session:
            free = await session.scalar(text("PRAGMA freelist_count")) or 0
        pages = max(0, min(by_pages, free - but_leave))
        if pages:
            async with self._writer.connect() as connection:
                # As a script: a page goes with each step, and a statement alone takes one.
                await self._execute_script(connection, f"PRAGMA incremental_vacuum({pages})")
        return pages

    async def _execute_script(self, connection: AsyncConnection, script: str) -> None:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        try:
            await driver.executescript(script)
        except sqlite3.Error as error:
            if has_failed(error):
                failure = _failure(error)
                self.give_up(failure)
                raise failure from error
            raise OperationalError(script, None, error) from error

    async def close(self) -> None:
        if self._failure is not None:
            return  # the last to close it would copy the WAL into it, and delete that
        await self._readers.dispose()
        await self._writer.dispose()
        os.close(self._lock)

    def _on_checkin(self, _connection: Any, record: ConnectionPoolEntry) -> None:
        """Whoever is told of a commit can read what it wrote: an fsync may take its time."""
        if _COMMITTED_BY in record.info:
            self._commits[record.info.pop(_COMMITTED_BY)] += 1

    def _on_error(self, context: ExceptionContext) -> DiskFailed | None:
        """What is raised instead of SQLAlchemy's error, if anything."""
        error = context.original_exception
        if has_failed(error):
            failure = _failure(error)
            if _is_commit(context):
                # The next start may find it done, so nobody may hear that it is not; and on its way
                # out a server would answer each open request.
                end_at_once(failure)
            self.give_up(failure)
            return failure
        if passes(error):
            self._trouble, self._troubled_at = context.sqlalchemy_exception, time.monotonic()
        return None


def _sign_commit(connection: Connection) -> None:
    """SQLAlchemy calls this before the commit, and nobody after it but the pool."""
    connection.info[_COMMITTED_BY] = connection.get_execution_options().get("tenant")


def _is_commit(context: ExceptionContext) -> bool:
    """Or the rollback after one."""
    return context.connection is not None and context.statement is None


def has_database(folder: Path) -> bool:
    return (folder / DATABASE_NAME).is_file()


def bytes_on_disk(folder: Path) -> tuple[int, int]:
    """Of the database, and of its write-ahead log, which is not always there."""
    return _size(folder / DATABASE_NAME), _size(folder / f"{DATABASE_NAME}-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@asynccontextmanager
async def glance(folder: Path) -> AsyncIterator[AsyncSession]:
    """A look at the database of a folder that somebody else may own; there must be one.

    Raises DataFolderUnusable.
    """
    path = folder / DATABASE_NAME
    if not has_database(folder):
        raise DataFolderUnusable(f"There is no database in {folder}.")
    reader = _engine(path, size=1, begin="BEGIN", pragmas=_READER)
    try:
        async with AsyncSession(reader) as session:
            yield session
    except DBAPIError as error:
        raise DataFolderUnusable(f"The database {path} can't be read: {error.orig}.") from error
    finally:
        await reader.dispose()


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """What would pass in a server that runs is no way to start one.

    Raises DataFolderUnusable and DiskFailed.
    """
    try:
        yield
    except (OSError, sqlite3.Error, StoreError) as error:
        if has_failed(error):
            raise _failure(error) from error
        if not (passes(error) or isinstance(error, OSError)):
            raise
        why = "its disk is full" if is_out_of_space(error) else _words_of(error)
        raise DataFolderUnusable(f"The data folder {folder} can't be opened: {why}.") from error


def _words_of(error: Exception) -> str:
    """Without SQLAlchemy's, which are for programmers."""
    return str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error)


def _failure(error: BaseException) -> DiskFailed:
    return DiskFailed("the database can't be read or written", error)


def take(folder: Path) -> int:
    """Make the folder and hold its lock, until the returned descriptor is closed."""
    try:
        folders.make(folder)
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
        raise DataFolderInUse(
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
        hide_parameters=True,  # errors end up in logs
    )
    _configure(engine.sync_engine, begin, _ALWAYS | pragmas)
    guard(engine.sync_engine)
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
