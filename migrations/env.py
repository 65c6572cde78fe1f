"""Alembic's entry: runs the migrations on the database that `url` names.

The server passes the URL of its data folder; on the command line it is a scratch database.
"""

from pathlib import Path
from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, event

from batch_api.store.tables import Table

_SCRATCH = Path("build/schema.db")


def _url() -> str:
    given = context.config.attributes.get("url")
    if given is None:
        _SCRATCH.parent.mkdir(exist_ok=True)
    return given or f"sqlite:///{_SCRATCH}"


def _connect(connection: Any, _record: Any) -> None:
    """Before the first table is made: later it takes a VACUUM of the whole database."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


def _begin(connection: Connection) -> None:
    """The driver begins nothing before DDL: without this, a killed migration leaves traces."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def main() -> None:
    engine = create_engine(_url(), connect_args={"isolation_level": None})
    event.listen(engine, "connect", _connect)
    event.listen(engine, "begin", _begin)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Table.metadata,
            render_as_batch=True,
            transactional_ddl=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


main()
