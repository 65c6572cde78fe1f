"""How SQLite goes about what the store asks it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession


@asynccontextmanager
async def planned(session: AsyncSession) -> AsyncIterator[list[list[str]]]:
    """Afterwards it has, for each statement within, the steps of SQLite's plan for it."""
    connection = await session.connection()
    statements: list[tuple[str, Any]] = []
    plans: list[list[str]] = []

    def note(_: object, __: object, sql: str, given: Any, *___: object) -> None:
        statements.append((sql, given))

    event.listen(connection.sync_connection, "before_cursor_execute", note)
    try:
        yield plans
    finally:
        event.remove(connection.sync_connection, "before_cursor_execute", note)
    for sql, given in statements:
        plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given)
        plans.append([step.detail for step in plan])
