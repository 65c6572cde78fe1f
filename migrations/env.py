"""Alembic's entry: runs the migrations on the database that `url` names.

The server passes the URL of its data folder; on the command line it is a scratch database.
"""

from pathlib import Path

from alembic import context
from sqlalchemy import create_engine

from batch_api.store.tables import Table

_SCRATCH = Path("build/schema.db")


def _url() -> str:
    given = context.config.attributes.get("url")
    if given is None:
        _SCRATCH.parent.mkdir(exist_ok=True)
    return given or f"sqlite:///{_SCRATCH}"


def main() -> None:
    engine = create_engine(_url())
    with engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=Table.metadata, render_as_batch=True
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


main()
