"""Statements on `uploads` and their `parts`. An upload leaves `pending` once, by a guarded move."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import UploadStatus
from batch_api.store.tables import PartRow, UploadRow


def add(
    session: AsyncSession,
    *,
    id: str,
    filename: str,
    purpose: str,
    mime_type: str,
    bytes: int,
    file_expires_after_seconds: int | None,
    created_at: int,
    expires_at: int,
) -> UploadRow:
    row = UploadRow(
        id=id,
        filename=filename,
        purpose=purpose,
        mime_type=mime_type,
        bytes=bytes,
        file_expires_after_seconds=file_expires_after_seconds,
        status=UploadStatus.PENDING,
        created_at=created_at,
        expires_at=expires_at,
    )
    session.add(row)
    return row


async def get(session: AsyncSession, id: str) -> UploadRow | None:
    row: UploadRow | None = await session.scalar(select(UploadRow).where(UploadRow.id == id))
    return row


def add_part(
    session: AsyncSession, *, id: str, upload_number: int, bytes: int, created_at: int
) -> PartRow:
    row = PartRow(id=id, upload_number=upload_number, bytes=bytes, created_at=created_at)
    session.add(row)
    return row


async def get_part(session: AsyncSession, id: str) -> PartRow:
    return await session.get_one(PartRow, id)


async def count_parts(session: AsyncSession, number: int) -> int:
    count = select(func.count()).where(PartRow.upload_number == number)
    return await session.scalar(count) or 0


async def sizes(session: AsyncSession, number: int) -> dict[str, int]:
    """The bytes of each part, by its id."""
    rows = select(PartRow.id, PartRow.bytes).where(PartRow.upload_number == number)
    return dict((await session.execute(rows)).all())


async def complete(
    session: AsyncSession, number: int, *, part_ids: Sequence[str], file_id: str, now: float
) -> bool:
    return await _leave_pending(
        session,
        number,
        UploadRow.expires_at > int(now),
        status=UploadStatus.COMPLETED,
        part_ids=list(part_ids),
        file_id=file_id,
    )


async def cancel(session: AsyncSession, number: int, *, now: float) -> bool:
    return await _leave_pending(
        session, number, UploadRow.expires_at > int(now), status=UploadStatus.CANCELLED
    )


async def expire(session: AsyncSession, number: int) -> bool:
    return await _leave_pending(session, number, status=UploadStatus.EXPIRED)


async def overdue(session: AsyncSession, *, now: float) -> Sequence[int]:
    """The numbers of those that were not completed in time."""
    rows = select(UploadRow.number).where(
        UploadRow.status == UploadStatus.PENDING, UploadRow.expires_at <= int(now)
    )
    return (await session.scalars(rows)).all()


async def remove_parts(session: AsyncSession, number: int) -> Sequence[str]:
    """The ids of the parts whose bytes nobody needs any more."""
    removed = delete(PartRow).where(PartRow.upload_number == number).returning(PartRow.id)
    return (await session.scalars(removed)).all()


async def _leave_pending(
    session: AsyncSession, number: int, *conditions: Any, **values: Any
) -> bool:
    left = await session.scalar(
        update(UploadRow)
        .where(UploadRow.number == number, UploadRow.status == UploadStatus.PENDING, *conditions)
        .values(**values)
        .returning(UploadRow.number)
    )
    return left is not None
