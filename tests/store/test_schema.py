import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import CheckConstraint

from batch_api.store.schema import (
    MIGRATIONS,
    DatabaseCorrupt,
    DatabaseFromTheFuture,
    alembic_config,
    upgrade,
)
from batch_api.store.tables import Table

ADD_FILE = "INSERT INTO files VALUES ('default', 1, 'file-1', '', '', 0, '', 0, NULL)"
NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    op.add_column("files", sa.Column("note", sa.String()))
"""
CHECKS = sorted(
    (table.name, str(constraint.sqltext))
    for table in Table.metadata.tables.values()
    for constraint in table.constraints
    if isinstance(constraint, CheckConstraint)
)


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "batch-api.db"


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def set_revision(path: Path, revision: str) -> None:
    with connected(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])


def test_the_migrations_make_the_tables_that_the_code_has(path: Path) -> None:
    command.check(alembic_config(path))


@pytest.mark.parametrize(("table", "check"), CHECKS)
def test_the_migrations_make_the_checks_that_the_code_has(
    path: Path, table: str, check: str
) -> None:
    with connected(path) as connection:
        (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", [table])

    assert check in made[0]


def test_the_migrations_can_be_taken_back(path: Path) -> None:
    command.downgrade(alembic_config(path), "base")

    with connected(path) as connection:
        left = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
    assert left == [("alembic_version",)]


def test_a_database_of_today_is_left_as_it_is(path: Path) -> None:
    before = path.read_bytes()

    upgrade(path)

    assert path.read_bytes() == before
    assert [it.name for it in path.parent.iterdir()] == [path.name]


def test_a_database_from_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    set_revision(path, "9999")
    before = path.read_bytes()

    with pytest.raises(DatabaseFromTheFuture, match=r"written by a newer batch-api.+9999"):
        upgrade(path)

    assert path.read_bytes() == before


def test_an_older_database_is_migrated_and_a_copy_kept(folder: Path, path: Path) -> None:
    with connected(path) as connection:
        connection.execute(ADD_FILE)

    upgrade(path, migrations=with_a_new_column(folder / "migrations"))

    with connected(path) as now, connected(folder / "batch-api.db.before-0002") as then:
        assert columns(now, "files") == [*columns(then, "files"), "note"]
        assert now.execute("SELECT id FROM files").fetchall() == [("file-1",)]
        assert then.execute("SELECT id FROM files").fetchall() == [("file-1",)]
    assert not list(folder.glob("*.unfinished"))


def test_a_copy_holds_what_lay_in_the_wal_alone(folder: Path, path: Path) -> None:
    with connected(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute(ADD_FILE)
        connection.commit()

        upgrade(path, migrations=with_a_new_column(folder / "migrations"))

    with connected(folder / "batch-api.db.before-0002") as then:
        assert then.execute("SELECT id FROM files").fetchall() == [("file-1",)]


def test_a_migration_that_is_cut_off_leaves_no_trace(folder: Path, path: Path) -> None:
    migrations = with_a_new_column(folder / "migrations")
    note = migrations / "versions" / "0002_note.py"
    note.write_text(NEXT + "    raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        upgrade(path, migrations=migrations)

    note.write_text(NEXT)
    upgrade(path, migrations=migrations)

    with connected(path) as now:
        assert columns(now, "files")[-1] == "note"


@pytest.mark.parametrize("damage", [b"not a database at all", bytes(4096)])
def test_a_database_that_is_something_else_is_refused(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)

    with pytest.raises(DatabaseCorrupt, match=r"is corrupt .+ restore a copy"):
        upgrade(path)


def test_a_damaged_database_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : 2 * 4096] = b"\xff" * 4096
    path.write_bytes(content)

    with pytest.raises(DatabaseCorrupt, match=r"is corrupt .+ restore a copy"):
        upgrade(path)


def with_a_new_column(folder: Path) -> Path:
    """The migrations of a version to come."""
    shutil.copytree(MIGRATIONS, folder)
    (folder / "versions" / "0002_note.py").write_text(NEXT)
    return folder


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
