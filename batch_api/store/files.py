"""Statements on `files`."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
    union,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from batch_api.lifecycle import FINAL_STATUSES
from batch_api.store.batches import is_active
from batch_api.store.pages import Order, Page, rows_after
from batch_api.store.tables import BatchRow, FileRow, PartRow
from batch_api.store.tenancy import narrow


class Listed(NamedTuple):
    """As much of a file as lists tell."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None


_RESULT = "batch_output"
_LISTED_COLUMNS = [getattr(FileRow, name) for name in Listed._fields]


def add(
    session: AsyncSession,
    *,
    id: str,
    filename: str,
    purpose: str,
    bytes: int,
    sha256: str,
    created_at: int,
    expires_at: int | None,
) -> FileRow:
    row = FileRow(
        id=id,
        filename=filename,
        purpose=purpose,
        bytes=bytes,
        sha256=sha256,
        created_at=created_at,
        expires_at=expires_at,
    )
    session.add(row)
    return row


async def get(session: AsyncSession, id: str, *, now: float) -> FileRow | None:
    """An expired file is not found."""
    row: FileRow | None = await session.scalar(select(FileRow).where(FileRow.id == id, _alive(now)))
    return row


async def page(
    session: AsyncSession,
    *,
    after: str | None,
    limit: int,
    order: Order,
    purpose: str | None,
    now: float,
) -> Page[Listed]:
    """Raises UnknownCursor if no file has the id `after`."""
    rows = select(*_LISTED_COLUMNS).where(_alive(now))
    if purpose is not None:
        rows = rows.where(FileRow.purpose == purpose)
    rows = await rows_after(session, rows, FileRow, after=after, limit=limit, order=order)
    # As Core does it: the ORM takes five times as long, and a page may have 10,000 rows.
    connection = await session.connection()
    found = (await connection.execute(narrow(session, rows, FileRow))).all()
    return Page.of([Listed._make(row) for row in found], limit)


async def remove(session: AsyncSession, id: str) -> bool:
    removed = await session.scalar(delete(FileRow).where(FileRow.id == id).returning(FileRow.id))
    return removed is not None


async def expired(session: AsyncSession, *, now: float) -> Sequence[str]:
    return (await session.scalars(select(FileRow.id).where(FileRow.expires_at <= int(now)))).all()


async def stored_bytes(session: AsyncSession) -> int:
    """What files take up, parts of uploads, and inputs of active batches that are files no more."""
    is_a_file = exists().where(FileRow.id == BatchRow.input_file_id)
    sums = (
        select(func.sum(FileRow.bytes)),
        select(func.sum(PartRow.bytes)),
        select(func.sum(BatchRow.input_bytes)).where(*is_active(), ~is_a_file),
    )
    return sum(filter(None, await session.scalars(union_all(*sums))))


async def expire_old(
    session: AsyncSession, *, uploaded_before: float, results_before: float, now: float
) -> int:
    """Let those expire now that were made before these moments; return how many."""
    is_result = FileRow.purpose == _RESULT
    is_old = or_(
        and_(is_result, FileRow.created_at < int(results_before)),
        and_(~is_result, FileRow.created_at < int(uploaded_before)),
    )
    expired = await session.scalars(
        update(FileRow)
        .where(is_old, _alive(now))
        .values(expires_at=int(now))
        .returning(FileRow.number)
    )
    return len(expired.all())


async def is_held(session: AsyncSession, id: str) -> bool:
    """Whether the bytes are still needed: by their file, or by an unfinished batch to read."""
    holders = union_all(*(holder.where(column == id) for column, holder in _holders()))
    return await session.scalar(holders.limit(1)) is not None


async def needed_blobs(session: AsyncSession) -> Sequence[str]:
    """The ids of all bytes that are held, and so have to be on the disk."""
    held = [holder for _, holder in _holders()]
    return (await session.scalars(union(*held, select(PartRow.id)))).all()


async def let_go(session: AsyncSession, ids: Iterable[str]) -> list[str]:
    """Those of these files whose bytes nobody needs any more."""
    return [id for id in ids if not await is_held(session, id)]


async def known_blobs(session: AsyncSession) -> Sequence[str]:
    """The ids of all bytes that are held, or soon will be: a batch's files come before its end."""
    is_open = BatchRow.status.not_in(FINAL_STATUSES)
    results = [
        select(id).where(is_open) for id in (BatchRow.output_file_id, BatchRow.error_file_id)
    ]
    held = [holder for _, holder in _holders()]
    return (await session.scalars(union(*held, *results, select(PartRow.id)))).all()


def _holders() -> list[tuple[InstrumentedAttribute[Any], Select[Any]]]:
    """The columns that name bytes, and what selects those that are needed."""
    read, earlier = BatchRow.input_file_id, BatchRow.earlier_output_file_id
    is_open = BatchRow.status.not_in(FINAL_STATUSES)
    return [
        (FileRow.id, select(FileRow.id)),
        (read, select(read).where(is_open)),
        (earlier, select(earlier).where(is_open, earlier.is_not(None))),
    ]


def _alive(now: float) -> ColumnElement[bool]:
    return or_(FileRow.expires_at.is_(None), FileRow.expires_at > int(now))
