"""Cursor paging, the same for every list: `after` is the id of the last row already seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.store.tables import BatchRow, FileRow

Order = Literal["asc", "desc"]
Row = TypeVar("Row", FileRow, BatchRow)


class UnknownCursor(Exception):
    """No row has the id that the page should begin after."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    rows: Sequence[Row]
    has_more: bool


async def page_after(
    session: AsyncSession,
    rows: Select[Row],
    table: type[Row],
    *,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[Row]:
    """Raises UnknownCursor."""
    if after is not None:
        cursor = await session.scalar(select(table.number).where(table.id == after))
        if cursor is None:
            raise UnknownCursor
        rows = rows.where(table.number > cursor if order == "asc" else table.number < cursor)
    by = table.number.asc() if order == "asc" else table.number.desc()
    found = (await session.scalars(rows.order_by(by).limit(limit + 1))).all()
    return Page(rows=found[:limit], has_more=len(found) > limit)
