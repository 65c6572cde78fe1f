"""Cursor paging, the same for every list: `after` is the id of the last row already seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.store.tables import BatchRow, FileRow

Order = Literal["asc", "desc"]
Item = TypeVar("Item")
Rows = TypeVar("Rows", bound=Select[Any])


class UnknownCursor(Exception):
    """No row has the id that the page should begin after."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    rows: Sequence[Item]
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[Item], limit: int) -> Self:
        """`found` has one more than `limit` if there are more."""
        return cls(rows=found[:limit], has_more=len(found) > limit)


async def rows_after(
    session: AsyncSession,
    rows: Rows,
    table: type[FileRow] | type[BatchRow],
    *,
    after: str | None,
    limit: int,
    order: Order,
) -> Rows:
    """Those of a page, and one more. Raises UnknownCursor."""
    if after is not None:
        known = select(table.number).where(table.id == after)
        if table is BatchRow:
            known = known.where(BatchRow.removed_at.is_(None))
        cursor = await session.scalar(known)
        if cursor is None:
            raise UnknownCursor
        rows = rows.where(table.number > cursor if order == "asc" else table.number < cursor)
    by = table.number.asc() if order == "asc" else table.number.desc()
    return rows.order_by(by).limit(limit + 1)
