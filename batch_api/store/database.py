"""Opens the database of a data folder: lock, migrations, one writer and several readers."""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from batch_api.errors import Unusable
from batch_api.failpoints import failpoint
from batch_api.store.schema import upgrade

DATABASE_NAME = "batch-api.db"
LOCK_NAME = "lock"

_READERS = 4
_WAIT_SECONDS = 60
_JOURNAL_BYTES = 64 * 1024 * 1024

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
        self.write = async_sessionmaker(self._writer, expire_on_commit=False)
        self.read = async_sessionmaker(self._readers, expire_on_commit=False)

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """Raises DataFolderUnusable; blocks while migrations run."""
        await failpoint("replicas_execute_once")
        lock = await asyncio.to_thread(take, folder)
        try:
            path = folder / DATABASE_NAME
            await asyncio.to_thread(upgrade, path)
            database = cls(path, lock)
            # The writer comes first: it turns WAL on, which a reader may not.
            async with database._writer.connect():
                pass
        except BaseException:
            os.close(lock)
            raise
        return database

    async def close(self) -> None:
        await self._readers.dispose()
        await self._writer.dispose()
        os.close(self._lock)


Sessions = async_sessionmaker[AsyncSession]


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
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


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
