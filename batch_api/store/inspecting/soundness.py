"""Whether SQLite finds the database whole, and whether its schema is ours."""

import sqlite3
from collections.abc import Iterator

from sqlalchemy import CheckConstraint

from batch_api.store.database import DATABASE_NAME
from batch_api.store.inspecting.findings import Finding, Kind
from batch_api.store.inspecting.folder import Folder, Uninspectable
from batch_api.store.schema import newest_revision
from batch_api.store.tables import Table
from batch_api.store.wal import fault_of_wal

_MOST_TOLD = 20
_MENDED = (3, 51, 3)
_MENDED_EARLY: dict[tuple[int, ...], tuple[int, ...]] = {(3, 44): (3, 44, 6), (3, 50): (3, 50, 7)}
_OF_A_CHECK = "CHECK constraint failed"
_COUNT_BROKEN = "SELECT count(*) FROM {table} WHERE NOT ({rule})"


def corruption(folder: Folder, *, deep: bool) -> Iterator[Finding]:
    """Raises Uninspectable. `deep`: the indexes are compared with their tables too."""
    if not folder.is_running and (fault := fault_of_wal(folder.path / DATABASE_NAME)):
        yield Finding(Kind.CORRUPT_DATABASE, "database", f"Commits are lost: {fault}.")
    for told in _checked(folder.database, deep=deep):
        if told != "ok" and not told.startswith(_OF_A_CHECK):
            what = f"SQLite says: {told.splitlines()[-1]}."
            yield Finding(Kind.CORRUPT_DATABASE, "database", what)


def _checked(database: sqlite3.Connection, *, deep: bool) -> list[str]:
    check = "integrity_check" if deep else "quick_check"
    try:
        rows = database.execute(f"PRAGMA {check}({_MOST_TOLD})").fetchall()
    except sqlite3.OperationalError as error:
        raise Uninspectable(f"The database can't be read: {error}.") from error
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [told for (told,) in rows]


def broken_rules(database: sqlite3.Connection) -> Iterator[Finding]:
    """Rows that the tables' constraints forbid: of a database read-only, SQLite looks at none."""
    for table in Table.metadata.sorted_tables:
        for check in table.constraints:
            if isinstance(check, CheckConstraint):
                broken = _COUNT_BROKEN.format(table=table.name, rule=check.sqltext)
                (rows,) = database.execute(broken).fetchone()
                if rows:
                    what = f"{rows} rows break the rule {check.name}."
                    yield Finding(Kind.BROKEN_RULE, table.name, what)


def check_revision(database: sqlite3.Connection) -> None:
    """Raises Uninspectable if the tables are not the ones that this version knows."""
    try:
        rows = database.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.OperationalError as error:
        raise Uninspectable("The database has no tables yet: no server has ever run.") from error
    if [tuple(row) for row in rows] != [(newest_revision(),)]:
        found = ", ".join(row[0] for row in rows) or "none"
        raise Uninspectable(
            f"The database's schema is {found}, and this version's is {newest_revision()}. The "
            "server migrates an older one when it starts; a newer one needs a newer batch-api."
        )


def broken_references(database: sqlite3.Connection) -> Iterator[Finding]:
    for table, row, parent, _ in database.execute("PRAGMA foreign_key_check").fetchmany(_MOST_TOLD):
        yield Finding(
            Kind.BROKEN_REFERENCE, f"{table} {row}", f"It speaks of a row of {parent} that is gone."
        )


def is_known_to_corrupt(version: tuple[int, ...]) -> bool:
    """Whether this SQLite has the bug of https://sqlite.org/wal.html#walresetbug."""
    return version < _MENDED_EARLY.get(version[:2], _MENDED)
