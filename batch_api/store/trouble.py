"""What an error of the disk or the database means: for whoever asked, and for the process."""

import errno
import os
import sqlite3
import sys
from typing import NoReturn

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection

StoreError = SQLAlchemyError
"""Whatever goes wrong with the database but for DiskFailed; nothing was committed."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}
_SQLITE_IS_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_CANTOPEN,  # for too many open files
}
_SQLITE_FAILED = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SQLITE_IOERR_SHMSIZE = sqlite3.SQLITE_IOERR | 19 << 8  # no name in Python 3.11's module
"""The shared memory beside the WAL can't grow: SQLite says so, not "full"."""


class DiskFailed(Exception):
    """The disk failed a write, or gave back what was never written.

    Nothing that was written lately can be believed, not even if a second try succeeds: the kernel
    forgets what it could not write. The process has to end; the next one starts from what is there.
    """

    def __init__(self, what: str, error: BaseException) -> None:
        super().__init__(
            f"The disk failed: {what}: {error}. "
            "See to it and start again: what was acknowledged is still there."
        )


def end_at_once(failure: DiskFailed) -> NoReturn:
    """After a commit that failed: the next start may find it done, so nobody hears that it is not.

    No later than here, for on its way out a server answers each open request.
    """
    print(f"batch-api: {failure}", file=sys.stderr, flush=True)
    os._exit(os.EX_IOERR)


def is_out_of_space(error: BaseException) -> bool:
    code = _sqlite_code(error)
    return (isinstance(error, OSError) and error.errno in _FULL) or (
        _primary(code) == sqlite3.SQLITE_FULL or code == _SQLITE_IOERR_SHMSIZE
    )


def passes(error: BaseException) -> bool:
    """Whether the same will work once somebody has made room, or a little later."""
    return is_out_of_space(error) or is_passing(error)


def is_passing(error: BaseException) -> bool:
    """Busy, locked, or too many files open: the same will work a little later."""
    return (
        isinstance(error, NoConnection)
        or (isinstance(error, OSError) and error.errno in _TOO_MANY_OPEN)
        or _primary(_sqlite_code(error)) in _SQLITE_IS_PASSING
    )


def has_failed(error: BaseException) -> bool:
    """Whether the database's disk has."""
    return _primary(_sqlite_code(error)) in _SQLITE_FAILED and not is_out_of_space(error)


def _primary(code: int | None) -> int | None:
    """Without SQLite's further distinctions."""
    return None if code is None else code & 0xFF


def _sqlite_code(error: BaseException) -> int | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlite_errorcode", None) if isinstance(cause, sqlite3.Error) else None
