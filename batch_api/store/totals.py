"""Sums over all tenants, for who watches the server; cheap however many lines there are.

Batches count their lines themselves, and of requests only those that are leased are looked at.
"""

from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import BatchStatus, DeliveryState, RequestState
from batch_api.store.batches import is_active
from batch_api.store.tables import BatchRow, DeliveryRow, FileRow, RequestRow

_UNANSWERED = BatchRow.total - BatchRow.completed - BatchRow.failed
_IN_PROGRESS = (BatchRow.trimmed_at.is_(None), BatchRow.status == BatchStatus.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Group:
    """The active batches of one status."""

    status: BatchStatus
    batches: int
    lines: int
    completed: int
    failed: int
    oldest_created_at: int
    next_expires_at: int | None


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do, at one moment."""

    groups: list[Group]
    leased: int
    """Lines of batches in progress that somebody works on."""
    needed_lines_per_second: float
    """From now on, so that no batch in progress misses its deadline, nearest deadlines first."""
    stored_bytes: int
    webhooks: int
    """That wait to be told, or to be told again."""
    oldest_webhook_at: int | None
    """When the batch ended that the oldest of them tells of."""

    @property
    def pending(self) -> int:
        """Lines of batches in progress that nobody works on."""
        unanswered = sum(
            group.lines - group.completed - group.failed
            for group in self.groups
            if group.status is BatchStatus.IN_PROGRESS
        )
        return max(0, unanswered - self.leased)


async def work(session: AsyncSession, *, now: float) -> Work:
    webhooks, oldest_webhook_at = await _webhooks(session)
    return Work(
        groups=await _groups(session),
        leased=await _leased(session),
        needed_lines_per_second=await _needed_lines_per_second(session, now),
        stored_bytes=await session.scalar(select(func.sum(FileRow.bytes))) or 0,
        webhooks=webhooks,
        oldest_webhook_at=oldest_webhook_at,
    )


async def _webhooks(session: AsyncSession) -> tuple[int, int | None]:
    waiting = select(func.count(), func.min(DeliveryRow.ended_at)).where(
        DeliveryRow.state == DeliveryState.PENDING
    )
    count, oldest_at = (await session.execute(waiting)).one()
    return count, oldest_at


async def _groups(session: AsyncSession) -> list[Group]:
    rows = await session.execute(
        select(
            BatchRow.status,
            func.count(),
            func.sum(func.coalesce(BatchRow.total, 0)),
            func.sum(BatchRow.completed),
            func.sum(BatchRow.failed),
            func.min(BatchRow.created_at),
            func.min(BatchRow.expires_at),
        )
        .where(*is_active())
        .group_by(BatchRow.status)
    )
    return [Group(BatchStatus(row[0]), *row[1:]) for row in rows]


async def _leased(session: AsyncSession) -> int:
    in_progress = select(BatchRow.number).where(*_IN_PROGRESS)
    leased = (
        select(func.count())
        .select_from(RequestRow)
        .where(RequestRow.state == RequestState.LEASED, RequestRow.batch_number.in_(in_progress))
    )
    return await session.scalar(leased) or 0


async def _needed_lines_per_second(session: AsyncSession, now: float) -> float:
    """The most that any deadline asks for: all lines due by then, over the time until then."""
    lines = func.sum(func.sum(_UNANSWERED)).over(order_by=BatchRow.expires_at)
    due = (
        select(BatchRow.expires_at, lines.label("lines"))
        .where(*_IN_PROGRESS, BatchRow.expires_at.is_not(None))
        .group_by(BatchRow.expires_at)
        .subquery()
    )
    left = due.c.expires_at - now
    needed = func.max(1.0 * due.c.lines / case((left > 1, left), else_=1.0))
    return await session.scalar(select(needed)) or 0.0
