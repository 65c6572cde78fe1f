"""What an error of the disk or the database means for whoever asked."""

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection

StoreError = SQLAlchemyError
"""Whatever goes wrong with the database; nothing was committed."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}


def is_out_of_space(error: Exception) -> bool:
    return (isinstance(error, OSError) and error.errno in _FULL) or (
        _sqlite_code(error) == sqlite3.SQLITE_FULL
    )


def passes(error: Exception) -> bool:
    """Whether the same will work once somebody has made room, or a little later."""
    return is_out_of_space(error) or is_passing(error)


def is_passing(error: Exception) -> bool:
    """Busy, locked, or too many files open: the same will work a little later."""
    return (
        isinstance(error, NoConnection)
        or (isinstance(error, OSError) and error.errno in _TOO_MANY_OPEN)
        or _sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    )


def _sqlite_code(error: Exception) -> int | None:
    """The primary code, without SQLite's further distinctions."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    code = cause.sqlite_errorcode if isinstance(cause, sqlite3.Error) else None
    return None if code is None else code & 0xFF
