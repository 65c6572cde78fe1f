"""Brings a database to the newest migration, with a copy kept, and refuses one from the future."""

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import create_engine

from batch_api.errors import Unusable
from batch_api.store.folders import sync
from batch_api.store.trouble import passes
from batch_api.store.wal import fault_of_wal

_PACKAGE = Path(__file__).parents[1]
# In a wheel the migrations lie in the package, in a checkout beside it.
MIGRATIONS = next(
    folder
    for folder in (_PACKAGE / "migrations", _PACKAGE.parent / "migrations")
    if folder.is_dir()
)


class DatabaseCorrupt(Unusable):
    pass


class DatabaseFromTheFuture(Unusable):
    """A newer batch-api wrote it."""


def upgrade(path: Path, *, migrations: Path = MIGRATIONS) -> None:
    """Raises DatabaseFromTheFuture if a newer batch-api wrote it, DatabaseCorrupt if it is."""
    config = alembic_config(path, migrations)
    scripts = ScriptDirectory.from_config(config)
    _check(path)
    present = _revision(path)
    if present == scripts.get_current_head():
        return
    if present is not None:
        _refuse_unknown(scripts, present, path)
        copy_database(path, path.with_name(f"{path.name}.before-{scripts.get_current_head()}"))
    command.upgrade(config, "head")


def newest_revision() -> str | None:
    return ScriptDirectory.from_config(alembic_config(Path())).get_current_head()


def alembic_config(path: Path, migrations: Path = MIGRATIONS) -> Config:
    config = Config(attributes={"url": f"sqlite:///{path}"})
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("path_separator", "os")
    return config


def check_presence(path: Path, files: Path) -> None:
    """Raises DatabaseCorrupt if the database is gone while what it spoke of is still there.

    A new one in its place would know none of the files, and the sweep at start would delete them.
    """
    if has_lost_database(path, files):
        raise DatabaseCorrupt(lost_database(path))


def has_lost_database(path: Path, files: Path) -> bool:
    """Whether it is empty or missing, although it once was more."""
    is_there = path.exists() and path.stat().st_size > 0
    wal = path.with_name(f"{path.name}-wal")
    return not is_there and (wal.exists() or (files.is_dir() and any(files.iterdir())))


def lost_database(path: Path) -> str:
    """What to tell an operator then."""
    folder = path.parent
    return (
        f"The database {path} is {'empty' if path.exists() else 'missing'}, and there are files "
        "that it spoke of. Restore a copy that `batch-api backup` made: "
        f"`mv {folder} {folder}.broken && cp -r BACKUP {folder}`."
    )


def _check(path: Path) -> None:
    if (fault := fault_of_wal(path)) is not None:
        raise _corrupt(path, fault)
    with closing(sqlite3.connect(path)) as connection:
        try:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            if passes(error):
                raise
            found = str(error)
    if found != "ok":
        raise _corrupt(path, found.splitlines()[-1])


def _corrupt(path: Path, fault: str) -> DatabaseCorrupt:
    return DatabaseCorrupt(
        f"The database {path} is corrupt ({fault}); restore a copy that `batch-api backup` made, "
        "as the README says, or save what can be saved with "
        f"`sqlite3 {path} .recover`."
    )


def _revision(path: Path) -> str | None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return revision


def _refuse_unknown(scripts: ScriptDirectory, revision: str, path: Path) -> None:
    try:
        scripts.get_revision(revision)
    except CommandError as error:
        raise DatabaseFromTheFuture(
            f"The database {path} was written by a newer batch-api (its schema is {revision}); "
            "install that version, or restore an older copy."
        ) from error


def copy_database(path: Path, copy: Path) -> None:
    """A consistent copy, the WAL's content included, and on the disk."""
    unfinished = copy.with_suffix(".unfinished")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as target:
        source.backup(target)
    sync(unfinished)
    unfinished.replace(copy)
    sync(copy.parent)
