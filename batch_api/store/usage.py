"""What takes up how much of the disk, for who asks where it went."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.store.batches import is_active
from batch_api.store.files import Listed
from batch_api.store.tables import BatchRow, FileRow, PartRow


class Share(NamedTuple):
    """Files that have something in common."""

    what: str
    files: int
    bytes: int


async def by_purpose(session: AsyncSession) -> Sequence[Share]:
    """The largest first; expired ones too, until they are dropped."""
    bytes = func.sum(FileRow.bytes)
    rows = await session.execute(
        select(FileRow.purpose, func.count(), bytes)
        .group_by(FileRow.purpose)
        .order_by(bytes.desc(), FileRow.purpose)
    )
    return [Share(purpose, count, int(size)) for purpose, count, size in rows]


async def parts(session: AsyncSession) -> Share:
    """Of uploads that are not completed."""
    found = await session.execute(select(func.count(), func.sum(PartRow.bytes)))
    count, size = found.one()
    return Share("parts of uploads", count, int(size or 0))


async def deleted_inputs(session: AsyncSession) -> Share:
    """Files that are deleted, but that an active batch reads still."""
    is_a_file = exists().where(FileRow.id == BatchRow.input_file_id)
    found = await session.execute(
        select(func.count(), func.sum(BatchRow.input_bytes)).where(*is_active(), ~is_a_file)
    )
    count, size = found.one()
    return Share("deleted, but a batch reads them", count, int(size or 0))


async def largest(session: AsyncSession, *, limit: int, now: float) -> Sequence[Listed]:
    """Of the files that there are; of those as large as another, the newer first."""
    columns = [getattr(FileRow, name) for name in Listed._fields]
    rows = await session.execute(
        select(*columns)
        .where(or_(FileRow.expires_at.is_(None), FileRow.expires_at > int(now)))
        .order_by(FileRow.bytes.desc(), FileRow.number.desc())
        .limit(limit)
    )
    return [Listed._make(row) for row in rows]


async def removed_batches(session: AsyncSession) -> int:
    """Those whose rows are still to be dropped."""
    count = await session.scalar(select(func.count()).where(BatchRow.removed_at.is_not(None)))
    return count or 0
