"""Sessions of one tenant: they see its rows only, and what they add is its own.

This is the only place that filters by tenant. A statement that came around it fails.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Select, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.orm.util import LoaderCriteriaOption

from batch_api.store.tables import Owned, Table

DEFAULT_TENANT = "default"
"""Whose everything is while there are no keys."""

NOBODY = ""
"""A tenant that has nothing, and never will."""

Rows = TypeVar("Rows", bound=Select[Any])

_OWNED: Mapping[str, type[Any]] = {
    str(mapper.local_table): mapper.class_
    for mapper in Table.registry.mappers
    if issubclass(mapper.class_, Owned)
}
_NAMED = re.compile(rf"(?:FROM|JOIN|UPDATE|INTO|,)\s+\"?(?:{'|'.join(_OWNED)})\b(?!\.)", re.I)
_FILTERED = re.compile(r"\.tenant = ")


class NotFiltered(Exception):
    """A bug of ours: in a tenant's session, a statement that might touch another tenant's rows."""


class TenantSession(Session):
    @property
    def tenant(self) -> str:
        tenant: str = self.info["tenant"]
        return tenant


def sessions_of(tenant: str, engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(
        engine,
        sync_session_class=TenantSession,
        info={"tenant": tenant, "filters": _filters(tenant)},
        expire_on_commit=False,
    )


def narrow(session: AsyncSession, rows: Rows, table: type[Owned]) -> Rows:
    """For Core statements, which go around the filter: only the rows that this session may see."""
    bound = session.sync_session
    return rows.where(table.tenant == bound.tenant) if isinstance(bound, TenantSession) else rows


def guard(engine: Engine) -> None:
    """Have every statement of a tenant's session looked at, just before it is run."""
    event.listen(engine, "before_cursor_execute", _check)


def _filters(tenant: str) -> Sequence[LoaderCriteriaOption]:
    return [
        with_loader_criteria(table, table.tenant == tenant, include_aliases=True)
        for table in _OWNED.values()
    ]


@event.listens_for(TenantSession, "do_orm_execute")
def _filter(execution: ORMExecuteState) -> None:
    """Also in subqueries, and in UPDATE and DELETE."""
    execution.statement = execution.statement.options(*execution.session.info["filters"])


@event.listens_for(TenantSession, "before_flush")
def _own(session: TenantSession, _context: Any, _instances: Any) -> None:
    for row in session.new:
        if isinstance(row, Owned) and row.tenant is None:
            row.tenant = session.tenant


@event.listens_for(TenantSession, "after_begin")
def _mark(session: TenantSession, _transaction: Any, connection: Connection) -> None:
    connection.execution_options(tenant=session.tenant)


def _check(
    connection: Connection, _cursor: Any, sql: str, _parameters: Any, context: Any, _many: bool
) -> None:
    tenant = connection.get_execution_options().get("tenant")
    if tenant is None:
        return
    is_filtered = _owns(tenant, context) if context.isinsert else _is_filtered(sql)
    if _is_about_owned(sql) and not is_filtered:
        raise NotFiltered(sql)


def _owns(tenant: str, context: Any) -> bool:
    return all(row.get("tenant") == tenant for row in context.compiled_parameters)


@lru_cache(maxsize=1024)
def _is_about_owned(sql: str) -> bool:
    return _NAMED.search(sql) is not None


@lru_cache(maxsize=1024)
def _is_filtered(sql: str) -> bool:
    """As often as it names a table with an owner, it names the tenant."""
    return len(_FILTERED.findall(sql)) >= len(_NAMED.findall(sql))
