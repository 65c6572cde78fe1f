"""Brings a database to the newest migration, with a copy kept, and refuses one from the future."""

import shutil
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


def _check(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        try:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            found = str(error)
    if found != "ok":
        found = found.splitlines()[-1]
        raise DatabaseCorrupt(
            f"The database {path} is corrupt ({found}); restore a copy that `batch-api backup` "
            f"made, or save what can be saved with `sqlite3 {path} .recover`."
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
    """A consistent copy, the WAL's content included."""
    unfinished = copy.with_suffix(".unfinished")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as target:
        source.backup(target)
    shutil.move(unfinished, copy)
